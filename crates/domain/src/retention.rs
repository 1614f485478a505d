//! Which backups of an instance are to go, because their time is over or there are too many.
//!
//! Plain arithmetic over all of an instance's backups that have files. The newest good backup is
//! never among those that go, nor the newest whose content is verified, nor one that is held or in use.
//! Opaque backups count among themselves: they never push out one whose content is verified. Nor do
//! safety backups count against those that a person or a policy asked for.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::{BackupId, Trigger};

/// The most backups with files that an instance may have, as the vendor has it.
pub const BACKUPS_WITH_FILES_MAX: usize = 24;

/// For how many periods the newest backup of each is kept: grandfather, father, son.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generations {
    /// Days.
    pub daily: u32,
    /// Weeks, which begin on Monday.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

/// What keeps automatic backups, beside the time until which each was promised to be kept: what any
/// of the rules keeps stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest stay.
    pub count: u32,
    /// Of each of the latest periods that have backups, the newest stays.
    pub generations: Generations,
    /// Where days begin.
    pub zone: TimeZone,
}

impl Retention {
    /// Nothing but the promised time keeps a backup.
    pub fn by_time() -> Self {
        Self { count: 0, generations: Generations::default(), zone: TimeZone::UTC }
    }

    /// Whether there are such rules at all: without, what has no promised time is never over.
    pub fn counts(&self) -> bool {
        self.count > 0 || self.generations != Generations::default()
    }
}

/// From when on a backup holds so few keys that it may be of the wrong data, such as that of an empty
/// server after a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShrinkRule {
    percent: u8,
}

impl ShrinkRule {
    /// The most that may be asked for: beyond, what every cache does at night would count.
    pub const PERCENT_MAX: u8 = 50;

    /// A backup with fewer keys than so many percent of those before has shrunk; none with 0. More
    /// than [`ShrinkRule::PERCENT_MAX`] counts as that.
    pub fn below_percent(percent: u8) -> Self {
        Self { percent: percent.min(Self::PERCENT_MAX) }
    }

    /// Whether `keys` are far fewer than `before`.
    pub fn is_shrunk(self, before: u64, keys: u64) -> bool {
        u128::from(keys) * 100 < u128::from(before) * u128::from(self.percent)
    }

    /// Whether a larger backup with `newer` keys is held in place of one with `held`: it has half as
    /// many at least. So holds halve from each to the next, and are few.
    pub fn takes_over(held: u64, newer: u64) -> bool {
        u128::from(newer) * 2 >= u128::from(held)
    }
}

impl Default for ShrinkRule {
    /// Fewer than a tenth.
    fn default() -> Self {
        Self::below_percent(10)
    }
}

/// A backup with files, as far as retention is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retained {
    /// Its id.
    pub id: BackupId,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// What made it start.
    pub trigger: Trigger,
    /// Until when it was promised to be kept; none for one that somebody asked for, and where only
    /// count and generations decide, as long as there are such rules.
    pub keep_until: Option<Timestamp>,
    /// Whether it can be restored: it succeeded, and nothing is known to be wrong with it.
    pub is_good: bool,
    /// Whether its content is not verified, so that a restore of it is not certain to work.
    pub is_opaque: bool,
    /// Whether somebody has forbidden that it is removed.
    pub is_held: bool,
    /// Whether a restore, a download or a drill needs it now.
    pub is_in_use: bool,
}

impl Retained {
    fn is_automatic(&self) -> bool {
        self.trigger == Trigger::Automatic
    }

    fn is_safety(&self) -> bool {
        self.trigger == Trigger::Safety
    }

    fn may_go(&self, newest_good: &[BackupId]) -> bool {
        !self.is_held && !self.is_in_use && !newest_good.contains(&self.id)
    }
}

/// The automatic backups that neither their promised time nor any rule keeps, the oldest first.
pub fn expired(backups: &[Retained], rules: &Retention, now: Timestamp) -> Vec<BackupId> {
    let all = newest_first(backups);
    let newest_good = newest_good(&all);
    let good = all.iter().filter(|backup| backup.is_automatic() && backup.is_good);
    let (opaque, verified): (Vec<_>, Vec<_>) = good.partition(|backup| backup.is_opaque);
    let mut kept = kept_by_rules(&verified, rules);
    kept.extend(kept_by_rules(&opaque, rules));
    let is_over = |backup: &&Retained| {
        backup.is_automatic()
            && backup.may_go(&newest_good)
            && backup.keep_until.map_or(rules.counts(), |until| until <= now)
            && !kept.contains(&backup.id)
    };
    all.iter().rev().filter(|backup| is_over(backup)).map(|backup| backup.id).collect()
}

