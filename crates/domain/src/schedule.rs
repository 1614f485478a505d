//! Recurring windows of time in which backups begin by themselves.
//!
//! A pattern like cron's says when windows begin, on the clock of a time zone; each lasts equally
//! long. Where that clock is put forward over a window's beginning, the window begins when it has
//! been; where it is put back over it, the window begins once, the first time. Both are what croner
//! does for patterns of fixed times; patterns of intervals go by what the clock shows.

use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::InstanceId;

/// The longest pattern and the longest name of a time zone, characters.
const TEXT_CHARS_MAX: usize = 128;

/// What is wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// Write minute, hour, day of the month, month and day of the week.
    #[error(
        "`{0}` is no pattern of minute, hour, day of the month, month and day of the week, such as `30 2 * * 1-5`"
    )]
    Pattern(String),
    /// Name one of the IANA time zone database.
    #[error("`{0}` is no time zone of the IANA database, such as `Europe/Berlin`")]
    Zone(String),
    /// Choose a length within the bounds.
    #[error("a window lasts whole minutes, from 1 to 1440")]
    Length,
    /// The pattern names no day that exists.
    #[error("the pattern names no moment at all")]
    Never,
}

/// When windows begin, and how long they last.
#[derive(Clone)]
pub struct Schedule {
    cron: Cron,
    pattern: String,
    zone: TimeZone,
    zone_name: String,
    length: SignedDuration,
}

/// One window; its end does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub begin: Timestamp,
    /// The first moment behind it.
    pub end: Timestamp,
}

impl Schedule {
    /// Windows of this length that begin as the pattern says in this time zone.
    ///
    /// # Errors
    /// [`InvalidSchedule`]; `now` serves to find out that there is no such moment at all.
    pub fn new(
        pattern: &str,
        zone: &str,
        length: SignedDuration,
        now: Timestamp,
    ) -> Result<Self, InvalidSchedule> {
        let schedule = Self::known(pattern, zone, length)?;
        match schedule.next_window(now) {
            Some(_) => Ok(schedule),
            None => Err(InvalidSchedule::Never),
        }
    }

    /// The same of one that is known to have windows, because [`Schedule::new`] gave it once.
    ///
    /// # Errors
    /// [`InvalidSchedule`].
    pub fn known(
        pattern: &str,
        zone: &str,
        length: SignedDuration,
    ) -> Result<Self, InvalidSchedule> {
        let bad_pattern = || InvalidSchedule::Pattern(shown(pattern));
        if pattern.chars().count() > TEXT_CHARS_MAX {
            return Err(bad_pattern());
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(pattern).map_err(|_| bad_pattern())?;
        let found = time_zone(zone)?;
        let minutes = length.as_mins();
        if !(1..=24 * 60).contains(&minutes) || length != SignedDuration::from_mins(minutes) {
            return Err(InvalidSchedule::Length);
        }
        let (pattern, zone_name) = (pattern.to_owned(), zone.to_owned());
        Ok(Self { cron, pattern, zone: found, zone_name, length })
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The name of the time zone.
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// How long a window lasts.
    pub fn length(&self) -> SignedDuration {
        self.length
    }

    /// The first window that begins after a moment; asked for with the end of one, the next that
    /// does not overlap it. `None` when time ends first.
    pub fn next_window(&self, after: Timestamp) -> Option<Window> {
        let from = after.to_zoned(self.zone.clone());
        let begin = self.cron.find_next_occurrence(&from, false).ok()?.timestamp();
        Some(Window { begin, end: begin.checked_add(self.length).ok()? })
    }
}

/// The time zone of this name.
///
/// # Errors
/// [`InvalidSchedule::Zone`].
pub fn time_zone(name: &str) -> Result<TimeZone, InvalidSchedule> {
    let unknown = || InvalidSchedule::Zone(shown(name));
    if name.chars().count() > TEXT_CHARS_MAX {
        return Err(unknown());
    }
    TimeZone::get(name).map_err(|_| unknown())
}

/// What a message repeats of a text from outside.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({} in {} for {})", self.pattern, self.zone_name, self.length)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.pattern, &self.zone_name, self.length)
            == (&other.pattern, &other.zone_name, other.length)
    }
}

impl Eq for Schedule {}

impl fmt::Display for Window {
    /// Its hours in UTC, such as `22:00-23:00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.begin.strftime("%H:%M"), self.end.strftime("%H:%M"))
    }
}

impl Window {
    /// Whether a moment is in it.
    pub fn contains(&self, moment: Timestamp) -> bool {
        self.begin <= moment && moment < self.end
    }

