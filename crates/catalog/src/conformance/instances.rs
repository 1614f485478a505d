//! Instances: what is recorded of them, how they are listed, changed, tagged and removed.

use cachevault_domain::{
    BackupFilter, BackupPolicy, BackupState, DuePlan, FailureCode, Generations, Health, Instance,
    InstanceChange, InstanceCounts, InstanceFilter, InstanceSettings, InstanceState, JobKind, Keep,
    KeepDays, MissedWindow, NewConnection, Observation, Page, Plan, PolicyId, ProjectId, Retention,
    Schedule, SealedConnection, SealedSecret, ShrinkRule, StoredPolicy, Tag, TagChange, TargetData,
    Weekdays, WeeklyPlan, time_zone,
};
use jiff::SignedDuration;

use super::identity::open_project;
use super::{
    ALL, Numbered, at, automatic, backup, backup_id, begin_restore, claim, claim_kind, failure,
    files, instance, instance_id, job_id, listed, new_backup, new_restore, observation, outcome,
    prepare, prepare_restore, project, settings, succeed,
};
use crate::{Catalog, CatalogError};

pub async fn an_instance_reads_back_as_it_was_added(catalog: &impl Catalog) {
    prepare(catalog).await;
    let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap();
    assert_eq!(found, Some(instance(1, "one")));
    let plain = SealedConnection {
        username: None,
        password: None,
        tls: false,
        tls_ca_pem: None,
        tls_certificate_pem: None,
        tls_key_pem: None,
        ..instance(2, "two").connection
    };
    let settings = InstanceSettings::default();
    let second = Instance { connection: plain, settings, ..instance(2, "two") };
    catalog.add_instance(&second).await.unwrap();
    assert_eq!(catalog.find_instance(&project(1), second.id).await.unwrap(), Some(second));
}

pub async fn a_name_is_taken_only_within_its_project(catalog: &impl Catalog) {
    prepare(catalog).await;
    let same_name = catalog.add_instance(&instance(2, "one")).await;
    assert!(matches!(same_name, Err(CatalogError::Taken(_))), "{same_name:?}");
    open_project(catalog, 2).await;
    let elsewhere = Instance { project: project(2), ..instance(2, "one") };
    catalog.add_instance(&elsewhere).await.unwrap();
}

pub async fn no_project_sees_the_instances_of_another(catalog: &impl Catalog) {
    prepare(catalog).await;
    assert_eq!(catalog.find_instance(&project(2), instance_id(1)).await.unwrap(), None);
    let listing =
        catalog.list_instances(&project(2), &InstanceFilter::default(), ALL).await.unwrap();
    assert_eq!((listing.items.len(), listing.total), (0, 0));
    let removed = catalog.remove_instance(&project(2), instance_id(1), at(1)).await;
    assert!(matches!(removed, Err(CatalogError::NotFound(_))));
}

pub async fn instances_are_listed_newest_first_and_filtered(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two_x")).await.unwrap();
    catalog.add_instance(&instance(3, "twoyx")).await.unwrap();
    let names = async |filter: InstanceFilter| {
        let listing = catalog.list_instances(&project(1), &filter, ALL).await.unwrap();
        assert_eq!(listing.items.len() as u64, listing.total);
        listing.items.iter().map(|i| i.name.to_string()).collect::<Vec<_>>()
    };
    let all = InstanceFilter::default;
    assert_eq!(names(all()).await, ["twoyx", "two_x", "one"]);
    assert_eq!(names(InstanceFilter { name: Some("one".into()), ..all() }).await, ["one"]);
    // `_` is a letter here, not a pattern.
    assert_eq!(
        names(InstanceFilter { name_contains: Some("o_".into()), ..all() }).await,
        ["two_x"]
    );
    assert_eq!(names(InstanceFilter { id: Some(instance_id(3)), ..all() }).await, ["twoyx"]);
    assert_eq!(names(InstanceFilter { host: Some("10.0.0.2".into()), ..all() }).await, ["two_x"]);
}

