//! How a client proves who it is: SCRAM with and without channel binding, MD5, a plain password.

use super::{Client, Connect, Frame, Request, client::Stream};
use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, ScramSha256},
};
use sha2::{Digest, Sha256};

impl Client {
    /// Answers authentication requests up to the first `ReadyForQuery`.
    pub fn log_in(&mut self, connect: &Connect) -> Result<(), Vec<Frame>> {
        let mut scram = None;
        let mut frames = Vec::new();
        loop {
            let Some(frame) = self.next_or_end() else {
                return Err(frames);
            };
            frames.push(frame.clone());
            match frame.tag {
                b'R' => self.authenticate(connect, &frame.body, &mut scram),
                b'Z' => break,
                _ => {}
            }
        }
        self.login_frames = frames;
        Ok(())
    }

    fn authenticate(&mut self, connect: &Connect, body: &[u8], scram: &mut Option<ScramSha256>) {
        let (code, rest) = body.split_first_chunk().unwrap();
        let password = connect.password.as_bytes();
        match i32::from_be_bytes(*code) {
            0 => {}
            3 => self.send(&Request::new().message(b'p', &[password, b"\0"].concat())),
            5 => {
                let user = connect.user_name();
                let hash = md5_hash(user.as_bytes(), password, rest.try_into().unwrap());
                self.send(&Request::new().message(b'p', &[hash.as_bytes(), b"\0"].concat()));
            }
            10 => {
                let (mechanism, session) = self.begin_scram(connect, rest);
                let first = session.message();
                let length = u32::try_from(first.len()).unwrap().to_be_bytes();
                let body = [mechanism.as_bytes(), b"\0", &length[..], first].concat();
                self.send(&Request::new().message(b'p', &body));
                *scram = Some(session);
            }
            11 => {
                let session = scram.as_mut().expect("SASL began");
                session.update(rest).unwrap();
                self.send(&Request::new().message(b'p', session.message()));
            }
            12 => scram
                .as_mut()
                .expect("SASL began")
                .finish(rest)
                .expect("the server's proof"),
            other => panic!("authentication request {other}"),
        }
    }

    fn begin_scram(&self, connect: &Connect, offer: &[u8]) -> (&'static str, ScramSha256) {
        let offered: Vec<_> = offer.split(|byte| *byte == 0).collect();
        let wanted = if connect.is_bound_to_tls {
            "SCRAM-SHA-256-PLUS"
        } else {
            "SCRAM-SHA-256"
        };
        assert!(
            offered.contains(&wanted.as_bytes()),
            "{wanted} is not in {}",
            offer.escape_ascii()
        );
        let binding = match &self.stream {
            Stream::Tls(tls) if connect.is_bound_to_tls => {
                let chain = tls.conn.peer_certificates().expect("a certificate");
                ChannelBinding::tls_server_end_point(Sha256::digest(&chain[0]).to_vec())
            }
            // "y" would say that the server doesn't offer PLUS; "n" that we can't.
            _ => ChannelBinding::unsupported(),
        };
        (
            wanted,
            ScramSha256::new(connect.password.as_bytes(), binding),
        )
    }
}

impl Connect {
    fn user_name(&self) -> String {
        let packet = self.startup_packet();
        let fields: Vec<_> = packet[8..].split(|byte| *byte == 0).collect();
        let user = fields
            .chunks(2)
            .find(|pair| pair[0] == b"user")
            .expect("a user");
        String::from_utf8(user[1].to_vec()).unwrap()
    }
}
