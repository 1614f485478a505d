//! `/metrics` in the OpenMetrics text format, for a listener of its own: whoever scrapes it does not
//! sign in, and sees the names of the instances of all projects.

use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cachevault_app::App;
use cachevault_domain::Instance;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    project: String,
    instance: String,
    name: String,
}

type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;

/// Routes of the metrics listener.
pub fn metrics_router(app: App) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(app)
}

async fn metrics(State(app): State<App>) -> Response {
    match app.every_instance().await {
        Ok(instances) => {
            let text = exposition(&instances, app.clock.now());
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no metrics");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

fn exposition(instances: &[Instance], now: Timestamp) -> String {
    let (backup_age, proof_age, reachable) =
        (Seconds::default(), Seconds::default(), Seconds::default());
    for instance in instances {
        let labels = Labels {
            project: instance.project.to_string(),
            instance: instance.id.to_string(),
            name: instance.name.to_string(),
        };
        let since = |moment: Timestamp| now.duration_since(moment).as_secs_f64();
        reachable.get_or_create(&labels).set(f64::from(u8::from(!instance.health.is_down())));
        // Without a proven backup there is no age: an alert asks for its absence too.
        if let Some(proven) = &instance.proven {
            backup_age.get_or_create(&labels).set(since(proven.created_at));
            proof_age.get_or_create(&labels).set(since(proven.proof_at));
        }
    }
    let mut registry = Registry::with_prefix("cachevault_instance");
    registry.register(
        "proven_backup_age_seconds",
        "Age of the newest backup that was loaded into a throw-away server and held the same data",
        backup_age,
    );
    registry.register("proof_age_seconds", "Time since that backup was proven", proof_age);
    registry.register("reachable", "Whether the instance answers", reachable);
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}