pub async fn instances_page_by_offset_and_by_marker(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 2..=5 {
        catalog.add_instance(&instance(n, &format!("name{n}"))).await.unwrap();
    }
    let ids = async |filter: InstanceFilter, page| {
        let listing = catalog.list_instances(&project(1), &filter, page).await.unwrap();
        assert_eq!(listing.total, 5);
        listing.items.iter().map(|i| i.id).collect::<Vec<_>>()
    };
    let page = Page { offset: 1, limit: 2 };
    assert_eq!(ids(InstanceFilter::default(), page).await, [instance_id(4), instance_id(3)]);
    let after = InstanceFilter { after: Some(instance_id(3)), ..InstanceFilter::default() };
    assert_eq!(ids(after, ALL).await, [instance_id(2), instance_id(1)]);
    let after = InstanceFilter { after: Some(instance_id(1)), ..InstanceFilter::default() };
    assert_eq!(ids(after, ALL).await, []);
    // Another project's instance is as unknown as none.
    open_project(catalog, 2).await;
    let foreign = Instance { project: project(2), ..instance(9, "foreign") };
    catalog.add_instance(&foreign).await.unwrap();
    for unknown in [instance_id(9), instance_id(8)] {
        let after = InstanceFilter { after: Some(unknown), ..InstanceFilter::default() };
        assert_eq!(ids(after, ALL).await, []);
    }
}

pub async fn a_removed_instance_is_gone_and_its_name_free(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.remove_instance(&project(1), instance_id(1), at(9)).await.unwrap();
    assert_eq!(catalog.find_instance(&project(1), instance_id(1)).await.unwrap(), None);
    let again = catalog.remove_instance(&project(1), instance_id(1), at(9)).await;
    assert!(matches!(again, Err(CatalogError::NotFound(_))));
    catalog.add_instance(&instance(2, "one")).await.unwrap();
    assert_eq!(catalog.instances_seen_before(at(1000), 10).await.unwrap().len(), 1);
}

pub async fn an_instance_with_files_or_a_job_stays(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let busy = catalog.remove_instance(&project(1), instance_id(1), at(11)).await;
    assert!(matches!(busy, Err(CatalogError::Busy(JobKind::Capture))), "{busy:?}");
    let lease = claim(catalog, 11).await.unwrap();
    catalog.start_backup(&lease, at(11)).await.unwrap();
    catalog.finish_backup(&lease, &files(1, 5), ShrinkRule::default(), at(12)).await.unwrap();
    let full = catalog.remove_instance(&project(1), instance_id(1), at(13)).await;
    assert!(matches!(full, Err(CatalogError::HasBackups(1))), "{full:?}");
}

async fn settings_of(catalog: &impl Catalog, n: u8) -> InstanceSettings {
    catalog.find_instance(&project(1), instance_id(n)).await.unwrap().unwrap().settings
}

pub async fn a_change_touches_only_what_it_names(catalog: &impl Catalog) {
    prepare(catalog).await;
    let change = async |change: InstanceChange| {
        let policy_id = PolicyId::mint(&Numbered(99));
        catalog.change_instance(&project(1), instance_id(1), &change, policy_id, at(9)).await
    };
    change(InstanceChange::default()).await.unwrap();
    let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap();
    assert_eq!(found, Some(instance(1, "one")));
    change(InstanceChange {
        name: Some("other".parse().unwrap()),
        description: Some("".parse().unwrap()),
        maintenance: Some("05:00-06:00".parse().unwrap()),
        policy: None,
        connection: None,
    })
    .await
    .unwrap();
    let expected = InstanceSettings {
        description: "".parse().unwrap(),
        maintenance: "05:00-06:00".parse().unwrap(),
        ..settings(1)
    };
    let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap();
    let expected = Instance { settings: expected, changed_at: at(9), ..instance(1, "other") };
    assert_eq!(found, Some(expected));
}