/// What count and generations keep of these, the newest of which comes first.
fn kept_by_rules(good: &[&Retained], rules: &Retention) -> HashSet<BackupId> {
    let mut kept: HashSet<BackupId> =
        good.iter().take(rules.count as usize).map(|backup| backup.id).collect();
    for (periods, period) in rules.generations.rules() {
        let day = |backup: &Retained| backup.created_at.to_zoned(rules.zone.clone()).date();
        kept.extend(newest_of_periods(good, periods, |backup| period(day(backup))));
    }
    kept
}

/// The backups that have to go so that one more has room: the oldest safety backups first, then the
/// oldest automatic ones, then the oldest that somebody asked for. They may be too few, where others
/// may not go. For a safety backup no other goes: it is not counted among them.
pub fn beyond_limit(backups: &[Retained], limit: usize) -> Vec<BackupId> {
    let all = newest_first(backups);
    let newest_good = newest_good(&all);
    let excess_of = |count: usize| (count + 1).saturating_sub(limit);
    let oldest_of = |trigger: Trigger| {
        let oldest_first = all.iter().rev();
        oldest_first
            .filter(move |backup| backup.trigger == trigger)
            .filter(|backup| backup.may_go(&newest_good))
            .map(|backup| backup.id)
    };
    let mut gone: Vec<_> = oldest_of(Trigger::Safety).take(excess_of(all.len())).collect();
    let asked_for = all.iter().filter(|backup| !backup.is_safety()).count();
    let others = oldest_of(Trigger::Automatic).chain(oldest_of(Trigger::Manual));
    gone.extend(others.take(excess_of(asked_for)));
    gone
}

/// Newest first; among those of one moment an order that is always the same.
fn newest_first(backups: &[Retained]) -> Vec<Retained> {
    let mut sorted = backups.to_vec();
    sorted.sort_by_key(|backup| std::cmp::Reverse((backup.created_at, backup.id)));
    sorted
}

/// The newest good backup, and the newest of them whose content is verified: of all, so that the last
/// restore can be undone, and of those that are no safety backups, which may hold what it was to mend.
fn newest_good(newest_first: &[Retained]) -> Vec<BackupId> {
    let good = || newest_first.iter().filter(|backup| backup.is_good);
    let verified = || good().filter(|backup| !backup.is_opaque);
    let newest = [
        good().next(),
        verified().next(),
        good().find(|backup| !backup.is_safety()),
        verified().find(|backup| !backup.is_safety()),
    ];
    newest.into_iter().flatten().map(|backup| backup.id).collect()
}

/// Of each of the latest `periods` that have backups, the newest backup.
fn newest_of_periods<P: PartialEq>(
    newest_first: &[&Retained],
    periods: u32,
    period: impl Fn(&Retained) -> P,
) -> Vec<BackupId> {
    let (mut kept, mut last) = (Vec::new(), None);
    for backup in newest_first {
        let found = period(backup);
        if last.as_ref() == Some(&found) {
            continue;
        }
        if kept.len() == periods as usize {
            break;
        }
        kept.push(backup.id);
        last = Some(found);
    }
    kept
}

/// Names the period that a day is in.
type PeriodOf = fn(Date) -> (i16, i16);

