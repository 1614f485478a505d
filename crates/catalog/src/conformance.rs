//! The suite that every catalog has to pass.
//!
//! Each case gets a fresh, empty catalog. `catalog_conformance!(fresh)` makes one test of each,
//! where `fresh` is an expression that gives a future of something that derefs to a [`Catalog`].

#![expect(missing_docs, reason = "the names of the cases are sentences")]
#![expect(clippy::unwrap_used, reason = "a broken promise should panic in the test that checks it")]

use cachevault_domain::{
    AccessKey, Address, Backup, BackupFilter, BackupFormat, BackupId, BackupState, EngineKind,
    Entropy, Failure, FailureCode, Health, Instance, InstanceFilter, InstanceId, JobId, JobKind,
    JobState, Lease, NewBackup, NodeId, Observation, Page, Progress, ProjectId, RdbDialect,
    Requeue, Role, SealedConnection, SealedSecret, ServerVersion, Trigger,
};
use jiff::Timestamp;

use crate::{Catalog, CatalogError, StoredCredential};

/// Makes one `#[tokio::test]` of every case.
#[macro_export]
macro_rules! catalog_conformance {
    ($fresh:expr) => {
        $crate::catalog_conformance! { @cases $fresh;
            a_project_and_its_credential_are_found_again
            a_project_is_created_once
            an_instance_reads_back_as_it_was_added
            a_name_is_taken_only_within_its_project
            no_project_sees_the_instances_of_another
            instances_are_listed_newest_first_and_filtered
            instances_page_by_offset_and_by_marker
            a_removed_instance_is_gone_and_its_name_free
            an_instance_with_files_or_a_job_stays
            the_instances_seen_longest_ago_come_first
            a_look_that_failed_keeps_the_last_figures
            a_requested_backup_waits_and_the_instance_shows_it
            a_backup_of_an_unknown_instance_is_not_recorded
            the_second_request_finds_the_instance_busy
            no_project_sees_the_backups_of_another
            backups_are_listed_newest_first_whatever_comes_meanwhile
            backups_are_filtered_by_time_with_both_ends
            removed_backups_leave_the_list_after_their_time
            a_job_is_claimed_once
            jobs_are_claimed_in_the_order_in_which_they_are_due
            a_lease_that_ran_out_is_claimed_again_with_a_higher_attempt
            an_extended_lease_is_not_claimed
            a_stale_worker_can_write_nothing
            the_leases_of_a_dead_node_are_due_at_once
            steps_are_logged_once_and_survive_attempts
            progress_never_goes_back
            a_backup_that_succeeded_frees_its_instance
            a_backup_that_failed_says_why
            a_requeued_job_waits_for_its_time
            a_removal_marks_runs_and_ends
            a_running_backup_is_not_removed
            a_clock_that_goes_back_breaks_nothing
        }
    };
    (@cases $fresh:expr; $($case:ident)+) => {$(
        #[tokio::test]
        async fn $case() {
            let catalog = $fresh.await;
            $crate::conformance::$case(&*catalog).await;
        }
    )+

        /// A case that is not in the list above would never run.
        #[test]
        fn every_case_is_listed() {
            let listed = [$(stringify!($case)),+];
            assert_eq!(listed.as_slice(), $crate::conformance::cases().as_slice());
        }
    };
}

/// The names of all cases, read from this file.
pub fn cases() -> Vec<&'static str> {
    include_str!("conformance.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next())
        .collect()
}

/// Ids of a test: told apart by a number.
#[derive(Debug)]
struct Numbered(u8);

impl Entropy for Numbered {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

fn project(n: u8) -> ProjectId {
    ProjectId::mint(&Numbered(n))
}

fn instance_id(n: u8) -> InstanceId {
    InstanceId::mint(&Numbered(n))
}

fn backup_id(n: u8) -> BackupId {
    BackupId::mint(&Numbered(n))
}

fn job_id(n: u8) -> JobId {
    JobId::mint(&Numbered(n))
}

fn node() -> NodeId {
    NodeId::mint(&Numbered(1))
}

/// A moment, in seconds after the beginning of the test.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + seconds).unwrap()
}

fn credential(n: u8) -> StoredCredential {
    StoredCredential {
        access_key: AccessKey::mint(&Numbered(n)),
        project: project(n),
        secret: SealedSecret(vec![n; 40]),
    }
}

