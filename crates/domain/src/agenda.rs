//! What a policy has to do next: begin a backup in its window, try again, go on to the next one.
//!
//! An [`Agenda`] says when that is to be decided, so that what is due can be found by an index. What
//! was tried in a window is told by its records alone ([`Tried`]): nothing else counts tries, so
//! nothing can contradict them. [`Agenda::decide`] is a function of both and of the time, which may
//! jump: a decision of a moment that has not come yet was made by a wrong clock, and is made again.

use jiff::{SignedDuration, Timestamp};

use crate::{InstanceId, Plan, Schedule, WeeklyPlan, Window};

/// How often it is tried again in the windows that begin on one day, UTC.
pub const RETRIES_A_DAY_MAX: u32 = 3;

/// Where windows come from.
pub trait Windows {
    /// How long each lasts.
    fn length(&self) -> SignedDuration;

    /// The first window that begins after a moment; `None` when time ends first.
    fn next_window(&self, after: Timestamp) -> Option<Window>;
}

impl Windows for Schedule {
    fn length(&self) -> SignedDuration {
        self.length()
    }

    fn next_window(&self, after: Timestamp) -> Option<Window> {
        self.next_window(after)
    }
}

impl Windows for Plan {
    fn length(&self) -> SignedDuration {
        match self {
            Self::Weekly(plan) => Windows::length(plan),
            Self::Schedule(schedule) => schedule.length(),
        }
    }

    fn next_window(&self, after: Timestamp) -> Option<Window> {
        match self {
            Self::Weekly(plan) => plan.next_window(after),
            Self::Schedule(schedule) => schedule.next_window(after),
        }
    }
}

impl Windows for WeeklyPlan {
    fn length(&self) -> SignedDuration {
        SignedDuration::from_hours(self.window.hours().into())
    }

    fn next_window(&self, after: Timestamp) -> Option<Window> {
        self.next_window(after)
    }
}

/// What to do about a window in which nothing was tried, because the service did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedWindow {
    /// Record that there is no backup of it.
    #[default]
    Skip,
    /// Make the backup at once, unless another window is open by then.
    CatchUp,
}

impl MissedWindow {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Skip, Self::CatchUp];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::CatchUp => "catch_up",
        }
    }
}

/// Where a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agenda {
    /// The window that is open or comes next; `None` where that is still to be found out, or where
    /// there is none any more.
    pub window: Option<Window>,
    /// When there is something to decide.
    pub next_at: Timestamp,
    /// When this was decided.
    pub decided_at: Timestamp,
}

/// How far the tries to back up in a window came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was none.
    Untried,
    /// One waits or runs.
    Open,
    /// Somebody broke one off: there is to be none.
    Cancelled,
    /// All failed.
    Failed,
    /// One succeeded, whatever became of its files.
    Succeeded,
}

/// What was tried so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// In the window of the agenda.
    pub outcome: Outcome,
    /// How often it was tried again in the windows that begin on the same day.
    pub retries: u32,
}

impl Tried {
    /// Nothing.
    pub const NOTHING: Self = Self { outcome: Outcome::Untried, retries: 0 };

    /// The day, UTC, of whose windows the tries count together with those of this one; its end does
    /// not belong to it.
    pub fn day_of(window: Window) -> (Timestamp, Timestamp) {
        let day = SignedDuration::from_hours(24);
        let since_midnight = window.begin.as_second().rem_euclid(day.as_secs());
        let begin = window.begin.checked_sub(SignedDuration::from_secs(since_midnight));
        let begin = begin.unwrap_or(Timestamp::MIN);
        (begin, begin.checked_add(day).unwrap_or(Timestamp::MAX))
    }

    /// What the tries of a day, each with the beginning of its window, mean for this window.
    pub fn of(window: Window, tries: &[(Timestamp, Outcome)]) -> Self {
        let here = || tries.iter().filter(|(begin, _)| *begin == window.begin);
        let is_any = |wanted| here().any(|(_, outcome)| *outcome == wanted);
        let known = [Outcome::Succeeded, Outcome::Open, Outcome::Cancelled, Outcome::Failed];
        let outcome = known.into_iter().find(|outcome| is_any(*outcome));
        let mut windows: Vec<_> = tries.iter().map(|(begin, _)| *begin).collect();
        windows.sort();
        windows.dedup();
        let retries = u32::try_from(tries.len() - windows.len()).unwrap_or(u32::MAX);
        Self { outcome: outcome.unwrap_or(Outcome::Untried), retries }
    }
}