impl Generations {
    fn rules(self) -> [(u32, PeriodOf); 4] {
        [
            (self.daily, |day| (day.year(), day.day_of_year())),
            (self.weekly, |day| {
                let week = day.iso_week_date();
                (week.year(), week.week().into())
            }),
            (self.monthly, |day| (day.year(), day.month().into())),
            (self.yearly, |day| (day.year(), 0)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, ToSpan};
    use proptest::prelude::*;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn id(n: usize) -> BackupId {
        format!("00000000-0000-4000-8000-{n:012}").parse().unwrap()
    }

    fn automatic(n: usize, created: &str) -> Retained {
        Retained {
            id: id(n),
            created_at: at(created),
            trigger: Trigger::Automatic,
            keep_until: None,
            is_good: true,
            is_opaque: false,
            is_held: false,
            is_in_use: false,
        }
    }

    /// One each day at noon, from the first of January 2028, a leap year.
    fn daily(days: usize) -> Vec<Retained> {
        let first = at("2028-01-01T12:00:00Z").to_zoned(TimeZone::UTC);
        (0..days)
            .map(|n| {
                let created_at = first.checked_add((n as i64).days()).unwrap().timestamp();
                Retained { created_at, ..automatic(n, "2028-01-01T12:00:00Z") }
            })
            .collect()
    }

    fn left(backups: &[Retained], rules: &Retention, now: &str) -> Vec<String> {
        let gone = expired(backups, rules, at(now));
        let left = backups.iter().filter(|backup| !gone.contains(&backup.id));
        left.map(|backup| backup.created_at.strftime("%m-%d").to_string()).collect()
    }

    #[test]
    fn a_promised_time_ends_to_the_moment() {
        let until = at("2026-11-21T08:00:00Z");
        let first = Retained { keep_until: Some(until), ..automatic(1, "2026-11-20T08:00:00Z") };
        let all = [first, automatic(2, "2026-11-21T07:00:00Z")];
        let rules = Retention::by_time();
        assert_eq!(expired(&all, &rules, until - SignedDuration::from_nanos(1)), []);
        assert_eq!(expired(&all, &rules, until), [id(1)]);
    }

    #[test]
    fn the_newest_good_one_stays_though_a_failed_one_is_newer() {
        let until = at("2026-11-28T00:00:00Z");
        let good = Retained { keep_until: Some(until), ..automatic(1, "2026-11-20T00:00:00Z") };
        let damaged = Retained { id: id(2), is_good: false, created_at: until, ..good };
        let all = [good, damaged];
        let gone = expired(&all, &Retention::by_time(), at("2027-11-20T00:00:00Z"));
        assert_eq!(gone, [id(2)]);
        assert_eq!(beyond_limit(&all, 1), [id(2)]);
    }

    #[test]
    fn opaque_backups_push_out_no_verified_one() {
        let mut all = daily(8);
        all[3..].iter_mut().for_each(|backup| backup.is_opaque = true);
        let rules = Retention { count: 2, ..Retention::by_time() };
        let left = left(&all, &rules, "2028-02-01T00:00:00Z");
        assert_eq!(left, ["01-02", "01-03", "01-07", "01-08"]);
        // Without rules too, the newest of both stays, however old.
        all.iter_mut().for_each(|backup| backup.keep_until = Some(backup.created_at));
        let gone = expired(&all, &Retention::by_time(), at("2030-01-01T00:00:00Z"));
        assert_eq!(gone, [0, 1, 3, 4, 5, 6].map(id));
        assert_eq!(beyond_limit(&all, 1).len(), 6);
    }

    #[test]
    fn what_no_rule_is_about_any_more_stays() {
        let all = daily(3);
        assert_eq!(left(&all, &Retention::by_time(), "2030-01-01T00:00:00Z").len(), 3);
        let rules = Retention { count: 1, ..Retention::by_time() };
        assert_eq!(left(&all, &rules, "2028-01-05T00:00:00Z"), ["01-03"]);
    }

    #[test]
    fn what_is_held_or_in_use_or_asked_for_stays() {
        let keep_until = Some(at("2026-01-08T00:00:00Z"));
        let old = Retained { keep_until, ..automatic(1, "2026-01-01T00:00:00Z") };
        let all = [
            Retained { is_held: true, ..old },
            Retained { id: id(2), is_in_use: true, ..old },
            Retained { id: id(3), trigger: Trigger::Manual, ..old },
            automatic(4, "2026-01-02T00:00:00Z"),
        ];
        assert_eq!(expired(&all, &Retention::by_time(), at("2027-01-01T00:00:00Z")), []);
    }

    #[test]
    fn generations_keep_the_newest_of_each_period() {
        let generations = Generations { daily: 3, weekly: 2, monthly: 2, yearly: 1 };
        let rules = Retention { generations, ..Retention::by_time() };
        // The 70th day is Friday, the tenth of March.
        let left = left(&daily(70), &rules, "2028-03-11T00:00:00Z");
        assert_eq!(left, ["02-29", "03-05", "03-08", "03-09", "03-10"]);
    }

    #[test]
    fn the_newest_so_many_stay() {
        let rules = Retention { count: 2, ..Retention::by_time() };
        assert_eq!(left(&daily(5), &rules, "2028-03-11T00:00:00Z"), ["01-04", "01-05"]);
    }

    #[test]
    fn days_begin_where_the_operator_lives() {
        let zone = TimeZone::fixed(jiff::tz::offset(-8));
        // In this zone both were made on the same day, in UTC on two.
        let all = [automatic(1, "2026-11-20T23:00:00Z"), automatic(2, "2026-11-21T01:00:00Z")];
        let generations = Generations { daily: 2, ..Generations::default() };
        let rules = Retention { generations, ..Retention::by_time() };
        let now = at("2027-01-01T00:00:00Z");
        assert_eq!(expired(&all, &rules, now), []);
        assert_eq!(expired(&all, &Retention { zone, ..rules }, now), [id(1)]);
    }

    #[test]
    fn the_oldest_automatic_one_makes_room_and_then_the_oldest_of_the_others() {
        let by_hand = |n, created| Retained { trigger: Trigger::Manual, ..automatic(n, created) };
        let all = [
            by_hand(1, "2026-11-01T00:00:00Z"),
            automatic(2, "2026-11-02T00:00:00Z"),
            by_hand(3, "2026-11-03T00:00:00Z"),
            automatic(4, "2026-11-04T00:00:00Z"),
        ];
        assert_eq!(beyond_limit(&all, 5), []);
        assert_eq!(beyond_limit(&all, 4), [id(2)]);
        assert_eq!(beyond_limit(&all, 3), [id(2), id(1)]);
        // The newest good one never goes.
        assert_eq!(beyond_limit(&all, 0), [id(2), id(1), id(3)]);
    }

    #[test]
    fn safety_backups_go_first_and_push_out_nothing_that_was_asked_for() {
        let mut all = daily(30);
        let of = |trigger: Trigger| move |backup: &mut Retained| backup.trigger = trigger;
        all[..24].iter_mut().for_each(of(Trigger::Manual));
        all[24..28].iter_mut().for_each(of(Trigger::Safety));
        let all = &all[..28];
        // The newest of them stays beyond the limit: it undoes the last restore.
        assert_eq!(beyond_limit(all, 25), [24, 25, 26].map(id));
        assert_eq!(beyond_limit(&all[..26], 27), []);
        // With less room each gives its own.
        assert_eq!(beyond_limit(all, 24), [24, 25, 26, 0].map(id));
        // Where a policy asks too, its own go after those.
        let mut all = daily(4);
        all[0].trigger = Trigger::Manual;
        all[2].trigger = Trigger::Safety;
        assert_eq!(beyond_limit(&all, 4), [id(2)]);
        assert_eq!(beyond_limit(&all, 3), [id(2), id(1)]);
        assert_eq!(beyond_limit(&all, 2), [id(2), id(1), id(0)]);
    }

    #[test]
    fn the_newest_good_one_that_was_asked_for_stays_though_a_safety_backup_is_newer() {
        let mut all = daily(3);
        all[2].trigger = Trigger::Safety;
        all.iter_mut().for_each(|backup| backup.keep_until = Some(backup.created_at));
        let gone = expired(&all, &Retention::by_time(), at("2030-01-01T00:00:00Z"));
        assert_eq!(gone, [id(0)], "a safety backup has no time of its own");
        assert_eq!(beyond_limit(&all, 0), [id(0)]);
    }

    #[test]
    fn a_backup_has_shrunk_when_it_holds_far_fewer_keys_than_the_one_before() {
        let rule = ShrinkRule::default();
        for (before, keys, expected) in [
            (1000, 0, true),
            (1000, 99, true),
            (1000, 100, false),
            (1, 0, true),
            (0, 0, false),
            (9, 1, false),
            (u64::MAX, u64::MAX / 11, true),
            (u64::MAX, u64::MAX, false),
            (10, u64::MAX, false),
        ] {
            assert_eq!(rule.is_shrunk(before, keys), expected, "{before} {keys}");
            assert!(!ShrinkRule::below_percent(0).is_shrunk(before, keys));
        }
        assert_eq!(ShrinkRule::below_percent(100), ShrinkRule::below_percent(50));
        assert!(ShrinkRule::takes_over(1000, 500) && ShrinkRule::takes_over(0, 0));
        assert!(ShrinkRule::takes_over(1000, u64::MAX) && !ShrinkRule::takes_over(1000, 499));
    }

    fn some_backups() -> impl Strategy<Value = Vec<Retained>> {
        let one = (0..2000i64, 0..3usize, any::<[bool; 3]>(), proptest::option::of(0..3000i64));
        proptest::collection::vec(one, 0..60).prop_map(|all| {
            let begin = at("2027-12-01T00:00:00Z");
            type Drawn = (i64, usize, [bool; 3], Option<i64>);
            let backup = |(n, (hours, trigger, flags, until)): (usize, Drawn)| {
                let [is_good, is_held, is_in_use] = flags;
                Retained {
                    id: id(n),
                    created_at: begin + HOUR * (hours as i32),
                    trigger: Trigger::ALL[trigger],
                    keep_until: until.map(|until| begin + HOUR * (until as i32)),
                    is_good,
                    is_opaque: n % 7 == 3,
                    is_held: is_held && n % 5 == 0,
                    is_in_use: is_in_use && n % 5 == 1,
                }
            };
            all.into_iter().enumerate().map(backup).collect()
        })
    }

    proptest! {
        #[test]
        fn whatever_the_rules_the_newest_good_one_and_what_is_held_stay(
            all in some_backups(),
            count in 0..5u32,
            [daily, weekly, monthly, yearly] in any::<[u8; 4]>(),
            now in 0..3000i32,
            limit in 0..30usize,
        ) {
            let [daily, weekly, monthly, yearly] =
                [daily, weekly, monthly, yearly].map(|periods| u32::from(periods % 4));
            let generations = Generations { daily, weekly, monthly, yearly };
            let rules = Retention { count, generations, zone: TimeZone::UTC };
            let gone = expired(&all, &rules, at("2027-12-01T00:00:00Z") + HOUR * now);
            let making_room = beyond_limit(&all, limit);
            let newest = |of: &dyn Fn(&&Retained) -> bool| {
                let good = all.iter().filter(|backup| backup.is_good).filter(of);
                good.max_by_key(|backup| (backup.created_at, backup.id)).map(|backup| backup.id)
            };
            let newest_good = [newest(&|_| true), newest(&|backup| !backup.is_safety())];
            for gone in gone.iter().chain(&making_room) {
                let backup = all.iter().find(|backup| backup.id == *gone).unwrap();
                prop_assert!(!backup.is_held && !backup.is_in_use);
                prop_assert!(!newest_good.contains(&Some(*gone)));
            }
            prop_assert!(making_room.len() <= (all.len() + 1).saturating_sub(limit));
        }

        #[test]
        fn whatever_safety_backups_there_are_the_others_that_make_room_are_the_same(
            all in some_backups(),
            limit in 0..30usize,
        ) {
            let is_safety = |gone: &BackupId| all.iter().any(|one| one.id == *gone && one.is_safety());
            let gone = beyond_limit(&all, limit);
            let (safety, others): (Vec<_>, Vec<_>) = gone.iter().copied().partition(is_safety);
            let asked_for: Vec<_> = all.iter().filter(|one| !one.is_safety()).copied().collect();
            prop_assert_eq!(&others, &beyond_limit(&asked_for, limit));
            prop_assert_eq!(gone, [safety, others].concat());
        }

        #[test]
        fn what_stays_still_stays_when_the_others_are_gone(
            all in some_backups(),
            count in 0..5u32,
            daily in 0..5u32,
            now in 0..3000i32,
        ) {
            let generations = Generations { daily, weekly: 2, monthly: 1, yearly: 0 };
            let rules = Retention { count, generations, zone: TimeZone::UTC };
            let now = at("2027-12-01T00:00:00Z") + HOUR * now;
            let gone = expired(&all, &rules, now);
            let left: Vec<_> = all.into_iter().filter(|one| !gone.contains(&one.id)).collect();
            prop_assert_eq!(expired(&left, &rules, now), []);
        }
    }
}