fn observation() -> Observation {
    Observation {
        engine: EngineKind::Valkey,
        version: ServerVersion { major: 9, minor: 1, patch: 2 },
        role: Role::Primary,
        replicas_online: 2,
        used_memory_bytes: u64::from(u32::MAX) * 1000,
        max_memory_bytes: 0,
        system_memory_bytes: 1 << 40,
        keys: 12_345_678_901,
        databases_used: 3,
    }
}

fn instance(n: u8, name: &str) -> Instance {
    Instance {
        id: instance_id(n),
        project: project(1),
        name: name.parse().unwrap(),
        connection: SealedConnection {
            address: Address { host: format!("10.0.0.{n}"), port: 6379 },
            username: Some("backup".into()),
            password: Some(SealedSecret(vec![1, 2, 3])),
            tls: true,
            tls_ca_pem: Some("ca".into()),
            tls_certificate_pem: Some("certificate".into()),
            tls_key_pem: Some(SealedSecret(vec![4])),
        },
        observation: observation(),
        observed_at: at(i64::from(n)),
        health: Health::Reachable,
        created_at: at(i64::from(n)),
        operation: None,
    }
}

fn new_backup(n: u8, instance: u8, seconds: i64) -> NewBackup {
    NewBackup {
        id: backup_id(n),
        job: job_id(n),
        project: project(1),
        instance: instance_id(instance),
        trigger: Trigger::Manual,
        format: BackupFormat::Rdb,
        dialect: RdbDialect::Native,
        note: Some("nächtlich 🌙".parse().unwrap()),
        created_at: at(seconds),
    }
}

const ALL: Page = Page { offset: 0, limit: 1000 };

/// A catalog with project 1 and instance 1.
async fn prepare(catalog: &impl Catalog) {
    catalog.create_project(&credential(1), at(0)).await.unwrap();
    catalog.add_instance(&instance(1, "one")).await.unwrap();
}

async fn claim(catalog: &impl Catalog, seconds: i64) -> Option<Lease> {
    claim_kind(catalog, JobKind::Capture, seconds).await
}

async fn claim_kind(catalog: &impl Catalog, kind: JobKind, seconds: i64) -> Option<Lease> {
    catalog.claim_job(kind, node(), at(seconds), at(seconds + 30)).await.unwrap()
}

/// Brings a new backup of instance 1 to its success.
async fn succeed(catalog: &impl Catalog, n: u8, seconds: i64) {
    catalog.request_backup(&new_backup(n, 1, seconds)).await.unwrap();
    let lease = claim(catalog, seconds).await.unwrap();
    catalog.start_backup(&lease, at(seconds)).await.unwrap();
    catalog
        .finish_backup(&lease, lease.attempt, 1000 + u64::from(n), at(seconds + 1))
        .await
        .unwrap();
}

async fn backup(catalog: &impl Catalog, n: u8) -> Backup {
    catalog.find_backup(&project(1), backup_id(n)).await.unwrap().unwrap()
}

async fn listed(catalog: &impl Catalog, filter: BackupFilter, page: Page) -> (Vec<BackupId>, u64) {
    let listing = catalog.list_backups(&project(1), instance_id(1), &filter, page).await.unwrap();
    (listing.items.iter().map(|backup| backup.id).collect(), listing.total)
}

fn is_lost<T>(outcome: Result<T, CatalogError>) -> bool {
    matches!(outcome, Err(CatalogError::LostLease))
}

pub async fn a_project_and_its_credential_are_found_again(catalog: &impl Catalog) {
    assert!(!catalog.has_projects().await.unwrap());
    catalog.create_project(&credential(1), at(0)).await.unwrap();
    assert!(catalog.has_projects().await.unwrap());
    let found = catalog.find_credential(&credential(1).access_key).await.unwrap();
    assert_eq!(found, Some(credential(1)));
    assert_eq!(catalog.find_credential(&credential(2).access_key).await.unwrap(), None);
    catalog.check().await.unwrap();
}

pub async fn a_project_is_created_once(catalog: &impl Catalog) {
    catalog.create_project(&credential(1), at(0)).await.unwrap();
    let again = catalog.create_project(&credential(1), at(1)).await;
    assert!(matches!(again, Err(CatalogError::Taken(_))), "{again:?}");
}

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
    let second = Instance { connection: plain, ..instance(2, "two") };
    catalog.add_instance(&second).await.unwrap();
    assert_eq!(catalog.find_instance(&project(1), second.id).await.unwrap(), Some(second));
}

