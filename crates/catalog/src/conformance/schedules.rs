//! Policies: what is due, and how each turn is recorded.

use cachevault_domain::{
    Agenda, BackupPolicy, BackupState, FailureCode, InstanceChange, JobKind, NewBackup, Outcome,
    PolicyId, ShrinkRule, Tried, Trigger, Window,
};
use jiff::{SignedDuration, Timestamp};

use super::{
    Numbered, at, automatic, backup, backup_id, claim, failure, files, instance, instance_id,
    job_id, new_backup, node, operation, prepare, project,
};
use crate::{Catalog, DuePolicy, NewScheduledBackup, Turn, Turned};

/// The beginning of the first window of the policy that the instances here have, and of the next.
const WINDOWS: [&str; 2] = ["2025-10-12T00:00:00Z", "2025-10-13T00:00:00Z"];

/// A moment, in seconds after the beginning of the first window.
pub(super) fn inside(seconds: i64) -> Timestamp {
    let begin: Timestamp = WINDOWS[0].parse().unwrap();
    Timestamp::from_second(begin.as_second() + seconds).unwrap()
}

fn resting(next_at: Timestamp, decided_at: Timestamp) -> Agenda {
    let window = Window { begin: inside(0), end: inside(3600) };
    Agenda { window: Some(window), next_at, decided_at }
}

pub(super) fn scheduled(n: u8, created_at: Timestamp) -> NewScheduledBackup {
    NewScheduledBackup {
        backup: NewBackup {
            trigger: Trigger::Automatic,
            note: None,
            created_at,
            ..new_backup(n, 1, 0)
        },
        window: Window { begin: inside(0), end: inside(3600) },
        keep_until: Some(inside(7 * 86_400)),
    }
}

/// The only policy that is due.
async fn due(catalog: &impl Catalog, now: Timestamp) -> DuePolicy {
    let mut due = catalog.due_policies(now, 10).await.unwrap();
    assert_eq!(due.len(), 1);
    due.remove(0)
}

/// Begins a backup of the policy that is due; the agenda moves on by a minute.
async fn begin(catalog: &impl Catalog, n: u8, now: Timestamp) -> Turned {
    let due = due(catalog, now).await;
    let then = resting(now + SignedDuration::from_mins(1), now);
    catalog.turn_policy(&due, &Turn::Begin(scheduled(n, now)), &then).await.unwrap()
}

pub async fn a_policy_is_due_when_there_is_something_to_decide(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    let mut due = Vec::new();
    for n in [1, 2] {
        let plan = automatic(&[1, 7], "00:00-01:00", 7).due_plan().unwrap().plan;
        let agenda = Agenda::first(&plan, instance_id(n), at(2));
        assert_eq!(agenda.window.unwrap().begin, inside(0));
        due.push((agenda.next_at, instance_id(n), agenda));
    }
    due.sort_by_key(|(next_at, ..)| *next_at);
    let first = due[0].0;
    let before = first - SignedDuration::from_secs(1);
    assert_eq!(catalog.due_policies(before, 10).await.unwrap(), []);
    let found = catalog.due_policies(inside(3600), 10).await.unwrap();
    let ids: Vec<_> = found.iter().map(|policy| policy.instance).collect();
    assert_eq!(ids, [due[0].1, due[1].1], "what waits longest comes first");
    let found = catalog.due_policies(inside(3600), 1).await.unwrap();
    let expected = DuePolicy {
        project: project(1),
        instance: due[0].1,
        says: automatic(&[1, 7], "00:00-01:00", 7).due_plan().unwrap(),
        agenda: due[0].2,
        tried: Tried::NOTHING,
    };
    assert_eq!(found, std::slice::from_ref(&expected));
    // It rests until the next moment.
    let then = resting(inside(7200), inside(3600));
    let turned = catalog.turn_policy(&expected, &Turn::Rest, &then).await.unwrap();
    assert_eq!(turned, Turned::Done);
    let found = catalog.due_policies(inside(3601), 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(catalog.due_policies(inside(7200), 10).await.unwrap().len(), 2);
}

pub async fn a_scheduled_backup_is_recorded_once_with_its_job(catalog: &impl Catalog) {
    prepare(catalog).await;
    let now = inside(3000);
    let due = due(catalog, now).await;
    let then = resting(inside(3200), now);
    let begin = |n| Turn::Begin(scheduled(n, now));
    assert_eq!(catalog.turn_policy(&due, &begin(1), &then).await.unwrap(), Turned::Done);
    // Whoever had read the same is too late.
    assert_eq!(catalog.turn_policy(&due, &begin(2), &then).await.unwrap(), Turned::Superseded);
    assert_eq!(catalog.find_backup(&project(1), backup_id(2)).await.unwrap(), None);
    let recorded = backup(catalog, 1).await;
    assert_eq!(
        (recorded.trigger, recorded.state, recorded.created_at, recorded.keep_until),
        (Trigger::Automatic, BackupState::Waiting, now, Some(inside(7 * 86_400)))
    );
    assert_eq!(recorded.window.as_deref(), Some("00:00-01:00"));
    assert_eq!(operation(catalog, 1).await, Some(JobKind::Capture));
    let lease = catalog.claim_job(JobKind::Capture, node(), now, inside(3300)).await.unwrap();
    assert_eq!(lease.unwrap().backup, backup_id(1));
}

pub async fn a_policy_that_finds_its_instance_busy_records_that(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(9, 1, 10)).await.unwrap();
    assert_eq!(begin(catalog, 1, inside(3000)).await, Turned::Busy(JobKind::Capture));
    let recorded = backup(catalog, 1).await;
    assert_eq!((recorded.trigger, recorded.state), (Trigger::Automatic, BackupState::Failed));
    assert_eq!(recorded.failure.unwrap().code, FailureCode::InstanceBusy);
    assert_eq!(recorded.completed_at, Some(inside(3000)));
    // Only the other has a job.
    assert_eq!(claim(catalog, 10).await.unwrap().backup, backup_id(9));
    assert!(
        catalog
            .claim_job(JobKind::Capture, node(), inside(3000), inside(3001))
            .await
            .unwrap()
            .is_none_or(|lease| lease.backup == backup_id(9))
    );
}

