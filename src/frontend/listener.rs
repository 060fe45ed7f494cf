//! Accepting connections.

use super::{
    Frontend,
    arrivals::{self, ARRIVALS_MAX},
    login,
};
use crate::net::{Socket, proxy_header};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;

/// The kernel's queue.
const BACKLOG: u32 = 4096;

/// Pause after a failed accept: file descriptors are used up, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    proxy_protocol: bool,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// Listens on a TCP address or, with a path, on a socket file.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: Result<SocketAddr, &Path>, proxy_protocol: bool) -> io::Result<Bound> {
    let listener = match address {
        Ok(address) => {
            let socket = if address.is_ipv4() {
                tokio::net::TcpSocket::new_v4()?
            } else {
                tokio::net::TcpSocket::new_v6()?
            };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Listener::Tcp(socket.listen(BACKLOG)?)
        }
        Err(path) => {
            remove_stale(path);
            Listener::Unix(UnixListener::bind(path)?, path.to_owned())
        }
    };
    Ok(Bound {
        listener,
        proxy_protocol,
    })
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) {
    let is_stale = path.exists() && std::os::unix::net::UnixStream::connect(path).is_err();
    if is_stale && let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a stale socket file stays");
    }
}

impl Bound {
    /// From a socket that listens already: TCP or, with a path, a socket file.
    ///
    /// # Errors
    /// When the runtime can't take it.
    pub fn inherited(
        socket: OwnedFd,
        path: Option<&Path>,
        proxy_protocol: bool,
    ) -> io::Result<Self> {
        let listener = if let Some(path) = path {
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            Listener::Unix(UnixListener::from_std(listener)?, path.to_owned())
        } else {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            Listener::Tcp(TcpListener::from_std(listener)?)
        };
        Ok(Self {
            listener,
            proxy_protocol,
        })
    }

    /// The same socket once more, for another process.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        let socket = match &self.listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        };
        socket.try_clone_to_owned()
    }

    /// Where it listens, for people.
    pub fn address(&self) -> String {
        match &self.listener {
            Listener::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "tcp".to_owned(), |a| a.to_string()),
            Listener::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// Accepts until no more connections are taken; each is served up to its login in a task of its own,
    /// among `logins`. The socket file goes with it, unless another process listens on it.
    ///
    /// # Cancel safety
    /// Cancel safe: an accepted connection is in its task.
    pub async fn serve(self, frontend: Arc<Frontend>, logins: TaskTracker) {
        // More wait in the kernel's queue.
        let turns = Arc::new(Semaphore::new(ARRIVALS_MAX));
        let (closing, retired) = (frontend.closing.clone(), frontend.retired.clone());
        loop {
            let (socket, turn) = tokio::select! {
                () = closing.cancelled() => break,
                () = retired.cancelled() => break,
                next = self.next(&turns) => match next {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::error!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let (frontend, proxy_protocol) = (Arc::clone(&frontend), self.proxy_protocol);
            logins.spawn(async move {
                greet(frontend, socket, proxy_protocol).await;
                drop(turn);
            });
        }
        if let Listener::Unix(_, path) = &self.listener
            && !retired.is_cancelled()
        {
            drop(std::fs::remove_file(path));
        }
    }

    /// The next connection, once there is a turn for it.
    async fn next(&self, turns: &Arc<Semaphore>) -> io::Result<(Socket, OwnedSemaphorePermit)> {
        let turn = Arc::clone(turns).acquire_owned().await;
        Ok((self.accept().await?, turn.map_err(io::Error::other)?))
    }

    async fn accept(&self) -> io::Result<Socket> {
        match &self.listener {
            Listener::Tcp(listener) => Socket::from_tcp(listener.accept().await?.0),
            Listener::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

async fn greet(frontend: Arc<Frontend>, mut socket: Socket, proxy_protocol: bool) {
    let timeout = frontend.door.load().login_timeout;
    let peer = if proxy_protocol {
        match tokio::time::timeout(timeout, proxy_header::read(&mut socket)).await {
            Ok(Ok(Some(peer))) => Ok(peer),
            // The load balancer looks whether we live.
            Ok(Ok(None)) => socket.peer(),
            Ok(Err(error)) => {
                tracing::info!(%error, "client rejected");
                return;
            }
            Err(_elapsed) => return,
        }
    } else {
        socket.peer()
    };
    let Ok(peer) = peer else { return };
    let door = Arc::clone(&frontend);
    let Some(arrived) = door.arrivals.enter(peer) else {
        login::count("too_many_arrivals");
        return arrivals::refuse(socket).await;
    };
    arrived
        .log_in(Box::pin(login::serve(frontend, socket, peer)))
        .await;
}
