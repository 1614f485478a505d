//! Listening for clients: plain or by TLS, with bounds on what a connection may cost.

mod places;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, header};
use axum::middleware::{AddExtension, map_response};
use axum::response::Response;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use cachevault_api::TrustedProxies;
use cachevault_jobs::Shutdown;
use hyper_util::rt::TokioTimer;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

use self::places::{Place, Places};
use crate::config::read;
use crate::private::require_private;

/// How long a client may take to agree on a connection's secrets.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's headers, the wait for its next request included.
const HEADERS_MAX: Duration = Duration::from_secs(60);
/// The maximum of headers and of bytes that are held of a request. A request beyond one of them gets
/// the library's own answer, without a body and an id: hyper has no hook for it. The API therefore
/// refuses a request earlier, from 100 headers, 32 KiB of them or a URI of 16 KiB on.
const HEADER_COUNT_MAX: usize = 1000;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// How often the files of certificates are looked at again.
const CERTIFICATES_REREAD_EVERY: Duration = Duration::from_secs(2);
/// Browsers are to come by TLS alone for a year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The files of what the service proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Whose certificates clients have to present; none are asked for without.
    pub(crate) client_ca: Option<PathBuf>,
}

/// What the files held when they were read.
#[derive(PartialEq, Eq)]
struct Pems {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// A certificate that is put in use again whenever its files change.
pub(crate) struct Tls {
    files: TlsFiles,
    used: Pems,
    config: RustlsConfig,
}

/// Bounds of one listener.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    /// Connections that are open at a time; those beyond are closed at once.
    pub(crate) connections_max: usize,
    /// Those of them that one address may have.
    pub(crate) of_address_max: usize,
    /// Addresses behind which many clients are, and for which only the first limit counts.
    pub(crate) proxies: Arc<TrustedProxies>,
    /// A client that takes nothing of an answer for so long loses its connection.
    pub(crate) stall: Duration,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// Says which file cannot be used, and why.
    pub(crate) fn load(files: TlsFiles) -> anyhow::Result<Self> {
        let used = files.read()?;
        let config = RustlsConfig::from_config(used.server_config(&files)?);
        Ok(Self { files, used, config })
    }

    /// Looks at the files from time to time until told to stop. What cannot be used is logged, and
    /// what was in use stays so.
    async fn watch(mut self, shutdown: &Shutdown) {
        let mut refused = None;
        loop {
            tokio::select! {
                () = shutdown.soft.cancelled() => return,
                () = tokio::time::sleep(CERTIFICATES_REREAD_EVERY) => {}
            }
            match self.reread() {
                Ok(false) => {}
                Ok(true) => tracing::info!(
                    certificate = %self.files.certificate.display(),
                    "the certificate was changed"
                ),
                Err(error) => {
                    let reason = format!("{error:#}");
                    if refused.as_ref() != Some(&reason) {
                        tracing::error!(
                            reason,
                            "the new certificate cannot be used; the old one stays"
                        );
                    }
                    refused = Some(reason);
                    continue;
                }
            }
            refused = None;
        }
    }

    /// Whether something had changed.
    fn reread(&mut self) -> anyhow::Result<bool> {
        let found = self.files.read()?;
        if found == self.used {
            return Ok(false);
        }
        self.config.reload_from_config(found.server_config(&self.files)?);
        self.used = found;
        Ok(true)
    }
}

impl TlsFiles {
    fn read(&self) -> anyhow::Result<Pems> {
        require_private(&self.key)?;
        Ok(Pems {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

impl Pems {
    fn server_config(&self, files: &TlsFiles) -> anyhow::Result<Arc<ServerConfig>> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("choose versions of TLS")?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem, path)? {
                    roots.add(certificate).with_context(|| format!("in `{}`", path.display()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(
                    verifier.build().with_context(|| format!("in `{}`", path.display()))?,
                )
            }
            _ => builder.with_no_client_auth(),
        };
        let chain = certificates(&self.certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .with_context(|| format!("read a key from `{}`", files.key.display()))?;
        let mut config = builder.with_single_cert(chain, key).with_context(|| {
            format!("use `{}` with `{}`", files.certificate.display(), files.key.display())
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(pem: &[u8], path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = read.with_context(|| format!("read certificates from `{}`", path.display()))?;
    ensure!(!found.is_empty(), "`{}` holds no certificate", path.display());
    Ok(found)
}

/// What answers one connection: it knows where that comes from.
type Answering = AddExtension<Router, ConnectInfo<SocketAddr>>;

/// Answers until told to stop.
pub(crate) async fn answer(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    limits: ConnectionLimits,
    shutdown: Shutdown,
) {
    let handle = Handle::new();
    let served = async {
        match tls {
            Some(tls) => {
                let acceptor = RustlsAcceptor::new(tls.config.clone());
                let acceptor =
                    acceptor.handshake_timeout(HANDSHAKE_MAX).acceptor(Places::new(limits));
                let router = router.layer(map_response(add_hsts));
                tokio::select! {
                    served = serve(listener, acceptor, router, handle.clone()) => served,
                    () = async { tls.watch(&shutdown).await; std::future::pending().await } => Ok(()),
                }
            }
            None => serve(listener, Places::new(limits), router, handle.clone()).await,
        }
    };
    let told = async {
        shutdown.soft.cancelled().await;
        handle.graceful_shutdown(None);
        shutdown.hard.cancelled().await;
        // What is still being downloaded ends with the process.
        handle.shutdown();
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!(error = &error as &dyn std::error::Error, "the API stopped");
        },
        () = told => {}
    }
}

async fn serve<A>(
    listener: TcpListener,
    acceptor: A,
    router: Router,
    handle: Handle<SocketAddr>,
) -> io::Result<()>
where
    A: Accept<TcpStream, Answering, Service = AddExtension<Answering, Place>>
        + Clone
        + Send
        + Sync
        + 'static,
    A::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    A::Future: Send,
{
    let mut server =
        axum_server::Server::from_listener(listener).acceptor(acceptor).http1_only().handle(handle);
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .max_headers(HEADER_COUNT_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn add_hsts(mut response: Response) -> Response {
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    response
}