pub async fn a_window_that_was_missed_is_recorded(catalog: &impl Catalog) {
    prepare(catalog).await;
    let now = inside(4000);
    let due = due(catalog, now).await;
    let why = failure(FailureCode::InstanceBusy, "the service did not run");
    let miss = Turn::Miss(scheduled(1, now), why.clone());
    let turned = catalog.turn_policy(&due, &miss, &resting(inside(90_000), now)).await.unwrap();
    assert_eq!(turned, Turned::Done);
    let recorded = backup(catalog, 1).await;
    assert_eq!((recorded.state, recorded.failure), (BackupState::Failed, Some(why)));
    assert_eq!(operation(catalog, 1).await, None);
}

pub async fn what_was_tried_in_a_window_is_told_by_its_records(catalog: &impl Catalog) {
    prepare(catalog).await;
    let tried = |outcome, retries| Tried { outcome, retries };
    let mut now = inside(3000);
    for n in 1..=3 {
        assert_eq!(begin(catalog, n, now).await, Turned::Done);
        now += SignedDuration::from_mins(1);
        let retries = u32::from(n) - 1;
        assert_eq!(due(catalog, now).await.tried, tried(Outcome::Open, retries));
        let lease = catalog.claim_job(JobKind::Capture, node(), now, inside(9000)).await;
        let lease = lease.unwrap().unwrap();
        catalog.start_backup(&lease, now).await.unwrap();
        let ended = if n == 3 {
            catalog.finish_backup(&lease, &files(1, 1000), ShrinkRule::default(), now).await
        } else {
            catalog.fail_backup(&lease, &failure(FailureCode::TimedOut, "late"), now).await
        };
        ended.unwrap();
        let outcome = if n == 3 { Outcome::Succeeded } else { Outcome::Failed };
        assert_eq!(due(catalog, now).await.tried, tried(outcome, retries));
    }
    // Neither a person's wish takes that back, nor what belongs to another window.
    let (project, backup) = (project(1), backup_id(1));
    let removal = catalog.request_removal(&project, instance_id(1), backup, job_id(50), now);
    removal.await.unwrap();
    let lease = catalog.claim_job(JobKind::Remove, node(), now, inside(9000)).await.unwrap();
    catalog.finish_removal(&lease.unwrap(), now).await.unwrap();
    let read = due(catalog, now).await;
    assert_eq!(read.tried, tried(Outcome::Succeeded, 2));
    let next = Window { begin: inside(86_400), end: inside(90_000) };
    let then = Agenda { window: Some(next), next_at: inside(86_400), decided_at: now };
    catalog.turn_policy(&read, &Turn::Rest, &then).await.unwrap();
    assert_eq!(due(catalog, inside(86_400)).await.tried, Tried::NOTHING);
}

pub async fn a_policy_that_was_changed_or_is_gone_supersedes_what_was_decided(
    catalog: &impl Catalog,
) {
    prepare(catalog).await;
    let now = inside(3000);
    let read = due(catalog, now).await;
    let change = |policy, seconds| {
        let change = InstanceChange { policy: Some(policy), ..InstanceChange::default() };
        async move {
            let (project, id) = (project(1), PolicyId::mint(&Numbered(7)));
            catalog.change_instance(&project, instance_id(1), &change, id, inside(seconds)).await
        }
    };
    change(BackupPolicy::manual(None, None), 3000).await.unwrap();
    assert_eq!(catalog.due_policies(inside(1_000_000), 10).await.unwrap(), []);
    let begin = Turn::Begin(scheduled(1, now));
    let then = resting(inside(3200), now);
    assert_eq!(catalog.turn_policy(&read, &begin, &then).await.unwrap(), Turned::Superseded);
    // Its window has passed: the next one counts.
    change(automatic(&[1, 7], "00:00-01:00", 7), 4000).await.unwrap();
    assert_eq!(catalog.due_policies(inside(86_399), 10).await.unwrap(), []);
    let read = due(catalog, inside(90_000)).await;
    assert_eq!(read.agenda.window.unwrap().begin, WINDOWS[1].parse().unwrap());
    catalog.remove_instance(&project(1), instance_id(1), inside(5000)).await.unwrap();
    assert_eq!(catalog.due_policies(inside(1_000_000), 10).await.unwrap(), []);
    assert_eq!(catalog.turn_policy(&read, &begin, &then).await.unwrap(), Turned::Superseded);
    assert_eq!(catalog.find_backup(&project(1), backup_id(1)).await.unwrap(), None);
}

pub async fn what_a_wrong_clock_decided_is_due_at_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    let future = inside(1_000_000);
    let read = due(catalog, future).await;
    let then = Agenda { window: None, next_at: inside(2_000_000), decided_at: future };
    catalog.turn_policy(&read, &Turn::Rest, &then).await.unwrap();
    assert_eq!(catalog.due_policies(future, 10).await.unwrap(), []);
    assert_eq!(due(catalog, inside(10)).await.agenda, then);
}
