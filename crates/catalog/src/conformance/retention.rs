//! Which backups go by themselves, and when.

use cachevault_domain::{
    Agenda, BackupFilter, BackupPolicy, BackupState, ContentState, DuePlan, EventKind, Generations,
    InstanceChange, JobKind, Keep, KeepDays, Lease, PolicyId, ReadingId, Retention, ShrinkRule,
    StoredFiles, TargetData, Trigger,
};

use super::events::{newest, told};
use super::schedules::{inside, scheduled};
use super::{
    ALL, Numbered, at, automatic, backup, backup_id, begin_restore, claim_kind, files, instance_id,
    job_id, listed, new_backup, node, outcome, prepare, project, request_drill, safety, succeed,
};
use crate::{Catalog, CatalogError, NewScheduledBackup, READ_ON_MAX, Turn, Turned};

/// Brings an automatic backup of instance 1 to its success, promised until the second `until`.
async fn keep(catalog: &impl Catalog, n: u8, seconds: i64, until: Option<i64>) {
    keep_with(catalog, n, seconds, until, ContentState::Verified).await;
}

async fn keep_with(
    catalog: &impl Catalog,
    n: u8,
    seconds: i64,
    until: Option<i64>,
    content: ContentState,
) {
    let mut read = catalog.due_policies(inside(1_000_000), 10).await.unwrap();
    let due = read.remove(0);
    let then = Agenda { decided_at: inside(seconds), ..due.agenda };
    let new = NewScheduledBackup { keep_until: until.map(inside), ..scheduled(n, inside(seconds)) };
    let turned = catalog.turn_policy(&due, &Turn::Begin(new), &then).await.unwrap();
    assert_eq!(turned, Turned::Done);
    let claimed = catalog.claim_job(JobKind::Capture, node(), inside(seconds), inside(seconds + 9));
    let lease = claimed.await.unwrap().unwrap();
    catalog.start_backup(&lease, inside(seconds)).await.unwrap();
    let files = StoredFiles { content, ..files(1, 1000) };
    catalog.finish_backup(&lease, &files, ShrinkRule::default(), inside(seconds)).await.unwrap();
}

pub async fn an_opaque_backup_pushes_out_no_verified_one(catalog: &impl Catalog) {
    prepare(catalog).await;
    keep(catalog, 1, 0, Some(10)).await;
    keep_with(catalog, 2, 20, Some(30), ContentState::Opaque).await;
    keep_with(catalog, 3, 40, Some(50), ContentState::Opaque).await;
    assert_eq!(retain(catalog, 24, 100, 1000).await, [2], "the newest of both kinds stay");
}

/// The numbers of the backups that have to go; their jobs have numbers from `job`.
async fn retain(catalog: &impl Catalog, limit: usize, job: u8, seconds: i64) -> Vec<u8> {
    let jobs: Vec<_> = (job..job + 3).map(job_id).collect();
    let gone = catalog.retain_backups(instance_id(1), limit, &jobs, inside(seconds)).await.unwrap();
    let number = |id| (0..=u8::MAX).find(|n| backup_id(*n) == id).unwrap();
    gone.into_iter().map(number).collect()
}

async fn remove_files(catalog: &impl Catalog, seconds: i64) {
    let now = inside(seconds);
    while let Some(lease) =
        catalog.claim_job(JobKind::Remove, node(), now, inside(seconds + 9)).await.unwrap()
    {
        catalog.finish_removal(&lease, now).await.unwrap();
    }
}

async fn to_retain(catalog: &impl Catalog, seconds: i64) -> usize {
    catalog.instances_to_retain(inside(seconds), 10).await.unwrap().len()
}

