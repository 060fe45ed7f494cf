//! What the old and the new process say to each other at a restart.
//!
//! They speak over a socket pair, which is the new one's standard input at first:
//!
//! 1. the old one says which sockets it listens on, with their descriptors, and where it takes cancels;
//! 2. the new one says who it is once it could serve;
//! 3. the old one says that it may ([`GO`]); before this the new one takes no connection;
//! 4. the new one says that it does ([`SERVING`]); from here on the old one takes none.
//!
//! Whichever ends before its step leaves everything to the other.

use super::sockets::{Handed, Label};
use crate::telemetry::names;
use anyhow::Context as _;
use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// In the new process's environment: which socket its standard input is, so that it counts for no other
/// process, and still does when the old one has died.
pub(super) const VARIABLE: &str = "PGUSHER_RESTART_CHANNEL";

/// Sockets that can be handed over: what the kernel takes in one message.
const SOCKETS_MAX: usize = 253;

/// Bytes of what the old one says, and of what the new one does.
const ESTATE_BYTES_MAX: u32 = 64 * 1024;
const HELLO_BYTES_MAX: u64 = 1024;

/// How long the new one waits for the old one's word.
const WORD_TIME_MAX: Duration = Duration::from_mins(1);

/// The new one may serve.
const GO: u8 = b'g';

/// The new one serves.
const SERVING: u8 = b's';

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
struct Estate {
    /// Which sockets come along, in the order of their descriptors.
    sockets: Vec<Label>,
    /// Where cancels are passed on to, the newest first.
    predecessors: Vec<String>,
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) pid: u32,
    pub(super) version: String,
}

/// Tells this socket from all others of the machine.
///
/// # Errors
/// When there is no descriptor left.
pub(super) fn identity(socket: &OwnedFd) -> io::Result<String> {
    let metadata = fs::File::from(socket.try_clone()?).metadata()?;
    Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Hands over sockets, to be read by a process that may not have been started yet.
///
/// # Errors
/// When there are too many, or no memory.
pub(super) fn hand_over(
    channel: &UnixStream,
    sockets: &[(Label, OwnedFd)],
    predecessors: Vec<String>,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        sockets.len() <= SOCKETS_MAX,
        "{} sockets are more than can be handed over ({SOCKETS_MAX})",
        sockets.len()
    );
    let labels = sockets.iter().map(|(label, _)| label.clone()).collect();
    let estate = serde_json::to_vec(&Estate {
        sockets: labels,
        predecessors,
    })?;
    let length = u32::try_from(estate.len()).unwrap_or(u32::MAX);
    anyhow::ensure!(length <= ESTATE_BYTES_MAX, "too many long socket names");
    let mut message = length.to_be_bytes().to_vec();
    message.extend(estate);
    let descriptors: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let rights = SendAncillaryMessage::ScmRights(&descriptors);
    anyhow::ensure!(control.push(rights), "no space for the descriptors");
    channel.set_write_timeout(Some(WORD_TIME_MAX))?;
    let parts = [IoSlice::new(&message)];
    let sent = sendmsg(channel, &parts, &mut control, SendFlags::NOSIGNAL)?;
    let mut channel = channel;
    channel.write_all(message.get(sent..).unwrap_or_default())?;
    Ok(())
}

/// The old process's side, once the new one is started.
pub(super) struct Successor(BufReader<tokio::net::UnixStream>);

impl Successor {
    pub(super) fn new(channel: UnixStream) -> io::Result<Self> {
        channel.set_nonblocking(true)?;
        let channel = tokio::net::UnixStream::from_std(channel)?;
        Ok(Self(BufReader::new(channel)))
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it has ended instead, or says something else.
    ///
    /// # Cancel safety
    /// Not cancel safe: it may serve already. Kill it.
    pub(super) async fn serves(&mut self) -> io::Result<Hello> {
        let mut line = String::new();
        let mut first = (&mut self.0).take(HELLO_BYTES_MAX);
        first.read_line(&mut line).await?;
        let hello = serde_json::from_str(&line)?;
        self.0.write_u8(GO).await?;
        match self.0.read_u8().await? {
            SERVING => Ok(hello),
            _ => Err(io::Error::other("it said something else")),
        }
    }
}

/// What a new process has from the one before it; nothing where it is the first.
#[derive(Debug, Default)]
pub(super) struct Heritage {
    pub(super) handed: Handed,
    pub(super) predecessors: Vec<String>,
    channel: Option<UnixStream>,
}

impl Heritage {
    /// Takes what the process that started this one hands over, if it does.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn receive() -> anyhow::Result<Self> {
        let Ok(expected) = env::var(VARIABLE) else {
            return Ok(Self::default());
        };
        let channel = io::stdin().as_fd().try_clone_to_owned()?;
        if identity(&channel)? != expected {
            return Ok(Self::default());
        }
        let channel = UnixStream::from(channel);
        // Nobody else is to find it there, such as a command that reads a key.
        rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
        Self::read(channel).context("the old process does not hand over")
    }

