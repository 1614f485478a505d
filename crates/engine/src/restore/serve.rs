//! Our side as the target's primary: listens, and serves the RDB to the target and to nobody else.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use cachevault_domain::Address;
use cachevault_proto::{PrimaryConfig, PrimaryEvent, PrimarySession, ReplicationStream};
use cachevault_store::{ArtifactEntry, ArtifactKey, Store};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::error::VerifyError;
use crate::meter::Meter;
use crate::restore::artifact::RdbReader;

const READ_BYTES: usize = 16 << 10;
/// More often than any sensible `repl-timeout`, which is 60 s by default.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Who holds a connection and says nothing keeps the target out.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// A snapshot that a target takes so often and never loads will not be loaded the next time.
pub(crate) const SNAPSHOTS_MAX: u32 = 3;
/// As much as a target may need to read it from its socket while it loads.
const SEND_BUFFER_BYTES: u32 = 4 << 20;

/// What is served, and to whom.
pub(crate) struct Served<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) key: &'a ArtifactKey,
    pub(crate) entry: &'a ArtifactEntry,
    pub(crate) config: Arc<PrimaryConfig>,
    /// The target's addresses.
    pub(crate) peers: Vec<IpAddr>,
    /// How we speak TLS to a target that replicates by it.
    pub(crate) tls: Option<TlsAcceptor>,
    /// The longest that the target may take nothing.
    pub(crate) stall: Duration,
    pub(crate) meter: &'a Meter,
}

/// What is known from the connection.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Snapshots begun.
    pub(crate) snapshots: AtomicU32,
    /// The target has acknowledged something: worth looking at it.
    pub(crate) acknowledged: Notify,
}

/// Listens at an address, or at every address of this machine.
pub(crate) fn listen(at: Option<IpAddr>, port: u16) -> std::io::Result<TcpListener> {
    let bind = |socket: TcpSocket, address: SocketAddr| {
        socket.set_reuseaddr(true)?;
        let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
        socket.bind(address)?;
        socket.listen(16)
    };
    match at {
        Some(ip @ IpAddr::V4(_)) => return bind(TcpSocket::new_v4()?, (ip, port).into()),
        Some(ip @ IpAddr::V6(_)) => return bind(TcpSocket::new_v6()?, (ip, port).into()),
        None => {}
    }
    // Both families; machines without IPv6 have the other.
    TcpSocket::new_v6()
        .and_then(|socket| bind(socket, (Ipv6Addr::UNSPECIFIED, port).into()))
        .or_else(|_| bind(TcpSocket::new_v4()?, ([0, 0, 0, 0], port).into()))
}

/// Serves until the artifact turns out to be damaged; whoever calls knows when it is enough.
pub(crate) async fn serve(listener: &TcpListener, served: &Served<'_>, link: &Link) -> VerifyError {
    let mut stream = ReplicationStream::default();
    loop {
        let connection = match listener.accept().await {
            Ok((connection, peer)) if served.is_target(peer.ip()) => connection,
            Ok((_, peer)) => {
                tracing::warn!(%peer, "somebody else than the target wanted the data; refused");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = connection.set_nodelay(true);
        let mut session = PrimarySession::new(Arc::clone(&served.config), stream);
        match served.greet(connection, &mut session, link).await {
            Ok(()) => {}
            Err(Ended::Artifact(error)) => return error,
            Err(Ended::Link(reason)) => tracing::info!(reason, "the target's connection ended"),
        }
        stream = session.into_stream();
    }
}

/// Why a connection ended.
enum Ended {
    /// It was lost, or was not what we take for the target. The target comes again.
    Link(String),
    Artifact(VerifyError),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Link(error.to_string())
    }
}

impl Served<'_> {
    fn is_target(&self, peer: IpAddr) -> bool {
        self.peers.contains(&peer.to_canonical())
    }

    async fn greet(
        &self,
        connection: TcpStream,
        session: &mut PrimarySession,
        link: &Link,
    ) -> Result<(), Ended> {
        let Some(tls) = &self.tls else { return self.converse(connection, session, link).await };
        let secured = tokio::time::timeout(self.stall, tls.accept(connection)).await;
        let secured = secured.map_err(|_| Ended::Link("no TLS handshake came".to_owned()))??;
        self.converse(secured, session, link).await
    }

    async fn converse(
        &self,
        mut connection: impl AsyncRead + AsyncWrite + Unpin,
        session: &mut PrimarySession,
        link: &Link,
    ) -> Result<(), Ended> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let handshake_ends = Instant::now() + HANDSHAKE_MAX;
        let mut is_greeted = false;
        let mut keep_alive = tokio::time::interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        loop {
            self.write(&mut connection, session).await?;
            buffer.clear();
            tokio::select! {
                read = connection.read_buf(&mut buffer) => {
                    if read? == 0 {
                        return Err(Ended::Link("the target closed it".into()));
                    }
                    let taken = session.handle_bytes(&buffer);
                    // What refuses also says so.
                    self.write(&mut connection, session).await?;
                    taken.map_err(|error| Ended::Link(error.to_string()))?;
                }
                _ = keep_alive.tick() => session.keep_alive(),
                () = tokio::time::sleep_until(handshake_ends), if !is_greeted => {
                    return Err(Ended::Link("no PSYNC came".to_owned()));
                }
            }
            while let Some(event) = session.poll_event() {
                is_greeted = true;
                match event {
                    PrimaryEvent::SnapshotWanted => {
                        self.write(&mut connection, session).await?;
                        self.send_snapshot(&mut connection, link).await?;
                        session.payload_sent();
                        self.meter.enter("the target is loading");
                    }
                    // It has all of it; an acknowledgement says so at once.
                    PrimaryEvent::Continued => session.keep_alive(),
                    PrimaryEvent::Acknowledged(_) => link.acknowledged.notify_one(),
                }
            }
        }
    }

    async fn write(
        &self,
        connection: &mut (impl AsyncWrite + Unpin),
        session: &mut PrimarySession,
    ) -> Result<(), Ended> {
        while let Some(bytes) = session.poll_transmit() {
            self.in_time(connection.write_all(&bytes)).await?;
        }
        // TLS keeps what does not fill a record.
        self.in_time(connection.flush()).await
    }

    async fn send_snapshot(
        &self,
        connection: &mut (impl AsyncWrite + Unpin),
        link: &Link,
    ) -> Result<(), Ended> {
        let times = link.snapshots.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(times, bytes = self.entry.rdb.size_bytes, "sending the snapshot");
        self.meter.enter("sending");
        self.meter.set_total(self.entry.rdb.size_bytes);
        let reader = RdbReader::open(self.store, self.key, self.entry).await;
        let mut reader = reader.map_err(Ended::Artifact)?;
        let mut sent = 0;
        while let Some(piece) = reader.next().await.map_err(Ended::Artifact)? {
            self.in_time(connection.write_all(&piece)).await?;
            sent += piece.len() as u64;
            self.meter.set_received(sent);
        }
        self.in_time(connection.flush()).await
    }

    async fn in_time(
        &self,
        writing: impl Future<Output = std::io::Result<()>>,
    ) -> Result<(), Ended> {
        match tokio::time::timeout(self.stall, writing).await {
            Ok(written) => Ok(written?),
            Err(_) => {
                Err(Ended::Link(format!("the target took nothing for {} s", self.stall.as_secs())))
            }
        }
    }
}

/// The addresses that a target's own name leads to.
pub(crate) async fn addresses_of(target: &Address) -> Vec<IpAddr> {
    match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
        Ok(found) => found.map(|address| address.ip().to_canonical()).collect(),
        Err(_) => Vec::new(),
    }
}