pub async fn a_backup_whose_time_is_over_expires(catalog: &impl Catalog) {
    prepare(catalog).await;
    keep(catalog, 1, 0, Some(100)).await;
    keep(catalog, 2, 10, Some(110)).await;
    assert_eq!(retain(catalog, 24, 100, 99).await, [0; 0]);
    assert_eq!(retain(catalog, 24, 100, 100).await, [1]);
    let marked = backup(catalog, 1).await;
    assert_eq!(marked.state, BackupState::Succeeded, "its files are there");
    assert!(!marked.is_restorable());
    assert_eq!(retain(catalog, 24, 110, 100).await, [0; 0], "once is enough");
    remove_files(catalog, 101).await;
    let gone = backup(catalog, 1).await;
    assert_eq!((gone.state, gone.removed_at), (BackupState::Expired, Some(inside(101))));
    let (listed, _) = listed(catalog, BackupFilter::default(), ALL).await;
    assert_eq!(listed, [backup_id(2), backup_id(1)]);
    // The newest good one stays, and nobody forgets that it is one.
    assert_eq!(retain(catalog, 24, 120, 1000).await, [0; 0]);
    keep(catalog, 3, 1000, Some(2000)).await;
    assert_eq!(retain(catalog, 24, 130, 1000).await, [2]);
}

pub async fn it_is_told_when_backups_may_have_to_go(catalog: &impl Catalog) {
    prepare(catalog).await;
    assert_eq!(to_retain(catalog, 1_000_000).await, 0);
    keep(catalog, 1, 0, Some(100)).await;
    keep(catalog, 2, 10, Some(110)).await;
    assert_eq!(to_retain(catalog, 9).await, 1, "something has ended");
    assert_eq!(retain(catalog, 24, 100, 20).await, [0; 0]);
    assert_eq!((to_retain(catalog, 99).await, to_retain(catalog, 100).await), (0, 1));
    assert_eq!(retain(catalog, 24, 110, 100).await, [1]);
    assert_eq!((to_retain(catalog, 109).await, to_retain(catalog, 110).await), (0, 1));
    // What stays though its time is over waits for something to end.
    assert_eq!(retain(catalog, 24, 120, 110).await, [0; 0]);
    assert_eq!(to_retain(catalog, 1_000_000).await, 0);
    remove_files(catalog, 200).await;
    assert_eq!(to_retain(catalog, 200).await, 1);
}

pub async fn what_is_held_or_in_use_goes_later(catalog: &impl Catalog) {
    prepare(catalog).await;
    let hold = |n, is_held| async move {
        catalog.hold_backup(&project(1), backup_id(n), is_held, inside(30)).await
    };
    assert!(matches!(hold(1, true).await, Err(CatalogError::NotFound("backup"))));
    keep(catalog, 1, 0, Some(100)).await;
    keep(catalog, 2, 10, Some(100)).await;
    keep(catalog, 3, 20, Some(100)).await;
    for _ in 0..2 {
        hold(1, true).await.unwrap();
    }
    let (stranger, id) = (project(2), backup_id(1));
    let refused = catalog.hold_backup(&stranger, id, false, inside(30)).await;
    assert!(matches!(refused, Err(CatalogError::NotFound("backup"))));
    assert!(backup(catalog, 1).await.is_held);
    let (project, instance) = (project(1), instance_id(1));
    let refused = catalog.request_removal(&project, instance, id, job_id(90), inside(30)).await;
    assert!(matches!(refused, Err(CatalogError::Held)), "{refused:?}");
    request_drill(catalog, 2, 91, 0).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Drill, 0).await.unwrap();
    assert_eq!(retain(catalog, 24, 100, 200).await, [0; 0]);
    assert_eq!(to_retain(catalog, 1_000_000).await, 0);
    catalog.finish_drill(&lease, "redis", 0, inside(300)).await.unwrap();
    assert_eq!(to_retain(catalog, 300).await, 1);
    assert_eq!(retain(catalog, 24, 110, 300).await, [2]);
    assert_eq!(to_retain(catalog, 1_000_000).await, 0);
    hold(1, false).await.unwrap();
    assert_eq!(to_retain(catalog, 300).await, 1);
    assert_eq!(retain(catalog, 24, 120, 300).await, [1]);
    assert!(matches!(hold(1, true).await, Err(CatalogError::NotFound("backup"))));
}

