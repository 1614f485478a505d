//! `/metrics` in the OpenMetrics text format, for a listener of its own: whoever scrapes it does not
//! sign in, and sees the names of the instances of all projects.
//!
//! What the process has counted is in a registry that its parts have filled; what the catalog tells
//! is asked for at every scrape.

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
/// What is told of one instance at a moment, if anything.
type OfOne = fn(&WatchedInstance, Timestamp) -> Option<f64>;

#[derive(Clone)]
struct Scraped {
    app: App,
    counted: Arc<Registry>,
}

/// Routes of the metrics listener; `counted` holds what the process counts.
pub fn metrics_router(app: App, counted: Registry) -> Router {
    let scraped = Scraped { app, counted: Arc::new(counted) };
    Router::new().route("/metrics", get(metrics)).with_state(scraped)
}

async fn metrics(State(Scraped { app, counted }): State<Scraped>) -> impl IntoResponse {
    let watched = app.watch().await.inspect_err(|error| {
        tracing::error!(error = error as &dyn std::error::Error, "no metrics of the catalog");
    });
    let mut asked = registry(watched.ok().as_ref(), app.clock.now());
    register_disks(asked.sub_registry_with_prefix("disk"), &app.disk, &app.disk.measure().await);
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode_registry(&mut text, &counted);
    let _ = encode_registry(&mut text, &asked);
    let _ = encode_eof(&mut text);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}

/// What the catalog tells; without that, only that it does not.
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
        ("reachable", "Whether the instance answers", |instance, _| {
            Some(f64::from(u8::from(!instance.is_down)))
        }),
        ("backup_age_seconds", "Age of the newest backup that can be restored", |instance, now| {
            instance.backup_at.map(|at| seconds(at, now))
        }),
        (
            "proven_backup_age_seconds",
            "Age of the newest backup that was loaded into a throw-away server and held the same data",
            |instance, now| instance.proven_backup_at.map(|at| seconds(at, now)),
        ),
        ("proof_age_seconds", "Time since that backup was proven", |instance, now| {
            instance.proof_at.map(|at| seconds(at, now))
        }),
        (
            "until_window_seconds",
            "Time until the next window of the policy begins; less than 0 while it is open",
            |instance, now| instance.window.map(|window| seconds(now, window.begin)),
        ),
        (
            "opaque_backups",
            "Stored backups whose content is not verified, because their format was not known",
            |instance, _| Some(count(instance.opaque_backups)),
        ),
        (
            "backups_held_for_shrunk",
            "Backups that are held because a later one held far fewer keys, until they are released",
            |instance, _| Some(count(instance.held_for_shrunk)),
        ),
    ];
    for (name, help, figure) in figures {
        let family = Family::<OfInstance, Number>::default();
        for instance in instances {
            // Without a backup there is no age: an alert asks for its absence too.
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
    registry.register("jobs", "Jobs that have not ended, by kind and state", open);
    registry.register(
        "jobs_waiting_seconds",
        "For how long the job has been due that waits longest, by kind",
        waited,
    );
}

fn register_disks(registry: &mut Registry, reserve: &DiskReserve, free: &[(&'static str, u64)]) {
    let (family, floor) = (Family::<OfFolder, Number>::default(), Number::default());
    for (folder, bytes) in free {
        family.get_or_create(&OfFolder { folder }).set(count(*bytes));
    }
    floor.set(count(reserve.bytes));
    registry.register("free_bytes", "Free space of the disk of each folder of the service", family);
    registry.register("reserve_bytes", "Free space below which no new work is accepted", floor);
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 9 PB, and nobody has so many jobs")]
fn count(number: u64) -> f64 {
    number as f64
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}