pub async fn a_taken_name_changes_nothing(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    let change = |name: &str| InstanceChange {
        name: Some(name.parse().unwrap()),
        description: Some("new".parse().unwrap()),
        ..InstanceChange::default()
    };
    let rename = async |owner: ProjectId, id, name| {
        let policy_id = PolicyId::mint(&Numbered(99));
        catalog.change_instance(&owner, id, &change(name), policy_id, at(9)).await
    };
    let taken = rename(project(1), instance_id(2), "one").await;
    assert!(matches!(taken, Err(CatalogError::Taken("instance name"))), "{taken:?}");
    assert_eq!(settings_of(catalog, 2).await, settings(2));
    // Its own name is not taken.
    rename(project(1), instance_id(2), "two").await.unwrap();
    for (owner, id) in [(project(2), instance_id(2)), (project(1), instance_id(9))] {
        let unknown = rename(owner, id, "three").await;
        assert!(matches!(unknown, Err(CatalogError::NotFound("instance"))), "{unknown:?}");
    }
    catalog.remove_instance(&project(1), instance_id(1), at(10)).await.unwrap();
    rename(project(1), instance_id(2), "one").await.unwrap();
}

fn reached_at(n: u8, password: u8) -> SealedConnection {
    let connection = instance(n, "any").connection;
    SealedConnection { password: Some(SealedSecret(vec![password])), ..connection }
}

async fn replace(
    catalog: &impl Catalog,
    expected: SealedConnection,
    connection: SealedConnection,
) -> Result<(), CatalogError> {
    let observation = Observation { keys: 77, ..instance(1, "any").observation };
    let new = NewConnection { expected, connection, observation };
    let change = InstanceChange {
        connection: Some(new),
        description: Some("moved".parse().unwrap()),
        ..InstanceChange::default()
    };
    let policy_id = PolicyId::mint(&Numbered(99));
    catalog.change_instance(&project(1), instance_id(1), &change, policy_id, at(9)).await
}

pub async fn a_connection_is_replaced_only_where_it_is_the_expected_one(catalog: &impl Catalog) {
    prepare(catalog).await;
    let found = async || catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
    let before = found().await;
    for _ in 0..=Health::LOOKS_MISSED_MAX {
        catalog.record_look(instance_id(1), Err("wrong password"), at(5)).await.unwrap();
    }
    assert!(found().await.health.is_down());
    // One column of it is another: nothing at all is changed.
    let stale = [
        SealedConnection { username: None, ..before.connection.clone() },
        SealedConnection { password: None, ..before.connection.clone() },
        SealedConnection { tls_key_pem: None, ..before.connection.clone() },
        SealedConnection { tls_ca_pem: Some("other".into()), ..before.connection.clone() },
        reached_at(2, 1),
    ];
    for expected in stale {
        let refused = replace(catalog, expected, reached_at(2, 9)).await;
        assert!(matches!(refused, Err(CatalogError::Changed("connection"))), "{refused:?}");
        let unchanged = found().await;
        assert_eq!(unchanged.connection, before.connection);
        assert_eq!(unchanged.settings, before.settings);
    }
    let bare = SealedConnection {
        username: None,
        password: None,
        tls: false,
        tls_ca_pem: None,
        tls_certificate_pem: None,
        tls_key_pem: None,
        ..reached_at(2, 9)
    };
    replace(catalog, before.connection.clone(), bare.clone()).await.unwrap();
    let after = found().await;
    assert_eq!((after.connection, after.health), (bare.clone(), Health::Reachable));
    assert_eq!((after.observation.keys, after.observed_at, after.changed_at), (77, at(9), at(9)));
    assert_eq!(after.settings.policy, before.settings.policy);
    replace(catalog, bare, reached_at(1, 9)).await.unwrap();
    assert_eq!(found().await.connection, reached_at(1, 9));
}

