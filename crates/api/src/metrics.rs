//! `/metrics` in the OpenMetrics text format, on a listener of its own. Scraping requires no
//! authentication and shows the instance names of all projects.
//!
//! Counters of the process come from a registry that its parts fill. Values of the catalog are
//! queried at every scrape.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use cachevault_app::{App, DiskReserve, OpenJobs, Watched, WatchedInstance};
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfInstance {
    project: String,
    instance: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    kind: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFolder {
    folder: &'static str,
}

type Number = Gauge<f64, AtomicU64>;
/// A metric of one instance; `None` when it has no value.
type OfOne = fn(&WatchedInstance, Timestamp) -> Option<f64>;

#[derive(Clone)]
struct Scraped {
    app: App,
    counted: Arc<Registry>,
}

/// Routes of the metrics listener. `counted` is the registry of the process.
pub fn metrics_router(app: App, counted: Registry) -> Router {
    let scraped = Scraped { app, counted: Arc::new(counted) };
    Router::new().route("/metrics", get(metrics)).with_state(scraped)
}

async fn metrics(State(Scraped { app, counted }): State<Scraped>) -> impl IntoResponse {
    let watched = app.watch().await.inspect_err(|error| {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "cannot read metrics from the catalog"
        );
    });
    let mut asked = registry(watched.ok().as_ref(), app.clock.now());
    register_disks(asked.sub_registry_with_prefix("disk"), &app.disk, &app.disk.measure().await);
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = encode_registry(&mut text, &counted);
    let _ = encode_registry(&mut text, &asked);
    let _ = encode_eof(&mut text);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}

/// Metrics of the catalog. Without a catalog, only `catalog_usable`.
fn registry(watched: Option<&Watched>, now: Timestamp) -> Registry {
    let mut registry = Registry::with_prefix("cachevault");
    let usable = Number::default();
    usable.set(f64::from(u8::from(watched.is_some())));
    registry.register("catalog_usable", "Whether the catalog answers", usable);
    if let Some(Watched { instances, jobs }) = watched {
        register_instances(registry.sub_registry_with_prefix("instance"), instances, now);
        register_jobs(&mut registry, jobs, now);
    }
    registry
}

fn register_instances(registry: &mut Registry, instances: &[WatchedInstance], now: Timestamp) {
    let figures: [(&str, &str, OfOne); 7] = [
        ("reachable", "Whether the instance is reachable", |instance, _| {
            Some(f64::from(u8::from(!instance.is_down)))
        }),
        ("backup_age_seconds", "Age of the newest restorable backup", |instance, now| {
            instance.backup_at.map(|at| seconds(at, now))
        }),
        (
            "proven_backup_age_seconds",
            "Age of the newest backup that a drill has proven",
            |instance, now| instance.proven_backup_at.map(|at| seconds(at, now)),
        ),
        ("proof_age_seconds", "Time since the proof of that backup", |instance, now| {
            instance.proof_at.map(|at| seconds(at, now))
        }),
        (
            "until_window_seconds",
            "Time until the next backup window; negative while a window is open",
            |instance, now| instance.window.map(|window| seconds(now, window.begin)),
        ),
        (
            "opaque_backups",
            "Stored backups whose content is not verified because their format is unknown",
            |instance, _| Some(count(instance.opaque_backups)),
        ),
        (
            "backups_held_for_shrunk",
            "Backups held because a later backup had far fewer keys",
            |instance, _| Some(count(instance.held_for_shrunk)),
        ),
    ];
    for (name, help, figure) in figures {
        let family = Family::<OfInstance, Number>::default();
        for instance in instances {
            // Without a backup there is no age. An alert covers the missing series.
            if let Some(value) = figure(instance, now) {
                let (project, id) = (instance.project.to_string(), instance.id.to_string());
                let labels = OfInstance { project, instance: id, name: instance.name.to_string() };
                family.get_or_create(&labels).set(value);
            }
        }
        registry.register(name, help, family);
    }
}

fn register_jobs(registry: &mut Registry, jobs: &[OpenJobs], now: Timestamp) {
    let (open, waited) =
        (Family::<OfState, Number>::default(), Family::<OfKind, Number>::default());
    for jobs in jobs {
        let kind = jobs.kind.as_str();
        for (state, open_jobs) in [("waiting", jobs.waiting), ("running", jobs.running)] {
            open.get_or_create(&OfState { kind, state }).set(count(open_jobs));
        }
        let since = jobs.waiting_since.map_or(0.0, |since| seconds(since, now).max(0.0));
        waited.get_or_create(&OfKind { kind }).set(since);
    }
    registry.register("jobs", "Waiting and running jobs, by kind and state", open);
    registry.register(
        "jobs_waiting_seconds",
        "Time since the oldest waiting job became due, by kind",
        waited,
    );
}

fn register_disks(registry: &mut Registry, reserve: &DiskReserve, free: &[(&'static str, u64)]) {
    let (family, floor) = (Family::<OfFolder, Number>::default(), Number::default());
    for (folder, bytes) in free {
        family.get_or_create(&OfFolder { folder }).set(count(*bytes));
    }
    floor.set(count(reserve.bytes));
    registry.register("free_bytes", "Free disk space of each folder of the service", family);
    registry.register("reserve_bytes", "Free disk space below which new work is refused", floor);
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, more than any count here")]
fn count(number: u64) -> f64 {
    number as f64
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}
