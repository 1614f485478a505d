//! Policies that are followed, and backups that expire.

use cachevault_catalog::{BackupCatalog, JobQueue, RetentionCatalog};
use cachevault_domain::{
    BACKUPS_WITH_FILES_MAX, Backup, BackupFilter, BackupFormat, BackupId, BackupPolicy,
    BackupState, Clock, Entropy, Failure, FailureCode, InstanceChange, JobId, JobKind, Lease,
    MissedWindow, NewBackup, Page, RdbDialect, SaveDays, Trigger, Weekdays, WeeklyPlan, Window,
};
use cachevault_jobs::{JobFigures, Scheduler};
use cachevault_testkit::SeededEntropy;
use jiff::{SignedDuration, Timestamp};

use crate::rig::Rig;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn weekly(days: &[i64], window: &str) -> WeeklyPlan {
    let days = Weekdays::from_numbers(days).unwrap();
    WeeklyPlan { days, window: window.parse().unwrap() }
}

fn daily(window: &str) -> WeeklyPlan {
    weekly(&[1, 2, 3, 4, 5, 6, 7], window)
}

impl Rig {
    async fn set_policy(&self, policy: BackupPolicy) {
        let change = InstanceChange { policy: Some(policy), ..InstanceChange::default() };
        self.app.change_instance(&self.caller, self.instance, &change).await.unwrap();
    }

    async fn backups(&self) -> Vec<Backup> {
        let (filter, page) = (BackupFilter::default(), Page { offset: 0, limit: 10_000 });
        self.catalog.list_backups(&self.project, self.instance, &filter, page).await.unwrap().items
    }

    async fn states(&self) -> Vec<BackupState> {
        self.backups().await.iter().map(|backup| backup.state).collect()
    }

    fn scheduler(&self, missed: MissedWindow) -> Scheduler {
        Scheduler {
            app: self.app.clone(),
            missed,
            backups_max: BACKUPS_WITH_FILES_MAX,
            figures: JobFigures::default(),
        }
    }

    fn move_to(&self, moment: &str) {
        let moment: Timestamp = moment.parse().unwrap();
        self.clock.advance(moment.duration_since(self.clock.now()));
    }
}