pub async fn a_restore_ends_at_the_address_where_it_began(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.request_restore(&new_restore(5, 1, 1, 20)).await.unwrap();
    let read = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
    let elsewhere = replace(catalog, read.connection.clone(), reached_at(2, 9)).await;
    assert!(matches!(elsewhere, Err(CatalogError::Busy(JobKind::Restore))), "{elsewhere:?}");
    // A new password is what it may need to come to its end.
    replace(catalog, read.connection, reached_at(1, 9)).await.unwrap();
}

pub async fn a_policy_keeps_its_id_and_what_nobody_changes(catalog: &impl Catalog) {
    prepare(catalog).await;
    let plain = InstanceSettings::default();
    catalog.add_instance(&Instance { settings: plain, ..instance(2, "two") }).await.unwrap();
    let set = async |policy, id: u8, seconds| {
        let change = InstanceChange { policy: Some(policy), ..InstanceChange::default() };
        let policy_id = PolicyId::mint(&Numbered(id));
        let owner = project(1);
        let changed =
            catalog.change_instance(&owner, instance_id(2), &change, policy_id, at(seconds));
        changed.await.unwrap();
        settings_of(catalog, 2).await.policy.unwrap()
    };
    let first = set(automatic(&[3], "04:00-05:00", 2), 7, 20).await;
    let id = PolicyId::mint(&Numbered(7));
    assert_eq!(
        first,
        StoredPolicy {
            id,
            policy: automatic(&[3], "04:00-05:00", 2),
            created_at: at(20),
            updated_at: at(20)
        }
    );
    let second = set(BackupPolicy::manual(None, None), 8, 30).await;
    let kept = BackupPolicy::manual(first.policy.weekly_plan(), first.policy.save_days());
    assert_eq!(second, StoredPolicy { policy: kept, updated_at: at(30), ..first });
    // The other instance has its own.
    assert_eq!(settings_of(catalog, 1).await, settings(1));
}

/// A policy by a pattern that says all that one can say.
fn rich() -> BackupPolicy {
    let minutes = SignedDuration::from_mins(90);
    let schedule = Schedule::new("30 2 * * 1-5", "Europe/Berlin", minutes, at(0)).unwrap();
    let generations = Generations { daily: 7, weekly: 4, monthly: 12, yearly: 2 };
    let zone = time_zone("America/New_York").unwrap();
    let rules = Retention { count: 3, generations, zone };
    let keep = Keep::new(Some(KeepDays::new(3650).unwrap()), rules).unwrap();
    let (plan, missed) = (Plan::Schedule(Box::new(schedule)), Some(MissedWindow::CatchUp));
    BackupPolicy::whole(true, DuePlan { plan, keep, missed })
}

pub async fn every_form_of_a_policy_reads_back_as_it_was_set(catalog: &impl Catalog) {
    prepare(catalog).await;
    let by_count = |is_automatic| {
        let days = Weekdays::from_numbers(&[1]).unwrap();
        let plan = WeeklyPlan { days, window: "22:00-02:00".parse().unwrap() };
        let keep = Keep::new(None, Retention { count: 1, ..Retention::by_time() }).unwrap();
        let missed = Some(MissedWindow::Skip);
        BackupPolicy::whole(is_automatic, DuePlan { plan: Plan::Weekly(plan), keep, missed })
    };
    let vendors = automatic(&[2], "00:00-01:00", 7);
    for policy in [rich(), by_count(true), by_count(false), vendors] {
        let change = InstanceChange { policy: Some(policy.clone()), ..InstanceChange::default() };
        let (owner, id) = (project(1), PolicyId::mint(&Numbered(7)));
        catalog.change_instance(&owner, instance_id(1), &change, id, at(30)).await.unwrap();
        assert_eq!(settings_of(catalog, 1).await.policy.unwrap().policy, policy);
        // A moment at which some window of any of them has come.
        let due = catalog.due_policies(at(30 * 86_400), 10).await.unwrap();
        let says = due.into_iter().map(|due| due.says).next();
        assert_eq!(says, policy.due_plan());
    }
}

