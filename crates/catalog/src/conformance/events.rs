//! What has happened: told once, together with the fact, and never of what did not happen.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use cachevault_domain::{
    Agenda, Cancellation, EVENT_DETAIL_CHARS_MAX, Event, EventFilter, EventId, EventKind,
    FailureCode, Instance, InstanceChange, JobKind, Lease, PolicyId, ShrinkRule, StoredFiles, Tag,
    TagChange, TargetData,
};

use super::identity::open_project;
use super::schedules::{inside, scheduled};
use super::{
    Numbered, OPAQUE, at, automatic, backup_id, begin_drill, begin_restore, claim, claim_kind,
    failure, files, instance, instance_id, is_lost, job_id, new_backup, new_restore, observation,
    opaque_files, outcome, prepare, prepare_restore, project, restore_id, safety, succeed,
    succeed_opaque,
};
use crate::{Catalog, Turn};

async fn listed_by(catalog: &impl Catalog, filter: EventFilter, limit: u32) -> Vec<Event> {
    catalog.list_events(&project(1), &filter, limit).await.unwrap().items
}

/// What has happened in project 1 behind an event: what, to which backup, and what is said of it.
pub(super) async fn told(
    catalog: &impl Catalog,
    after: EventId,
) -> Vec<(EventKind, Option<u8>, Option<String>)> {
    let number = |id| (0..=u8::MAX).find(|n| backup_id(*n) == id).unwrap();
    let filter = EventFilter { after, ..EventFilter::default() };
    let listed = listed_by(catalog, filter, 1000).await;
    listed.into_iter().map(|event| (event.kind, event.backup.map(number), event.detail)).collect()
}

pub(super) async fn kinds(catalog: &impl Catalog, after: EventId) -> Vec<EventKind> {
    told(catalog, after).await.into_iter().map(|(kind, ..)| kind).collect()
}

pub(super) async fn newest(catalog: &impl Catalog) -> EventId {
    catalog.list_events(&project(1), &EventFilter::default(), 1).await.unwrap().newest
}

pub async fn what_happens_to_a_backup_is_told_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    let adopted = newest(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(11)).await.unwrap();
    // The next attempt starts nothing new.
    catalog.start_backup(&lease, at(12)).await.unwrap();
    catalog.finish_backup(&lease, &files(1, 1000), ShrinkRule::default(), at(13)).await.unwrap();
    for seconds in [20, 30] {
        let damage = Some("a byte differs");
        catalog.record_check(backup_id(1), 1, damage, at(seconds), at(seconds + 1)).await.unwrap();
    }
    catalog.request_backup(&new_backup(2, 1, 40)).await.unwrap();
    let lease = claim(catalog, 40).await.unwrap();
    catalog.start_backup(&lease, at(41)).await.unwrap();
    let why = failure(FailureCode::TimedOut, "it took too long");
    catalog.fail_backup(&lease, &why, at(42)).await.unwrap();
    catalog.request_backup(&new_backup(3, 1, 43)).await.unwrap();
    let wish = Cancellation { by: "user ada".into(), at: at(44) };
    catalog.cancel_backup(&project(1), backup_id(3), &wish).await.unwrap();
    let to_remove = [(backup_id(1), job_id(91))];
    catalog.request_removals(&project(1), instance_id(1), &to_remove, at(50)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Remove, 51).await.unwrap();
    catalog.finish_removal(&lease, at(52)).await.unwrap();
    let expected = [
        (EventKind::BackupRequested, Some(1), None),
        (EventKind::BackupStarted, Some(1), None),
        (EventKind::BackupSucceeded, Some(1), None),
        (EventKind::BackupDamaged, Some(1), Some("a byte differs".to_owned())),
        (EventKind::BackupRequested, Some(2), None),
        (EventKind::BackupStarted, Some(2), None),
        (EventKind::BackupFailed, Some(2), Some("it took too long".to_owned())),
        (EventKind::BackupRequested, Some(3), None),
        (EventKind::BackupCancelled, Some(3), Some(wish.failure().reason)),
        (EventKind::BackupDeleted, Some(1), None),
    ];
    assert_eq!(told(catalog, adopted).await, expected);
    let all = listed_by(catalog, EventFilter::default(), 20).await;
    let of = |event: &Event| (event.project.clone(), event.instance, event.instance_name.clone());
    let one = (project(1), Some(instance_id(1)), Some("one".parse().unwrap()));
    assert!(all.iter().all(|event| of(event) == one));
    let moments: Vec<_> = all.iter().map(|event| event.at).collect();
    assert_eq!(moments, [1, 10, 11, 13, 21, 40, 41, 42, 43, 44, 52].map(at));
}