/// Gives instance 1 other rules by which its backups are kept.
async fn set_rules(catalog: &impl Catalog, rules: Retention, seconds: i64) {
    let day = KeepDays::new(1).unwrap();
    let says = automatic(&[1, 7], "00:00-01:00", 7).due_plan().unwrap();
    let says = DuePlan { keep: Keep::new(Some(day), rules).unwrap(), ..says };
    let policy = Some(BackupPolicy::whole(true, says));
    let change = InstanceChange { policy, ..InstanceChange::default() };
    let (owner, id) = (project(1), PolicyId::mint(&Numbered(7)));
    let now = inside(seconds);
    catalog.change_instance(&owner, instance_id(1), &change, id, now).await.unwrap();
}

pub async fn what_count_and_generations_keep_stays_beyond_its_time(catalog: &impl Catalog) {
    const DAY: i64 = 86_400;
    prepare(catalog).await;
    // Two on each of three days; the promise of the last two is not over.
    for (n, seconds) in [(1, 0), (2, 60), (3, DAY), (4, DAY + 60), (5, 2 * DAY), (6, 2 * DAY + 60)]
    {
        keep(catalog, n, seconds, Some(seconds + DAY)).await;
    }
    keep(catalog, 7, 2 * DAY + 70, None).await;
    let now = 2 * DAY + 80;
    let generations = Generations { daily: 3, ..Generations::default() };
    let daily = Retention { generations, ..Retention::by_time() };
    set_rules(catalog, Retention { count: 5, ..daily.clone() }, now).await;
    assert_eq!(to_retain(catalog, now).await, 1, "other rules may keep less");
    assert_eq!(retain(catalog, 24, 100, now).await, [1]);
    set_rules(catalog, daily, now).await;
    assert_eq!(retain(catalog, 24, 110, now).await, [3]);
    assert_eq!(retain(catalog, 24, 120, 4 * DAY).await, [5, 6], "their promise is over");
    // Without rules all that is not promised goes, but what never was promised anything stays.
    remove_files(catalog, 4 * DAY).await;
    catalog.remove_backup_policy(&project(1), instance_id(1), inside(4 * DAY)).await.unwrap();
    assert_eq!(to_retain(catalog, 4 * DAY).await, 1);
    assert_eq!(retain(catalog, 24, 130, 4 * DAY).await, [2, 4]);
    remove_files(catalog, 4 * DAY).await;
    succeed(catalog, 8, 50_000_000).await;
    assert_eq!(retain(catalog, 24, 140, 10_000 * DAY).await, [0; 0]);
}

/// A person of `owner` reads backup `n` until the second `until`.
async fn read(
    catalog: &impl Catalog,
    (owner, n): (u8, u8),
    reading: u8,
    until: i64,
) -> Result<(), CatalogError> {
    let reading = ReadingId::mint(&Numbered(reading));
    catalog.note_reading(&project(owner), backup_id(n), reading, inside(until)).await
}

fn is_missing(found: Result<(), CatalogError>) -> bool {
    matches!(found, Err(CatalogError::NotFound("backup")))
}

pub async fn what_is_being_read_goes_later(catalog: &impl Catalog) {
    prepare(catalog).await;
    assert!(is_missing(read(catalog, (1, 1), 1, 500).await));
    keep(catalog, 1, 0, Some(100)).await;
    keep(catalog, 2, 10, Some(1000)).await;
    assert!(is_missing(read(catalog, (2, 1), 1, 500).await));
    read(catalog, (1, 1), 1, 500).await.unwrap();
    read(catalog, (1, 1), 1, 400).await.unwrap();
    assert_eq!(retain(catalog, 24, 100, 100).await, [0; 0]);
    assert_eq!((to_retain(catalog, 499).await, to_retain(catalog, 500).await), (0, 1));
    assert_eq!(retain(catalog, 1, 110, 499).await, [0; 0], "nor does their number matter");
    assert_eq!(retain(catalog, 24, 120, 500).await, [1]);
    assert!(is_missing(read(catalog, (1, 1), 2, 900).await));
    // One that ends before its time ends its claim.
    keep(catalog, 3, 20, Some(1000)).await;
    read(catalog, (1, 2), 3, 5000).await.unwrap();
    assert_eq!(retain(catalog, 24, 130, 2000).await, [0; 0]);
    catalog.end_reading(ReadingId::mint(&Numbered(3)));
    assert_eq!(retain(catalog, 24, 140, 2000).await, [2]);
}