    fn read(mut channel: UnixStream) -> anyhow::Result<Self> {
        channel.set_read_timeout(Some(WORD_TIME_MAX))?;
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut length)];
        let got = loop {
            match recvmsg(&channel, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                got => break got?.bytes,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                descriptors.extend(sockets);
            }
        }
        channel.read_exact(length.get_mut(got..).unwrap_or_default())?;
        let length = u32::from_be_bytes(length);
        anyhow::ensure!(length <= ESTATE_BYTES_MAX, "it says too much");
        let mut estate = vec![0; length as usize];
        channel.read_exact(&mut estate)?;
        let estate: Estate = serde_json::from_slice(&estate)?;
        anyhow::ensure!(
            estate.sockets.len() == descriptors.len(),
            "{} of {} sockets came through: there are no descriptors left",
            descriptors.len(),
            estate.sockets.len()
        );
        Ok(Self {
            handed: Handed(estate.sockets.into_iter().zip(descriptors).collect()),
            predecessors: estate.predecessors,
            channel: Some(channel),
        })
    }

    /// Says that this process could serve, and waits until it may, up to a minute. Then it closes the
    /// sockets that were handed over in vain.
    ///
    /// # Errors
    /// When the old process doesn't answer, and doesn't end; when this one is told to end before.
    ///
    /// # Cancel safety
    /// Not cancel safe: end the process.
    pub(super) async fn take_over(
        self,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Succession> {
        let Some(channel) = self.channel else {
            return Ok(Succession(None));
        };
        channel.set_nonblocking(true)?;
        let mut channel = tokio::net::UnixStream::from_std(channel)?;
        let hello = Hello {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut hello = serde_json::to_vec(&hello)?;
        hello.push(b'\n');
        // Should the old one have ended, this one serves all the same.
        let word = async {
            channel.write_all(&hello).await?;
            channel.read_u8().await
        };
        // Who is to end already must not take over.
        let word = shutdown.run_until_cancelled(timeout(WORD_TIME_MAX, word));
        match word.await {
            Some(Ok(Ok(GO))) => {}
            Some(Ok(Ok(_))) => anyhow::bail!("the old process said something else"),
            Some(Ok(Err(error))) => tracing::warn!(%error, "the old process has ended by itself"),
            Some(Err(_elapsed)) => anyhow::bail!("the old process doesn't answer"),
            None => anyhow::bail!("told to end before it took over"),
        }
        self.handed.close();
        Ok(Succession(Some(channel)))
    }
}

/// A process that may serve.
pub(super) struct Succession(Option<tokio::net::UnixStream>);

impl Succession {
    /// Tells the old process that this one serves, where there is one.
    ///
    /// # Cancel safety
    /// Cancel safe: it is said or not.
    pub(super) async fn serving(self) {
        let Some(mut channel) = self.0 else { return };
        metrics::counter!(names::RESTARTS_TOTAL, names::RESULT => names::OK).increment(1);
        if let Err(error) = channel.write_u8(SERVING).await {
            tracing::warn!(%error, "the old process was not told that this one serves");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sockets::Role, *};
    use std::net::{TcpListener, TcpStream};

    fn label(address: &str) -> Label {
        Label {
            role: Role::Clients,
            address: address.to_owned(),
        }
    }

    #[test]
    fn sockets_come_over_in_order_and_listen() {
        let (old, new) = UnixStream::pair().unwrap();
        let listeners: Vec<_> = (0..SOCKETS_MAX)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        let sockets: Vec<_> = listeners
            .into_iter()
            .zip(&ports)
            .map(|(listener, port)| (label(&port.to_string()), OwnedFd::from(listener)))
            .collect();
        hand_over(&old, &sockets, vec!["\0a door".to_owned()]).unwrap();
        drop(sockets);
        let heritage = Heritage::read(new).unwrap();
        assert_eq!(heritage.predecessors, ["\0a door"]);
        assert_eq!(heritage.handed.0.len(), SOCKETS_MAX);
        for ((label, socket), port) in heritage.handed.0.into_iter().zip(ports) {
            assert_eq!(label.address, port.to_string());
            let _client = TcpStream::connect(port).unwrap();
            TcpListener::from(socket).accept().unwrap();
        }
    }

    #[test]
    fn an_old_process_that_ends_at_once_hands_over_nothing() {
        let (old, new) = UnixStream::pair().unwrap();
        drop(old);
        assert!(Heritage::read(new).is_err());
    }

    #[tokio::test]
    async fn each_step_waits_for_the_other_side() {
        let (old, new) = UnixStream::pair().unwrap();
        let mut successor = Successor::new(old).unwrap();
        let heritage = Heritage {
            channel: Some(new),
            ..Heritage::default()
        };
        let shutdown = CancellationToken::new();
        let new = async { heritage.take_over(&shutdown).await.unwrap().serving().await };
        let (hello, ()) = tokio::join!(successor.serves(), new);
        assert_eq!(hello.unwrap().pid, std::process::id());
    }

    #[tokio::test]
    async fn a_new_process_serves_when_the_old_one_has_gone() {
        let (old, new) = UnixStream::pair().unwrap();
        drop(old);
        let heritage = Heritage {
            channel: Some(new),
            ..Heritage::default()
        };
        let shutdown = CancellationToken::new();
        let succession = heritage.take_over(&shutdown).await.unwrap();
        succession.serving().await;
    }

    #[tokio::test]
    async fn a_new_process_that_is_to_end_does_not_take_over() {
        let (old, new) = UnixStream::pair().unwrap();
        let heritage = Heritage {
            channel: Some(new),
            ..Heritage::default()
        };
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert!(heritage.take_over(&shutdown).await.is_err());
        assert!(Successor::new(old).unwrap().serves().await.is_err());
    }

    #[tokio::test]
    async fn a_new_process_that_ends_is_noticed() {
        let (old, new) = UnixStream::pair().unwrap();
        drop(new);
        assert!(Successor::new(old).unwrap().serves().await.is_err());
    }
}
