//! When an instance is backed up by itself, and for how long such backups are kept.
//!
//! Plain values and their laws. What runs them asks [`BackupPolicy::due_plan`], and goes by an
//! [`Agenda`](crate::Agenda).

use std::fmt;
use std::str::FromStr;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::{MissedWindow, PolicyId, Retention, Schedule, Window};

/// The longest that backups of a plan are kept as the vendor has it, days.
pub const SAVE_DAYS_MAX: u8 = 7;
/// The longest that a policy of ours promises to keep a backup, days.
pub const KEEP_DAYS_MAX: u16 = 3650;
/// The most that a policy keeps by count, and periods of each kind of generation.
pub const KEEP_COUNT_MAX: u32 = 10_000;

/// What is wrong with a backup policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Name 1 to 7 days.
    #[error("backups of a plan are kept for 1 to {SAVE_DAYS_MAX} days")]
    SaveDays,
    /// Name at least one day of the week, 1 for Monday to 7 for Sunday.
    #[error("a plan names at least one day of the week, 1 for Monday to 7 for Sunday")]
    Weekdays,
    /// Name whole hours of UTC.
    #[error("{}", InvalidWindow)]
    Window,
    /// Name 1 to 3650 days.
    #[error("backups are kept for 1 to {KEEP_DAYS_MAX} days")]
    KeepDays,
    /// Name a smaller number.
    #[error("`{0}` is {KEEP_COUNT_MAX} at the most")]
    KeepCount(&'static str),
    /// Name days, a count or generations.
    #[error("it keeps nothing: name days, a count or generations")]
    KeepsNothing,
}

/// Days of the week: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekdays(u8);

impl Weekdays {
    /// The days of these numbers, 1 for Monday to 7 for Sunday; naming one twice changes nothing.
    ///
    /// # Errors
    /// [`InvalidPolicy::Weekdays`] for none, and for another number.
    pub fn from_numbers(numbers: &[i64]) -> Result<Self, InvalidPolicy> {
        let mut days = 0;
        for number in numbers {
            if !(1..=7).contains(number) {
                return Err(InvalidPolicy::Weekdays);
            }
            days |= 1 << (number - 1);
        }
        if days == 0 { Err(InvalidPolicy::Weekdays) } else { Ok(Self(days)) }
    }

    /// The days as bits, Monday the lowest.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The days of these bits.
    ///
    /// # Errors
    /// [`InvalidPolicy::Weekdays`] for none, and for an eighth bit.
    pub fn from_bits(bits: u8) -> Result<Self, InvalidPolicy> {
        if (1..1 << 7).contains(&bits) { Ok(Self(bits)) } else { Err(InvalidPolicy::Weekdays) }
    }

    /// The numbers of the days, ascending.
    pub fn numbers(self) -> Vec<u8> {
        (1..=7).filter(|number| self.0 & (1 << (number - 1)) != 0).collect()
    }

    /// Whether a day is one of them.
    pub fn contains(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

/// These are no hours of a day from which to which something lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window is written `HH:00-HH:00`: two whole hours of UTC that differ, from 00 to 24")]
pub struct InvalidWindow;

/// Whole hours of each day, UTC; it may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourWindow {
    begin: u8,
    end: u8,
}

impl HourWindow {
    /// When instances may be worked on where nobody has said.
    pub(crate) const DEFAULT_MAINTENANCE: Self = Self { begin: 2, end: 6 };

    /// From `begin`, 0 to 23, to `end`, 0 to 24. An end of 24 means the next day's 0 and is kept as 24.
    ///
    /// # Errors
    /// [`InvalidWindow`] also when nothing lies between them.
    pub fn new(begin: u8, end: u8) -> Result<Self, InvalidWindow> {
        if begin > 23 || end > 24 || begin == end % 24 {
            return Err(InvalidWindow);
        }
        Ok(Self { begin, end })
    }

    /// The hour with which it begins, 0 to 23.
    pub fn begin(self) -> u8 {
        self.begin
    }

    /// The hour with which it ends, 0 to 24.
    pub fn end(self) -> u8 {
        self.end
    }

    /// How long it lasts, 1 to 23.
    pub fn hours(self) -> u8 {
        (self.end + 24 - self.begin) % 24
    }
}

impl fmt::Display for HourWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:00-{:02}:00", self.begin, self.end)
    }
}

impl FromStr for HourWindow {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let hour = |text: &str| {
            let digits = text.strip_suffix(":00").filter(|digits| digits.len() == 2)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        let (begin, end) = text.split_once('-').ok_or(InvalidWindow)?;
        Self::new(hour(begin).ok_or(InvalidWindow)?, hour(end).ok_or(InvalidWindow)?)
    }
}