/// Rounds until there is nothing to do at this moment.
async fn settle(scheduler: &Scheduler) {
    while scheduler.round().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_makes_backups_in_its_window_and_lets_them_expire() {
    let rig = Rig::new().await;
    let scheduler = rig.scheduler(MissedWindow::Skip);
    rig.move_to("2026-11-21T10:00:00Z");
    rig.set_policy(BackupPolicy::automatic(daily("22:00-23:00"), SaveDays::new(2).unwrap())).await;
    rig.move_to("2026-11-21T21:59:59Z");
    settle(&scheduler).await;
    assert_eq!(rig.states().await, []);
    for day in 21..25 {
        // In the last quarter of the window every instance has begun.
        rig.move_to(&format!("2026-11-{day}T22:50:00Z"));
        settle(&scheduler).await;
        rig.run(None).await;
        settle(&scheduler).await;
        let now = rig.clock.now();
        let another = rig.catalog.claim_job(JobKind::Capture, rig.node, now, now).await.unwrap();
        assert_eq!(another, None, "one backup a window");
        if day > 22 {
            rig.run(None).await;
        }
        let newest = &rig.backups().await[0];
        assert_eq!((newest.trigger, newest.state), (Trigger::Automatic, BackupState::Succeeded));
        assert_eq!(newest.window.as_deref(), Some("22:00-23:00"));
        assert_eq!(newest.keep_until, Some(rig.clock.now() + DAY * 2));
    }
    use BackupState::{Expired, Succeeded};
    assert_eq!(rig.states().await, [Succeeded, Succeeded, Expired, Expired]);
    assert_eq!(rig.files().len(), 4, "two backups of two files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_failed_is_tried_again_in_the_window() {
    let mut rig = Rig::new().await;
    let scheduler = rig.scheduler(MissedWindow::Skip);
    rig.set_policy(BackupPolicy::automatic(daily("22:00-23:00"), SaveDays::new(1).unwrap())).await;
    rig.server.kill();
    rig.move_to("2026-11-21T22:45:00Z");
    for tries in 1..=6 {
        settle(&scheduler).await;
        while let Some(lease) = rig.claim().await {
            rig.runner(None).run(&lease, &Default::default()).await;
            rig.pass(10);
        }
        let failed = rig.backups().await;
        assert_eq!(failed.len(), tries.min(4), "one try and three more");
        assert!(failed.iter().all(|backup| backup.state == BackupState::Failed));
        rig.pass(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumped_a_year_ahead_and_back_costs_one_record() {
    let rig = Rig::new().await;
    let scheduler = rig.scheduler(MissedWindow::Skip);
    rig.set_policy(BackupPolicy::automatic(daily("22:00-23:00"), SaveDays::new(1).unwrap())).await;
    settle(&scheduler).await;
    rig.clock.advance(DAY * 365);
    settle(&scheduler).await;
    assert_eq!(rig.states().await, [BackupState::Failed], "the window that seems to be missed");
    rig.clock.advance(-DAY * 365);
    settle(&scheduler).await;
    rig.move_to("2026-11-22T22:50:00Z");
    settle(&scheduler).await;
    let states = rig.states().await;
    assert!(states.contains(&BackupState::Waiting), "{states:?}");
}

/// A record as the model predicts it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    created_at: Timestamp,
    /// Of an automatic one.
    window: Option<Window>,
    state: BackupState,
    code: Option<FailureCode>,
    keep_until: Option<Timestamp>,
    is_held: bool,
}

/// What is to happen, told without the code that makes it happen.
struct Model {
    plan: WeeklyPlan,
    save_days: i32,
    catches_up: bool,
    instance: cachevault_domain::InstanceId,
    /// The window that comes next or is open, and when to look at it next; `None` with a manual
    /// policy.
    cursor: Option<(Window, Timestamp)>,
    records: Vec<Record>,
    running: Option<usize>,
}

fn whole_seconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap()
}

impl Model {
    /// The first window that ends after a moment, found by going through the days.
    fn window_at(&self, now: Timestamp) -> Window {
        let length = SignedDuration::from_hours(self.plan.window.hours().into());
        let midnight = now.as_second() - now.as_second().rem_euclid(86_400) - 2 * 86_400;
        let days = (0..20).map(|day| Timestamp::from_second(midnight + day * 86_400).unwrap());
        let windows = days.filter_map(|day| {
            let weekday = day.to_zoned(jiff::tz::TimeZone::UTC).weekday();
            let begin = day + SignedDuration::from_hours(self.plan.window.begin().into());
            let window = Window { begin, end: begin + length };
            self.plan.days.contains(weekday).then_some(window)
        });
        windows.into_iter().find(|window| window.end > now).unwrap()
    }

    fn set_automatic(&mut self, is_automatic: bool, now: Timestamp) {
        self.cursor = is_automatic.then(|| self.waiting_for(self.window_at(now)));
    }

    fn waiting_for(&self, window: Window) -> (Window, Timestamp) {
        (window, whole_seconds(window.start_of(self.instance)))
    }

    /// One look at a moment; whether something changed.
    fn look(&mut self, now: Timestamp) -> bool {
        let Some((window, next)) = self.cursor else { return false };
        if now < next {
            return false;
        }
        let of_window: Vec<_> =
            self.records.iter().filter(|record| record.window == Some(window)).collect();
        let is = |state: BackupState| of_window.iter().any(|record| record.state == state);
        let is_open = is(BackupState::Waiting);
        let succeeded = is(BackupState::Succeeded) || is(BackupState::Expired);
        let tries = of_window.len();
        let following = self.waiting_for(self.window_at(now.max(window.end)));
        if now >= window.end {
            if tries == 0 && self.catches_up && !following.0.contains(now) {
                self.try_backup(window, now);
            } else if tries == 0 {
                self.add(Some(window), BackupState::Failed, Some(FailureCode::InstanceBusy), now);
            }
            self.cursor = Some(following);
            return true;
        }
        let again = whole_seconds(now + window.end.duration_since(window.begin) / 16);
        let later = if again < window.end { (window, again) } else { following };
        self.cursor = Some(later);
        if succeeded || (!is_open && tries > 3) {
            self.cursor = Some(following);
        } else if !is_open {
            self.try_backup(window, now);
        }
        true
    }

    fn try_backup(&mut self, window: Window, now: Timestamp) {
        if self.running.is_some() {
            self.add(Some(window), BackupState::Failed, Some(FailureCode::InstanceBusy), now);
        } else {
            self.running = Some(self.records.len());
            self.add(Some(window), BackupState::Waiting, None, now);
        }
    }

    fn add(
        &mut self,
        window: Option<Window>,
        state: BackupState,
        code: Option<FailureCode>,
        now: Timestamp,
    ) {
        let keep_until = window.map(|_| now + DAY * self.save_days);
        let record = Record { created_at: now, window, state, code, keep_until, is_held: false };
        self.records.push(record);
    }

    fn end(&mut self, succeeded: bool) {
        let record = &mut self.records[self.running.take().unwrap()];
        record.state = if succeeded { BackupState::Succeeded } else { BackupState::Failed };
        record.code = (!succeeded).then_some(FailureCode::TimedOut);
    }

    /// What keeps its files after a moment: tried for every record at every moment.
    fn expire(&mut self, now: Timestamp) {
        let has_files = |record: &Record| record.state == BackupState::Succeeded;
        let Some(newest) = self.records.iter().rposition(has_files) else { return };
        for (at, record) in self.records.iter_mut().enumerate() {
            let is_over = record.keep_until.is_some_and(|until| until <= now);
            if is_over && has_files(record) && at != newest && !record.is_held {
                record.state = BackupState::Expired;
            }
        }
        while self.records.iter().filter(|record| has_files(record)).count() > 24 {
            let may_go = |(at, record): &(usize, &Record)| {
                *at != newest && has_files(record) && !record.is_held
            };
            let gone = self.records.iter().enumerate().filter(may_go);
            // An automatic one before one that somebody asked for.
            let Some((gone, _)) = gone.min_by_key(|(at, record)| (record.window.is_none(), *at))
            else {
                return;
            };
            self.records[gone].state = BackupState::Expired;
        }
    }
}

/// Numbers that look random, below a bound.
struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    fn is_one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A simulation: the real scheduler and catalog beside the model.
struct Simulation {
    rig: Rig,
    scheduler: Scheduler,
    model: Model,
    dice: Dice,
    lease: Option<Lease>,
    nodes: usize,
}

impl Simulation {
    async fn new(seed: u64, nodes: usize) -> Self {
        let dice = Dice(SeededEntropy::new(seed));
        let rig = Rig::new().await;
        let days: Vec<_> = (1..=7).filter(|day| *day == 3 || !dice.is_one_in(3)).collect();
        let begin = dice.below(24);
        let hours = if dice.is_one_in(2) { 1 } else { 1 + dice.below(22) };
        let plan = weekly(&days, &format!("{begin:02}:00-{:02}:00", (begin + hours) % 24));
        let (save_days, catches_up) = (1 + dice.below(7), dice.is_one_in(2));
        let mut model = Model {
            plan,
            save_days: i32::try_from(save_days).unwrap(),
            catches_up,
            instance: rig.instance,
            cursor: None,
            records: Vec::new(),
            running: None,
        };
        let rule = if catches_up { MissedWindow::CatchUp } else { MissedWindow::Skip };
        let scheduler = rig.scheduler(rule);
        rig.set_policy(BackupPolicy::automatic(
            plan,
            SaveDays::new(save_days.cast_signed()).unwrap(),
        ))
        .await;
        model.set_automatic(true, rig.clock.now());
        Self { rig, scheduler, model, dice, lease: None, nodes }
    }

    /// One thing happens, time passes, and what is due is done.
    async fn step(&mut self) {
        let seconds = if self.dice.is_one_in(400) {
            86_400 * (1 + self.dice.below(20))
        } else {
            60 + self.dice.below(5_000)
        };
        self.rig.pass(seconds.cast_signed());
        match self.dice.below(100) {
            0..30 => self.end_capture().await,
            30..33 => self.ask_by_hand().await,
            33 => self.switch().await,
            34..37 => self.hold().await,
            _ => {}
        }
        let now = self.rig.clock.now();
        if self.nodes > 1 {
            // What both have read, one of them does.
            tokio::join!(self.scheduler.round(), self.scheduler.round());
        }
        settle(&self.scheduler).await;
        while self.model.look(now) {}
        self.model.expire(now);
        self.remove_files().await;
    }

    async fn end_capture(&mut self) {
        if self.model.running.is_none() {
            return;
        }
        let (catalog, now) = (&self.rig.catalog, self.rig.clock.now());
        if self.lease.is_none() {
            let until = now + DAY * 1000;
            let lease = catalog.claim_job(JobKind::Capture, self.rig.node, now, until).await;
            self.lease = lease.unwrap();
        }
        let lease = self.lease.take().expect("the capture that the model predicts");
        catalog.start_backup(&lease, now).await.unwrap();
        let succeeded = !self.dice.is_one_in(3);
        if succeeded {
            catalog.finish_backup(&lease, 1, 1000, now).await.unwrap();
        } else {
            let failure = Failure { code: FailureCode::TimedOut, reason: "late".into() };
            catalog.fail_backup(&lease, &failure, now).await.unwrap();
        }
        self.model.end(succeeded);
    }

    async fn ask_by_hand(&mut self) {
        let rig = &self.rig;
        let backup = NewBackup {
            id: BackupId::mint(&*rig.app.entropy),
            job: JobId::mint(&*rig.app.entropy),
            project: rig.project.clone(),
            instance: rig.instance,
            trigger: Trigger::Manual,
            format: BackupFormat::Rdb,
            dialect: RdbDialect::Native,
            note: None,
            created_at: rig.clock.now(),
        };
        let asked = rig.catalog.request_backup(&backup).await;
        assert_eq!(asked.is_err(), self.model.running.is_some());
        if asked.is_ok() {
            self.model.running = Some(self.model.records.len());
            self.model.add(None, BackupState::Waiting, None, rig.clock.now());
        }
    }

    async fn switch(&mut self) {
        let is_automatic = self.model.cursor.is_none();
        let policy = if is_automatic {
            let days = SaveDays::new(self.model.save_days.into()).unwrap();
            BackupPolicy::automatic(self.model.plan, days)
        } else {
            BackupPolicy::manual(None, None)
        };
        self.rig.set_policy(policy).await;
        self.model.set_automatic(is_automatic, self.rig.clock.now());
    }

    /// Holds or releases one of the newest backups, if it has files.
    async fn hold(&mut self) {
        let Some(at) = self.model.records.len().checked_sub(1 + self.dice.below(9) as usize) else {
            return;
        };
        let (rig, now) = (&self.rig, self.rig.clock.now());
        let found = rig.backups().await;
        let backup = &found[found.len() - 1 - at];
        let is_held = !self.model.records[at].is_held;
        let done = rig.catalog.hold_backup(&rig.project, backup.id, is_held, now).await;
        let has_files = self.model.records[at].state == BackupState::Succeeded;
        assert_eq!(done.is_ok(), has_files);
        if has_files {
            self.model.records[at].is_held = is_held;
        }
    }

    async fn remove_files(&self) {
        let (catalog, now) = (&self.rig.catalog, self.rig.clock.now());
        let claim = || catalog.claim_job(JobKind::Remove, self.rig.node, now, now + DAY);
        while let Some(lease) = claim().await.unwrap() {
            catalog.finish_removal(&lease, now).await.unwrap();
        }
    }

    async fn assert_as_predicted(&self) {
        let mut found = self.rig.backups().await;
        found.reverse();
        for (found, expected) in found.iter().zip(&self.model.records) {
            let seen = Record {
                created_at: found.created_at,
                window: expected.window,
                state: found.state,
                code: found.failure.as_ref().map(|failure| failure.code),
                keep_until: found.keep_until,
                is_held: found.is_held,
            };
            assert_eq!(&seen, expected);
            assert_eq!(found.window, expected.window.map(|window| window.to_string()));
            assert_eq!(found.trigger == Trigger::Automatic, expected.window.is_some());
        }
        assert_eq!(found.len(), self.model.records.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_and_some_months_go_by_as_the_model_predicts() {
    for seed in 0..4 {
        let (days, nodes) = if seed == 0 { (365, 1) } else { (60, 2) };
        let mut simulation = Simulation::new(seed, nodes).await;
        let end = simulation.rig.clock.now() + DAY * days;
        let mut steps = 0;
        while simulation.rig.clock.now() < end {
            simulation.step().await;
            steps += 1;
            if steps % 100 == 0 {
                simulation.assert_as_predicted().await;
            }
        }
        simulation.assert_as_predicted().await;
        let Model { plan, records, .. } = &simulation.model;
        let count = |state| records.iter().filter(|record| record.state == state).count();
        let [failed, expired] = [BackupState::Failed, BackupState::Expired].map(count);
        println!(
            "seed {seed}: {plan:?}, {steps} steps, {} records, {failed} failed, {expired} expired",
            records.len()
        );
        assert!(failed > 0 && expired > 0, "something happened");
    }
}