    /// When an instance is to begin: always the same place in each of its windows, evenly spread
    /// over instances, so that not all of a fleet begin at once. The last quarter is left free for
    /// what has to be tried again.
    pub fn start_of(&self, instance: InstanceId) -> Timestamp {
        // A version 4 identifier's last eight bytes hold 62 random bits, the lowest ones.
        let mut random = [0; 8];
        random.copy_from_slice(&instance.as_bytes()[8..]);
        let place = u128::from(u64::from_be_bytes(random) << 2);
        let usable = self.end.duration_since(self.begin).as_nanos().unsigned_abs() * 3 / 4;
        // Both factors are below 2^64: a window lasts 24 hours at the most.
        let offset = (usable * place) >> 64;
        let offset = i64::try_from(offset).map_or(SignedDuration::ZERO, SignedDuration::from_nanos);
        self.begin.checked_add(offset).unwrap_or(self.begin)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(pattern: &str, zone: &str) -> Schedule {
        Schedule::new(pattern, zone, HOUR, at("2026-11-21T00:00:00Z")).unwrap()
    }

    fn begins(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
        let mut after = at(after);
        let mut next = || {
            let window = schedule.next_window(after)?;
            assert_eq!(window.end.duration_since(window.begin), schedule.length());
            after = window.begin;
            Some(window.begin.to_string())
        };
        std::iter::from_fn(&mut next).take(count).collect()
    }

    #[test]
    fn windows_follow_the_clock_of_their_zone() {
        let nightly = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            begins(&nightly, "2026-11-20T12:00:00Z", 2),
            ["2026-11-21T01:30:00Z", "2026-11-22T01:30:00Z"]
        );
        // Summer time begins on 28 March 2027 at 2:00, which is 3:00 then.
        assert_eq!(
            begins(&nightly, "2027-03-27T02:00:00Z", 2),
            ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]
        );
        // It ends on 31 October 2027 at 3:00, which is 2:00 once more.
        assert_eq!(
            begins(&nightly, "2027-10-30T12:00:00Z", 2),
            ["2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"]
        );
    }

    #[test]
    fn leap_days_and_ends_of_months_come_when_they_exist() {
        let leap = schedule("0 3 29 2 *", "UTC");
        assert_eq!(
            begins(&leap, "2026-01-01T00:00:00Z", 2),
            ["2028-02-29T03:00:00Z", "2032-02-29T03:00:00Z"]
        );
        let last = schedule("0 3 31 * *", "UTC");
        assert_eq!(
            begins(&last, "2027-01-31T03:00:00Z", 2),
            ["2027-03-31T03:00:00Z", "2027-05-31T03:00:00Z"]
        );
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        let now = at("2026-11-21T00:00:00Z");
        let new =
            |pattern: &str, zone: &str, length| Schedule::new(pattern, zone, length, now).map(drop);
        for pattern in ["", "* * * *", "0 0 3 * * *", "61 * * * *", "0 3 * * x", &"*".repeat(500)] {
            let refused = new(pattern, "UTC", HOUR);
            assert!(matches!(refused, Err(InvalidSchedule::Pattern(_))), "{pattern}: {refused:?}");
        }
        for zone in ["", "Mars/Olympus", "../../etc/passwd", &"x".repeat(500)] {
            let refused = new("0 3 * * *", zone, HOUR);
            assert!(matches!(refused, Err(InvalidSchedule::Zone(_))), "{zone}: {refused:?}");
        }
        for seconds in [0, 59, 24 * 3600 + 1] {
            let refused = new("0 3 * * *", "UTC", SignedDuration::from_secs(seconds));
            assert_eq!(refused, Err(InvalidSchedule::Length), "{seconds}");
        }
        assert_eq!(new("0 3 30 2 *", "UTC", HOUR), Err(InvalidSchedule::Never));
    }

    #[test]
    fn a_fleet_is_spread_over_the_window_and_each_keeps_its_place() {
        let window = Window { begin: at("2026-11-21T02:00:00Z"), end: at("2026-11-21T03:00:00Z") };
        let mut quarters = [0u32; 4];
        let mut state = 1u128;
        for _ in 0..10_000 {
            // A generator of the textbook (Lehmer's), of which the upper half is taken.
            state = state.wrapping_mul(0xda94_2042_e4dd_58b5);
            let low = (state >> 60) & u128::from(u64::MAX);
            let bytes = (((state >> 64) << 64) | low).to_be_bytes();
            let id = uuid::Builder::from_random_bytes(bytes).into_uuid().to_string();
            let start = window.start_of(id.parse().unwrap());
            assert!(window.contains(start));
            let minute = start.duration_since(window.begin).as_secs() / 60;
            quarters[usize::try_from(minute / 15).unwrap()] += 1;
        }
        assert_eq!(quarters[3], 0);
        assert!(quarters[..3].iter().all(|count| (3100..3600).contains(count)), "{quarters:?}");
    }

    const ZONES: [&str; 6] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Pacific/Apia",
    ];

    /// When a daily time comes next, found by going through the days one by one.
    fn by_hand(
        hour: i8,
        minute: i8,
        days: &[bool; 7],
        zone: &TimeZone,
        after: Timestamp,
    ) -> Timestamp {
        let mut day = after.to_zoned(zone.clone()).date().yesterday().unwrap();
        loop {
            let civil = day.at(hour, minute, 0, 0);
            let begin = match zone.to_ambiguous_timestamp(civil).offset() {
                jiff::tz::AmbiguousOffset::Gap { before, .. } => {
                    // The moment at which the clock is put forward.
                    let wrong = before.to_timestamp(civil).unwrap();
                    zone.preceding(wrong).next().unwrap().timestamp()
                }
                _ => zone.to_ambiguous_timestamp(civil).earlier().unwrap(),
            };
            if days[usize::from(day.weekday().to_sunday_zero_offset().unsigned_abs())]
                && begin > after
            {
                return begin;
            }
            day = day.tomorrow().unwrap();
        }
    }

    proptest! {
        #[test]
        fn daily_windows_are_those_found_by_hand(
            hour in 0..24i8,
            minute in 0..60i8,
            days in any::<[bool; 7]>().prop_filter("some day", |days| days.contains(&true)),
            zone in 0..ZONES.len(),
            after in 1_700_000_000..2_000_000_000i64,
        ) {
            let numbers: Vec<_> =
                (0..7).filter(|n| days[*n]).map(|n| n.to_string()).collect();
            let pattern = format!("{minute} {hour} * * {}", numbers.join(","));
            let schedule = schedule(&pattern, ZONES[zone]);
            let after = Timestamp::from_second(after).unwrap();
            let zone = TimeZone::get(ZONES[zone]).unwrap();
            let found = schedule.next_window(after).unwrap().begin;
            prop_assert_eq!(found, by_hand(hour, minute, &days, &zone, after));
        }
    }
}