/// What is to be done now, and the agenda afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Rest(Agenda),
    /// Begin a backup for a window.
    Begin(Window, Agenda),
    /// Record that there will be no backup for a window that has passed.
    Miss(Window, Agenda),
}

impl Agenda {
    /// Where a policy is that begins to hold now: in the window that is open, if there is one.
    pub fn first(plan: &impl Windows, instance: InstanceId, now: Timestamp) -> Self {
        Self::of(window_after(plan, Timestamp::MIN, now), instance, now)
    }

    /// The first window, open or to come, whose backup is still to begin, and when it does, unless
    /// somebody else keeps the instance busy then.
    pub fn upcoming(
        plan: &impl Windows,
        instance: InstanceId,
        now: Timestamp,
    ) -> Option<(Window, Timestamp)> {
        let first = Self::first(plan, instance, now);
        let agenda = match first.window {
            Some(window) if first.next_at <= now => {
                Self::of(window_after(plan, window.end, now), instance, now)
            }
            _ => first,
        };
        agenda.window.map(|window| (window, agenda.next_at))
    }

    fn of(window: Option<Window>, instance: InstanceId, now: Timestamp) -> Self {
        let start = window.map_or(Timestamp::MAX, |window| window.start_of(instance));
        // Whole seconds read back from any catalog as they were written.
        let next_at = Timestamp::from_second(start.as_second()).unwrap_or(start);
        Self { window, next_at, decided_at: now }
    }

    /// What is to be done now.
    pub fn decide(
        self,
        plan: &impl Windows,
        missed: MissedWindow,
        instance: InstanceId,
        tried: Tried,
        now: Timestamp,
    ) -> Decision {
        let Some(window) = self.window.filter(|_| self.decided_at <= now) else {
            return Decision::Rest(Self::first(plan, instance, now));
        };
        if now < self.next_at || now < window.begin {
            return Decision::Rest(Self { decided_at: now, ..self });
        }
        let next = Self::of(window_after(plan, window.end, now), instance, now);
        let again =
            Self { window: Some(window), next_at: try_again_at(window, now), decided_at: now };
        let then = if window.contains(again.next_at) { again } else { next };
        let is_over = now >= window.end;
        match tried.outcome {
            Outcome::Untried if !is_over => Decision::Begin(window, then),
            Outcome::Untried => match (missed, next.window) {
                (MissedWindow::CatchUp, following)
                    if !following.is_some_and(|w| w.contains(now)) =>
                {
                    Decision::Begin(window, next)
                }
                _ => Decision::Miss(window, next),
            },
            Outcome::Failed if !is_over && tried.retries < RETRIES_A_DAY_MAX => {
                Decision::Begin(window, then)
            }
            Outcome::Open if !is_over => Decision::Rest(then),
            Outcome::Open | Outcome::Cancelled | Outcome::Failed | Outcome::Succeeded => {
                Decision::Rest(next)
            }
        }
    }
}

/// The first window that ends after `now` and does not begin before `from`.
fn window_after(plan: &impl Windows, from: Timestamp, now: Timestamp) -> Option<Window> {
    let second = SignedDuration::from_secs(1);
    // Windows begin with whole minutes: one that begins at `from` begins after the second before.
    let before = from.checked_sub(second).unwrap_or(Timestamp::MIN);
    let still_open = now.checked_sub(plan.length()).unwrap_or(Timestamp::MIN);
    plan.next_window(before.max(still_open))
}

