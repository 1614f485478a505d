//! The HTTP surface: DCS v1.0 and v2, Keystone v3 to sign in for them, our own management API under
//! `/api/v1`, and what links to backups' files open, under `/download`.
//!
//! The two DCS versions belong to somebody else: each is a set of thin adapters over the same use
//! cases, with wire types and error bodies of its own. No SQL, no engine and no decision lives
//! here; a handler parses, calls one function of [`cachevault_app::App`], and presents.
//!
//! [`router`] is the only door, and [`openapi`] says what is behind it. [`signing`] is public
//! because our own command line signs its requests with it.

mod audit;
mod auth;
mod client;
mod concurrency;
mod connection;
mod dcs;
mod download;
mod figures;
mod gateway;
mod health;
mod keystone;
mod large_bodies;
mod manage;
mod metrics;
pub mod openapi;
mod query;
mod refusals;
mod request;
pub mod signing;
mod throttle;
mod unread;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use cachevault_app::App;

pub use crate::client::{Network, NoNetwork, ProxyHeader, TrustedProxies, network};
use crate::concurrency::Concurrency;
pub use crate::download::Downloads;
pub use crate::figures::HttpFigures;
pub use crate::health::Readiness;
pub use crate::large_bodies::LargeBodies;
pub use crate::manage::{EventStreamLimits, EventStreams};
pub use crate::metrics::metrics_router;
pub use crate::refusals::Refusals;
pub use crate::throttle::Throttle;

/// The largest request body that is read, bytes: what the vendor's gateway takes.
pub const BODY_BYTES_MAX: usize = 12 << 20;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Api {
    /// The use cases.
    pub app: App,
    /// Longest time that a request may take.
    pub request_time_max: Duration,
    /// The last check of catalog and store.
    pub readiness: Arc<Readiness>,
    /// The URL under which clients reach the service; `None`: the host that each one names.
    pub public_url: Option<String>,
    /// `http` or `https`: what clients that reach the service directly speak.
    pub scheme: &'static str,
    /// The address listened on, for clients that name no host.
    pub address: SocketAddr,
    /// Bounds of downloads.
    pub downloads: Downloads,
    /// Name of the region that the catalog of services tells.
    pub region: String,
    /// Bounds on wrong credentials.
    pub throttle: Arc<Throttle>,
    /// Which refusals are recorded.
    pub refusals: Refusals,
    /// What requests count.
    pub figures: HttpFigures,
    /// Streams of events.
    pub events: EventStreams,
    /// Bounds what bodies take of the memory.
    pub large_bodies: LargeBodies,
    /// Who says where requests come from.
    pub proxies: Arc<TrustedProxies>,
}

/// All routes.
pub fn router(api: Api) -> Router {
    let signed = Router::new()
        .nest("/v1.0", dcs::v1_0::router().into())
        .nest("/v2", dcs::v2::router().into())
        .nest("/api/v1", manage::router().into())
        .route_layer(from_fn_with_state(api.clone(), audit::record))
        .route_layer(from_fn_with_state(Concurrency::default(), concurrency::limit))
        .route_layer(from_fn_with_state(api.clone(), auth::authenticate));
    Router::new()
        .merge(signed)
        .merge(Router::from(dcs::versions::router()))
        .merge(keystone::router(&api))
        .merge(health::router())
        .merge(download::router())
        .merge(openapi::router())
        .fallback(gateway::unknown_route)
        .method_not_allowed_fallback(gateway::unknown_route)
        // The body's limit is applied where it is read: after the key is known to be one of ours.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(api.clone(), request::bound))
        .layer(from_fn_with_state(api.clone(), request::identify))
        .layer(from_fn_with_state(api.figures.clone(), figures::count))
        // Around all that times an answer, which is made by then.
        .layer(from_fn(unread::read_rest))
        .layer(from_fn_with_state(api.proxies.clone(), client::resolve))
        .with_state(api)
}