pub async fn a_name_is_taken_only_within_its_project(catalog: &impl Catalog) {
    prepare(catalog).await;
    let same_name = catalog.add_instance(&instance(2, "one")).await;
    assert!(matches!(same_name, Err(CatalogError::Taken(_))), "{same_name:?}");
    catalog.create_project(&credential(2), at(0)).await.unwrap();
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
    catalog.create_project(&credential(2), at(0)).await.unwrap();
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
    catalog.finish_backup(&lease, 1, 5, at(12)).await.unwrap();
    let full = catalog.remove_instance(&project(1), instance_id(1), at(13)).await;
    assert!(matches!(full, Err(CatalogError::HasBackups(1))), "{full:?}");
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

pub async fn a_requested_backup_waits_and_the_instance_shows_it(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let found = backup(catalog, 1).await;
    assert_eq!(
        (found.state, found.progress, found.size_bytes),
        (BackupState::Waiting, Progress::NONE, 0)
    );
    assert_eq!(found.note.as_ref().map(|note| note.as_str()), Some("nächtlich 🌙"));
    assert_eq!((found.created_at, found.started_at, found.completed_at), (at(10), None, None));
    let instance = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
    assert_eq!(instance.operation, Some(JobKind::Capture));
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!((job.kind, job.state, job.attempt), (JobKind::Capture, JobState::Queued, 0));
}

pub async fn a_backup_of_an_unknown_instance_is_not_recorded(catalog: &impl Catalog) {
    prepare(catalog).await;
    let outcome = catalog.request_backup(&new_backup(1, 9, 10)).await;
    assert!(matches!(outcome, Err(CatalogError::NotFound(_))), "{outcome:?}");
    let foreign = NewBackup { project: project(2), ..new_backup(1, 1, 10) };
    let outcome = catalog.request_backup(&foreign).await;
    assert!(matches!(outcome, Err(CatalogError::NotFound(_))), "{outcome:?}");
    catalog.remove_instance(&project(1), instance_id(1), at(11)).await.unwrap();
    let outcome = catalog.request_backup(&new_backup(1, 1, 12)).await;
    assert!(matches!(outcome, Err(CatalogError::NotFound(_))), "{outcome:?}");
    assert_eq!(claim(catalog, 20).await, None);
}

pub async fn the_second_request_finds_the_instance_busy(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    for _ in 0..2 {
        let second = catalog.request_backup(&new_backup(2, 1, 10)).await;
        assert!(matches!(second, Err(CatalogError::Busy(JobKind::Capture))), "{second:?}");
        claim(catalog, 10).await;
    }
    assert_eq!(listed(catalog, BackupFilter::default(), ALL).await.1, 1);
    catalog.request_backup(&new_backup(3, 2, 10)).await.unwrap();
}

pub async fn no_project_sees_the_backups_of_another(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    assert_eq!(catalog.find_backup(&project(2), backup_id(1)).await.unwrap(), None);
    assert_eq!(catalog.find_job(&project(2), job_id(1)).await.unwrap(), None);
    let listing = catalog
        .list_backups(&project(2), instance_id(1), &BackupFilter::default(), ALL)
        .await
        .unwrap();
    assert_eq!(listing.total, 0);
    let removal =
        catalog.request_removal(&project(2), instance_id(1), backup_id(1), job_id(9), at(20)).await;
    assert!(matches!(removal, Err(CatalogError::NotFound(_))), "{removal:?}");
}

pub async fn backups_are_listed_newest_first_whatever_comes_meanwhile(catalog: &impl Catalog) {
    prepare(catalog).await;
    // Two of them in the same moment: the order must still be total.
    for (n, seconds) in [(1, 10), (2, 20), (3, 20), (4, 30)] {
        succeed(catalog, n, seconds).await;
    }
    let all = BackupFilter::default();
    let (ids, total) = listed(catalog, all, ALL).await;
    assert_eq!((ids.len(), total), (4, 4));
    assert_eq!((ids[0], ids[3]), (backup_id(4), backup_id(1)));
    let mut paged = Vec::new();
    for offset in 0..5 {
        let (page, total) = listed(catalog, all, Page { offset, limit: 1 }).await;
        assert_eq!(total, 4);
        paged.extend(page);
    }
    assert_eq!(paged, ids);
    assert_eq!(listed(catalog, all, Page { offset: u64::MAX, limit: 1000 }).await, (vec![], 4));
    succeed(catalog, 5, 40).await;
    assert_eq!(listed(catalog, all, Page { offset: 1, limit: 1000 }).await.0, ids);
    assert_eq!(catalog.last_size(instance_id(1)).await.unwrap(), Some(1005));
    assert_eq!(catalog.last_size(instance_id(2)).await.unwrap(), None);
}

pub async fn backups_are_filtered_by_time_with_both_ends(catalog: &impl Catalog) {
    prepare(catalog).await;
    for (n, seconds) in [(1, 10), (2, 20), (3, 30)] {
        succeed(catalog, n, seconds).await;
    }
    let between = |from: Option<i64>, to: Option<i64>| BackupFilter {
        created_from: from.map(at),
        created_to: to.map(at),
        removed_since: None,
    };
    for (from, to, expected) in [
        (Some(20), Some(20), vec![2]),
        (Some(11), None, vec![3, 2]),
        (None, Some(20), vec![2, 1]),
        (Some(31), None, vec![]),
    ] {
        let (ids, total) = listed(catalog, between(from, to), ALL).await;
        let expected: Vec<_> = expected.into_iter().map(backup_id).collect();
        assert_eq!((ids, total), (expected.clone(), expected.len() as u64), "{from:?} {to:?}");
    }
}

pub async fn removed_backups_leave_the_list_after_their_time(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    succeed(catalog, 2, 20).await;
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(1), job_id(9), at(30))
        .await
        .unwrap();
    let lease = claim_kind(catalog, JobKind::Remove, 30).await.unwrap();
    catalog.finish_removal(&lease, at(40)).await.unwrap();
    let since =
        |seconds| BackupFilter { removed_since: Some(at(seconds)), ..BackupFilter::default() };
    assert_eq!(listed(catalog, since(40), ALL).await.1, 2);
    assert_eq!(listed(catalog, since(41), ALL).await, (vec![backup_id(2)], 1));
}