/// Begins the removal that is due at that second.
async fn begin_removal(catalog: &impl Catalog, seconds: i64) -> Option<Lease> {
    let (now, until) = (inside(seconds), inside(seconds + 30));
    catalog.claim_job(JobKind::Remove, node(), now, until).await.unwrap()
}

pub async fn who_deletes_a_backup_waits_for_those_who_read_it(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 0).await;
    for (reading, until) in [(1, 100), (2, 60)] {
        read(catalog, (1, 1), reading, until).await.unwrap();
    }
    let delete = |job, seconds| async move {
        let (owner, instance) = (project(1), instance_id(1));
        let now = inside(seconds);
        catalog.request_removal(&owner, instance, backup_id(1), job_id(job), now).await.unwrap()
    };
    assert_eq!(delete(90, 10).await, job_id(90));
    assert!(is_missing(read(catalog, (1, 1), 3, 500).await), "nobody begins any more");
    assert!(begin_removal(catalog, 99).await.is_none());
    // Who reads goes on, and asking again hastens nothing.
    read(catalog, (1, 1), 1, 200).await.unwrap();
    assert_eq!(delete(91, 50).await, job_id(90));
    assert!(begin_removal(catalog, 199).await.is_none());
    // But not for ever.
    read(catalog, (1, 1), 1, 1_000_000).await.unwrap();
    let longest = 10 + READ_ON_MAX.as_secs();
    assert!(begin_removal(catalog, longest - 1).await.is_none());
    // One of two has ended, and then the other.
    read(catalog, (1, 1), 2, 300).await.unwrap();
    catalog.end_reading(ReadingId::mint(&Numbered(1)));
    assert!(begin_removal(catalog, 299).await.is_none());
    catalog.end_reading(ReadingId::mint(&Numbered(2)));
    let lease = begin_removal(catalog, 250).await.unwrap();
    assert!(is_missing(read(catalog, (1, 1), 2, 400).await), "its files are going");
    catalog.finish_removal(&lease, inside(251)).await.unwrap();
    assert_eq!(backup(catalog, 1).await.state, BackupState::Deleted);
}

pub async fn the_oldest_beyond_the_limit_go_as_many_as_there_are_jobs(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 1..=6 {
        succeed(catalog, n, i64::from(n)).await;
    }
    keep(catalog, 7, 0, Some(1000)).await;
    keep(catalog, 8, 1, Some(1000)).await;
    assert_eq!(retain(catalog, 8, 100, 10).await, [0; 0]);
    // What a policy asked for goes first, and then what is oldest.
    assert_eq!(retain(catalog, 3, 110, 10).await, [7, 1, 2]);
    assert_eq!(to_retain(catalog, 10).await, 1, "that was not all");
    assert_eq!(retain(catalog, 3, 120, 10).await, [3, 4]);
    assert_eq!(retain(catalog, 0, 130, 10).await, [5, 6], "the newest good one stays");
    remove_files(catalog, 11).await;
    assert_eq!(backup(catalog, 1).await.state, BackupState::Expired);
}

/// Restores backup 1 into its own instance; its safety backup has the number `n`.
async fn restore_with_safety_backup(catalog: &impl Catalog, n: u8, seconds: i64) {
    let lease = begin_restore(catalog, n, 1, seconds).await;
    catalog.begin_safety_backup(&lease, &safety(n, seconds), at(seconds)).await.unwrap();
    catalog.finish_safety_backup(&lease, &files(1, 77), at(seconds)).await.unwrap();
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(seconds)).await.unwrap();
}

