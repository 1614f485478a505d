//! Opens connections to servers, plain or by TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cachevault_domain::{Address, Identity, ProbeError, Target, TlsSettings};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::words::Listener;

const RECEIVE_BUFFER_BYTES: u32 = 4 << 20;

/// A byte stream to a server.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The connection beneath.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// Connects; `deadline` bounds the connection, and after it the TLS handshake.
pub(crate) async fn connect(target: &Target, deadline: Duration) -> Result<Stream, ProbeError> {
    let address = &target.address;
    let tcp = tokio::time::timeout(deadline, open(target)).await.unwrap_or_else(|_| {
        Err(ProbeError::TimedOut { address: address.clone(), seconds: deadline.as_secs() })
    })?;
    let Some(settings) = &target.tls else { return Ok(Stream::Plain(tcp)) };
    let secured = tokio::time::timeout(deadline, secure(target, settings, tcp)).await;
    secured.unwrap_or_else(|_| {
        // A server without TLS waits for the end of what it takes for a command.
        let detail = format!(
            "no answer to the handshake within {} s; is this a TLS port?",
            deadline.as_secs()
        );
        Err(ProbeError::Tls { address: address.clone(), detail })
    })
}

/// Opens a connection, to no address but those that the target's rules allow. They are asked here, where
/// the address is known that is connected to: a name may lead elsewhere each time.
async fn open(target: &Target) -> Result<TcpStream, ProbeError> {
    let address = &target.address;
    let mut candidates = resolve(address).await?;
    candidates.retain(|candidate| target.hosts.allow(candidate.ip()));
    if candidates.is_empty() {
        return Err(ProbeError::NotAllowed { address: address.clone() });
    }
    let mut refused = None;
    for candidate in candidates {
        match open_at(candidate).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(connect_error(address, &error))
}

async fn open_at(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The kernel sizes this buffer by the round-trip time, which is next to nothing in a data
    // centre; then a reader that is late by a millisecond stalls the server's child. What the
    // system does not allow it cuts by itself.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    let tcp = socket.connect(address).await?;
    // Replies are small and awaited one by one; waiting to fill a segment only costs time.
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, ProbeError> {
    let unknown = |detail: String| ProbeError::UnknownHost { address: address.clone(), detail };
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    let addresses: Vec<_> = found.map_err(|e| unknown(e.to_string()))?.collect();
    if addresses.is_empty() { Err(unknown("no address".into())) } else { Ok(addresses) }
}

fn connect_error(address: &Address, error: &io::Error) -> ProbeError {
    let address = address.clone();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ProbeError::Refused { address },
        _ => ProbeError::Unreachable { address, detail: error.to_string() },
    }
}

async fn secure(
    target: &Target,
    settings: &TlsSettings,
    tcp: TcpStream,
) -> Result<Stream, ProbeError> {
    let address = &target.address;
    let failed = |detail: String| ProbeError::Tls { address: address.clone(), detail };
    let config = client_config(settings).map_err(failed)?;
    let name = ServerName::try_from(address.host.clone()).map_err(|e| failed(e.to_string()))?;
    let connector = TlsConnector::from(Arc::new(config));
    let tls = connector.connect(name, tcp).await.map_err(|e| {
        let detail = e.to_string();
        failed(if names_the_server(&e) { Listener::of(target).told(detail) } else { detail })
    })?;
    Ok(Stream::Tls(Box::new(tls)))
}

/// Whether an error of a handshake repeats what the server says of itself; all others are of few words,
/// which are not its own.
fn names_the_server(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(
        cause,
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForNameContext { .. } | CertificateError::Other(_)
        ))
    )
}

fn client_config(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(trusted(settings.ca_pem.as_deref())?);
    let Some(identity) = &settings.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&identity.certificate_pem, "client certificate")?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose_secret().as_bytes())
        .map_err(|e| format!("the client key is no PEM private key: {e}"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|e| format!("the client certificate cannot be used: {e}"))
}

/// How to be a TLS server with this certificate.
pub(crate) fn acceptor(identity: &Identity) -> Result<TlsAcceptor, String> {
    let chain = certificates(&identity.certificate_pem, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose_secret().as_bytes())
        .map_err(|e| format!("the key is no PEM private key: {e}"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| e.to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn trusted(ca_pem: Option<&str>) -> Result<RootCertStore, String> {
    let certificates = match ca_pem {
        Some(pem) => certificates(pem, "CA file")?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err("no trusted certificate found; give a CA file".into()) } else { Ok(roots) }
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the {what} is not PEM: {e}"))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
