//! How a client connects: address, identity, TLS, and what it says in its startup packet.

use super::{
    Client, Fields, Frame,
    client::Stream,
    frames,
    request::{cancel_request, ssl_request, startup},
    wait::DEADLINE,
};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
};

/// Protocol version 3.0.
pub const V3_0: u32 = 0x0003_0000;
/// Protocol version 3.2.
pub const V3_2: u32 = 0x0003_0002;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's file.
    Unix(PathBuf),
}

#[derive(Clone)]
enum Encryption {
    None,
    Negotiated(Arc<ClientConfig>),
    Direct(Arc<ClientConfig>),
}

/// A connection to be made.
#[derive(Clone)]
pub struct Connect {
    address: Address,
    from: Option<IpAddr>,
    preface: Vec<u8>,
    encryption: Encryption,
    version: u32,
    parameters: Vec<(String, String)>,
    pub(super) password: String,
    pub(super) is_bound_to_tls: bool,
}

impl Connect {
    /// To this address, as nobody yet.
    pub fn to(address: Address) -> Self {
        Self {
            address,
            from: None,
            preface: Vec::new(),
            encryption: Encryption::None,
            version: V3_0,
            parameters: Vec::new(),
            password: String::new(),
            is_bound_to_tls: false,
        }
    }

    /// Sets a startup parameter, in place of one with this name.
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.retain(|(known, _)| known != name);
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a startup parameter out.
    pub fn without(mut self, name: &str) -> Self {
        self.parameters.retain(|(known, _)| known != name);
        self
    }

    /// As this user.
    pub fn user(self, user: &str) -> Self {
        self.parameter("user", user)
    }

    /// To this database.
    pub fn database(self, database: &str) -> Self {
        self.parameter("database", database)
    }

    /// With these command-line options.
    pub fn options(self, options: &str) -> Self {
        self.parameter("options", options)
    }

    /// With this password or key.
    pub fn password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    /// With this protocol version.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// From this local address.
    pub fn from(mut self, address: &str) -> Self {
        self.from = Some(address.parse().unwrap());
        self
    }

    /// With bytes before everything else.
    pub fn preface(mut self, bytes: &[u8]) -> Self {
        self.preface = bytes.to_vec();
        self
    }

    /// To another address.
    pub fn address(mut self, address: Address) -> Self {
        self.address = address;
        self
    }

    /// Over TLS, after an `SSLRequest`.
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.encryption = Encryption::Negotiated(config);
        self
    }

    /// Over TLS from the first byte.
    pub fn direct_tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.encryption = Encryption::Direct(config);
        self
    }

    /// With SCRAM-SHA-256-PLUS.
    pub fn bound_to_tls(mut self) -> Self {
        self.is_bound_to_tls = true;
        self
    }

    /// The startup packet.
    pub fn startup_packet(&self) -> Vec<u8> {
        let pairs = self
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        startup(self.version, &pairs.collect::<Vec<_>>())
    }

    fn socket(&self) -> std::io::Result<TcpStream> {
        let Address::Tcp(address) = self.address else {
            panic!("not a TCP address")
        };
        let Some(from) = self.from else {
            return TcpStream::connect_timeout(&address, DEADLINE);
        };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&address.into(), DEADLINE)?;
        Ok(socket.into())
    }

    /// Connects and sends nothing, not even TLS.
    pub fn bare(&self) -> std::io::Result<Client> {
        let stream = match &self.address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Address::Tcp(_) => Stream::Tcp(self.socket()?),
        };
        Ok(Client::over(stream))
    }

    /// Connects, up to where the startup packet comes.
    pub fn try_open(&self) -> std::io::Result<Client> {
        if let Address::Unix(_) = self.address {
            return self.bare();
        }
        let mut socket = self.socket()?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.write_all(&self.preface)?;
        let (config, is_negotiated) = match &self.encryption {
            Encryption::None => return Ok(Client::over(Stream::Tcp(socket))),
            Encryption::Negotiated(config) => (config, true),
            Encryption::Direct(config) => (config, false),
        };
        if is_negotiated {
            socket.write_all(&ssl_request())?;
            let mut answer = [0];
            socket.read_exact(&mut answer)?;
            assert_eq!(&answer, b"S", "the answer to SSLRequest");
        }
        let name = "localhost".try_into().unwrap();
        let session = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client::over(Stream::Tls(Box::new(stream))))
    }

    /// Connects, up to where the startup packet comes.
    pub fn open(&self) -> Client {
        self.try_open()
            .unwrap_or_else(|error| panic!("can't connect to {:?}: {error}", self.address))
    }

    /// Logs in; what came instead of success is the error.
    pub fn try_login(&self) -> Result<Client, Vec<Frame>> {
        let mut client = self.open();
        client.send_bytes(&self.startup_packet());
        client.log_in(self).map(|()| client)
    }

    /// Logs in, and panics when that is refused.
    pub fn login(&self) -> Client {
        self.try_login()
            .unwrap_or_else(|frames| panic!("login refused: {frames:?}"))
    }

    /// Is refused with a FATAL error, after which the connection ends.
    pub fn refused(&self) -> Fields {
        let frames = match self.try_login() {
            Ok(client) => panic!("login accepted: {:?}", client.login_frames),
            Err(frames) => frames,
        };
        let error = frames::error(&frames).unwrap_or_else(|| panic!("no error in {frames:?}"));
        assert_eq!(error.severity(), "FATAL", "a refusal: {error:?}");
        error
    }

    /// Sends a cancel request with this key, on a connection of its own, and waits for its end.
    pub fn cancel_key(&self, pid: i32, secret: &[u8]) {
        let mut connection = self.open();
        connection.send_bytes(&cancel_request(pid, secret));
        let answer = connection.rest();
        assert!(
            answer.is_empty(),
            "a cancel request is never answered: {answer:?}"
        );
    }

    /// As [`Self::cancel_key`], with a packet that may be refused in words.
    pub fn cancel_malformed(&self, pid: i32, secret: &[u8]) {
        let mut connection = self.open();
        connection.send_bytes(&cancel_request(pid, secret));
        connection.half_close();
        assert!(connection.rest().iter().all(|frame| frame.tag == b'E'));
    }

    /// Asks to cancel what this client runs.
    pub fn cancel(&self, client: &Client) {
        self.cancel_key(client.pid, &client.secret);
    }
}