pub async fn opaque_content_is_told_with_the_success_of_its_backup(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let before = newest(catalog).await;
    succeed_opaque(catalog, 2, 20).await;
    let lease = begin_restore(catalog, 5, 2, 30).await;
    catalog.begin_safety_backup(&lease, &safety(3, 31), at(31)).await.unwrap();
    let unexplained = StoredFiles { opaque_because: None, ..opaque_files(1) };
    for seconds in [32, 33] {
        catalog.finish_safety_backup(&lease, &unexplained, at(seconds)).await.unwrap();
    }
    let expected = [
        (EventKind::BackupRequested, Some(2), None),
        (EventKind::BackupStarted, Some(2), None),
        (EventKind::BackupSucceeded, Some(2), None),
        (EventKind::BackupOpaque, Some(2), Some(OPAQUE.to_owned())),
        (EventKind::RestoreRequested, Some(1), None),
        (EventKind::BackupRequested, Some(3), None),
        (EventKind::BackupStarted, Some(3), None),
        (EventKind::BackupSucceeded, Some(3), None),
        (EventKind::BackupOpaque, Some(3), None),
    ];
    assert_eq!(told(catalog, before).await, expected);
}

pub async fn what_was_refused_is_not_told(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(11)).await.unwrap();
    let before = newest(catalog).await;
    catalog.request_backup(&new_backup(2, 1, 12)).await.unwrap_err();
    catalog.request_backup(&new_backup(2, 9, 12)).await.unwrap_err();
    catalog.add_instance(&instance(2, "one")).await.unwrap_err();
    catalog.remove_instance(&project(1), instance_id(1), at(12)).await.unwrap_err();
    let stale = Lease { attempt: lease.attempt + 1, ..lease };
    assert!(is_lost(
        catalog.finish_backup(&stale, &files(1, 1000), ShrinkRule::default(), at(13)).await
    ));
    let rename = InstanceChange { name: Some("two".parse().unwrap()), ..Default::default() };
    let policy_id = PolicyId::mint(&Numbered(7));
    let foreign = (project(2), instance_id(1));
    catalog.change_instance(&foreign.0, foreign.1, &rename, policy_id, at(14)).await.unwrap_err();
    assert_eq!(kinds(catalog, before).await, []);
    assert_eq!(newest(catalog).await, before);
}

pub async fn what_happens_to_a_restore_is_told_with_its_safety_backup(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let before = newest(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&lease, &safety(3, 21), at(21)).await.unwrap();
    catalog.begin_safety_backup(&lease, &safety(4, 22), at(22)).await.unwrap();
    catalog.finish_safety_backup(&lease, &files(1, 1000), at(23)).await.unwrap();
    catalog.finish_safety_backup(&lease, &files(1, 1000), at(24)).await.unwrap();
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(25)).await.unwrap();
    let lease = begin_restore(catalog, 6, 2, 30).await;
    let why = failure(FailureCode::RestoreSyncFailed, "it broke off");
    catalog.fail_restore(&lease, &why, &outcome(TargetData::Untouched), at(31)).await.unwrap();
    let expected = [
        (EventKind::RestoreRequested, Some(1), None),
        (EventKind::BackupRequested, Some(3), None),
        (EventKind::BackupStarted, Some(3), None),
        (EventKind::BackupSucceeded, Some(3), None),
        (EventKind::RestoreSucceeded, Some(1), None),
        (EventKind::RestoreRequested, Some(1), None),
        (EventKind::RestoreFailed, Some(1), Some("it broke off".to_owned())),
    ];
    assert_eq!(told(catalog, before).await, expected);
    let filter = EventFilter { after: before, newest_first: true, ..EventFilter::default() };
    let last = &listed_by(catalog, filter, 1).await[0];
    assert_eq!((last.restore, last.instance), (Some(restore_id(6)), Some(instance_id(2))));
    catalog.request_restore(&new_restore(7, 9, 1, 40)).await.unwrap_err();
    assert_eq!(kinds(catalog, last.id).await, []);
}

pub async fn what_a_drill_found_is_told(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    let before = newest(catalog).await;
    let lease = begin_drill(catalog, 1, 2, 20).await;
    catalog.fail_drill(&lease, "it holds other data", at(21)).await.unwrap();
    let lease = begin_drill(catalog, 1, 3, 30).await;
    catalog.finish_drill(&lease, "redis 7.0.15", 0, at(31)).await.unwrap();
    let expected = [
        (EventKind::DrillFailed, Some(1), Some("it holds other data".to_owned())),
        (EventKind::DrillProven, Some(1), Some("redis 7.0.15".to_owned())),
    ];
    assert_eq!(told(catalog, before).await, expected);
}