pub async fn restores_leave_all_backups_that_somebody_asked_for(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 1..=24 {
        succeed(catalog, n, i64::from(n)).await;
    }
    for n in 31..=34 {
        restore_with_safety_backup(catalog, n, 100 + i64::from(n)).await;
    }
    let safety = backup(catalog, 34).await;
    assert_eq!(safety.trigger, Trigger::Safety);
    assert_eq!(retain(catalog, 24, 100, 1000).await, [31, 32, 33], "the last can be undone");
    remove_files(catalog, 1001).await;
    // One more backup takes the room of the safety backup, and the oldest of its own kind goes.
    succeed(catalog, 40, 2000).await;
    assert_eq!(retain(catalog, 24, 110, 2010).await, [34, 1]);
}

/// Brings a backup of instance 1 with so many keys to its success.
async fn succeed_with(catalog: &impl Catalog, n: u8, seconds: i64, keys: Option<u64>) {
    catalog.request_backup(&new_backup(n, 1, seconds)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Capture, seconds).await.unwrap();
    catalog.start_backup(&lease, at(seconds)).await.unwrap();
    let files = StoredFiles { keys, ..files(1, 1000) };
    catalog.finish_backup(&lease, &files, ShrinkRule::default(), at(seconds)).await.unwrap();
}

/// The numbers of the first nine backups that are held, and for which.
async fn holds(catalog: &impl Catalog) -> Vec<(u8, Option<u8>)> {
    let number = |id| (0..=u8::MAX).find(|n| backup_id(*n) == id).unwrap();
    let mut held = Vec::new();
    for n in 1..10 {
        match catalog.find_backup(&project(1), backup_id(n)).await.unwrap() {
            Some(backup) if backup.is_held => held.push((n, backup.held_for.map(number))),
            _ => {}
        }
    }
    held
}

pub async fn a_backup_that_has_shrunk_holds_the_last_larger_one(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed_with(catalog, 1, 10, Some(1000)).await;
    let before = newest(catalog).await;
    succeed_with(catalog, 2, 20, Some(0)).await;
    assert_eq!(
        (backup(catalog, 1).await.keys, backup(catalog, 2).await.keys),
        (Some(1000), Some(0))
    );
    assert_eq!(holds(catalog).await, [(1, Some(2))]);
    let told = told(catalog, before).await;
    let [.., (kind, about, Some(detail))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*kind, *about), (EventKind::BackupShrunk, Some(2)));
    let expected = format!("0 keys, after 1000 in backup {}, which is held", backup_id(1));
    assert!(detail.starts_with(&expected), "{detail}");
    let watched = catalog.watched_instances(10).await.unwrap();
    assert_eq!(watched[0].held_for_shrunk, 1);
    // It stays whatever comes, and nobody deletes it by mistake.
    succeed_with(catalog, 3, 30, Some(0)).await;
    assert_eq!(holds(catalog).await, [(1, Some(2))]);
    assert_eq!(retain(catalog, 1, 100, 1000).await, [2]);
    let (project, id, now) = (project(1), backup_id(1), at(40));
    let refused = catalog.request_removal(&project, instance_id(1), id, job_id(90), now).await;
    assert!(matches!(refused, Err(CatalogError::Held)), "{refused:?}");
    // Until it is released; then the instance is as small as it is.
    catalog.hold_backup(&project, id, false, now).await.unwrap();
    assert_eq!(holds(catalog).await, []);
    assert_eq!(catalog.watched_instances(10).await.unwrap()[0].held_for_shrunk, 0);
    succeed_with(catalog, 4, 50, Some(0)).await;
    assert_eq!(holds(catalog).await, []);
    assert_eq!(retain(catalog, 1, 110, 1000).await, [1, 3]);
}