pub async fn a_policy_is_taken_away_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    let remove = |owner: u8, instance: u8| async move {
        catalog.remove_backup_policy(&project(owner), instance_id(instance), at(30)).await
    };
    for (owner, instance) in [(2, 1), (1, 2)] {
        let refused = remove(owner, instance).await;
        assert!(matches!(refused, Err(CatalogError::NotFound("instance"))), "{refused:?}");
    }
    remove(1, 1).await.unwrap();
    assert_eq!(settings_of(catalog, 1).await.policy, None);
    assert_eq!(catalog.due_policies(at(30 * 86_400), 10).await.unwrap(), []);
    let again = remove(1, 1).await;
    assert!(matches!(again, Err(CatalogError::NotFound("backup policy"))), "{again:?}");
}

pub async fn backups_are_kept_of_an_instance_that_is_let_go(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let (owner, id) = (project(1), instance_id(1));
    catalog.request_backup(&new_backup(2, 1, 20)).await.unwrap();
    let busy = catalog.remove_instance_keeping_backups(&owner, id, at(20)).await;
    assert!(matches!(busy, Err(CatalogError::Busy(JobKind::Capture))), "{busy:?}");
    let lease = claim(catalog, 20).await.unwrap();
    catalog.start_backup(&lease, at(20)).await.unwrap();
    catalog.finish_backup(&lease, &files(1, 5), ShrinkRule::default(), at(21)).await.unwrap();
    let foreign = catalog.remove_instance_keeping_backups(&project(2), id, at(22)).await;
    assert!(matches!(foreign, Err(CatalogError::NotFound("instance"))), "{foreign:?}");
    catalog.remove_instance_keeping_backups(&owner, id, at(22)).await.unwrap();
    assert_eq!(catalog.find_instance(&owner, id).await.unwrap(), None);
    // Nothing is found out about them any more, not by their number either.
    assert_eq!(catalog.instances_to_retain(at(1000), 10).await.unwrap(), []);
    assert_eq!(catalog.retain_backups(id, 0, &[job_id(90)], at(1000)).await.unwrap(), []);
    let (kept, _) = listed(catalog, BackupFilter::default(), ALL).await;
    assert_eq!(kept, [backup_id(2), backup_id(1)]);
    assert!(catalog.has_backups(&owner, id).await.unwrap());
    assert!(!catalog.has_backups(&project(2), id).await.unwrap());
    begin_restore(catalog, 9, 2, 1000).await;
    for (n, job) in [(1, 91), (2, 92)] {
        let asked = catalog.request_removal(&owner, id, backup_id(n), job_id(job), at(1001)).await;
        assert_eq!(asked.is_ok(), n == 2, "the other one is read: {asked:?}");
    }
    let lease = claim_kind(catalog, JobKind::Remove, 1002).await.unwrap();
    catalog.finish_removal(&lease, at(1003)).await.unwrap();
    assert_eq!(backup(catalog, 2).await.state, BackupState::Deleted);
    assert_eq!(catalog.instances_to_retain(at(2000), 10).await.unwrap(), []);
}

pub async fn tags_are_added_replaced_and_taken_away(catalog: &impl Catalog) {
    prepare(catalog).await;
    let tag = |key: &str, value: &str| Tag::new(key, value).unwrap();
    let change = async |change: TagChange| {
        catalog.change_tags(&project(1), instance_id(1), &change, at(9)).await.unwrap();
        settings_of(catalog, 1).await.tags
    };
    let add = TagChange::Add(vec![tag("owner", "ops"), tag("a", "1")]);
    assert_eq!(change(add).await, [tag("a", "1"), tag("n", "1"), tag("owner", "ops")]);
    let remove = TagChange::Remove(vec![
        ("a".into(), None),
        ("n".into(), Some("2".into())),
        ("none".into(), None),
    ]);
    assert_eq!(change(remove).await, [tag("n", "1"), tag("owner", "ops")]);
    let many = (0..19).map(|n| tag(&format!("k{n}"), "")).collect();
    let many = catalog.change_tags(&project(1), instance_id(1), &TagChange::Add(many), at(9)).await;
    assert!(matches!(many, Err(CatalogError::TooManyTags)), "{many:?}");
    assert_eq!(settings_of(catalog, 1).await.tags.len(), 2);
    let foreign =
        catalog.change_tags(&project(2), instance_id(1), &TagChange::Add(vec![]), at(9)).await;
    assert!(matches!(foreign, Err(CatalogError::NotFound("instance"))), "{foreign:?}");
}