pub async fn what_is_done_to_an_instance_is_told(catalog: &impl Catalog) {
    prepare(catalog).await;
    let policy_id = PolicyId::mint(&Numbered(7));
    let rename = InstanceChange { name: Some("two".parse().unwrap()), ..Default::default() };
    let policy = Some(automatic(&[1], "00:00-01:00", 1));
    let plan = InstanceChange { policy, ..Default::default() };
    for change in [rename, plan] {
        catalog
            .change_instance(&project(1), instance_id(1), &change, policy_id, at(10))
            .await
            .unwrap();
    }
    let tags = TagChange::Add(vec![Tag::new("a", "b").unwrap()]);
    catalog.change_tags(&project(1), instance_id(1), &tags, at(11)).await.unwrap();
    catalog.remove_backup_policy(&project(1), instance_id(1), at(11)).await.unwrap();
    catalog.remove_instance(&project(1), instance_id(1), at(12)).await.unwrap();
    let expected = [
        EventKind::InstanceAdopted,
        EventKind::InstanceChanged,
        EventKind::PolicyChanged,
        EventKind::InstanceChanged,
        EventKind::PolicyChanged,
        EventKind::InstanceRemoved,
    ];
    assert_eq!(kinds(catalog, EventId::ZERO).await, expected);
    // What it was called last is told of an instance that is gone, too.
    let last = listed_by(catalog, EventFilter::default(), 10).await.pop().unwrap();
    assert_eq!((last.instance_name, last.at), (Some("two".parse().unwrap()), at(12)));
}

pub async fn an_instance_goes_down_once_and_comes_back_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    let before = newest(catalog).await;
    let found = observation();
    let look = async |answer: Result<(), &str>, seconds| {
        let answer = answer.map(|()| &found);
        catalog.record_look(instance_id(1), answer, at(seconds)).await.unwrap();
    };
    // It may be silent for a moment.
    for (answer, seconds) in [(Err("1"), 1), (Err("2"), 2), (Ok(()), 3), (Err("3"), 4)] {
        look(answer, seconds).await;
    }
    assert_eq!(kinds(catalog, before).await, []);
    for (answer, seconds) in [(Err("4"), 5), (Err("5"), 6), (Err("6"), 7), (Ok(()), 8), (Ok(()), 9)]
    {
        look(answer, seconds).await;
    }
    let expected = [
        (EventKind::InstanceUnreachable, None, Some("5".to_owned())),
        (EventKind::InstanceReachable, None, None),
    ];
    assert_eq!(told(catalog, before).await, expected);
    catalog.remove_instance(&project(1), instance_id(1), at(10)).await.unwrap();
    let gone = newest(catalog).await;
    for seconds in 11..15 {
        look(Err("it is gone"), seconds).await;
    }
    assert_eq!(kinds(catalog, gone).await, []);
}

pub async fn what_a_policy_does_is_told(catalog: &impl Catalog) {
    prepare(catalog).await;
    let before = newest(catalog).await;
    let why = failure(FailureCode::InstanceBusy, "no service ran");
    for (n, turn) in [
        (1, Turn::Miss(scheduled(1, inside(0)), why)),
        (2, Turn::Begin(scheduled(2, inside(10)))),
        (3, Turn::Begin(scheduled(3, inside(20)))),
        (4, Turn::Rest),
    ] {
        let due = catalog.due_policies(inside(1_000_000), 10).await.unwrap().remove(0);
        let then = Agenda { decided_at: inside(n), ..due.agenda };
        catalog.turn_policy(&due, &turn, &then).await.unwrap();
    }
    let told = told(catalog, before).await;
    let what: Vec<_> = told.iter().map(|(kind, backup, _)| (*kind, backup.unwrap())).collect();
    // The third found the second in its way.
    let expected = [
        (EventKind::WindowMissed, 1),
        (EventKind::BackupRequested, 2),
        (EventKind::BackupFailed, 3),
    ];
    assert_eq!(what, expected);
    assert_eq!(told[0].2.as_deref(), Some("no service ran"));
}