/// For how many days backups of a plan are kept: 1 to 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SaveDays(u8);

impl SaveDays {
    /// The days.
    ///
    /// # Errors
    /// [`InvalidPolicy::SaveDays`].
    pub fn new(days: i64) -> Result<Self, InvalidPolicy> {
        match u8::try_from(days) {
            Ok(days) if (1..=SAVE_DAYS_MAX).contains(&days) => Ok(Self(days)),
            _ => Err(InvalidPolicy::SaveDays),
        }
    }

    /// How many they are.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// For how many days a policy promises to keep a backup: 1 to 3650.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeepDays(u16);

impl KeepDays {
    /// The days.
    ///
    /// # Errors
    /// [`InvalidPolicy::KeepDays`].
    pub fn new(days: i64) -> Result<Self, InvalidPolicy> {
        match u16::try_from(days) {
            Ok(days) if (1..=KEEP_DAYS_MAX).contains(&days) => Ok(Self(days)),
            _ => Err(InvalidPolicy::KeepDays),
        }
    }

    /// How many they are.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl From<SaveDays> for KeepDays {
    fn from(days: SaveDays) -> Self {
        Self(days.0.into())
    }
}

/// What a policy keeps of its backups: what any part of it keeps stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    days: Option<KeepDays>,
    rules: Retention,
}

impl Keep {
    /// What was made in so many days, and what the rules keep beside.
    ///
    /// # Errors
    /// [`InvalidPolicy::KeepCount`], [`InvalidPolicy::KeepsNothing`].
    pub fn new(days: Option<KeepDays>, rules: Retention) -> Result<Self, InvalidPolicy> {
        let generations = rules.generations;
        for (number, what) in [
            (rules.count, "count"),
            (generations.daily, "daily"),
            (generations.weekly, "weekly"),
            (generations.monthly, "monthly"),
            (generations.yearly, "yearly"),
        ] {
            if number > KEEP_COUNT_MAX {
                return Err(InvalidPolicy::KeepCount(what));
            }
        }
        if days.is_none() && !rules.counts() {
            return Err(InvalidPolicy::KeepsNothing);
        }
        Ok(Self { days, rules })
    }

    /// For how many days each is promised to be kept, if that was said.
    pub fn days(&self) -> Option<KeepDays> {
        self.days
    }

    /// What keeps backups beside.
    pub fn rules(&self) -> &Retention {
        &self.rules
    }

    /// Until when a backup of this moment is promised to be kept; `None` where only count and
    /// generations decide.
    pub fn until(&self, created_at: Timestamp) -> Option<Timestamp> {
        let kept = SignedDuration::from_hours(24 * i64::from(self.days?.0));
        Some(created_at.checked_add(kept).unwrap_or(Timestamp::MAX))
    }
}

impl From<SaveDays> for Keep {
    fn from(days: SaveDays) -> Self {
        Self { days: Some(days.into()), rules: Retention::by_time() }
    }
}

/// On which days of the week, and in which hours, to begin a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeeklyPlan {
    /// The days, UTC, on which the window begins.
    pub days: Weekdays,
    /// The hours.
    pub window: HourWindow,
}

impl WeeklyPlan {
    /// The first window that begins after a moment; `None` when time ends first.
    pub fn next_window(&self, after: Timestamp) -> Option<Window> {
        let length = SignedDuration::from_hours(self.window.hours().into());
        let mut day = after.to_zoned(TimeZone::UTC).date();
        loop {
            let begin = day.at(self.window.begin().cast_signed(), 0, 0, 0);
            let begin = TimeZone::UTC.to_timestamp(begin).ok()?;
            if begin > after && self.days.contains(day.weekday()) {
                return Some(Window { begin, end: begin.checked_add(length).ok()? });
            }
            day = day.tomorrow().ok()?;
        }
    }
}

/// When to begin backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// In whole hours of days of the week, as the vendor has it.
    Weekly(WeeklyPlan),
    /// By a pattern, in a time zone.
    Schedule(Box<Schedule>),
}

/// Whether, and when, an instance is backed up by itself, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPolicy {
    is_automatic: bool,
    plan: Option<Plan>,
    keep: Option<Keep>,
    missed: Option<MissedWindow>,
}

/// What a policy that is followed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePlan {
    /// When to begin backups.
    pub plan: Plan,
    /// What is kept of them.
    pub keep: Keep,
    /// What to do about missed windows; `None` leaves it to the service.
    pub missed: Option<MissedWindow>,
}

impl BackupPolicy {
    /// Backups by a plan of the vendor's form.
    pub fn automatic(plan: WeeklyPlan, save_days: SaveDays) -> Self {
        let (plan, keep) = (Plan::Weekly(plan), save_days.into());
        Self::whole(true, DuePlan { plan, keep, missed: None })
    }