pub async fn a_job_is_claimed_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    assert_eq!(claim(catalog, 10).await, None);
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    assert_eq!((lease.job, lease.kind, lease.attempt), (job_id(1), JobKind::Capture, 1));
    assert_eq!(
        (lease.project.clone(), lease.instance, lease.backup),
        (project(1), instance_id(1), backup_id(1))
    );
    assert_eq!(claim(catalog, 10).await, None);
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Leased, 1));
}

pub async fn jobs_are_claimed_in_the_order_in_which_they_are_due(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 2..=4 {
        catalog.add_instance(&instance(n, &format!("name{n}"))).await.unwrap();
    }
    for (n, seconds) in [(3, 12), (2, 11), (4, 13)] {
        catalog.request_backup(&new_backup(n, n, seconds)).await.unwrap();
    }
    let mut order = Vec::new();
    while let Some(lease) = claim(catalog, 20).await {
        order.push(lease.job);
    }
    assert_eq!(order, [job_id(2), job_id(3), job_id(4)]);
}

pub async fn a_lease_that_ran_out_is_claimed_again_with_a_higher_attempt(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    claim(catalog, 10).await.unwrap();
    assert_eq!(claim(catalog, 39).await, None);
    assert_eq!(claim(catalog, 40).await.map(|lease| lease.attempt), Some(2));
}

pub async fn an_extended_lease_is_not_claimed(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.extend_lease(&lease, at(100)).await.unwrap();
    assert_eq!(claim(catalog, 99).await, None);
    assert!(claim(catalog, 100).await.is_some());
}