pub async fn the_tags_of_a_project_are_listed_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    let tag = |key: &str, value: &str| Tag::new(key, value).unwrap();
    let all = catalog.list_tags(&project(1)).await.unwrap();
    assert_eq!(all, [tag("n", "1"), tag("n", "2"), tag("owner", "")]);
    assert_eq!(catalog.list_tags(&project(2)).await.unwrap(), []);
    catalog.remove_instance(&project(1), instance_id(2), at(10)).await.unwrap();
    assert_eq!(catalog.list_tags(&project(1)).await.unwrap(), [tag("n", "1"), tag("owner", "")]);
}

pub async fn instances_are_filtered_and_counted_by_state(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    for (n, name) in [(3, "three"), (4, "four")] {
        catalog.add_instance(&instance(n, name)).await.unwrap();
    }
    // One is backed up although it does not answer, two is restored into, three is down.
    for _ in 0..3 {
        catalog.record_look(instance_id(1), Err("refused"), at(50)).await.unwrap();
        catalog.record_look(instance_id(3), Err("refused"), at(50)).await.unwrap();
    }
    catalog.request_backup(&new_backup(2, 1, 51)).await.unwrap();
    catalog.request_restore(&new_restore(41, 2, 1, 52)).await.unwrap();
    let states = [InstanceState::Running, InstanceState::Restoring, InstanceState::Down].map(Some);
    let expected: [&[u8]; 3] = [&[4, 1], &[2], &[3]];
    for (state, expected) in states.into_iter().zip(expected) {
        let filter = InstanceFilter { state, ..InstanceFilter::default() };
        let found = catalog.list_instances(&project(1), &filter, ALL).await.unwrap();
        let ids: Vec<_> = found.items.iter().map(|instance| instance.id).collect();
        assert_eq!(ids, expected.iter().map(|n| instance_id(*n)).collect::<Vec<_>>(), "{state:?}");
        assert!(found.items.iter().all(|instance| Some(instance.state()) == state));
    }
    let counts = catalog.count_instances(&project(1)).await.unwrap();
    assert_eq!((counts.running, counts.restoring, counts.down), (2, 1, 1));
    assert_eq!(counts.capacity_bytes, 4 << 40);
    assert_eq!(catalog.count_instances(&project(2)).await.unwrap(), InstanceCounts::default());
}

pub async fn instances_are_filtered_by_capacity_and_tags(catalog: &impl Catalog) {
    prepare(catalog).await;
    let limited = Observation { max_memory_bytes: 1 << 30, ..observation() };
    let second = Instance { observation: limited, ..instance(2, "two") };
    catalog.add_instance(&second).await.unwrap();
    let found = async |filter: InstanceFilter| {
        let listing = catalog.list_instances(&project(1), &filter, ALL).await.unwrap();
        listing.items.iter().map(|instance| instance.id).collect::<Vec<_>>()
    };
    let capacity =
        |from, to| InstanceFilter { capacity_bytes: Some((from, to)), ..InstanceFilter::default() };
    assert_eq!(found(capacity(1 << 30, (2 << 30) - 1)).await, [instance_id(2)]);
    // Without a limit the machine's memory counts.
    assert_eq!(found(capacity(1 << 40, u64::MAX)).await, [instance_id(1)]);
    let tagged = |tags: &[(&str, &str)]| InstanceFilter {
        tags: tags.iter().map(|(key, value)| Tag::new(key, value).unwrap()).collect(),
        ..InstanceFilter::default()
    };
    assert_eq!(found(tagged(&[("owner", "")])).await, [instance_id(2), instance_id(1)]);
    assert_eq!(found(tagged(&[("owner", ""), ("n", "1")])).await, [instance_id(1)]);
    assert_eq!(found(tagged(&[("owner", "1")])).await, []);
}