    /// Backups only when somebody asks; what a plan of the vendor's form would be is kept for later.
    pub fn manual(plan: Option<WeeklyPlan>, save_days: Option<SaveDays>) -> Self {
        let (plan, keep) = (plan.map(Plan::Weekly), save_days.map(Keep::from));
        Self { is_automatic: false, plan, keep, missed: None }
    }

    /// A policy that leaves nothing open, whether it is followed or not.
    pub fn whole(is_automatic: bool, says: DuePlan) -> Self {
        let DuePlan { plan, keep, missed } = says;
        Self { is_automatic, plan: Some(plan), keep: Some(keep), missed }
    }

    /// What was stored of a policy: none if it is to be followed and says not all of it.
    pub fn stored(
        is_automatic: bool,
        plan: Option<Plan>,
        keep: Option<Keep>,
        missed: Option<MissedWindow>,
    ) -> Option<Self> {
        let is_whole = plan.is_some() && keep.is_some();
        (is_whole || !is_automatic).then_some(Self { is_automatic, plan, keep, missed })
    }

    /// Whether backups are made by themselves.
    pub fn is_automatic(&self) -> bool {
        self.is_automatic
    }

    /// The plan, whether it is followed or not.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// What is kept, if that was said.
    pub fn keep(&self) -> Option<&Keep> {
        self.keep.as_ref()
    }

    /// What to do about missed windows; `None` leaves it to the service.
    pub fn missed(&self) -> Option<MissedWindow> {
        self.missed
    }

    /// The plan, where it has the vendor's form.
    pub fn weekly_plan(&self) -> Option<WeeklyPlan> {
        match self.plan {
            Some(Plan::Weekly(plan)) => Some(plan),
            Some(Plan::Schedule(_)) | None => None,
        }
    }

    /// The schedule, where the plan is one.
    pub fn schedule(&self) -> Option<&Schedule> {
        match &self.plan {
            Some(Plan::Schedule(schedule)) => Some(schedule),
            Some(Plan::Weekly(_)) | None => None,
        }
    }

    /// For how many days backups are kept, where the vendor's form can say all that is kept.
    pub fn save_days(&self) -> Option<SaveDays> {
        let keep = self.keep.as_ref().filter(|keep| !keep.rules.counts())?;
        SaveDays::new(keep.days?.0.into()).ok()
    }

    /// What is to be followed; `None` where nothing is done by itself.
    pub fn due_plan(&self) -> Option<DuePlan> {
        let (plan, keep) = self.plan.clone().zip(self.keep.clone())?;
        self.is_automatic.then_some(DuePlan { plan, keep, missed: self.missed })
    }

    /// What holds after `next` was asked for: what it leaves open stays as it is here.
    pub fn changed_to(&self, next: Self) -> Self {
        Self {
            is_automatic: next.is_automatic,
            // What to do about missed windows belongs to their plan.
            missed: if next.plan.is_some() { next.missed } else { self.missed },
            plan: next.plan.or_else(|| self.plan.clone()),
            keep: next.keep.or_else(|| self.keep.clone()),
        }
    }
}

