//! Restores: what must hold whatever happens at any step of them.

use std::sync::Arc;
use std::time::Duration;

use cachevault_app::{AddInstance, AppError, RequestBackup, RequestRestore};
use cachevault_domain::{
    BackupFilter, BackupId, BackupState, ConflictRule, FailureCode, InstanceId, KeyFilter, Page,
    Restore, RestoreId, RestoreOptions, RestoreState, RestoreWay, TargetData, Trigger,
};
use cachevault_jobs::{Injected, Injection};
use cachevault_testkit::{Server, newest_redis, text};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::rig::{Inject, Rig};

const STEPS: [&str; 5] = ["check", "safety", "prepare", "load", "settle"];

/// A backup, and a second server with other data to restore it into.
struct Restoring {
    rig: Rig,
    backup: BackupId,
    target: Server,
    instance: InstanceId,
    options: RestoreOptions,
    settings: Vec<String>,
    old: String,
    new: String,
}

/// Every setting that a restore touches.
fn settings(target: &Server) -> Vec<String> {
    [
        "masterauth",
        "maxmemory-policy",
        "min-replicas-to-write",
        "stop-writes-on-bgsave-error",
        "repl-diskless-load",
        "repl-diskless-sync-delay",
        "repl-timeout",
        "replica-lazy-flush",
        "replica-read-only",
    ]
    .map(|name| target.ask(&["CONFIG", "GET", name]))
    .to_vec()
}

/// Both ways to restore.
fn ways() -> [RestoreOptions; 2] {
    [RestoreWay::Replica, RestoreWay::Keys]
        .map(|way| RestoreOptions { way: Some(way), ..RestoreOptions::default() })
}

impl Restoring {
    async fn new() -> Self {
        Self::into_server(&[], 500).await
    }

    async fn into_server(options: &[&str], keys: usize) -> Self {
        let rig = Rig::new().await;
        let backup = rig.request().await;
        rig.run(None).await;
        let target = Server::start(&newest_redis(), options);
        target.fill(keys, 30);
        let wish = AddInstance {
            name: "copy".parse().unwrap(),
            target: target.target(),
            settings: Default::default(),
        };
        let instance = rig.app.add_instance(&rig.caller, wish).await.unwrap().id;
        let (old, new) = (target.digest(), rig.server.digest());
        assert_ne!(old, new);
        let (options, settings) = (RestoreOptions::default(), settings(&target));
        Self { rig, backup, target, instance, options, settings, old, new }
    }

    async fn request(&self) -> RestoreId {
        self.request_with(self.options.clone()).await
    }

    async fn request_with(&self, options: RestoreOptions) -> RestoreId {
        let wish = RequestRestore { backup: self.backup, options, note: None };
        self.rig.app.request_restore(&self.rig.caller, self.instance, wish).await.unwrap()
    }

    async fn record(&self, id: RestoreId) -> Restore {
        self.rig.app.get_restore(&self.rig.caller, id).await.unwrap()
    }

