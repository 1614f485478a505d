//! What must hold for every kind of job, at every step of it.

use std::sync::Arc;
use std::time::Duration;

use cachevault_catalog::JobQueue;
use cachevault_domain::{BackupId, BackupState, Clock, FailureCode, JobKind, SealedSecret};
use cachevault_jobs::Injected;
use secrecy::ExposeSecret;
use tokio::task::JoinSet;

use crate::rig::{Inject, Rig, STEPS};

const FIVE_SECONDS: Duration = Duration::from_secs(5);

/// A rig whose due job is of this kind; the backup that it is about.
pub(crate) async fn due(kind: JobKind) -> (Rig, BackupId) {
    let rig = Rig::new().await;
    let backup = rig.request().await;
    if kind == JobKind::Remove {
        rig.run(None).await;
        rig.request_removal(backup).await;
    }
    (rig, backup)
}

pub(crate) fn done(kind: JobKind) -> BackupState {
    match kind {
        JobKind::Capture => BackupState::Succeeded,
        JobKind::Remove => BackupState::Deleted,
        JobKind::Restore | JobKind::Drill => unreachable!("they have tests of their own"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_through_its_steps_in_order() {
    for (kind, steps) in STEPS {
        let (rig, backup) = due(kind).await;
        let inject = Inject::after("none", Injected::Nothing);
        rig.run(Some(inject.clone())).await;
        assert_eq!(inject.ran(), steps);
        assert_eq!(rig.backup(backup).await.state, done(kind));
        rig.assert_truthful(backup).await;
        assert_eq!(rig.claim().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_step_may_run_twice() {
    for (kind, steps) in STEPS {
        for step in steps {
            let (rig, backup) = due(kind).await;
            rig.run(Some(Inject::after(step, Injected::Repeat))).await;
            assert_eq!(rig.backup(backup).await.state, done(kind), "{step}");
            rig.assert_truthful(backup).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_step_passes_with_the_next_attempt() {
    for (kind, steps) in STEPS {
        for step in steps {
            let (rig, backup) = due(kind).await;
            rig.run(Some(Inject::after(step, Injected::Fail))).await;
            assert_eq!(rig.claim().await, None, "{step}: it waits before it tries again");
            rig.pass(2);
            rig.run(None).await;
            assert_eq!(rig.backup(backup).await.state, done(kind), "{step}");
            rig.assert_truthful(backup).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_failure_at_any_step_leaves_nothing_behind() {
    let (_, steps) = STEPS[0];
    for step in steps {
        let (mut rig, backup) = due(JobKind::Capture).await;
        rig.settings.backoff.attempts_max = 1;
        rig.run(Some(Inject::after(step, Injected::Fail))).await;
        let failed = rig.backup(backup).await;
        assert_eq!(failed.state, BackupState::Failed, "{step}");
        assert_eq!(failed.failure.unwrap().reason, "injected");
        rig.assert_truthful(backup).await;
        // The instance is free again.
        rig.request().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_or_after_any_log_entry_it_is_finished_by_the_next() {
    for (kind, steps) in STEPS {
        for (at, step) in steps.iter().enumerate() {
            for logged in [false, true] {
                let (rig, backup) = due(kind).await;
                let die = if logged { Inject::after_log } else { Inject::after };
                rig.run(Some(die(step, Injected::Die))).await;
                assert_eq!(rig.claim().await, None, "{step}: its lease still holds");
                rig.restart().await;
                let again = Inject::after("none", Injected::Nothing);
                rig.run(Some(Arc::clone(&again) as _)).await;
                // What was logged is not done again.
                assert_eq!(again.ran(), steps[at + usize::from(logged)..], "{step} {logged}");
                assert_eq!(rig.backup(backup).await.state, done(kind));
                rig.assert_truthful(backup).await;
            }
        }
    }
}

/// A rig whose worker died behind the step `capture`, which is logged in other words now.
async fn logged_otherwise(words: impl Fn(&str) -> Vec<u8>) -> (Rig, BackupId) {
    let (rig, backup) = due(JobKind::Capture).await;
    let lease = rig.claim().await.unwrap();
    let die = Inject::after_log("capture", Injected::Die);
    rig.runner(Some(die)).run(&lease, &Default::default()).await;
    let log = rig.catalog.step_log(&lease).await.unwrap();
    let owner = format!("job/{}/step/capture", lease.job);
    let opened = rig.app.sealer.open(&owner, &log[0].output).unwrap();
    let other = SealedSecret(words(opened.expose_secret()));
    rig.catalog.unlog_step(&lease, "capture").await.unwrap();
    rig.catalog.log_step(&lease, "capture", &other, rig.clock.now()).await.unwrap();
    rig.restart().await;
    (rig, backup)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_before_logs_were_sealed_is_gone_on_with() {
    let (rig, backup) = logged_otherwise(|opened| opened.as_bytes().to_vec()).await;
    let again = Inject::after("none", Injected::Nothing);
    rig.run(Some(Arc::clone(&again) as _)).await;
    assert_eq!(again.ran(), ["verify", "commit"]);
    assert_eq!(rig.backup(backup).await.state, BackupState::Succeeded);
    rig.assert_truthful(backup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_master_key_is_gone_begins_the_job_anew() {
    let (rig, backup) = logged_otherwise(|_| vec![0xff; 80]).await;
    rig.run(None).await;
    rig.pass(2);
    let again = Inject::after("none", Injected::Nothing);
    rig.run(Some(Arc::clone(&again) as _)).await;
    assert_eq!(again.ran(), ["capture", "verify", "commit"]);
    assert_eq!(rig.backup(backup).await.state, BackupState::Succeeded);
    rig.assert_truthful(backup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_never_returns_ends_by_its_deadline() {
    let mut running = JoinSet::new();
    for (kind, steps) in STEPS {
        steps.iter().for_each(|step| drop(running.spawn(hang(kind, step))));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// Hangs in a step, with limits that are longer than what is really done takes.
async fn hang(kind: JobKind, step: &'static str) {
    let (mut rig, backup) = due(kind).await;
    rig.settings.capture.total = Duration::from_secs(10);
    (rig.settings.verify, rig.settings.commit) = (FIVE_SECONDS, FIVE_SECONDS);
    rig.run(Some(Inject::after(step, Injected::Hang))).await;
    if kind == JobKind::Remove {
        assert_eq!(rig.claim().await, None, "it waits before it tries again");
        rig.pass(2);
        rig.run(None).await;
        assert_eq!(rig.backup(backup).await.state, BackupState::Deleted);
        return;
    }
    let failure = rig.backup(backup).await.failure.unwrap();
    assert_eq!(failure.code, FailureCode::TimedOut, "{failure:?}");
    let reason = format!("the step `{step}` was not done after");
    assert!(failure.reason.starts_with(&reason), "{failure:?}");
    rig.assert_truthful(backup).await;
    rig.request().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_worker_every_time_is_given_up() {
    let (mut rig, backup) = due(JobKind::Capture).await;
    rig.settings.attempts_max = 3;
    for _ in 0..3 {
        rig.run(Some(Inject::after("capture", Injected::Die))).await;
        rig.restart().await;
    }
    rig.run(None).await;
    let failed = rig.backup(backup).await;
    assert_eq!(failed.state, BackupState::Failed);
    assert!(failed.failure.unwrap().reason.contains("3 attempts were interrupted"));
    rig.assert_truthful(backup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_lease_changes_nothing() {
    let (_, steps) = STEPS[0];
    for step in steps {
        let (rig, backup) = due(JobKind::Capture).await;
        // The first worker hangs until its lease has run out, and then goes on.
        let first = rig.claim().await.unwrap();
        rig.runner(Some(Inject::after_log(step, Injected::Die)))
            .run(&first, &Default::default())
            .await;
        rig.pass(31);
        rig.run(None).await;
        let settled = rig.backup(backup).await;
        rig.runner(Some(Inject::after(step, Injected::Fail)))
            .run(&first, &Default::default())
            .await;
        rig.runner(None).run(&first, &Default::default()).await;
        assert_eq!(rig.backup(backup).await, settled, "{step}");
        assert_eq!(settled.state, BackupState::Succeeded);
        rig.assert_truthful(backup).await;
    }
}