pub async fn what_shrinks_again_and_again_holds_few_backups(catalog: &impl Catalog) {
    prepare(catalog).await;
    for (n, keys) in [(1, 1000), (2, 5), (3, 900), (4, 4)] {
        succeed_with(catalog, n, i64::from(n) * 10, Some(keys)).await;
    }
    assert_eq!(holds(catalog).await, [(3, Some(4))], "the newer one is worth more");
    // But one that had many more keys is not given up for one that has few.
    for (n, keys) in [(5, 449), (6, 0), (7, 230), (8, 1)] {
        succeed_with(catalog, n, i64::from(n) * 10, Some(keys)).await;
    }
    assert_eq!(holds(catalog).await, [(3, Some(4)), (7, Some(8))]);
}

pub async fn what_a_person_holds_is_released_by_nobody_else(catalog: &impl Catalog) {
    prepare(catalog).await;
    let hold = |n| async move {
        catalog.hold_backup(&project(1), backup_id(n), true, at(15)).await.unwrap();
    };
    succeed_with(catalog, 1, 10, Some(1000)).await;
    hold(1).await;
    succeed_with(catalog, 2, 20, Some(1)).await;
    assert_eq!(holds(catalog).await, [(1, None)]);
    succeed_with(catalog, 3, 30, Some(1000)).await;
    succeed_with(catalog, 4, 40, Some(1)).await;
    assert_eq!(holds(catalog).await, [(1, None), (3, Some(4))]);
    // What the service holds becomes a person's who asks for it.
    hold(3).await;
    succeed_with(catalog, 5, 50, Some(1000)).await;
    succeed_with(catalog, 6, 60, Some(1)).await;
    assert_eq!(holds(catalog).await, [(1, None), (3, None), (5, Some(6))]);
}

pub async fn only_counted_backups_that_were_asked_for_are_compared(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed_with(catalog, 1, 10, Some(1000)).await;
    // Nobody knows how many keys are in it.
    succeed_with(catalog, 2, 20, None).await;
    assert_eq!(holds(catalog).await, []);
    let lease = begin_restore(catalog, 3, 1, 30).await;
    catalog.begin_safety_backup(&lease, &safety(3, 30), at(30)).await.unwrap();
    let small = StoredFiles { keys: Some(0), ..files(1, 7) };
    catalog.finish_safety_backup(&lease, &small, at(31)).await.unwrap();
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(32)).await.unwrap();
    assert_eq!(holds(catalog).await, [], "a safety backup is not compared");
    assert_eq!(backup(catalog, 3).await.keys, Some(0));
    // The last one that was counted and asked for is the first.
    succeed_with(catalog, 4, 40, Some(5)).await;
    assert_eq!(holds(catalog).await, [(1, Some(4))]);
    // One that is damaged is not worth to be held.
    succeed_with(catalog, 5, 50, Some(1000)).await;
    catalog.record_check(backup_id(5), 1, Some("gone"), at(51), at(52)).await.unwrap();
    succeed_with(catalog, 6, 60, Some(5)).await;
    assert_eq!(holds(catalog).await, [(1, Some(4))]);
}

pub async fn without_the_rule_nothing_has_shrunk(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed_with(catalog, 1, 10, Some(1000)).await;
    catalog.request_backup(&new_backup(2, 1, 20)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Capture, 20).await.unwrap();
    catalog.start_backup(&lease, at(20)).await.unwrap();
    let empty = StoredFiles { keys: Some(0), ..files(1, 7) };
    let never = ShrinkRule::below_percent(0);
    catalog.finish_backup(&lease, &empty, never, at(21)).await.unwrap();
    assert_eq!(holds(catalog).await, []);
}

pub async fn a_person_who_deletes_what_expires_has_it_deleted(catalog: &impl Catalog) {
    prepare(catalog).await;
    keep(catalog, 1, 0, Some(100)).await;
    keep(catalog, 2, 10, Some(200)).await;
    assert_eq!(retain(catalog, 24, 100, 100).await, [1]);
    let (project, id, now) = (project(1), backup_id(1), inside(101));
    let job = catalog.request_removal(&project, instance_id(1), id, job_id(90), now).await;
    assert_eq!(job.unwrap(), job_id(100));
    remove_files(catalog, 101).await;
    assert_eq!(backup(catalog, 1).await.state, BackupState::Deleted);
}
