//! A control connection: one command, one reply, within a deadline.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cachevault_domain::{Address, ProbeError, Target};
use cachevault_proto::{Reply, ReplyDecoder, encode_command, is_about_login};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::{Stream, connect};
use crate::info::ServerInfo;
use crate::words::{Listener, printable};

const READ_BYTES: usize = 16 << 10;

pub(crate) struct Client {
    stream: Stream,
    decoder: ReplyDecoder,
    address: Address,
    deadline: Duration,
    listener: Listener,
}

impl Client {
    /// Connects and logs in. `deadline` bounds connecting and each later command.
    pub(crate) async fn connect(target: &Target, deadline: Duration) -> Result<Self, ProbeError> {
        let stream = connect(target, deadline).await?;
        let address = target.address.clone();
        let (decoder, listener) = (ReplyDecoder::default(), Listener::of(target));
        let mut client = Self { stream, decoder, address, deadline, listener };
        client.log_in(target).await?;
        Ok(client)
    }

    /// The logged-in connection, for who sends more than one command at a time.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Our address on this connection.
    pub(crate) fn local_ip(&self) -> Option<std::net::IpAddr> {
        self.stream.tcp().local_addr().ok().map(|address| address.ip())
    }

    async fn log_in(&mut self, target: &Target) -> Result<(), ProbeError> {
        let Some(login) = &target.login else { return Ok(()) };
        let password = login.password.expose_secret();
        let reply = match &login.username {
            Some(username) => self.call(&["AUTH", username, password]).await?,
            None => self.call(&["AUTH", password]).await?,
        };
        match reply {
            Reply::Error(error) => Err(self.refusal("auth", &error)),
            _ => Ok(()),
        }
    }

    /// What the server says of itself.
    pub(crate) async fn info(&mut self) -> Result<ServerInfo, ProbeError> {
        match self.call(&["INFO"]).await? {
            Reply::Bulk(Some(info)) => ServerInfo::parse(&String::from_utf8_lossy(&info))
                .ok_or_else(|| self.not_redis("its INFO names no version")),
            Reply::Error(error) => Err(self.refusal("info", &error)),
            _ => Err(self.not_redis("INFO was not answered with text")),
        }
    }

    /// Sends a command and waits for its reply, which may be an error reply.
    pub(crate) async fn call(&mut self, command: &[&str]) -> Result<Reply, ProbeError> {
        let deadline = self.deadline;
        tokio::time::timeout(deadline, self.exchange(command)).await.unwrap_or_else(|_| {
            Err(ProbeError::TimedOut { address: self.address.clone(), seconds: deadline.as_secs() })
        })
    }

    async fn exchange(&mut self, command: &[&str]) -> Result<Reply, ProbeError> {
        if let Err(e) = self.stream.write_all(&encode_command(command)).await {
            return Err(self.lost(&e));
        }
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            match self.decoder.next_reply() {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(e) => return Err(self.not_redis(&self.listener.told(e.to_string()))),
            }
            buffer.clear();
            match self.stream.read_buf(&mut buffer).await {
                Ok(0) => {
                    return Err(self.lost(&io::Error::other("the server closed the connection")));
                }
                Ok(_) => self.decoder.feed(&buffer),
                Err(e) => return Err(self.lost(&e)),
            }
        }
    }

    /// A TLS server tells only after the handshake that it refuses our certificate.
    fn lost(&self, error: &io::Error) -> ProbeError {
        let (address, detail) = (self.address.clone(), error.to_string());
        match (&self.stream, error.kind()) {
            (Stream::Tls(_), io::ErrorKind::InvalidData) => ProbeError::Tls { address, detail },
            _ => ProbeError::Unreachable { address, detail },
        }
    }

    /// What an error reply to `command` means.
    pub(crate) fn refusal(&self, command: &'static str, error: &Bytes) -> ProbeError {
        let address = self.address.clone();
        let said = printable(error);
        let detail = self.listener.told(said.clone());
        match said.split(' ').next().unwrap_or_default() {
            "NOAUTH" => ProbeError::PasswordRequired { address },
            "NOPERM" => ProbeError::Denied { address, command, detail },
            _ if command == "auth" && is_about_login(&said) => {
                ProbeError::WrongPassword { address, detail }
            }
            _ if said.contains("unknown command") => {
                ProbeError::Denied { address, command, detail }
            }
            _ => ProbeError::Unreachable { address, detail },
        }
    }

    fn not_redis(&self, detail: &str) -> ProbeError {
        ProbeError::NotRedis { address: self.address.clone(), detail: detail.to_owned() }
    }

    /// Who hears this server.
    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }
}
