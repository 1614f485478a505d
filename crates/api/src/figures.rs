//! Metrics of HTTP requests since the start of the process.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bucket limits in seconds: from answers out of memory to answers that wait for file removal.
const SECONDS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Path prefixes and the API label for each. Other paths are labeled `other`, so clients cannot
/// create time series.
const CLASSES: [(&str, &str); 7] = [
    ("/v1.0", "dcs-v1.0"),
    ("/v2", "dcs-v2"),
    ("/v3", "keystone"),
    ("/api/v1", "manage"),
    ("/download", "download"),
    ("/healthz", "health"),
    ("/readyz", "health"),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    api: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    api: &'static str,
}

/// Request counters of a process. Clones share the counters.
#[derive(Debug, Clone)]
pub struct HttpFigures {
    requests: Family<Answered, Counter>,
    durations: Family<Timed, Histogram, fn() -> Histogram>,
}

impl Default for HttpFigures {
    fn default() -> Self {
        let durations: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        Self { requests: Family::default(), durations }
    }
}

impl HttpFigures {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "Answered requests, by API and status",
            self.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time until the answer began, by API",
            self.durations.clone(),
        );
    }
}

fn class(path: &str) -> &'static str {
    let is_below = |begin: &str| {
        path.strip_prefix(begin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    CLASSES.iter().find(|(begin, _)| is_below(begin)).map_or("other", |(_, class)| class)
}

/// Counts a request and its answer.
pub(crate) async fn count(
    State(figures): State<HttpFigures>,
    request: Request,
    next: Next,
) -> Response {
    let (api, began) = (class(request.uri().path()), Instant::now());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    figures.requests.get_or_create(&Answered { api, status }).inc();
    figures.durations.get_or_create(&Timed { api }).observe(began.elapsed().as_secs_f64());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_share_one_label() {
        for (path, expected) in [
            ("/v1.0/p/instances", "dcs-v1.0"),
            ("/v2", "dcs-v2"),
            ("/v3/auth/tokens", "keystone"),
            ("/api/v1/instances", "manage"),
            ("/v20", "other"),
            ("/v2x/y", "other"),
            ("/", "other"),
        ] {
            assert_eq!(class(path), expected, "{path}");
        }
    }
}
