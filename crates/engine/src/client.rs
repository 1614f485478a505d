//! A control connection: one command, one reply, within a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cachevault_domain::{ProbeError, Target};
use cachevault_proto::{Reply, ReplyDecoder, encode_command, is_about_login};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::connect::{Stream, connect};
use crate::info::ServerInfo;
use crate::words::{Listener, printable};

const READ_BYTES: usize = 16 << 10;
/// A connection that said nothing for so long may be closed by now: servers do it after a `timeout` of a
/// second or more, proxies between us after less than a minute.
const IDLE_MAX: Duration = Duration::from_millis(900);

pub(crate) struct Client {
    stream: Stream,
    decoder: ReplyDecoder,
    target: Target,
    deadline: Duration,
    listener: Listener,
    used_at: Instant,
    /// Commands are queued: on another connection they would be done.
    is_queueing: bool,
}

impl Client {
    /// Connects and logs in. `deadline` bounds connecting and each later command.
    pub(crate) async fn connect(target: &Target, deadline: Duration) -> Result<Self, ProbeError> {
        let mut client = Self {
            stream: connect(target, deadline).await?,
            decoder: ReplyDecoder::default(),
            target: target.clone(),
            deadline,
            listener: Listener::of(target),
            used_at: Instant::now(),
            is_queueing: false,
        };
        client.log_in().await?;
        Ok(client)
    }

    /// The logged-in connection, for who sends more than one command at a time.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Our address on this connection, as the server can use it.
    pub(crate) fn local_host(&self) -> Option<String> {
        Some(match self.stream.tcp().local_addr().ok()? {
            // Of a link-local address the link is a part.
            SocketAddr::V6(ours) if ours.scope_id() > 0 => {
                format!("{}%{}", ours.ip(), ours.scope_id())
            }
            ours => ours.ip().to_canonical().to_string(),
        })
    }

    async fn log_in(&mut self) -> Result<(), ProbeError> {
        let Some(login) = self.target.login.clone() else { return Ok(()) };
        let password = login.password.expose_secret();
        let reply = match &login.username {
            Some(username) => self.ask(&["AUTH", username, password]).await?,
            None => self.ask(&["AUTH", password]).await?,
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

    /// Sends a command and waits for its reply, which may be an error reply. After a pause it asks first
    /// whether anybody is there, and connects anew where nobody is: the command may be one that must not
    /// be sent twice.
    pub(crate) async fn call(&mut self, command: &[&str]) -> Result<Reply, ProbeError> {
        let is_idle = self.used_at.elapsed() >= IDLE_MAX && !self.is_queueing;
        if is_idle && let Err(error) = self.ask(&["PING"]).await {
            tracing::debug!(%error, "an idle connection was lost; connecting anew");
            *self = Self::connect(&self.target, self.deadline).await?;
        }
        self.is_queueing |= command == ["MULTI"];
        self.ask(command).await
    }

    /// As [`Self::call`], on the connection as it is.
    pub(crate) async fn ask(&mut self, command: &[&str]) -> Result<Reply, ProbeError> {
        let deadline = self.deadline;
        let answered = tokio::time::timeout(deadline, self.exchange(command)).await;
        self.used_at = Instant::now();
        answered.unwrap_or_else(|_| {
            let address = self.target.address.clone();
            Err(ProbeError::TimedOut { address, seconds: deadline.as_secs() })
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
        let (address, detail) = (self.target.address.clone(), error.to_string());
        match (&self.stream, error.kind()) {
            (Stream::Tls(_), io::ErrorKind::InvalidData) => ProbeError::Tls { address, detail },
            _ => ProbeError::Unreachable { address, detail },
        }
    }

    /// What an error reply to `command` means.
    pub(crate) fn refusal(&self, command: &'static str, error: &Bytes) -> ProbeError {
        let address = self.target.address.clone();
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
        let address = self.target.address.clone();
        ProbeError::NotRedis { address, detail: detail.to_owned() }
    }

    /// Who hears this server.
    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }
}