pub async fn backups_are_marked_for_removal_together_or_not_at_all(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    succeed(catalog, 2, 20).await;
    let remove = async |instance, backups: &[(u8, u8)], seconds| {
        let jobs: Vec<_> =
            backups.iter().map(|(backup, job)| (backup_id(*backup), job_id(*job))).collect();
        catalog.request_removals(&project(1), instance_id(instance), &jobs, at(seconds)).await
    };
    // The second is needed by a restore: the first stays too.
    let lease = begin_restore(catalog, 41, 2, 30).await;
    let needed = remove(1, &[(2, 12), (1, 11)], 31).await;
    assert!(matches!(needed, Err(CatalogError::Busy(JobKind::Restore))), "{needed:?}");
    assert!(backup(catalog, 2).await.is_restorable());
    catalog
        .fail_restore(
            &lease,
            &failure(FailureCode::ToolFailed, "x"),
            &outcome(TargetData::Old),
            at(32),
        )
        .await
        .unwrap();
    // Nor while the instance is needed by a job.
    catalog.request_backup(&new_backup(3, 1, 33)).await.unwrap();
    let busy = remove(1, &[(2, 12), (1, 11)], 34).await;
    assert!(matches!(busy, Err(CatalogError::Busy(JobKind::Capture))), "{busy:?}");
    let lease = claim(catalog, 35).await.unwrap();
    catalog.fail_backup(&lease, &failure(FailureCode::ToolFailed, "x"), at(36)).await.unwrap();
    assert_eq!(remove(1, &[(2, 12)], 37).await.unwrap(), [job_id(12)]);
    // One that is open counts.
    assert_eq!(remove(1, &[(2, 22), (1, 11)], 38).await.unwrap(), [job_id(12), job_id(11)]);
    assert!(!backup(catalog, 1).await.is_restorable() && !backup(catalog, 2).await.is_restorable());
    let unknown = remove(2, &[], 39).await;
    assert_eq!(unknown.unwrap(), []);
    let unknown = remove(9, &[], 39).await;
    assert!(matches!(unknown, Err(CatalogError::NotFound("instance"))), "{unknown:?}");
}

pub async fn the_instances_seen_longest_ago_come_first(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    let seen = async |before, limit| {
        let instances = catalog.instances_seen_before(at(before), limit).await.unwrap();
        instances.iter().map(|i| i.id).collect::<Vec<_>>()
    };
    assert_eq!(seen(1, 10).await, []);
    assert_eq!(seen(100, 10).await, [instance_id(1), instance_id(2)]);
    assert_eq!(seen(100, 1).await, [instance_id(1)]);
    catalog.record_look(instance_id(1), Err("refused"), at(50)).await.unwrap();
    assert_eq!(seen(100, 10).await, [instance_id(2), instance_id(1)]);
}

pub async fn a_look_that_failed_keeps_the_last_figures(catalog: &impl Catalog) {
    prepare(catalog).await;
    let health = |looks| Health::Unreachable { reason: "refused".into(), looks };
    catalog.record_look(instance_id(1), Err("refused"), at(50)).await.unwrap();
    let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
    assert_eq!(
        (found.health.clone(), found.observation, found.observed_at),
        (health(1), observation(), at(50))
    );
    assert!(!found.health.is_down(), "a server may miss a look");
    for _ in 0..2 {
        catalog.record_look(instance_id(1), Err("refused"), at(55)).await.unwrap();
    }
    let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
    assert!(found.health == health(3) && found.health.is_down());
    let newer = Observation { keys: 1, ..observation() };
    catalog.record_look(instance_id(1), Ok(&newer), at(60)).await.unwrap();
    let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
    assert_eq!((found.health, found.observation), (Health::Reachable, newer));
    catalog.record_look(instance_id(9), Err("refused"), at(60)).await.unwrap();
}