    /// The promise: a restore that says it succeeded has the backup's data in the target; one that
    /// does not has left the target as it was, and takes writes again.
    async fn assert_truthful(&self, id: RestoreId) {
        let restore = self.record(id).await;
        let outcome = restore.outcome.expect("it has ended");
        match restore.state {
            RestoreState::Succeeded => {
                assert_eq!((outcome.target, outcome.proven), (TargetData::New, true));
                assert_eq!(self.target.digest(), self.new);
            }
            RestoreState::Failed => {
                assert!(
                    matches!(outcome.target, TargetData::Untouched | TargetData::Old),
                    "{outcome:?}"
                );
                assert_eq!(self.target.digest(), self.old, "{outcome:?} {:?}", restore.failure);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(self.target.info("role"), "master");
        assert_eq!(settings(&self.target), self.settings);
    }

    /// A restore after whatever happened before.
    async fn assert_restorable(&self) {
        self.target.load_at_once();
        self.rig.pass(120);
        let id = self.request().await;
        self.rig.run(None).await;
        assert_eq!(self.record(id).await.state, RestoreState::Succeeded);
        self.assert_truthful(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_never_returns_ends_by_its_deadline() {
    let mut running = JoinSet::new();
    STEPS.into_iter().for_each(|step| drop(running.spawn(hang(step))));
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// Hangs in a step, with limits that are longer than what is really done takes.
async fn hang(step: &'static str) {
    let mut restoring = Restoring::new().await;
    let (settings, ten_seconds) = (&mut restoring.rig.settings, Duration::from_secs(10));
    (settings.restore.total, settings.capture.total) = (ten_seconds, ten_seconds);
    (settings.verify, settings.commit) = (ten_seconds, ten_seconds);
    let id = restoring.request().await;
    restoring.rig.run(Some(Inject::after(step, Injected::Hang))).await;
    let failure = restoring.record(id).await.failure.unwrap();
    assert_eq!(failure.code, FailureCode::TimedOut, "{failure:?}");
    assert!(failure.reason.starts_with(&format!("the step `{step}` was not done after")));
    restoring.assert_truthful(id).await;
    restoring.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_through_its_steps_and_saves_the_targets_own_data_first() {
    let restoring = Restoring::new().await;
    let rig = &restoring.rig;
    let id = restoring.request().await;
    let inject = Inject::after("none", Injected::Nothing);
    rig.run(Some(inject.clone())).await;
    assert_eq!(inject.ran(), STEPS);
    restoring.assert_truthful(id).await;
    let restore = restoring.record(id).await;
    assert_eq!(restore.state, RestoreState::Succeeded, "{restore:?}");
    let page = Page { offset: 0, limit: 10 };
    let filter = BackupFilter::default();
    let listed = rig.app.list_backups(&rig.caller, restoring.instance, filter, page).await.unwrap();
    let [safety] = &listed.items[..] else { panic!("{listed:?}") };
    assert_eq!(Some(safety.id), restore.safety_backup);
    assert_eq!((safety.state, safety.trigger), (BackupState::Succeeded, Trigger::Safety));
    assert_eq!(safety.note.as_ref().unwrap().as_str(), format!("before restore {id}"));
    // It is a backup like any other: it can be restored.
    let wish = RequestRestore { backup: safety.id, options: RestoreOptions::default(), note: None };
    rig.app.request_restore(&rig.caller, restoring.instance, wish).await.unwrap();
    rig.run(None).await;
    assert_eq!(restoring.target.digest(), restoring.old);
}

impl Restoring {
    async fn cancel(&self, id: RestoreId) -> Result<(), AppError> {
        self.rig.app.cancel_restore(&self.rig.caller, id).await
    }

    /// The restore says that it was cancelled, its target is as it was, and both are free.
    async fn assert_cancelled(&self, id: RestoreId) {
        let restore = self.record(id).await;
        let failure = restore.failure.as_ref().expect("it was cancelled");
        assert_eq!(failure.reason, "cancelled by the service", "{restore:?}");
        assert_eq!(restore.cancellation.as_ref().unwrap().by, "the service");
        let outcome = restore.outcome.as_ref().unwrap();
        assert_eq!((outcome.target, restore.touched_at), (TargetData::Untouched, None));
        assert_eq!(self.target.info("master_replid2"), "0".repeat(40), "it followed nobody");
        self.assert_truthful(id).await;
        if let Some(safety) = restore.safety_backup {
            let state = self.rig.backup(safety).await.state;
            assert!(matches!(state, BackupState::Succeeded | BackupState::Failed), "{state:?}");
        }
        self.assert_restorable().await;
    }
}

/// The steps that do not touch the target, each in both ways.
fn before_touching() -> impl Iterator<Item = (&'static str, RestoreOptions)> {
    STEPS[..3].iter().flat_map(|step| ways().map(|options| (*step, options)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_cancelled_while_a_step_runs_leaves_its_target_as_it_was() {
    for (step, options) in before_touching() {
        let mut restoring = Restoring { options, ..Restoring::new().await };
        restoring.rig.settings.lease = Duration::from_secs(2);
        let id = restoring.request().await;
        let inject = Inject::after(step, Injected::Hang);
        let lease = restoring.rig.claim().await.unwrap();
        let (runner, stop) = (restoring.rig.runner(Some(inject.clone())), Default::default());
        let cancelling = async {
            while inject.ran().last().map(String::as_str) != Some(step) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            restoring.cancel(id).await.unwrap();
        };
        let running = async { tokio::join!(runner.run(&lease, &stop), cancelling) };
        // Long before the deadline of the step.
        tokio::time::timeout(Duration::from_secs(40), running).await.expect("it ends in time");
        restoring.assert_cancelled(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_cancelled_after_its_worker_died_is_broken_off_by_the_next() {
    for (step, options) in before_touching() {
        for die in [Inject::after, Inject::after_log] {
            let restoring = Restoring { options: options.clone(), ..Restoring::new().await };
            let id = restoring.request().await;
            restoring.rig.run(Some(die(step, Injected::Die))).await;
            restoring.cancel(id).await.unwrap();
            restoring.rig.restart().await;
            let again = Inject::after("none", Injected::Nothing);
            restoring.rig.run(Some(Arc::clone(&again) as _)).await;
            assert_eq!(again.ran(), [""; 0], "{step}: nothing more is done for it");
            restoring.assert_cancelled(id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_restore_that_failed_before_says_that_it_was_cancelled() {
    for (step, options) in before_touching() {
        let restoring = Restoring { options, ..Restoring::new().await };
        let id = restoring.request().await;
        restoring.rig.run(Some(Inject::after(step, Injected::Fail))).await;
        let attempt = restoring.record(id).await.attempt.unwrap();
        assert_eq!((attempt.number, attempt.last_error.as_deref()), (1, Some("injected")));
        restoring.cancel(id).await.unwrap();
        restoring.rig.run(None).await;
        restoring.assert_cancelled(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_nobody_has_begun_is_not_begun_when_it_is_cancelled() {
    let restoring = Restoring::new().await;
    let id = restoring.request().await;
    restoring.cancel(id).await.unwrap();
    assert_eq!(restoring.rig.claim().await, None);
    restoring.assert_cancelled(id).await;
}

/// Holds the runner after the step `prepare` was logged, until it is let go.
#[derive(Debug)]
struct HoldBeforeLoad {
    reached: tokio::sync::Notify,
    go: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Injection for HoldBeforeLoad {
    fn after(&self, _: &str) -> Injected {
        Injected::Nothing
    }

    fn after_log(&self, step: &str) -> Injected {
        if step == "prepare" {
            self.reached.notify_one();
            // Other tasks go on meanwhile, such as that which gives a connection back.
            let _ = tokio::task::block_in_place(|| self.go.lock().unwrap().recv());
        }
        Injected::Nothing
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_comes_just_before_the_target_is_touched_counts() {
    for options in ways() {
        let mut restoring = Restoring { options, ..Restoring::new().await };
        // The runner does not hear of the wish before it wants to touch the target.
        restoring.rig.settings.poll = Duration::from_secs(3600);
        let id = restoring.request().await;
        let (let_go, go) = std::sync::mpsc::channel();
        let hold = Arc::new(HoldBeforeLoad { reached: Default::default(), go: go.into() });
        let lease = restoring.rig.claim().await.unwrap();
        let runner = restoring.rig.runner(Some(hold.clone()));
        let running = tokio::spawn(async move { runner.run(&lease, &Default::default()).await });
        hold.reached.notified().await;
        restoring.cancel(id).await.unwrap();
        let_go.send(()).unwrap();
        running.await.unwrap();
        restoring.assert_cancelled(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_has_touched_its_target_is_not_cancelled() {
    for options in ways() {
        for die in [Inject::after, Inject::after_log] {
            let restoring = Restoring { options: options.clone(), ..Restoring::new().await };
            let id = restoring.request().await;
            restoring.rig.run(Some(die("load", Injected::Die))).await;
            let refused = restoring.cancel(id).await;
            assert!(matches!(refused, Err(AppError::TargetTouched)), "{refused:?}");
            restoring.rig.restart().await;
            restoring.rig.run(None).await;
            let restore = restoring.record(id).await;
            assert_eq!(restore.state, RestoreState::Succeeded, "{restore:?}");
            assert!(restore.touched_at.is_some() && restore.cancellation.is_none());
            assert_eq!(restoring.target.digest(), restoring.new);
            let refused = restoring.cancel(id).await;
            assert!(matches!(refused, Err(AppError::RestoreEnded(_))), "{refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_step_may_run_twice() {
    for (step, options) in STEPS.iter().flat_map(|step| ways().map(|options| (*step, options))) {
        let restoring = Restoring { options, ..Restoring::new().await };
        let id = restoring.request().await;
        restoring.rig.run(Some(Inject::after(step, Injected::Repeat))).await;
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Succeeded, "{step}: {restore:?}");
        assert_eq!(restoring.target.digest(), restoring.new, "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_failure_at_any_step_puts_the_old_data_back() {
    for (step, options) in STEPS.iter().flat_map(|step| ways().map(|options| (*step, options))) {
        let mut restoring = Restoring { options, ..Restoring::new().await };
        restoring.rig.settings.backoff.attempts_max = 1;
        let id = restoring.request().await;
        restoring.rig.run(Some(Inject::after(step, Injected::Fail))).await;
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Failed, "{step}");
        assert_eq!(restore.failure.unwrap().reason, "injected");
        let (outcome, wanted) = (restore.outcome.unwrap(), restoring.options.way);
        let is_touched = !["check", "safety", "prepare"].contains(&step);
        assert_eq!(outcome.way, wanted.filter(|_| is_touched), "{step}");
        let was_away = is_touched && wanted == Some(RestoreWay::Replica);
        assert_eq!(outcome.unavailable_ms.is_some(), was_away, "{step}");
        restoring.assert_truthful(id).await;
        restoring.assert_restorable().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_restore_into_a_server_without_flushall_ends_and_says_what_it_holds() {
    for (keys, way) in [(0, RestoreWay::Replica), (0, RestoreWay::Keys), (500, RestoreWay::Keys)] {
        let mut restoring =
            Restoring::into_server(&["--rename-command", "FLUSHALL", ""], keys).await;
        restoring.rig.settings.backoff.attempts_max = 1;
        restoring.options = RestoreOptions { way: Some(way), ..RestoreOptions::default() };
        if keys > 0 {
            restoring.options.conflict = ConflictRule::Replace;
        }
        let id = restoring.request().await;
        restoring.rig.run(Some(Inject::after("load", Injected::Fail))).await;
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Failed, "{keys} {way:?}: {restore:?}");
        // What it has of the backup beside its own stays.
        assert_eq!(restore.outcome.unwrap().target, TargetData::Uncertain, "{keys} {way:?}");
        let (target, source) = (&restoring.target, &restoring.rig.server);
        assert_eq!(
            (target.info("role").as_str(), settings(target)),
            ("master", restoring.settings)
        );
        let held: usize = target.ask(&["DBSIZE"]).parse().unwrap();
        let of_backup: usize = source.ask(&["DBSIZE"]).parse().unwrap();
        assert_eq!(held, of_backup.max(keys), "{keys} {way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_or_after_any_log_entry_it_is_finished_by_the_next() {
    let cases =
        ways().map(|options| STEPS.iter().enumerate().map(move |step| (step, options.clone())));
    for ((at, step), options) in cases.into_iter().flatten() {
        for logged in [false, true] {
            let restoring = Restoring { options: options.clone(), ..Restoring::new().await };
            let id = restoring.request().await;
            let die = if logged { Inject::after_log } else { Inject::after };
            restoring.rig.run(Some(die(step, Injected::Die))).await;
            restoring.rig.restart().await;
            let again = Inject::after("none", Injected::Nothing);
            restoring.rig.run(Some(Arc::clone(&again) as _)).await;
            assert_eq!(again.ran(), STEPS[at + usize::from(logged)..], "{step} {logged}");
            let restore = restoring.record(id).await;
            assert_eq!(restore.state, RestoreState::Succeeded, "{step} {logged}: {restore:?}");
            assert_eq!(restoring.target.digest(), restoring.new, "{step} {logged}");
            restoring.assert_restorable().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_artifact_is_noticed_before_the_target_is_touched() {
    let restoring = Restoring::new().await;
    let id = restoring.request().await;
    let rig = &restoring.rig;
    let locations = rig.app.get_backup(&rig.caller, restoring.backup).await.unwrap().locations;
    let mut bytes = std::fs::read(&locations[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&locations[0], bytes).unwrap();
    rig.run(None).await;
    let restore = restoring.record(id).await;
    assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
    assert_eq!(restore.outcome.unwrap().target, TargetData::Untouched);
    assert_eq!(restoring.target.info("master_replid2"), "0".repeat(40));
    restoring.assert_truthful(id).await;
    // Another backup of the same data is as good.
    let restoring = Restoring { backup: restoring.rig.request().await, ..restoring };
    restoring.rig.run(None).await;
    restoring.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_only_after_the_safety_backup_is_noticed_too() {
    let restoring = Restoring::new().await;
    let id = restoring.request().await;
    restoring.rig.run(Some(Inject::after_log("safety", Injected::Die))).await;
    restoring.rig.restart().await;
    restoring.target.ask(&["CONFIG", "SET", "maxmemory", "100kb"]);
    restoring.rig.run(None).await;
    let restore = restoring.record(id).await;
    assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
    assert!(restore.failure.as_ref().unwrap().reason.contains("maxmemory"), "{restore:?}");
    assert_eq!(restore.outcome.as_ref().unwrap().target, TargetData::Untouched);
    restoring.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_restores_nothing_else_is_done_with_the_target() {
    let restoring = Restoring::new().await;
    restoring.request().await;
    let rig = &restoring.rig;
    let wish = RequestBackup::default();
    let error = rig.app.request_backup(&rig.caller, restoring.instance, wish).await.unwrap_err();
    assert!(error.to_string().contains("busy"), "{error}");
    rig.run(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_an_aof_survives_being_killed_right_after_the_restore() {
    let restoring = Restoring::into_server(&["--appendonly", "yes"], 500).await;
    let mut restoring = restoring;
    let id = restoring.request().await;
    restoring.rig.run(None).await;
    restoring.assert_truthful(id).await;
    restoring.target.kill();
    restoring.target.start_again();
    assert_eq!(restoring.target.digest(), restoring.new);
}

/// Runs the restore until the target has all bytes and loads them, and then breaks our process off
/// as a crash would; the job is then let go.
async fn crash_while_loading(restoring: &Restoring, id: RestoreId) {
    let lease = restoring.rig.claim().await.unwrap();
    let runner = restoring.rig.runner(None);
    let running = tokio::spawn(async move { runner.run(&lease, &Default::default()).await });
    loop {
        let phase = restoring.record(id).await.phase;
        if phase.as_deref() == Some("the target is loading") {
            break;
        }
        assert!(!running.is_finished(), "{:?}", restoring.record(id).await);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    running.abort();
    let _ = running.await;
    restoring.rig.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_the_target_loads_is_gone_on_from() {
    let restoring = Restoring::new().await;
    restoring.target.load_slowly();
    let id = restoring.request().await;
    crash_while_loading(&restoring, id).await;
    restoring.target.load_at_once();
    restoring.rig.run(None).await;
    let restore = restoring.record(id).await;
    assert_eq!(restore.state, RestoreState::Succeeded, "{restore:?}");
    restoring.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_killed_while_it_loads_comes_back_with_its_old_data() {
    for options in [&["--appendonly", "yes"][..], &[]] {
        let mut restoring = Restoring::into_server(options, 500).await;
        restoring.target.ask(&["SAVE"]);
        restoring.target.load_slowly();
        let id = restoring.request().await;
        crash_while_loading(&restoring, id).await;
        restoring.target.kill();
        restoring.target.start_again();
        while !restoring.record(id).await.state.is_settled() {
            restoring.rig.run(None).await;
            restoring.rig.pass(60);
        }
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
        assert!(restore.failure.as_ref().unwrap().reason.contains("restarted"), "{restore:?}");
        restoring.assert_truthful(id).await;
        restoring.assert_restorable().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_gone_for_a_while_gets_its_old_data_when_it_is_back() {
    let mut restoring = Restoring::new().await;
    restoring.target.ask(&["SAVE"]);
    restoring.target.load_slowly();
    let id = restoring.request().await;
    crash_while_loading(&restoring, id).await;
    restoring.target.kill();
    for _ in 0..2 {
        restoring.rig.run(None).await;
        restoring.rig.pass(60);
        assert_eq!(restoring.record(id).await.state, RestoreState::Running);
    }
    restoring.target.start_again();
    while !restoring.record(id).await.state.is_settled() {
        restoring.rig.run(None).await;
        restoring.rig.pass(60);
    }
    restoring.assert_truthful(id).await;
    restoring.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_runs_out_of_memory_ends_with_its_old_data_or_the_new() {
    for options in ways() {
        let mut restoring = Restoring { options, ..Restoring::new().await };
        restoring.rig.settings.backoff.attempts_max = 1;
        restoring.rig.server.fill(30_000, 100);
        restoring.backup = restoring.rig.request().await;
        restoring.rig.run(None).await;
        restoring.new = restoring.rig.server.digest();
        let id = restoring.request().await;
        // The plan has found enough memory; before keys come there is less.
        restoring.rig.run(Some(Inject::after_log("prepare", Injected::Die))).await;
        restoring.rig.restart().await;
        let used: u64 = restoring.target.info("used_memory").parse().unwrap();
        let limit = used + (2 << 20);
        restoring.target.ask(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
        restoring.rig.run(None).await;
        let restore = restoring.record(id).await;
        if restoring.options.way == Some(RestoreWay::Keys) {
            assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
            let reason = restore.failure.unwrap().reason;
            assert!(reason.contains("maxmemory"), "{reason}");
        }
        restoring.assert_truthful(id).await;
        restoring.target.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        restoring.assert_restorable().await;
    }
}

/// Makes every save of the target fail, as a full disk would.
fn break_the_disk(restoring: &Restoring) {
    let _ = std::fs::remove_file(restoring.target.folder().join("dump.rdb"));
    std::fs::create_dir(restoring.target.folder().join("dump.rdb")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_disk_fails_after_it_has_loaded_gets_its_old_data_back() {
    let mut restoring = Restoring::into_server(&["--save", "3600 1"], 500).await;
    restoring.rig.settings.backoff.attempts_max = 1;
    let id = restoring.request().await;
    break_the_disk(&restoring);
    restoring.rig.run(None).await;
    let restore = restoring.record(id).await;
    assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
    assert!(restore.failure.as_ref().unwrap().reason.contains("durable"), "{restore:?}");
    assert_eq!(restore.outcome.as_ref().unwrap().target, TargetData::Old);
    restoring.assert_truthful(id).await;
    // Now it is known beforehand.
    let wish =
        RequestRestore { backup: restoring.backup, options: RestoreOptions::default(), note: None };
    let rig = &restoring.rig;
    let refused = rig.app.request_restore(&rig.caller, restoring.instance, wish).await;
    assert!(refused.unwrap_err().to_string().contains("background save failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_keeps_nothing_on_its_disk_needs_no_disk() {
    let restoring = Restoring::new().await;
    break_the_disk(&restoring);
    let id = restoring.request().await;
    restoring.rig.run(None).await;
    assert_eq!(restoring.record(id).await.state, RestoreState::Succeeded);
    restoring.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn part_of_a_backup_leaves_the_rest_of_the_target_alone() {
    let restoring = Restoring::new().await;
    let (source, target) = (&restoring.rig.server, &restoring.target);
    let (of_both, own) = ("key:17", "key:217");
    target.ask(&["SET", "theirs", "stays"]);
    let filter = KeyFilter::new(Some("key:1?".into()), None).unwrap();
    let options =
        RestoreOptions { filter, conflict: ConflictRule::Replace, ..RestoreOptions::default() };
    let before = target.ask(&["GET", own]);
    let id = restoring.request_with(options).await;
    restoring.rig.run(None).await;
    let restore = restoring.record(id).await;
    assert_eq!(restore.state, RestoreState::Succeeded, "{restore:?}");
    let outcome = restore.outcome.unwrap();
    assert_eq!((outcome.way, outcome.keys), (Some(RestoreWay::Keys), Some(10)));
    assert_eq!(target.ask(&["GET", of_both]), source.ask(&["GET", of_both]));
    assert_eq!(
        (target.ask(&["GET", own]), target.ask(&["GET", "theirs"])),
        (before, "stays".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_there_already_are_told_and_nothing_is_touched() {
    let restoring = Restoring::new().await;
    let options = RestoreOptions { conflict: ConflictRule::Fail, ..RestoreOptions::default() };
    let id = restoring.request_with(options).await;
    restoring.rig.run(None).await;
    let restore = restoring.record(id).await;
    assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
    assert!(restore.failure.as_ref().unwrap().reason.contains("at the places"), "{restore:?}");
    assert_eq!(restore.outcome.as_ref().unwrap().target, TargetData::Untouched);
    restoring.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_is_held_off_while_keys_are_written() {
    let options = ["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"];
    let [_, by_keys] = ways();
    let restoring = Restoring { options: by_keys, ..Restoring::into_server(&options, 500).await };
    let id = restoring.request().await;
    restoring.rig.run(None).await;
    restoring.assert_truthful(id).await;
    assert!(restoring.target.ask(&["CONFIG", "GET", "maxmemory-policy"]).contains("allkeys-lru"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_while_the_target_loads_puts_the_old_data_back() {
    for keys in [500, 0] {
        let restoring = Restoring::into_server(&[], keys).await;
        restoring.target.load_slowly();
        let id = restoring.request().await;
        let lease = restoring.rig.claim().await.unwrap();
        let (runner, stop) = (restoring.rig.runner(None), CancellationToken::new());
        let told = stop.clone();
        let running = tokio::spawn(async move { runner.run(&lease, &told).await });
        while restoring.record(id).await.phase.as_deref() != Some("the target is loading") {
            assert!(!running.is_finished(), "{:?}", restoring.record(id).await);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        stop.cancel();
        restoring.target.load_at_once();
        running.await.unwrap();
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
        assert!(restore.failure.as_ref().unwrap().reason.contains("stopped"), "{restore:?}");
        restoring.assert_truthful(id).await;
        restoring.assert_restorable().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_right_after_the_safety_backup_does_not_lose_it() {
    let restoring = Restoring::new().await;
    let rig = &restoring.rig;
    let id = restoring.request().await;
    rig.run(Some(Inject::after("safety", Injected::Die))).await;
    rig.restart().await;
    rig.run(None).await;
    restoring.assert_truthful(id).await;
    let safety = restoring.record(id).await.safety_backup.unwrap();
    let wish = RequestRestore { backup: safety, options: RestoreOptions::default(), note: None };
    rig.app.request_restore(&rig.caller, restoring.instance, wish).await.unwrap();
    rig.run(None).await;
    assert_eq!(restoring.target.digest(), restoring.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_restarts_before_it_has_saved_is_no_success() {
    for options in ways() {
        let mut restoring = Restoring { options, ..Restoring::new().await };
        restoring.target.ask(&["SAVE"]);
        let id = restoring.request().await;
        restoring.rig.run(Some(Inject::after_log("load", Injected::Die))).await;
        restoring.target.kill();
        restoring.target.start_again();
        restoring.rig.restart().await;
        restoring.rig.run(None).await;
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
        assert!(restore.failure.as_ref().unwrap().reason.contains("restarted"), "{restore:?}");
        restoring.assert_truthful(id).await;
        restoring.assert_restorable().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_numbers_of_keys_do_not_make_equal_data() {
    // As many keys as the backup, of other values: their number tells nothing.
    let mut restoring = Restoring::into_server(&[], 2000).await;
    restoring.rig.settings.backoff.attempts_max = 1;
    let id = restoring.request().await;
    restoring.rig.run(Some(Inject::after("load", Injected::Fail))).await;
    assert_eq!(restoring.record(id).await.state, RestoreState::Failed);
    restoring.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_the_first_command_is_untouched_and_the_restore_ends_with_why() {
    let all = ways()[1].clone();
    let filter = KeyFilter::new(Some("key:*".into()), None).unwrap();
    let part = RestoreOptions { filter, conflict: ConflictRule::Replace, ..all.clone() };
    for options in [all, part] {
        let restoring = Restoring { options, ..Restoring::new().await };
        let id = restoring.request().await;
        restoring.rig.run(Some(Inject::after_log("prepare", Injected::Die))).await;
        restoring.rig.restart().await;
        restoring.target.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        restoring.rig.run(None).await;
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
        assert!(restore.failure.as_ref().unwrap().reason.contains("NOREPLICAS"), "{restore:?}");
        let outcome = restore.outcome.unwrap();
        assert_eq!((outcome.target, outcome.way), (TargetData::Untouched, None));
        restoring.target.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        restoring.assert_truthful(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_stops_taking_writes_gets_its_old_data_back_all_the_same() {
    for (options, keys) in ways().into_iter().flat_map(|way| [(way.clone(), 500), (way, 0)]) {
        let case = format!("{:?} {keys}", options.way);
        let server = Restoring::into_server(&["--save", "3600 1"], keys).await;
        let mut restoring = Restoring { options, ..server };
        restoring.rig.settings.backoff.attempts_max = 1;
        let id = restoring.request().await;
        // Its save fails behind the load, and from then on it takes no writes.
        break_the_disk(&restoring);
        restoring.rig.run(None).await;
        assert_eq!(text(&restoring.target.call(&["SET", "a", "1"]))[..7], *"MISCONF", "{case}");
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Failed, "{case}: {restore:?}");
        assert_eq!(restore.outcome.unwrap().target, TargetData::Old, "{case}");
        restoring.assert_truthful(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_wanted_of_a_backup_has_to_fit_the_target() {
    let restoring = Restoring::into_server(&["--databases", "1"], 500).await;
    restoring.rig.server.pipeline(&[vec!["SELECT", "15"], vec!["SET", "far", "1"]]);
    let restoring = Restoring { backup: restoring.rig.request().await, ..restoring };
    restoring.rig.run(None).await;
    let wanted = |pattern: &str, database| RestoreOptions {
        filter: KeyFilter::new(Some(pattern.into()), database).unwrap(),
        conflict: ConflictRule::Replace,
        ..RestoreOptions::default()
    };
    for options in [wanted("key:1?", None), wanted("*", Some(0))] {
        let id = restoring.request_with(options).await;
        restoring.rig.run(None).await;
        let restore = restoring.record(id).await;
        assert_eq!(restore.state, RestoreState::Succeeded, "{restore:?}");
    }
    let id = restoring.request_with(wanted("far", None)).await;
    restoring.rig.run(None).await;
    let restore = restoring.record(id).await;
    assert_eq!(restore.state, RestoreState::Failed, "{restore:?}");
    assert!(restore.failure.unwrap().reason.contains("database 15"));
    assert_eq!(restore.outcome.unwrap().target, TargetData::Untouched);
    assert_eq!(restore.safety_backup, None);
}