pub async fn a_stale_worker_can_write_nothing(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let stale = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&stale, at(10)).await.unwrap();
    let fresh = claim(catalog, 100).await.unwrap();
    let failure = Failure { code: FailureCode::TimedOut, reason: "late".into() };
    assert!(is_lost(catalog.extend_lease(&stale, at(500)).await));
    assert!(is_lost(catalog.log_step(&stale, "capture", "{}", at(101)).await));
    assert!(is_lost(catalog.unlog_step(&stale, "capture").await));
    assert!(is_lost(catalog.start_backup(&stale, at(101)).await));
    assert!(is_lost(catalog.report_progress(&stale, Progress::ALMOST, 1, "late").await));
    assert!(is_lost(catalog.finish_backup(&stale, 1, 1, at(101)).await));
    assert!(is_lost(catalog.fail_backup(&stale, &failure, at(101)).await));
    assert!(is_lost(catalog.finish_removal(&stale, at(101)).await));
    assert!(is_lost(catalog.requeue(&stale, Requeue::Failed, at(101), "late").await));
    assert_eq!(backup(catalog, 1).await.state, BackupState::Running);
    catalog.start_backup(&fresh, at(101)).await.unwrap();
    catalog.finish_backup(&fresh, 1, 7, at(102)).await.unwrap();
    assert!(is_lost(catalog.finish_backup(&fresh, 1, 8, at(103)).await));
    assert_eq!(backup(catalog, 1).await.size_bytes, 7);
}

pub async fn the_leases_of_a_dead_node_are_due_at_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    claim(catalog, 10).await.unwrap();
    let other = NodeId::mint(&Numbered(2));
    assert_eq!(catalog.release_node(other, at(11)).await.unwrap(), 0);
    assert_eq!(claim(catalog, 11).await, None);
    assert_eq!(catalog.release_node(node(), at(11)).await.unwrap(), 1);
    let lease = catalog.claim_job(JobKind::Capture, other, at(11), at(41)).await.unwrap().unwrap();
    assert_eq!(lease.attempt, 2);
}

