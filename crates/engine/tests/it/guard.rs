//! Real sources that a capture would harm, or does.

use std::sync::Arc;
use std::time::Duration;

use cachevault_domain::FailureCode;
use cachevault_engine::{CaptureError, SourceLimits};
use cachevault_testkit::{Server, eventually, newest_redis};

use crate::support::Rig;

/// A rig with these limits, which waits only shortly.
fn rig(limits: SourceLimits) -> Rig {
    let mut rig = Rig::new();
    rig.limits.source = Some(limits);
    rig.limits.busy_wait = Duration::from_millis(300);
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_memory_for_a_fork_is_not_asked_for_one() {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(100, 10);
    let rig = rig(SourceLimits { memory_reserve_percent: 100, ..SourceLimits::default() });
    let error = rig.capture(&source.target()).await.unwrap_err();
    assert!(matches!(error, CaptureError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("100 % are to stay free"), "{error}");
    assert_eq!(error.failure_code(), FailureCode::TimedOut);
    assert!(rig.meter.read().phase.starts_with("waiting: the source's machine"));
    assert_eq!((source.info("total_forks").as_str(), rig.files().len()), ("0", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stops_for_long_to_fork_is_refused() {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(100, 10);
    let rig = rig(SourceLimits { fork_pause_max: Duration::ZERO, ..SourceLimits::default() });
    rig.capture(&source.target()).await.expect("nothing is known of its forks yet");
    eventually("the child has ended", || {
        (source.info("rdb_bgsave_in_progress") == "0").then_some(())
    });
    let error = rig.capture(&source.target()).await.unwrap_err();
    assert!(matches!(error, CaptureError::Unfit { .. }) && !error.may_pass(), "{error}");
    assert_eq!(source.info("total_forks"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_lost_touch_is_waited_for() {
    let engine = newest_redis();
    let primary = Server::start(&engine, &["--repl-ping-replica-period", "3600"]);
    let port = primary.port.to_string();
    let replica = Server::start(&engine, &["--replicaof", "127.0.0.1", &port]);
    let silent_seconds = || replica.info("master_last_io_seconds_ago").parse::<i64>().unwrap_or(-1);
    eventually("its primary is silent", || (silent_seconds() > 2).then_some(()));
    let limits =
        SourceLimits { replica_lag_max: Duration::from_secs(2), ..SourceLimits::default() };
    let error = rig(limits).capture(&replica.target()).await.unwrap_err();
    assert!(error.to_string().contains("nothing of its primary"), "{error}");
    let mut patient = rig(limits);
    patient.limits.busy_wait = Duration::from_secs(60);
    let target = replica.target();
    let capture = tokio::spawn(async move { patient.capture(&target).await });
    while !capture.is_finished() {
        primary.fill(1, 10);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    capture.await.unwrap().unwrap();
}

/// Captures a source whose child is slow; its error, once `harm` was done when the transfer ran.
async fn broken_off(source: Server, rig: Rig, harm: impl FnOnce(&Server)) -> (Server, String) {
    let (meter, target) = (Arc::clone(&rig.meter), source.target());
    let capture = tokio::spawn(async move {
        let error = rig.capture(&target).await.unwrap_err();
        assert_eq!(rig.files(), [""; 0]);
        error
    });
    eventually("the transfer runs", || (meter.read().received_bytes > 0).then_some(()));
    harm(&source);
    let error = capture.await.unwrap();
    assert!(matches!(error, CaptureError::Harmful { .. }) && error.may_pass(), "{error}");
    eventually("the source has no child", || {
        (source.info("rdb_bgsave_in_progress") == "0").then_some(())
    });
    (source, error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_costs_too_much_memory_is_broken_off() {
    // A child tells what it has copied after every 1024 keys, and not more often than each second.
    let source = Server::start(&newest_redis(), &["--rdb-key-save-delay", "1000"]);
    source.fill(100_000, 400);
    let limits = SourceLimits { copied_percent_max: 30, ..SourceLimits::default() };
    let (_source, reason) =
        broken_off(source, rig(limits), |source| source.fill(100_000, 400)).await;
    assert!(reason.contains("30 % of what it uses"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_makes_its_source_slow_is_broken_off() {
    let source = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20000"]);
    source.fill(2000, 100);
    let mut rig =
        rig(SourceLimits { answer_max: Duration::from_millis(500), ..SourceLimits::default() });
    rig.limits.command = Duration::from_millis(500);
    let (_source, reason) = broken_off(source, rig, |source| {
        // Blocks the server for everybody, and returns when it is over.
        source.ask(&["DEBUG", "SLEEP", "8"]);
    })
    .await;
    assert!(reason.contains("ms to answer"), "{reason}");
}
