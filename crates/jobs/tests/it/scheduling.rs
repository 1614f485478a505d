//! Policies that are followed, and backups that expire.

use std::collections::{BTreeMap, HashSet};

use cachevault_catalog::{BackupCatalog, JobQueue, RetentionCatalog};
use cachevault_domain::{
    BACKUPS_WITH_FILES_MAX, Backup, BackupFilter, BackupFormat, BackupId, BackupPolicy,
    BackupState, Clock, ContentState, DuePlan, Entropy, Failure, FailureCode, Generations,
    InstanceChange, JobId, JobKind, Keep, KeepDays, Lease, MissedWindow, NewBackup, Page, Plan,
    RdbDialect, Retention, SaveDays, Schedule, ShrinkRule, StoredFiles, Trigger, Weekdays,
    WeeklyPlan, Window,
};
use cachevault_jobs::{JobFigures, Scheduler};
use cachevault_testkit::SeededEntropy;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::rig::Rig;
use crate::tending::without_catalog;

/// Backups with files that an instance may have.
const CAP: usize = 24;
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
async fn what_a_lost_policy_kept_beyond_its_time_is_not_lost_with_the_catalog() {
    let rig = Rig::new().await;
    let scheduler = rig.scheduler(MissedWindow::Skip);
    rig.set_policy(BackupPolicy::automatic(daily("22:00-23:00"), SaveDays::new(1).unwrap())).await;
    for day in 21..23 {
        rig.move_to(&format!("2026-11-{day}T22:45:00Z"));
        settle(&scheduler).await;
        rig.run(None).await;
    }
    rig.move_to("2026-12-24T00:00:00Z");
    let fresh = tempfile::tempdir().unwrap();
    let (app, catalog) = without_catalog(&rig, fresh.path()).await;
    assert_eq!(app.rebuild().await.unwrap().added, 2);
    let rig = Rig { app, catalog, ..rig };
    settle(&rig.scheduler(MissedWindow::Skip)).await;
    let backups = rig.backups().await;
    assert!(backups.iter().all(Backup::has_files), "{backups:?}");
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

/// A plan as the model knows it: the same time of some days of the week, on the clock of a zone.
#[derive(Debug)]
struct ModelPlan {
    days: Vec<i8>,
    hour: i8,
    minute: i8,
    zone: TimeZone,
    length: SignedDuration,
}

impl ModelPlan {
    /// The window that begins on a day, if one does. A time that the clock leaves out is when it
    /// leaves it out, one that it shows twice is the first.
    fn window_on(&self, day: Date) -> Option<Window> {
        if !self.days.contains(&day.weekday().to_monday_one_offset()) {
            return None;
        }
        let at = self.zone.to_ambiguous_timestamp(day.at(self.hour, self.minute, 0, 0));
        let earlier = at.earlier().unwrap();
        let begin = match at.offset() {
            AmbiguousOffset::Gap { .. } => self.zone.following(earlier).next().unwrap().timestamp(),
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => earlier,
        };
        Some(Window { begin, end: begin + self.length })
    }

    /// The first window that ends after a moment and does not begin before another, found by going
    /// through the days.
    fn window_at(&self, now: Timestamp, from: Timestamp) -> Window {
        let first = (now - DAY * 3).to_zoned(self.zone.clone()).date();
        let days = first.series(1.day()).take(20);
        let mut windows = days.filter_map(|day| self.window_on(day));
        windows.find(|window| window.end > now && window.begin >= from).unwrap()
    }
}

/// What is to happen, told without the code that makes it happen.
struct Model {
    plan: ModelPlan,
    keep_days: Option<i32>,
    rules: Retention,
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
    fn set_automatic(&mut self, is_automatic: bool, now: Timestamp) {
        let window = || self.plan.window_at(now, Timestamp::MIN);
        self.cursor = is_automatic.then(|| self.waiting_for(window()));
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
        let following = self.waiting_for(self.plan.window_at(now, window.end));
        if now >= window.end {
            if tries == 0 && self.catches_up && !following.0.contains(now) {
                self.try_backup(window, now);
            } else if tries == 0 {
                self.add(Some(window), BackupState::Failed, Some(FailureCode::InstanceBusy), now);
            }
            self.cursor = Some(following);
            return true;
        }
        let pause = (self.plan.length / 16).max(SignedDuration::from_mins(1));
        let again = whole_seconds(now + pause);
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
        let keep_until = window.and(self.keep_days).map(|days| now + DAY * days);
        let record = Record { created_at: now, window, state, code, keep_until, is_held: false };
        self.records.push(record);
    }

    fn end(&mut self, succeeded: bool) {
        let record = &mut self.records[self.running.take().unwrap()];
        record.state = if succeeded { BackupState::Succeeded } else { BackupState::Failed };
        record.code = (!succeeded).then_some(FailureCode::TimedOut);
    }

    /// The automatic ones that count and generations keep, of all that have files.
    fn kept_by_rules(&self) -> HashSet<usize> {
        let is_kept =
            |record: &Record| record.window.is_some() && record.state == BackupState::Succeeded;
        let all = self.records.iter().enumerate().rev();
        let newest_first: Vec<_> = all.filter(|(_, record)| is_kept(record)).collect();
        let of_count = newest_first.iter().take(self.rules.count as usize);
        let mut kept: HashSet<_> = of_count.map(|(at, _)| *at).collect();
        let Generations { daily, weekly, monthly, yearly } = self.rules.generations;
        for (periods, name) in
            [(daily, "%F"), (weekly, "%G-%V"), (monthly, "%Y-%m"), (yearly, "%Y")]
        {
            let mut newest: BTreeMap<String, usize> = BTreeMap::new();
            for (at, record) in &newest_first {
                let local = record.created_at.to_zoned(self.rules.zone.clone());
                newest.entry(local.strftime(name).to_string()).or_insert(*at);
            }
            kept.extend(newest.values().rev().take(periods as usize));
        }
        kept
    }

    /// What keeps its files after a moment: tried for every record at every moment.
    fn expire(&mut self, now: Timestamp) {
        let has_files = |record: &Record| record.state == BackupState::Succeeded;
        let Some(newest) = self.records.iter().rposition(has_files) else { return };
        let kept = self.kept_by_rules();
        let has_rules = self.rules != Retention::by_time();
        for (at, record) in self.records.iter_mut().enumerate() {
            let is_over = match record.keep_until {
                Some(until) => until <= now,
                None => record.window.is_some() && has_rules,
            };
            let may_go = at != newest && !record.is_held && !kept.contains(&at);
            if is_over && has_files(record) && may_go {
                record.state = BackupState::Expired;
            }
        }
        while self.records.iter().filter(|record| has_files(record)).count() > CAP {
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

/// What a simulation is about.
#[derive(Debug, Clone, Copy)]
struct Run {
    seed: u64,
    begin: &'static str,
    days: i32,
    /// Schedulers that look at the same time.
    nodes: usize,
    /// Whether its policies say what the vendor's cannot.
    is_rich: bool,
}

/// A simulation: the real scheduler and catalog beside the model.
struct Simulation {
    rig: Rig,
    scheduler: Scheduler,
    model: Model,
    dice: Dice,
    lease: Option<Lease>,
    run: Run,
}

impl ModelPlan {
    fn vendors(dice: &Dice) -> Self {
        let begin = dice.below(24) as i8;
        let hours = if dice.is_one_in(2) { 1 } else { 1 + dice.below(22) };
        let length = SignedDuration::from_hours(hours.cast_signed());
        Self { days: days(dice), hour: begin, minute: 0, zone: TimeZone::UTC, length }
    }

    /// Most of these begin at night, when clocks are put forward and back.
    fn rich(dice: &Dice) -> Self {
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
        let zone = TimeZone::get(zones[dice.below(3) as usize]).unwrap();
        let hour = if dice.is_one_in(4) { dice.below(24) } else { 1 + dice.below(3) };
        let minutes = if dice.is_one_in(4) { 24 * 60 } else { 20 + dice.below(600) };
        let length = SignedDuration::from_mins(minutes.cast_signed());
        Self { days: days(dice), hour: hour as i8, minute: dice.below(60) as i8, zone, length }
    }

    fn plan(&self) -> Plan {
        let days: Vec<i64> = self.days.iter().map(|day| i64::from(*day)).collect();
        if self.zone == TimeZone::UTC {
            let end = (i64::from(self.hour) + self.length.as_hours()) % 24;
            return Plan::Weekly(weekly(&days, &format!("{:02}:00-{end:02}:00", self.hour)));
        }
        let days: Vec<_> = days.iter().map(ToString::to_string).collect();
        let pattern = format!("{} {} * * {}", self.minute, self.hour, days.join(","));
        let zone = self.zone.iana_name().unwrap();
        Plan::Schedule(Box::new(Schedule::known(&pattern, zone, self.length).unwrap()))
    }
}

/// Some days of the week, of which Wednesday is always one.
fn days(dice: &Dice) -> Vec<i8> {
    (1..=7).filter(|day| *day == 3 || !dice.is_one_in(3)).collect()
}

/// What a policy keeps: a time, a count and generations, of which some may be left out.
fn some_keep(dice: &Dice, plan: &ModelPlan, is_rich: bool) -> (Option<i32>, Retention) {
    let days = Some(1 + dice.below(7) as i32);
    if !is_rich {
        return (days, Retention::by_time());
    }
    let few = || if dice.is_one_in(3) { 0 } else { dice.below(5) as u32 };
    let [daily, weekly, monthly, yearly] = [few(), few(), few(), few()];
    let generations = Generations { daily, weekly, monthly, yearly };
    let days = days.filter(|_| !dice.is_one_in(3));
    let count = if days.is_some() { few() } else { 1 + few() };
    (days, Retention { count, generations, zone: plan.zone.clone() })
}

impl Model {
    fn missed(&self) -> MissedWindow {
        if self.catches_up { MissedWindow::CatchUp } else { MissedWindow::Skip }
    }

    fn policy(&self, is_rich: bool) -> BackupPolicy {
        let days = self.keep_days.map(|days| KeepDays::new(days.into()).unwrap());
        let keep = Keep::new(days, self.rules.clone()).unwrap();
        let missed = is_rich.then(|| self.missed());
        BackupPolicy::whole(true, DuePlan { plan: self.plan.plan(), keep, missed })
    }
}

impl Simulation {
    async fn new(run: Run) -> Self {
        let dice = Dice(SeededEntropy::new(run.seed));
        let rig = Rig::new().await;
        rig.move_to(run.begin);
        let plan = if run.is_rich { ModelPlan::rich(&dice) } else { ModelPlan::vendors(&dice) };
        let (keep_days, rules) = some_keep(&dice, &plan, run.is_rich);
        let mut model = Model {
            plan,
            keep_days,
            rules,
            catches_up: dice.is_one_in(2),
            instance: rig.instance,
            cursor: None,
            records: Vec::new(),
            running: None,
        };
        // What a policy says itself counts more than the service's setting.
        let setting = match (run.is_rich, model.missed()) {
            (false, missed) => missed,
            (true, MissedWindow::CatchUp) => MissedWindow::Skip,
            (true, MissedWindow::Skip) => MissedWindow::CatchUp,
        };
        let scheduler = rig.scheduler(setting);
        rig.set_policy(model.policy(run.is_rich)).await;
        model.set_automatic(true, rig.clock.now());
        Self { rig, scheduler, model, dice, lease: None, run }
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
        if self.run.nodes > 1 {
            // What both have read, one of them does.
            tokio::join!(self.scheduler.round(), self.scheduler.round());
        }
        settle(&self.scheduler).await;
        while self.model.look(now) {}
        self.model.expire(now);
        self.remove_files().await;
        self.assert_safe().await;
    }

    /// What holds whatever the model says: the newest that succeeded has its files, and no two are
    /// made at once.
    async fn assert_safe(&self) {
        let (filter, page) = (BackupFilter::default(), Page { offset: 0, limit: 60 });
        let (project, instance) = (&self.rig.project, self.rig.instance);
        let newest = self.rig.catalog.list_backups(project, instance, &filter, page).await.unwrap();
        let states: Vec<_> = newest.items.iter().map(|backup| backup.state).collect();
        let open = states.iter().filter(|state| !state.is_settled()).count();
        assert!(open <= 1, "{states:?}");
        let succeeded = [BackupState::Succeeded, BackupState::Expired];
        let newest = states.iter().find(|state| succeeded.contains(state));
        assert!(newest.is_none_or(|state| *state == BackupState::Succeeded), "{states:?}");
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
            let content = ContentState::Verified;
            let files = StoredFiles {
                attempt: 1,
                size_bytes: 1000,
                content,
                opaque_because: None,
                keys: None,
            };
            catalog.finish_backup(&lease, &files, ShrinkRule::default(), now).await.unwrap();
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
            let (keep_days, rules) = some_keep(&self.dice, &self.model.plan, self.run.is_rich);
            (self.model.keep_days, self.model.rules) = (keep_days, rules);
            self.model.policy(self.run.is_rich)
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
        let with_files: Vec<_> =
            found.iter().filter(|backup| backup.state == BackupState::Succeeded).collect();
        let held = with_files.iter().filter(|backup| backup.is_held).count();
        assert!(with_files.len() <= CAP.max(held + 1), "{} have files", with_files.len());
    }

    /// Each backup began in its window, or in place of all tries of one that was missed.
    fn assert_inside_windows(&self) {
        let records = &self.model.records;
        for (at, record) in records.iter().enumerate() {
            let Some(window) = record.window else { continue };
            let is_first = records[..at].iter().all(|earlier| earlier.window != record.window);
            let is_late = record.created_at >= window.end && is_first;
            let was_missed = record.code == Some(FailureCode::InstanceBusy);
            let may_be_late = is_late && (self.model.catches_up || was_missed);
            assert!(window.contains(record.created_at) || may_be_late, "{record:?}");
        }
    }

    async fn go(mut self) {
        let end = self.rig.clock.now() + DAY * self.run.days;
        let mut steps = 0;
        while self.rig.clock.now() < end {
            self.step().await;
            steps += 1;
            if steps % 100 == 0 {
                self.assert_as_predicted().await;
            }
        }
        self.assert_as_predicted().await;
        self.assert_inside_windows();
        let (run, Model { plan, records, .. }) = (self.run, &self.model);
        let count = |state| records.iter().filter(|record| record.state == state).count();
        let [failed, expired] = [BackupState::Failed, BackupState::Expired].map(count);
        let all = records.len();
        println!(
            "{run:?}: {plan:?}, {steps} steps, {all} records, {failed} failed, {expired} expired"
        );
        assert!(failed > 0 && expired > 0, "something happened");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_and_some_months_go_by_as_the_model_predicts() {
    for seed in 0..4 {
        let (days, nodes) = if seed == 0 { (365, 1) } else { (60, 2) };
        let begin = "2026-11-21T08:31:16Z";
        Simulation::new(Run { seed, begin, days, nodes, is_rich: false }).await.go().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_put_forward_and_back_change_no_promise_of_count_generations_and_catching_up() {
    // Each spring and autumn has the nights of all three zones.
    for (seed, begin) in [
        (10, "2027-03-05T00:00:00Z"),
        (11, "2027-03-05T00:00:00Z"),
        (12, "2027-03-05T00:00:00Z"),
        (13, "2027-09-28T00:00:00Z"),
        (14, "2027-09-28T00:00:00Z"),
        (15, "2027-09-28T00:00:00Z"),
    ] {
        Simulation::new(Run { seed, begin, days: 45, nodes: 1, is_rich: true }).await.go().await;
    }
    let year = Run { seed: 16, begin: "2027-12-20T00:00:00Z", days: 400, nodes: 2, is_rich: true };
    Simulation::new(year).await.go().await;
}
