//! The HTTP interface: DCS v1.0 and v2, Keystone v3 for sign-in, the management API under
//! `/api/v1`, and downloads under `/download`.
//!
//! The two DCS versions follow the vendor's specification. Each is a set of thin adapters over the
//! same use cases, with its own wire types and error bodies. This crate contains no SQL, no engine
//! and no decisions: a handler parses the request, calls one function of [`cachevault_app::App`],
//! and presents the result.
//!
//! [`router`] is the only entry point; [`openapi`] describes its routes. [`signing`] is public
//! because the command line signs its requests with it.

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

/// The maximum size of a request body in bytes, as in the vendor's gateway.
pub const BODY_BYTES_MAX: usize = 12 << 20;

/// The state of the handlers.
#[derive(Debug, Clone)]
pub struct Api {
    /// The use cases.
    pub app: App,
    /// The timeout of a request.
    pub request_time_max: Duration,
    /// The last check of catalog and store.
    pub readiness: Arc<Readiness>,
    /// The URL under which clients reach the service; `None` stands for the host of each request.
    pub public_url: Option<String>,
    /// `http` or `https`: the scheme of direct connections.
    pub scheme: &'static str,
    /// The listen address, for requests without a host.
    pub address: SocketAddr,
    /// Limits of downloads.
    pub downloads: Downloads,
    /// The region in the service catalog.
    pub region: String,
    /// Limits on wrong credentials.
    pub throttle: Arc<Throttle>,
    /// Limits on audit records of refused calls.
    pub refusals: Refusals,
    /// Metrics of HTTP requests.
    pub figures: HttpFigures,
    /// The event streams.
    pub events: EventStreams,
    /// Limits the memory of request bodies.
    pub large_bodies: LargeBodies,
    /// The proxies that report client addresses.
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
        // The body limit is applied where the body is read, after the key is known to exist.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(api.clone(), request::bound))
        .layer(from_fn_with_state(api.clone(), request::identify))
        .layer(from_fn_with_state(api.figures.clone(), figures::count))
        // Outside all layers that measure an answer's time, because the answer is complete here.
        .layer(from_fn(unread::read_rest))
        .layer(from_fn_with_state(api.proxies.clone(), client::resolve))
        .with_state(api)
}