/// The policy of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Names it; it stays the same through all changes.
    pub id: PolicyId,
    /// What it says.
    pub policy: BackupPolicy,
    /// When there first was one.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Generations;

    fn plan(days: &[i64], window: &str) -> WeeklyPlan {
        WeeklyPlan { days: Weekdays::from_numbers(days).unwrap(), window: window.parse().unwrap() }
    }

    #[test]
    fn days_are_numbers_from_monday_to_sunday() {
        let days = Weekdays::from_numbers(&[7, 1, 3, 1]).unwrap();
        assert_eq!(days.numbers(), [1, 3, 7]);
        assert!(days.contains(Weekday::Monday) && days.contains(Weekday::Sunday));
        assert!(!days.contains(Weekday::Tuesday));
        assert_eq!(Weekdays::from_bits(days.bits()), Ok(days));
        for bad in [&[][..], &[0], &[8], &[-1], &[1, 9]] {
            assert_eq!(Weekdays::from_numbers(bad), Err(InvalidPolicy::Weekdays), "{bad:?}");
        }
        assert!(Weekdays::from_bits(0).is_err() && Weekdays::from_bits(128).is_err());
    }

    #[test]
    fn windows_are_whole_hours_that_may_go_over_midnight() {
        for (text, hours, shown) in [
            ("00:00-01:00", 1, "00:00-01:00"),
            ("02:00-06:00", 4, "02:00-06:00"),
            ("23:00-24:00", 1, "23:00-24:00"),
            ("23:00-00:00", 1, "23:00-00:00"),
            ("22:00-02:00", 4, "22:00-02:00"),
        ] {
            let window: HourWindow = text.parse().unwrap();
            assert_eq!((window.hours(), window.to_string().as_str()), (hours, shown), "{text}");
        }
        for bad in [
            "",
            "1:00-2:00",
            "01:30-02:30",
            "24:00-01:00",
            "05:00-05:00",
            "00:00-24:00",
            "+1:00-02:00",
        ] {
            assert_eq!(bad.parse::<HourWindow>(), Err(InvalidWindow), "{bad}");
        }
    }

    #[test]
    fn backups_are_kept_for_one_to_seven_days() {
        assert_eq!(SaveDays::new(7).map(SaveDays::get), Ok(7));
        for bad in [0, 8, -1, 257] {
            assert_eq!(SaveDays::new(bad), Err(InvalidPolicy::SaveDays), "{bad}");
        }
    }

    #[test]
    fn switching_to_manual_keeps_the_plan_but_follows_it_no_more() {
        let (first, days) = (plan(&[1], "00:00-01:00"), SaveDays::new(3).unwrap());
        let automatic = BackupPolicy::automatic(first, days);
        let says = |plan| DuePlan { plan: Plan::Weekly(plan), keep: days.into(), missed: None };
        assert_eq!(automatic.due_plan(), Some(says(first)));
        let manual = automatic.changed_to(BackupPolicy::manual(None, None));
        assert_eq!((manual.weekly_plan(), manual.save_days()), (Some(first), Some(days)));
        assert_eq!((manual.is_automatic(), manual.due_plan()), (false, None));
        let second = plan(&[2], "05:00-06:00");
        let again = manual.changed_to(BackupPolicy::automatic(second, days));
        assert_eq!(again.due_plan(), Some(says(second)));
    }

    fn rules(count: u32, yearly: u32) -> Retention {
        let generations = Generations { yearly, ..Generations::default() };
        Retention { count, generations, ..Retention::by_time() }
    }

    #[test]
    fn a_policy_keeps_something_within_bounds() {
        let keep = |days: Option<i64>, count, yearly| {
            let days = days.map(KeepDays::new).transpose()?;
            Keep::new(days, rules(count, yearly))
        };
        let now = Timestamp::UNIX_EPOCH;
        let day = SignedDuration::from_hours(24);
        assert_eq!(keep(Some(3650), 0, 0).unwrap().until(now), Some(now + day * 3650));
        assert_eq!(keep(None, 1, 0).unwrap().until(now), None);
        assert!(keep(None, 0, 10_000).is_ok());
        for (days, count, yearly, error) in [
            (None, 0, 0, InvalidPolicy::KeepsNothing),
            (Some(0), 1, 1, InvalidPolicy::KeepDays),
            (Some(3651), 0, 0, InvalidPolicy::KeepDays),
            (Some(1 << 40), 0, 0, InvalidPolicy::KeepDays),
            (Some(1), 10_001, 0, InvalidPolicy::KeepCount("count")),
            (Some(1), 0, u32::MAX, InvalidPolicy::KeepCount("yearly")),
        ] {
            assert_eq!(keep(days, count, yearly), Err(error), "{days:?} {count} {yearly}");
        }
    }

    #[test]
    fn the_vendors_form_says_only_what_is_true_of_a_richer_policy() {
        let now = Timestamp::UNIX_EPOCH;
        let hour = SignedDuration::from_hours(1);
        let schedule = Schedule::new("30 2 * * *", "Europe/Berlin", hour, now).unwrap();
        let (week, days) = (plan(&[1], "00:00-01:00"), KeepDays::new(7).unwrap());
        let keep = |days, rules| Keep::new(Some(days), rules).unwrap();
        let says = |plan, keep| {
            let missed = Some(MissedWindow::CatchUp);
            BackupPolicy::whole(true, DuePlan { plan, keep, missed })
        };
        let by_pattern = Plan::Schedule(Box::new(schedule));
        let policy = says(by_pattern.clone(), keep(days, Retention::by_time()));
        assert_eq!((policy.weekly_plan(), policy.save_days()), (None, SaveDays::new(7).ok()));
        let longer = KeepDays::new(8).unwrap();
        for keep in [keep(days, rules(1, 0)), keep(longer, Retention::by_time())] {
            let policy = says(Plan::Weekly(week), keep);
            assert_eq!((policy.weekly_plan(), policy.save_days()), (Some(week), None));
        }
        // Whoever asks for the vendor's form gets it, and nothing of what was before.
        let asked = BackupPolicy::automatic(week, SaveDays::new(2).unwrap());
        assert_eq!(policy.changed_to(asked.clone()), asked);
        let manual = policy.changed_to(BackupPolicy::manual(None, None));
        assert_eq!((manual.plan(), manual.missed()), (Some(&by_pattern), policy.missed()));
    }
}
