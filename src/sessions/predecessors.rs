//! Cancel keys across a restart: sessions of the processes before this one live on there.
//!
//! A process that hands over opens a [`CancelDoor`]: an abstract Unix socket with a random name, which
//! is told to its successors and to nobody else. What is said there is a `CancelRequest` as clients
//! send it, and one byte back. Both ends look that the other runs as the same user.

use super::{CancelOutcome, Sessions, cancel};
use crate::wire::{CANCEL_KEY_BYTES_MAX, CancelKey, Opening, frontend, parse_opening};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

/// So many processes back are asked: the newest.
pub const PREDECESSORS_MAX: usize = 16;

/// Cancels that are passed on, or answered, at the same time; more wait.
const PARALLEL_MAX: usize = 64;

/// How long passing on may take, the wait for a turn included, and so long an answer.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who served before this process, the newest first.
#[derive(Debug)]
pub struct Predecessors {
    names: Vec<String>,
    turns: Semaphore,
}

impl Default for Predecessors {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Predecessors {
    /// With the names of their doors, the newest first. More than [`PREDECESSORS_MAX`] are not asked.
    pub fn new(mut names: Vec<String>) -> Self {
        names.truncate(PREDECESSORS_MAX);
        Self {
            names,
            turns: Semaphore::new(PARALLEL_MAX),
        }
    }

    /// The names of their doors, the newest first.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Has the one that knows this key cancel what its session does. All are asked at once, so that
    /// one that hangs holds up no other; within ten seconds.
    ///
    /// # Cancel safety
    /// Dropping the future may or may not have sent the request.
    pub async fn cancel(&self, key: &CancelKey) -> CancelOutcome {
        if self.names.is_empty() {
            return CancelOutcome::Unknown;
        }
        let asked = timeout(TIME_MAX, self.ask_all(key)).await;
        asked.unwrap_or(CancelOutcome::Unknown)
    }

    async fn ask_all(&self, key: &CancelKey) -> CancelOutcome {
        let Ok(_turn) = self.turns.acquire().await else {
            return CancelOutcome::Unknown;
        };
        let mut asking = JoinSet::new();
        for name in &self.names {
            asking.spawn(ask(name.clone(), key.clone()));
        }
        while let Some(asked) = asking.join_next().await {
            match asked {
                Ok(Ok(CancelOutcome::Unknown)) | Err(_) => {}
                Ok(Ok(outcome)) => return outcome,
                // Most often it has ended, and its sessions with it.
                Ok(Err(error)) => tracing::debug!(%error, "a process before this one is not asked"),
            }
        }
        CancelOutcome::Unknown
    }
}

async fn ask(name: String, key: CancelKey) -> io::Result<CancelOutcome> {
    let mut stream = UnixStream::connect(name).await?;
    check_user(&stream)?;
    let mut request = Vec::with_capacity(12 + key.secret.len());
    frontend::cancel(&mut request, &key);
    stream.write_all(&request).await?;
    Ok(outcome(stream.read_u8().await?))
}

fn check_user(stream: &UnixStream) -> io::Result<()> {
    if stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other("the other process runs as another user"))
}

fn byte(outcome: CancelOutcome) -> u8 {
    match outcome {
        CancelOutcome::Unknown => 0,
        CancelOutcome::NotRunning => 1,
        CancelOutcome::Delivered => 2,
        CancelOutcome::Failed => 3,
    }
}

fn outcome(byte: u8) -> CancelOutcome {
    match byte {
        1 => CancelOutcome::NotRunning,
        2 => CancelOutcome::Delivered,
        3 => CancelOutcome::Failed,
        _ => CancelOutcome::Unknown,
    }
}

/// Where successors pass on cancels.
#[derive(Debug)]
pub struct CancelDoor {
    listener: UnixListener,
    name: String,
}

impl CancelDoor {
    /// Opens it, under a name of its own.
    ///
    /// # Errors
    /// Where there are no abstract sockets (outside Linux).
    pub fn open() -> io::Result<Self> {
        let name = format!("\0pgusher-{:032x}", rand::random::<u128>());
        let listener = UnixListener::bind(&name)?;
        Ok(Self { listener, name })
    }

    /// Its name: who knows it and runs as the same user may pass on cancels.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does what is asked, for ever.
    ///
    /// # Cancel safety
    /// Cancel safe: what has been asked is in its task.
    pub async fn serve(self, sessions: Arc<Sessions>) {
        let turns = Arc::new(Semaphore::new(PARALLEL_MAX));
        while let Ok(turn) = Arc::clone(&turns).acquire_owned().await {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(%error, "a cancel that was passed on is not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let sessions = Arc::clone(&sessions);
            tokio::spawn(async move {
                match timeout(TIME_MAX, answer(stream, &sessions)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a cancel that was passed on"),
                    Err(_elapsed) => tracing::debug!("a cancel that was passed on took too long"),
                }
                drop(turn);
            });
        }
    }
}

async fn answer(mut stream: UnixStream, sessions: &Sessions) -> io::Result<()> {
    check_user(&stream)?;
    let length = stream.read_u32().await? as usize;
    if !(8..=12 + CANCEL_KEY_BYTES_MAX).contains(&length) {
        return Err(io::Error::other("no CancelRequest"));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    let Ok(Opening::Cancel(key)) = parse_opening(&body) else {
        return Err(io::Error::other("no CancelRequest"));
    };
    let outcome = cancel(sessions, &key).await;
    stream.write_u8(byte(outcome)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CancelKey {
        CancelKey {
            pid: 7,
            secret: vec![1, 2, 3, 4].into(),
        }
    }

    #[tokio::test]
    async fn a_key_that_nobody_knows_is_asked_for_everywhere_and_stays_unknown() {
        let door = CancelDoor::open().unwrap();
        let gone = CancelDoor::open().unwrap();
        let names = vec![gone.name().to_owned(), door.name().to_owned()];
        drop(gone);
        tokio::spawn(door.serve(Arc::default()));
        let predecessors = Predecessors::new(names);
        assert_eq!(predecessors.cancel(&key()).await, CancelOutcome::Unknown);
    }

    #[tokio::test]
    async fn the_one_that_knows_is_heard_though_another_hangs() {
        let hangs = CancelDoor::open().unwrap();
        let knows = CancelDoor::open().unwrap();
        let names = vec![hangs.name().to_owned(), knows.name().to_owned()];
        let answering = tokio::spawn(async move {
            let (mut stream, _) = knows.listener.accept().await.unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).await.unwrap();
            stream
                .write_u8(byte(CancelOutcome::Delivered))
                .await
                .unwrap();
            request
        });
        let predecessors = Predecessors::new(names);
        assert_eq!(predecessors.cancel(&key()).await, CancelOutcome::Delivered);
        let mut expected = Vec::new();
        frontend::cancel(&mut expected, &key());
        assert_eq!(answering.await.unwrap().as_slice(), expected);
    }

    #[tokio::test]
    async fn what_is_no_cancel_request_is_not_answered() {
        let door = CancelDoor::open().unwrap();
        let name = door.name().to_owned();
        tokio::spawn(door.serve(Arc::default()));
        for request in [&[0; 16][..], &[0xff; 16], &[0, 0, 0, 8, 4, 210, 22, 47]] {
            let mut stream = UnixStream::connect(&name).await.unwrap();
            stream.write_all(request).await.unwrap();
            assert!(stream.read_u8().await.is_err(), "{request:?}");
        }
    }
}