pub async fn steps_are_logged_once_and_survive_attempts(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let first = claim(catalog, 10).await.unwrap();
    catalog.log_step(&first, "capture", r#"{"a":1}"#, at(11)).await.unwrap();
    catalog.log_step(&first, "capture", r#"{"a":2}"#, at(12)).await.unwrap();
    let second = claim(catalog, 100).await.unwrap();
    catalog.log_step(&second, "verify", "null", at(101)).await.unwrap();
    let log = catalog.step_log(&second).await.unwrap();
    let seen: Vec<_> =
        log.iter().map(|s| (s.step.as_str(), s.attempt, s.output.as_str())).collect();
    assert_eq!(seen, [("capture", 1, r#"{"a":1}"#), ("verify", 2, "null")]);
    catalog.unlog_step(&second, "verify").await.unwrap();
    catalog.unlog_step(&second, "verify").await.unwrap();
    assert_eq!(catalog.step_log(&second).await.unwrap().len(), 1);
}

pub async fn progress_never_goes_back(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(10)).await.unwrap();
    for (hundredths, shown) in [(1_000, 1_000), (500, 1_000), (5_000, 5_000)] {
        let progress = Progress::from_hundredths(hundredths);
        catalog
            .report_progress(&lease, progress, u64::from(hundredths), "receiving")
            .await
            .unwrap();
        let found = backup(catalog, 1).await;
        assert_eq!(found.progress.hundredths(), shown);
        assert_eq!(
            (found.received_bytes, found.phase.as_deref()),
            (u64::from(hundredths), Some("receiving"))
        );
    }
    // A second attempt begins again; what was shown stays.
    let lease = claim(catalog, 100).await.unwrap();
    catalog.start_backup(&lease, at(100)).await.unwrap();
    let found = backup(catalog, 1).await;
    assert_eq!((found.progress.hundredths(), found.started_at), (5_000, Some(at(10))));
}

pub async fn a_backup_that_succeeded_frees_its_instance(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    let found = backup(catalog, 1).await;
    assert_eq!(
        (found.state, found.progress, found.size_bytes),
        (BackupState::Succeeded, Progress::DONE, 1001)
    );
    assert_eq!(
        (found.started_at, found.completed_at, found.phase.clone()),
        (Some(at(10)), Some(at(11)), None)
    );
    assert_eq!(found.stored_attempt, Some(1));
    assert!(found.is_restorable());
    let instance = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
    assert_eq!(instance.operation, None);
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Done);
    succeed(catalog, 2, 20).await;
}

pub async fn a_backup_that_failed_says_why(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    for code in FailureCode::ALL {
        let unstarted = Failure { code, reason: format!("because of {code:?}") };
        if code == FailureCode::ToolFailed {
            catalog.fail_backup(&lease, &unstarted, at(11)).await.unwrap();
            let found = backup(catalog, 1).await;
            assert_eq!(
                (found.state, found.failure.as_ref()),
                (BackupState::Failed, Some(&unstarted))
            );
            assert_eq!((found.completed_at, found.size_bytes), (Some(at(11)), 0));
            assert!(!found.is_restorable());
            continue;
        }
        let n = 10 + code as u8;
        catalog.request_backup(&new_backup(n, 1, 20)).await.unwrap();
        let lease = claim(catalog, 20).await.unwrap();
        catalog.start_backup(&lease, at(20)).await.unwrap();
        catalog.fail_backup(&lease, &unstarted, at(21)).await.unwrap();
        assert_eq!(backup(catalog, n).await.failure, Some(unstarted));
    }
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!(
        (job.state, job.last_error.as_deref()),
        (JobState::Failed, Some("because of ToolFailed"))
    );
}

pub async fn a_requeued_job_waits_for_its_time(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(10)).await.unwrap();
    catalog.requeue(&lease, Requeue::Failed, at(20), "the source is loading").await.unwrap();
    assert!(is_lost(catalog.extend_lease(&lease, at(99)).await));
    assert_eq!(claim(catalog, 19).await, None);
    let lease = claim(catalog, 20).await.unwrap();
    assert_eq!((lease.attempt, lease.failures), (2, 1));
    catalog.requeue(&lease, Requeue::Stopped, at(20), "the service was stopped").await.unwrap();
    let lease = claim(catalog, 20).await.unwrap();
    assert_eq!((lease.attempt, lease.failures), (3, 1));
    catalog.requeue(&lease, Requeue::Failed, at(20), "the source is loading").await.unwrap();
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!(job.last_error.as_deref(), Some("the source is loading"));
}

pub async fn a_removal_marks_runs_and_ends(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    let request = async |n| {
        catalog.request_removal(&project(1), instance_id(1), backup_id(1), job_id(n), at(20)).await
    };
    assert_eq!(request(8).await.unwrap(), job_id(8));
    assert_eq!(request(9).await.unwrap(), job_id(8));
    // Asking again makes a removal due at once that waits for its next attempt.
    let lease = claim_kind(catalog, JobKind::Remove, 20).await.unwrap();
    catalog.requeue(&lease, Requeue::Failed, at(500), "denied").await.unwrap();
    assert_eq!(request(9).await.unwrap(), job_id(8));
    let job = catalog.find_job(&project(1), job_id(8)).await.unwrap().unwrap();
    assert_eq!(job.last_error, None);
    let marked = backup(catalog, 1).await;
    assert_eq!((marked.state, marked.is_restorable()), (BackupState::Succeeded, false));
    // Removing files does not need the instance for itself.
    catalog.request_backup(&new_backup(2, 1, 21)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Remove, 20).await.unwrap();
    assert_eq!((lease.kind, lease.job), (JobKind::Remove, job_id(8)));
    catalog.finish_removal(&lease, at(22)).await.unwrap();
    let removed = backup(catalog, 1).await;
    assert_eq!(
        (removed.state, removed.removed_at, removed.completed_at),
        (BackupState::Deleted, Some(at(22)), Some(at(11)))
    );
    let again = request(10).await;
    assert!(matches!(again, Err(CatalogError::NotFound(_))), "{again:?}");
    let elsewhere = catalog
        .request_removal(&project(1), instance_id(2), backup_id(2), job_id(11), at(23))
        .await;
    assert!(matches!(elsewhere, Err(CatalogError::NotFound(_))), "{elsewhere:?}");
}

pub async fn a_running_backup_is_not_removed(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let request = async || {
        catalog.request_removal(&project(1), instance_id(1), backup_id(1), job_id(9), at(20)).await
    };
    assert!(matches!(request().await, Err(CatalogError::State(_))));
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(10)).await.unwrap();
    assert!(matches!(request().await, Err(CatalogError::State(_))));
    let failure = Failure { code: FailureCode::ToolFailed, reason: "x".into() };
    catalog.fail_backup(&lease, &failure, at(11)).await.unwrap();
    request().await.unwrap();
}

pub async fn a_clock_that_goes_back_breaks_nothing(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 1000).await;
    catalog.request_backup(&new_backup(2, 1, 10)).await.unwrap();
    let lease = claim(catalog, 5).await;
    assert_eq!(lease, None, "not due before it was asked for");
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(9)).await.unwrap();
    catalog.finish_backup(&lease, 1, 1, at(8)).await.unwrap();
    assert_eq!(backup(catalog, 2).await.state, BackupState::Succeeded);
}