/// When a try that began now is looked at, or made again: the quarter of a window in which none
/// begins for the first time has room for all retries.
fn try_again_at(window: Window, now: Timestamp) -> Timestamp {
    let pause = window.end.duration_since(window.begin) / 16;
    let pause = pause.max(SignedDuration::from_mins(1));
    let at = now.checked_add(pause).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{HourWindow, Weekdays};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn instance(n: u64) -> InstanceId {
        format!("00000000-0000-4000-8000-{n:012x}").parse().unwrap()
    }

    fn plan(days: &[i64], window: &str) -> WeeklyPlan {
        let window: HourWindow = window.parse().unwrap();
        WeeklyPlan { days: Weekdays::from_numbers(days).unwrap(), window }
    }

    const DAILY: &[i64] = &[1, 2, 3, 4, 5, 6, 7];

    fn seconds(n: i64) -> SignedDuration {
        SignedDuration::from_secs(n)
    }

    #[test]
    fn a_week_has_windows_on_its_days() {
        // The 22nd of November 2026 is a Sunday.
        let nightly = plan(&[1, 7], "22:00-02:00");
        let mut after = at("2026-11-22T21:59:59Z");
        let mut begins = Vec::new();
        for _ in 0..3 {
            let window = nightly.next_window(after).unwrap();
            assert_eq!(window.end.duration_since(window.begin), SignedDuration::from_hours(4));
            begins.push(window.begin.to_string());
            after = window.begin;
        }
        let expected = ["2026-11-22T22:00:00Z", "2026-11-23T22:00:00Z", "2026-11-29T22:00:00Z"];
        assert_eq!(begins, expected);
        assert_eq!(nightly.next_window(at("2026-11-22T22:00:00Z")).unwrap().begin, at(expected[1]));
        assert_eq!(nightly.next_window(at(expected[0])).unwrap().to_string(), "22:00-02:00");
    }

    #[test]
    fn a_policy_begins_with_the_window_that_is_open() {
        let (plan, id) = (plan(DAILY, "22:00-02:00"), instance(0));
        for (now, begin) in [
            ("2026-11-22T21:59:59Z", "2026-11-22T22:00:00Z"),
            ("2026-11-22T22:00:00Z", "2026-11-22T22:00:00Z"),
            ("2026-11-23T01:59:59Z", "2026-11-22T22:00:00Z"),
            ("2026-11-23T02:00:00Z", "2026-11-23T22:00:00Z"),
        ] {
            let agenda = Agenda::first(&plan, id, at(now));
            assert_eq!(agenda.window.unwrap().begin, at(begin), "{now}");
            assert_eq!(agenda.next_at, at(begin), "this instance is the first of all");
        }
    }

    #[test]
    fn what_is_to_come_is_the_window_that_has_not_begun_for_this_instance() {
        let plan = Plan::Weekly(plan(DAILY, "22:00-02:00"));
        // Of all the last to begin.
        let id = "ffffffff-ffff-4fff-8fff-ffffffffffff".parse().unwrap();
        let first = plan.next_window(at("2026-11-22T12:00:00Z")).unwrap();
        let start = first.start_of(id);
        assert!(first.begin < start && start < first.end);
        for (now, window) in [
            (at("2026-11-22T12:00:00Z"), first),
            (first.begin, first),
            (start, plan.next_window(first.begin).unwrap()),
            (first.end, plan.next_window(first.begin).unwrap()),
        ] {
            let (found, begins) = Agenda::upcoming(&plan, id, now).unwrap();
            assert_eq!((found, begins > now), (window, true), "{now}");
            assert!(window.contains(begins));
        }
    }

    #[test]
    fn windows_that_touch_each_other_all_have_their_turn() {
        let now = at("2026-11-22T00:00:00Z");
        let hourly = Schedule::new("0 * * * *", "UTC", SignedDuration::from_hours(1), now).unwrap();
        let mut agenda = Agenda::first(&hourly, instance(0), now);
        for hour in 0..5 {
            let now = now + SignedDuration::from_hours(hour);
            assert_eq!(agenda.next_at, now);
            let decided = agenda.decide(
                &hourly,
                MissedWindow::Skip,
                instance(0),
                Tried { outcome: Outcome::Succeeded, retries: 0 },
                now,
            );
            let Decision::Rest(next) = decided else { panic!("{decided:?}") };
            agenda = next;
        }
    }

    #[test]
    fn a_try_that_somebody_broke_off_is_not_made_again() {
        let plan = plan(DAILY, "22:00-23:00");
        let now = at("2026-11-22T22:30:00Z");
        let agenda = Agenda::first(&plan, instance(0), now);
        let begin = agenda.window.unwrap().begin;
        let tries = [(begin, Outcome::Failed), (begin, Outcome::Cancelled)];
        let tried = Tried::of(agenda.window.unwrap(), &tries);
        assert_eq!(tried.outcome, Outcome::Cancelled);
        let decision = agenda.decide(&plan, MissedWindow::Skip, instance(0), tried, now);
        let Decision::Rest(then) = decision else { panic!("{decision:?}") };
        assert_eq!(then.window.unwrap().begin, at("2026-11-23T22:00:00Z"));
    }

    #[test]
    fn a_try_that_failed_is_made_again_three_times_a_day_at_the_most() {
        let plan = plan(DAILY, "22:00-23:00");
        let mut now = at("2026-11-22T22:00:00Z");
        let mut agenda = Agenda::first(&plan, instance(0), now);
        let mut tries = Vec::new();
        while now < at("2026-11-22T23:30:00Z") {
            let window = agenda.window.unwrap();
            let tried = Tried::of(window, &tries);
            agenda = match agenda.decide(&plan, MissedWindow::Skip, instance(0), tried, now) {
                Decision::Begin(window, then) => {
                    tries.push((window.begin, Outcome::Failed));
                    then
                }
                Decision::Rest(then) => then,
                miss @ Decision::Miss(..) => panic!("{miss:?}"),
            };
            now += seconds(30);
        }
        assert_eq!(tries.len(), 4);
        assert_eq!(agenda.window.unwrap().begin, at("2026-11-23T22:00:00Z"));
    }

    #[test]
    fn retries_are_counted_by_days() {
        let hour = SignedDuration::from_hours(1);
        let window = |begin: &str| Window { begin: at(begin), end: at(begin) + hour };
        let (first, second) = (window("2026-11-22T21:00:00Z"), window("2026-11-22T23:00:00Z"));
        let day = (at("2026-11-22T00:00:00Z"), at("2026-11-23T00:00:00Z"));
        assert_eq!((Tried::day_of(first), Tried::day_of(second)), (day, day));
        let tries = [
            (first.begin, Outcome::Failed),
            (first.begin, Outcome::Failed),
            (first.begin, Outcome::Succeeded),
            (second.begin, Outcome::Failed),
        ];
        let tried = |outcome, retries| Tried { outcome, retries };
        assert_eq!(Tried::of(first, &tries), tried(Outcome::Succeeded, 2));
        assert_eq!(Tried::of(second, &tries), tried(Outcome::Failed, 2));
        assert_eq!(Tried::of(second, &tries[..3]), tried(Outcome::Untried, 2));
    }

    #[test]
    fn a_window_that_passed_is_recorded_or_caught_up() {
        let plan = plan(DAILY, "22:00-23:00");
        let agenda = Agenda::first(&plan, instance(0), at("2026-11-22T12:00:00Z"));
        let missed = agenda.window.unwrap();
        let decide = |rule, now| agenda.decide(&plan, rule, instance(0), Tried::NOTHING, at(now));
        let after = |decision| match decision {
            Decision::Miss(window, then) if window == missed => ("miss", then.window.unwrap()),
            Decision::Begin(window, then) if window == missed => ("begin", then.window.unwrap()),
            other => panic!("{other:?}"),
        };
        for (rule, now, expected, next) in [
            (MissedWindow::Skip, "2026-11-22T23:00:00Z", "miss", "2026-11-23T22:00:00Z"),
            (MissedWindow::CatchUp, "2026-11-22T23:00:00Z", "begin", "2026-11-23T22:00:00Z"),
            (MissedWindow::CatchUp, "2026-11-29T12:00:00Z", "begin", "2026-11-29T22:00:00Z"),
            // The backup of the open window is worth more.
            (MissedWindow::CatchUp, "2026-11-29T22:30:00Z", "miss", "2026-11-29T22:00:00Z"),
        ] {
            let (done, window) = after(decide(rule, now));
            assert_eq!((done, window.begin), (expected, at(next)), "{rule:?} {now}");
        }
    }

    #[test]
    fn what_a_wrong_clock_decided_is_decided_again() {
        let plan = plan(DAILY, "22:00-23:00");
        let agenda = Agenda::first(&plan, instance(0), at("2036-01-01T00:00:00Z"));
        let now = at("2026-11-22T22:59:00Z");
        let decided = agenda.decide(&plan, MissedWindow::Skip, instance(0), Tried::NOTHING, now);
        let Decision::Rest(agenda) = decided else { panic!("{decided:?}") };
        assert_eq!(agenda.window.unwrap().begin, at("2026-11-22T22:00:00Z"));
        assert!(agenda.next_at <= now && agenda.decided_at == now);
    }

    /// One thing that happens in a simulated time.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        /// Time passes with the scheduler looking.
        Pass(i64),
        /// Time passes while the service is down.
        Down(i64),
        /// The clock is put back.
        Back(i64),
        /// The open try ends.
        End(bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (30..4000i64).prop_map(Event::Pass),
            1 => (0..400_000i64).prop_map(Event::Down),
            1 => (0..400_000i64).prop_map(Event::Back),
            5 => any::<bool>().prop_map(Event::End),
        ]
    }

    fn some_plan() -> impl Strategy<Value = Schedule> {
        let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
        (0..60u8, 0..24u8, 1..1440i64, 0..zones.len(), any::<bool>()).prop_map(
            move |(minute, hour, minutes, zone, hourly)| {
                let hour = if hourly { "*".to_owned() } else { hour.to_string() };
                let length = SignedDuration::from_mins(minutes);
                let now = at("2026-01-01T00:00:00Z");
                Schedule::new(&format!("{minute} {hour} * * *"), zones[zone], length, now).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn never_two_at_once_nor_outside_a_window_nor_too_often(
            plan in some_plan(),
            n: u64,
            events in proptest::collection::vec(event(), 1..120),
            catches_up: bool,
        ) {
            let id = instance(n & 0xffff_ffff_ffff);
            let missed = if catches_up { MissedWindow::CatchUp } else { MissedWindow::Skip };
            let mut now = at("2026-03-27T00:00:00Z");
            let mut agenda = Agenda::first(&plan, id, now);
            let mut tries: Vec<(Timestamp, Outcome)> = Vec::new();
            for event in events {
                match event {
                    Event::Pass(by) | Event::Down(by) => now += seconds(by),
                    Event::Back(by) => now -= seconds(by),
                    Event::End(good) => {
                        let end = if good { Outcome::Succeeded } else { Outcome::Failed };
                        for open in tries.iter_mut().filter(|(_, o)| *o == Outcome::Open) {
                            open.1 = end;
                        }
                    }
                }
                if matches!(event, Event::Down(_)) { continue }
                // Rounds go on until there is nothing to do at this moment.
                for round in 0.. {
                    prop_assert!(round < 5, "it comes to rest");
                    let is_due = agenda.next_at <= now || agenda.decided_at > now;
                    if !is_due { break }
                    let tried = agenda.window.map_or(Tried::NOTHING, |window| Tried::of(window, &tries));
                    match agenda.decide(&plan, missed, id, tried, now) {
                        Decision::Rest(then) => agenda = then,
                        Decision::Begin(window, then) => {
                            let here = || tries.iter().filter(|(begin, _)| *begin == window.begin);
                            prop_assert!(here().all(|(_, outcome)| *outcome == Outcome::Failed));
                            let is_retry = here().count() > 0;
                            prop_assert!(!is_retry || tried.retries < RETRIES_A_DAY_MAX);
                            let caught_up = catches_up && now >= window.end && here().count() == 0;
                            prop_assert!(window.contains(now) || caught_up, "{now} {window:?}");
                            prop_assert!(now >= window.start_of(id) - seconds(1));
                            // The catalog refuses a second one that would run at the same time.
                            let is_busy = tries.iter().any(|(_, o)| *o == Outcome::Open);
                            tries.push((window.begin, if is_busy { Outcome::Failed } else { Outcome::Open }));
                            agenda = then;
                        }
                        Decision::Miss(window, then) => {
                            prop_assert!(window.end <= now);
                            prop_assert!(tries.iter().all(|(begin, _)| *begin != window.begin));
                            tries.push((window.begin, Outcome::Failed));
                            agenda = then;
                        }
                    }
                    prop_assert!(agenda.decided_at == now);
                }
            }
        }
    }
}
