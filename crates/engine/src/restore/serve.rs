//! Our side as the target's primary: listens, and serves the RDB to the target and to nobody else.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use cachevault_proto::{PrimaryConfig, PrimaryEvent, PrimarySession, ReplicationStream};
use cachevault_store::{ArtifactEntry, ArtifactKey, Store};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::error::VerifyError;
use crate::meter::Meter;
use crate::restore::artifact::RdbReader;
use crate::restore::replica_way::SILENCE_MAX_SECONDS;

const READ_BYTES: usize = 16 << 10;
/// Several times within the target's `repl-timeout`, whoever sets that.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const _: () = assert!(KEEP_ALIVE.as_secs() * 4 < SILENCE_MAX_SECONDS);
/// Connections of whom it is not known yet who they are; the oldest gives way to one more.
const GREETINGS_MAX: usize = 16;
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
    /// Who came last and was not the target, and why not.
    turned_away: Mutex<Option<String>>,
}

impl Link {
    fn turn_away(&self, peer: SocketAddr, reason: &str) {
        let ip = peer.ip().to_canonical();
        tracing::warn!(%peer, reason, "somebody else than the target wanted the data; refused");
        let mut last = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(format!("`{ip}` came and was turned away: {reason}"));
    }

    /// Who came in place of the target, in words.
    pub(crate) fn turned_away(&self) -> Option<String> {
        self.turned_away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
        let Admitted { mut connection, mut session, first } =
            served.admit(listener, &stream, link).await;
        match served.converse(&mut connection, &mut session, first, link).await {
            Ok(()) => {}
            Err(Ended::Artifact(error)) => return error,
            Err(Ended::Link(reason)) => tracing::info!(reason, "the target's connection ended"),
        }
        stream = session.into_stream();
    }
}

/// Who has shown that it is the target, and what it wants.
struct Admitted {
    connection: Box<dyn Connection>,
    session: PrimarySession,
    first: PrimaryEvent,
}

/// A connection, plain or by TLS.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// Waits for the target's `PSYNC` on a connection that may be anybody's.
async fn greet(
    connection: TcpStream,
    tls: Option<TlsAcceptor>,
    mut session: PrimarySession,
) -> Result<Admitted, String> {
    let greeting = async {
        let lost = |error: std::io::Error| error.to_string();
        let _ = connection.set_nodelay(true);
        let mut connection: Box<dyn Connection> = match tls {
            Some(tls) => Box::new(tls.accept(connection).await.map_err(lost)?),
            None => Box::new(connection),
        };
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            buffer.clear();
            if connection.read_buf(&mut buffer).await.map_err(lost)? == 0 {
                return Err("it left again".to_owned());
            }
            let taken = session.handle_bytes(&buffer);
            if let (Ok(()), Some(first)) = (&taken, session.poll_event()) {
                return Ok(Admitted { connection, session, first });
            }
            // What refuses also says so.
            while let Some(bytes) = session.poll_transmit() {
                connection.write_all(&bytes).await.map_err(lost)?;
            }
            // TLS keeps what does not fill a record.
            connection.flush().await.map_err(lost)?;
            taken.map_err(|error| error.to_string())?;
        }
    };
    let greeted = tokio::time::timeout(HANDSHAKE_MAX, greeting).await;
    greeted.unwrap_or_else(|_| Err("no PSYNC came in time".to_owned()))
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
    /// Waits for the target. It is known by the password that was made for it and by its port: its
    /// address may be that of a gateway, or another one of its own than we reach it by. Whoever else
    /// comes is turned away, and keeps nobody out.
    async fn admit(
        &self,
        listener: &TcpListener,
        stream: &ReplicationStream,
        link: &Link,
    ) -> Admitted {
        let mut greetings = JoinSet::new();
        let mut order: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (connection, peer) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            tracing::warn!(%error, "a connection could not be accepted");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    };
                    order.retain(|greeting| !greeting.is_finished());
                    if order.len() >= GREETINGS_MAX && let Some(oldest) = order.pop_front() {
                        oldest.abort();
                    }
                    let session = PrimarySession::new(Arc::clone(&self.config), stream.clone());
                    let greeting = greet(connection, self.tls.clone(), session);
                    order.push_back(greetings.spawn(async move { (peer, greeting.await) }));
                }
                Some(greeted) = greetings.join_next() => match greeted {
                    Ok((_, Ok(admitted))) => return admitted,
                    Ok((peer, Err(reason))) => link.turn_away(peer, &reason),
                    // It was one too many.
                    Err(_) => {}
                },
            }
        }
    }

    async fn converse(
        &self,
        connection: &mut Box<dyn Connection>,
        session: &mut PrimarySession,
        first: PrimaryEvent,
        link: &Link,
    ) -> Result<(), Ended> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut keep_alive = tokio::time::interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        let mut next = Some(first);
        loop {
            while let Some(event) = next.take().or_else(|| session.poll_event()) {
                match event {
                    PrimaryEvent::SnapshotWanted => {
                        self.write(connection, session).await?;
                        self.send_snapshot(connection, link).await?;
                        session.payload_sent();
                        self.meter.enter("the target is loading");
                    }
                    // It has all of it; an acknowledgement says so at once.
                    PrimaryEvent::Continued => session.keep_alive(),
                    PrimaryEvent::Acknowledged(_) => link.acknowledged.notify_one(),
                }
            }
            self.write(connection, session).await?;
            buffer.clear();
            tokio::select! {
                read = connection.read_buf(&mut buffer) => {
                    if read? == 0 {
                        return Err(Ended::Link("the target closed it".into()));
                    }
                    let taken = session.handle_bytes(&buffer);
                    taken.map_err(|error| Ended::Link(error.to_string()))?;
                }
                _ = keep_alive.tick() => session.keep_alive(),
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