pub async fn events_are_listed_in_both_orders_and_between_others(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    open_project(catalog, 2).await;
    let foreign = Instance { project: project(2), ..instance(3, "one") };
    catalog.add_instance(&foreign).await.unwrap();
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    catalog.request_backup(&new_backup(2, 2, 11)).await.unwrap();
    let ids = async |filter, limit| {
        let listed = listed_by(catalog, filter, limit).await;
        listed.iter().map(|event| event.id.get()).collect::<Vec<_>>()
    };
    let all = EventFilter::default();
    // The third is of another project.
    assert_eq!(ids(all, 10).await, [1, 2, 4, 5]);
    assert_eq!(ids(all, 2).await, [1, 2]);
    assert_eq!(ids(EventFilter { newest_first: true, ..all }, 3).await, [5, 4, 2]);
    let (after, before) = (EventId::new(1), Some(EventId::new(5)));
    assert_eq!(ids(EventFilter { after, before, ..all }, 10).await, [2, 4]);
    assert_eq!(ids(EventFilter { after, before, newest_first: true, ..all }, 1).await, [4]);
    let of_second = EventFilter { instance: Some(instance_id(2)), ..all };
    assert_eq!(ids(of_second, 10).await, [2, 5]);
    let foreign = EventFilter { instance: Some(instance_id(3)), ..all };
    assert_eq!(ids(foreign, 10).await, [0; 0]);
    let theirs = catalog.list_events(&project(2), &all, 10).await.unwrap();
    assert_eq!((theirs.items.len(), theirs.newest), (1, EventId::new(5)));
    assert_eq!(ids(EventFilter { after: EventId::MAX, ..all }, 10).await, [0; 0]);
}

pub async fn a_service_event_is_recorded_for_every_project(catalog: &impl Catalog) {
    prepare(catalog).await;
    open_project(catalog, 2).await;
    let before = newest(catalog).await;
    let detail = "é".repeat(EVENT_DETAIL_CHARS_MAX + 1);
    let of_disk = [EventKind::DiskLow, EventKind::DiskRecovered];
    assert_eq!(catalog.newest_service_event(of_disk).await.unwrap(), None);
    catalog.record_service_event(EventKind::DiskLow, Some(&detail), at(60)).await.unwrap();
    assert_eq!(catalog.newest_service_event(of_disk).await.unwrap(), Some(EventKind::DiskLow));
    catalog.record_service_event(EventKind::DiskRecovered, None, at(61)).await.unwrap();
    assert_eq!(
        catalog.newest_service_event(of_disk).await.unwrap(),
        Some(EventKind::DiskRecovered)
    );
    for number in [1, 2] {
        let filter = EventFilter { after: before, ..EventFilter::default() };
        let page = catalog.list_events(&project(number), &filter, 10).await.unwrap();
        let [low, recovered] = &page.items[..] else { panic!("{page:?}") };
        assert_eq!((low.kind, recovered.kind), (EventKind::DiskLow, EventKind::DiskRecovered));
        assert_eq!((low.at, &low.project), (at(60), &project(number)));
        assert_eq!((low.instance, &low.instance_name, low.backup), (None, &None, None));
        assert_eq!(low.detail, Some("é".repeat(EVENT_DETAIL_CHARS_MAX)));
        let filter = EventFilter { instance: Some(instance_id(1)), ..filter };
        let of_instance = catalog.list_events(&project(number), &filter, 10).await.unwrap();
        assert_eq!(of_instance.items, []);
    }
}

pub async fn old_events_are_forgotten_and_their_numbers_with_them(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 2..=5 {
        catalog.add_instance(&instance(n, &format!("n{n}"))).await.unwrap();
    }
    assert_eq!(catalog.drop_events(at(5), 3).await.unwrap(), 3);
    assert_eq!(catalog.drop_events(at(5), 3).await.unwrap(), 1);
    assert_eq!(catalog.drop_events(at(5), 3).await.unwrap(), 0);
    let ids = |listed: Vec<Event>| listed.iter().map(|event| event.id.get()).collect::<Vec<_>>();
    assert_eq!(ids(listed_by(catalog, EventFilter::default(), 9).await), [5]);
    assert_eq!(catalog.drop_events(at(100), 3).await.unwrap(), 1);
    assert_eq!(newest(catalog).await, EventId::new(5));
    catalog.add_instance(&instance(6, "six")).await.unwrap();
    assert_eq!(ids(listed_by(catalog, EventFilter::default(), 9).await), [6]);
}

pub async fn who_waits_for_an_event_is_woken_by_it(catalog: &impl Catalog) {
    prepare(catalog).await;
    let before = newest(catalog).await;
    let mut waiting = pin!(catalog.wait_for_event(before));
    let is_pending = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending()));
    assert!(is_pending.await, "nothing has happened yet");
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    waiting.await;
    // It is not missed by who asks later.
    catalog.wait_for_event(before).await;
}
