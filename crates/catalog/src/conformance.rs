//! The suite that every catalog has to pass.
//!
//! Each case gets a fresh, empty catalog. `catalog_conformance!(fresh)` makes one test of each,
//! where `fresh` is an expression that gives a future of something that derefs to a [`Catalog`].

#![expect(missing_docs, reason = "the names of the cases are sentences")]
#![expect(clippy::unwrap_used, reason = "a broken promise should panic in the test that checks it")]

use cachevault_domain::{
    AUDIT_TEXT_CHARS_MAX, Address, Agenda, AuditFilter, AuditRecord, AuditResult, Backup,
    BackupFilter, BackupFormat, BackupId, BackupPolicy, BackupState, ConflictRule, DrillFailure,
    EngineKind, Entropy, Failure, FailureCode, Health, Instance, InstanceChange, InstanceCounts,
    InstanceFilter, InstanceId, InstanceSettings, InstanceState, JobId, JobKind, JobState,
    KeyFilter, Lease, NewAuditRecord, NewBackup, NewRestore, NewSafetyBackup, NodeId, Observation,
    Outcome, Page, PolicyId, Progress, ProjectId, Proof, ProvenBackup, RdbDialect, RequestId,
    Requeue, Restore, RestoreFilter, RestoreId, RestoreOptions, RestoreOutcome, RestoreState,
    RestoreWay, Role, SaveDays, SealedConnection, SealedSecret, ServerVersion, StoredBackup,
    StoredPolicy, Tag, TagChange, TargetData, Tried, Trigger, TtlRule, Weekdays, WeeklyPlan,
    Window,
};
use jiff::{SignedDuration, Timestamp};

mod identity;

use crate::{Catalog, CatalogError, DuePolicy, NewScheduledBackup, Turn, Turned};
use identity::open_project;
pub use identity::*;

/// Makes one `#[tokio::test]` of every case.
#[macro_export]
macro_rules! catalog_conformance {
    ($fresh:expr) => {
        $crate::catalog_conformance! { @cases $fresh;
            an_instance_reads_back_as_it_was_added
            a_name_is_taken_only_within_its_project
            no_project_sees_the_instances_of_another
            instances_are_listed_newest_first_and_filtered
            instances_page_by_offset_and_by_marker
            a_removed_instance_is_gone_and_its_name_free
            an_instance_with_files_or_a_job_stays
            a_change_touches_only_what_it_names
            a_taken_name_changes_nothing
            a_policy_keeps_its_id_and_what_nobody_changes
            tags_are_added_replaced_and_taken_away
            the_tags_of_a_project_are_listed_once
            instances_are_filtered_and_counted_by_state
            instances_are_filtered_by_capacity_and_tags
            backups_are_marked_for_removal_together_or_not_at_all
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
            a_requested_restore_waits_and_its_target_shows_it
            every_option_of_a_restore_reads_back_as_it_was_asked_for
            a_restore_needs_its_target_and_its_backup
            a_backup_without_files_is_not_restored
            a_restore_and_a_capture_keep_each_other_out
            a_backup_that_a_restore_needs_is_not_removed
            an_instance_that_is_being_restored_stays
            no_project_sees_the_restores_of_another
            restores_are_listed_newest_first_and_filtered
            a_stale_restorer_can_write_nothing
            a_worker_writes_only_what_its_job_is_about
            the_progress_of_a_restore_never_goes_back
            a_safety_backup_is_begun_once_and_ends_once
            a_safety_backup_that_failed_stays_so
            only_a_safety_backup_that_succeeded_tells_a_size
            a_restore_that_succeeded_frees_its_target
            a_restore_that_failed_ends_everything
            a_restore_that_nobody_began_fails_but_does_not_succeed
            every_outcome_reads_back_as_it_was_written
            a_requested_drill_waits_and_its_backup_shows_it
            a_drill_that_is_open_is_asked_for_once
            a_backup_without_files_is_not_drilled
            a_drill_keeps_nobody_from_the_instance
            a_backup_that_is_being_drilled_is_not_removed
            a_drill_that_succeeded_proves_its_backup
            a_drill_that_failed_says_why
            a_stale_driller_can_write_nothing
            only_a_drill_writes_what_was_proven
            an_instance_shows_the_proven_backup_created_last
            the_newest_backup_is_due_for_a_drill
            the_instance_drilled_longest_ago_comes_first
            what_was_checked_longest_ago_is_due_first
            a_damaged_backup_is_not_restored_and_can_be_removed
            a_backup_known_from_its_store_alone_is_added_once
            a_policy_is_due_when_there_is_something_to_decide
            a_scheduled_backup_is_recorded_once_with_its_job
            a_policy_that_finds_its_instance_busy_records_that
            a_window_that_was_missed_is_recorded
            what_was_tried_in_a_window_is_told_by_its_records
            a_policy_that_was_changed_or_is_gone_supersedes_what_was_decided
            what_a_wrong_clock_decided_is_due_at_once
            a_backup_whose_time_is_over_expires
            it_is_told_when_backups_may_have_to_go
            what_is_held_or_in_use_goes_later
            the_oldest_beyond_the_limit_go_as_many_as_there_are_jobs
            a_person_who_deletes_what_expires_has_it_deleted
            a_call_is_recorded_before_it_is_answered
            calls_are_listed_in_both_orders_and_by_time
            no_project_sees_the_calls_of_another
            a_project_and_its_credential_are_found_again
            a_project_is_created_once
            a_second_key_opens_the_same_project
            a_project_is_named_once_and_found_by_its_name
            a_credential_reads_back_with_what_it_opens
            a_credential_is_changed_listed_and_removed
            a_rotated_credential_ends_when_it_was_said
            a_credential_needs_its_role_and_its_user
            a_key_of_a_user_allows_what_both_may
            a_user_reads_back_and_its_name_is_taken
            a_user_that_goes_takes_all_that_is_its_own
            a_grant_is_given_changed_and_taken_away
            a_policy_is_what_its_role_allows
            a_policy_that_is_granted_stays
            a_token_is_found_with_what_it_opens
            a_token_ends_with_what_it_was_given_for
            tokens_that_are_over_are_forgotten_in_time
            a_token_is_given_only_for_the_password_that_holds
            a_token_that_was_got_with_another_goes_with_it
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

/// The names of all cases, read from their files.
pub fn cases() -> Vec<&'static str> {
    let files = [include_str!("conformance.rs"), include_str!("conformance/identity.rs")];
    files
        .into_iter()
        .flat_map(str::lines)
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

fn restore_id(n: u8) -> RestoreId {
    RestoreId::mint(&Numbered(n))
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
        proven: None,
        settings: settings(n),
    }
}

fn settings(n: u8) -> InstanceSettings {
    InstanceSettings {
        description: "Bestellungen 🌙".parse().unwrap(),
        maintenance: "22:00-23:00".parse().unwrap(),
        policy: Some(StoredPolicy {
            id: PolicyId::mint(&Numbered(n)),
            policy: automatic(&[1, 7], "00:00-01:00", 7),
            created_at: at(1),
            updated_at: at(2),
        }),
        tags: vec![Tag::new("n", &n.to_string()).unwrap(), Tag::new("owner", "").unwrap()],
    }
}

fn automatic(days: &[i64], window: &str, save_days: i64) -> BackupPolicy {
    let days = Weekdays::from_numbers(days).unwrap();
    let plan = WeeklyPlan { days, window: window.parse().unwrap() };
    BackupPolicy::automatic(plan, SaveDays::new(save_days).unwrap())
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

fn new_restore(n: u8, instance: u8, backup: u8, seconds: i64) -> NewRestore {
    NewRestore {
        id: restore_id(n),
        job: job_id(n),
        project: project(1),
        instance: instance_id(instance),
        backup: backup_id(backup),
        options: RestoreOptions::default(),
        note: Some("zurück 🌅".parse().unwrap()),
        created_at: at(seconds),
    }
}

fn safety(n: u8, seconds: i64) -> NewSafetyBackup {
    NewSafetyBackup {
        id: backup_id(n),
        note: Some("before a restore".parse().unwrap()),
        created_at: at(seconds),
    }
}

fn outcome(target: TargetData) -> RestoreOutcome {
    RestoreOutcome {
        way: Some(RestoreWay::Replica),
        target,
        unavailable_ms: Some(1_234),
        proven: true,
        keys: Some(12_345_678_901),
    }
}

fn failure(code: FailureCode, reason: &str) -> Failure {
    Failure { code, reason: reason.into() }
}

const ALL: Page = Page { offset: 0, limit: 1000 };

/// A catalog with project 1 and instance 1.
async fn prepare(catalog: &impl Catalog) {
    open_project(catalog, 1).await;
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

/// A catalog with project 1, instances 1 and 2, and backup 1 of instance 1.
async fn prepare_restore(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    succeed(catalog, 1, 10).await;
}

/// Asks for a restore of backup 1 into an instance, and gives it to a worker.
async fn begin_restore(catalog: &impl Catalog, n: u8, instance: u8, seconds: i64) -> Lease {
    catalog.request_restore(&new_restore(n, instance, 1, seconds)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Restore, seconds).await.unwrap();
    catalog.start_restore(&lease, at(seconds)).await.unwrap();
    lease
}

async fn restore(catalog: &impl Catalog, n: u8) -> Restore {
    catalog.find_restore(&project(1), restore_id(n)).await.unwrap().unwrap()
}

async fn restored(
    catalog: &impl Catalog,
    filter: RestoreFilter,
    page: Page,
) -> (Vec<RestoreId>, u64) {
    let listing = catalog.list_restores(&project(1), instance_id(2), &filter, page).await.unwrap();
    (listing.items.iter().map(|restore| restore.id).collect(), listing.total)
}

async fn operation(catalog: &impl Catalog, n: u8) -> Option<JobKind> {
    catalog.find_instance(&project(1), instance_id(n)).await.unwrap().unwrap().operation
}

async fn request_drill(
    catalog: &impl Catalog,
    backup: u8,
    job: u8,
    seconds: i64,
) -> Result<JobId, CatalogError> {
    catalog.request_drill(&project(1), backup_id(backup), job_id(job), at(seconds)).await
}

/// Asks for a drill of a backup, and gives it to a worker.
async fn begin_drill(catalog: &impl Catalog, backup: u8, job: u8, seconds: i64) -> Lease {
    assert_eq!(request_drill(catalog, backup, job, seconds).await.unwrap(), job_id(job));
    claim_kind(catalog, JobKind::Drill, seconds).await.unwrap()
}

/// Proves a backup by a drill. Its job has a number that depends on the moment.
async fn prove(catalog: &impl Catalog, backup: u8, seconds: i64) {
    let job = 100 + u8::try_from(seconds).unwrap();
    let lease = begin_drill(catalog, backup, job, seconds).await;
    catalog.finish_drill(&lease, "redis 7.0.15", at(seconds)).await.unwrap();
}

/// The numbers of the backups that are due for a drill.
async fn to_drill(catalog: &impl Catalog, proven_before: i64, limit: u32) -> Vec<u8> {
    let due = catalog.backups_to_drill(at(proven_before), limit).await.unwrap();
    let number = |id| (0..=u8::MAX).find(|n| backup_id(*n) == id).unwrap();
    due.into_iter().map(|(_, id)| number(id)).collect()
}

fn is_lost<T>(outcome: Result<T, CatalogError>) -> bool {
    matches!(outcome, Err(CatalogError::LostLease))
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
    catalog.finish_backup(&lease, 1, 5, at(12)).await.unwrap();
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
    })
    .await
    .unwrap();
    let expected = InstanceSettings {
        description: "".parse().unwrap(),
        maintenance: "05:00-06:00".parse().unwrap(),
        ..settings(1)
    };
    let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap();
    assert_eq!(found, Some(Instance { settings: expected, ..instance(1, "other") }));
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
    let kept = BackupPolicy::manual(first.policy.plan(), first.policy.save_days());
    assert_eq!(second, StoredPolicy { policy: kept, updated_at: at(30), ..first });
    // The other instance has its own.
    assert_eq!(settings_of(catalog, 1).await, settings(1));
}

pub async fn tags_are_added_replaced_and_taken_away(catalog: &impl Catalog) {
    prepare(catalog).await;
    let tag = |key: &str, value: &str| Tag::new(key, value).unwrap();
    let change = async |change: TagChange| {
        catalog.change_tags(&project(1), instance_id(1), &change).await.unwrap();
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
    let many = catalog.change_tags(&project(1), instance_id(1), &TagChange::Add(many)).await;
    assert!(matches!(many, Err(CatalogError::TooManyTags)), "{many:?}");
    assert_eq!(settings_of(catalog, 1).await.tags.len(), 2);
    let foreign = catalog.change_tags(&project(2), instance_id(1), &TagChange::Add(vec![])).await;
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

pub async fn a_requested_restore_waits_and_its_target_shows_it(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    let expected = Restore {
        id: restore_id(5),
        project: project(1),
        instance: instance_id(2),
        backup: backup_id(1),
        backup_created_at: at(10),
        backup_note: Some("nächtlich 🌙".parse().unwrap()),
        source_instance: instance_id(1),
        source_instance_name: "one".parse().unwrap(),
        options: RestoreOptions::default(),
        note: Some("zurück 🌅".parse().unwrap()),
        state: RestoreState::Waiting,
        progress: Progress::NONE,
        phase: None,
        failure: None,
        safety_backup: None,
        outcome: None,
        created_at: at(20),
        started_at: None,
        completed_at: None,
    };
    assert_eq!(restore(catalog, 5).await, expected);
    assert_eq!(operation(catalog, 2).await, Some(JobKind::Restore));
    assert_eq!(operation(catalog, 1).await, None, "its backup is read, not the instance");
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!((job.kind, job.state, job.attempt), (JobKind::Restore, JobState::Queued, 0));
    assert_eq!((job.instance, job.backup), (instance_id(2), backup_id(1)));
    assert_eq!(claim(catalog, 20).await, None, "it is no capture");
    let lease = claim_kind(catalog, JobKind::Restore, 20).await.unwrap();
    assert_eq!((lease.kind, lease.job, lease.attempt), (JobKind::Restore, job_id(5), 1));
    assert_eq!(catalog.restore_of(&lease).await.unwrap(), expected);
    catalog.start_restore(&lease, at(21)).await.unwrap();
    let running =
        Restore { state: RestoreState::Running, started_at: Some(at(21)), ..expected.clone() };
    assert_eq!(catalog.restore_of(&lease).await.unwrap(), running);
}

pub async fn every_option_of_a_restore_reads_back_as_it_was_asked_for(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let everything = RestoreOptions {
        way: Some(RestoreWay::Keys),
        safety_backup: false,
        prove: Some(true),
        swap: Some(false),
        ttl: TtlRule::Shift,
        filter: KeyFilter { pattern: Some("user:*é".into()), database: Some(u32::MAX) },
        conflict: ConflictRule::Fail,
    };
    let mut wishes = vec![everything, RestoreOptions::default()];
    for way in RestoreWay::ALL {
        wishes.push(RestoreOptions { way: Some(way), ..RestoreOptions::default() });
    }
    for ttl in TtlRule::ALL {
        wishes.push(RestoreOptions { ttl, ..RestoreOptions::default() });
    }
    for conflict in ConflictRule::ALL {
        wishes.push(RestoreOptions { conflict, ..RestoreOptions::default() });
    }
    for answer in [true, false] {
        let (prove, swap) = (Some(answer), Some(!answer));
        wishes.push(RestoreOptions { prove, swap, ..RestoreOptions::default() });
    }
    let filter = KeyFilter { pattern: Some(String::new()), database: Some(0) };
    wishes.push(RestoreOptions { filter, ..RestoreOptions::default() });
    for (n, options) in (20..).zip(wishes) {
        let asked = NewRestore { options: options.clone(), ..new_restore(n, 2, 1, 20) };
        catalog.request_restore(&NewRestore { note: None, ..asked }).await.unwrap();
        let found = restore(catalog, n).await;
        assert_eq!((found.options, found.note), (options, None));
        let lease = claim_kind(catalog, JobKind::Restore, 20).await.unwrap();
        let late = failure(FailureCode::TimedOut, "late");
        let untouched = outcome(TargetData::Untouched);
        catalog.fail_restore(&lease, &late, &untouched, at(21)).await.unwrap();
    }
}

pub async fn a_restore_needs_its_target_and_its_backup(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    open_project(catalog, 2).await;
    let foreign = Instance { project: project(2), ..instance(7, "foreign") };
    catalog.add_instance(&foreign).await.unwrap();
    catalog.add_instance(&instance(3, "three")).await.unwrap();
    catalog.remove_instance(&project(1), instance_id(3), at(11)).await.unwrap();
    for (what, wish) in [
        ("instance", new_restore(5, 9, 1, 20)),
        ("instance", new_restore(5, 7, 1, 20)),
        ("instance", new_restore(5, 3, 1, 20)),
        ("backup", new_restore(5, 2, 9, 20)),
        ("backup", NewRestore { project: project(2), ..new_restore(5, 7, 1, 20) }),
    ] {
        let refused = catalog.request_restore(&wish).await;
        assert!(matches!(refused, Err(CatalogError::NotFound(n)) if n == what), "{refused:?}");
    }
    assert_eq!(claim_kind(catalog, JobKind::Restore, 30).await, None);
    assert_eq!(catalog.find_restore(&project(1), restore_id(5)).await.unwrap(), None);
}

pub async fn a_backup_without_files_is_not_restored(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let refused = async |backup, why: &str| {
        let outcome = catalog.request_restore(&new_restore(5, 2, backup, 30)).await;
        assert!(matches!(outcome, Err(CatalogError::NotRestorable)), "{why}: {outcome:?}");
    };
    catalog.request_backup(&new_backup(2, 1, 20)).await.unwrap();
    refused(2, "waiting").await;
    let lease = claim(catalog, 20).await.unwrap();
    catalog.start_backup(&lease, at(20)).await.unwrap();
    refused(2, "running").await;
    let why = failure(FailureCode::ToolFailed, "x");
    catalog.fail_backup(&lease, &why, at(21)).await.unwrap();
    refused(2, "failed").await;
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(1), job_id(9), at(22))
        .await
        .unwrap();
    refused(1, "about to be removed").await;
    let lease = claim_kind(catalog, JobKind::Remove, 22).await.unwrap();
    catalog.finish_removal(&lease, at(23)).await.unwrap();
    refused(1, "removed").await;
    assert_eq!(claim_kind(catalog, JobKind::Restore, 99).await, None);
}

pub async fn a_restore_and_a_capture_keep_each_other_out(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.add_instance(&instance(3, "three")).await.unwrap();
    // A capture keeps a restore out, queued and leased.
    catalog.request_backup(&new_backup(2, 2, 20)).await.unwrap();
    for _ in 0..2 {
        let restore = catalog.request_restore(&new_restore(5, 2, 1, 20)).await;
        assert!(matches!(restore, Err(CatalogError::Busy(JobKind::Capture))), "{restore:?}");
        claim(catalog, 20).await;
    }
    // A restore keeps out captures and restores; also between two attempts.
    let lease = begin_restore(catalog, 6, 1, 20).await;
    for _ in 0..2 {
        let capture = catalog.request_backup(&new_backup(3, 1, 21)).await;
        assert!(matches!(capture, Err(CatalogError::Busy(JobKind::Restore))), "{capture:?}");
        let second = catalog.request_restore(&new_restore(7, 1, 1, 21)).await;
        assert!(matches!(second, Err(CatalogError::Busy(JobKind::Restore))), "{second:?}");
        let _ = catalog.requeue(&lease, Requeue::Failed, at(500), "the target is loading").await;
    }
    assert_eq!(operation(catalog, 1).await, Some(JobKind::Restore));
    assert_eq!(operation(catalog, 2).await, Some(JobKind::Capture));
    // One backup may be read by several restores, and a restore of it does not keep its
    // instance.
    catalog.request_restore(&new_restore(8, 3, 1, 20)).await.unwrap();
}

pub async fn a_backup_that_a_restore_needs_is_not_removed(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let request = async |instance, backup| {
        catalog
            .request_removal(
                &project(1),
                instance_id(instance),
                backup_id(backup),
                job_id(9),
                at(30),
            )
            .await
    };
    let is_busy = |outcome| matches!(outcome, Err(CatalogError::Busy(JobKind::Restore)));
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    assert!(is_busy(request(1, 1).await), "the restore waits");
    let lease = claim_kind(catalog, JobKind::Restore, 20).await.unwrap();
    catalog.start_restore(&lease, at(20)).await.unwrap();
    assert!(is_busy(request(1, 1).await), "the restore runs");
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    assert!(is_busy(request(2, 2).await), "the safety backup runs");
    catalog.finish_safety_backup(&lease, 1, 77, at(22)).await.unwrap();
    assert!(is_busy(request(2, 2).await), "the safety backup may have to be put back");
    assert!(backup(catalog, 1).await.is_restorable() && backup(catalog, 2).await.is_restorable());
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(23)).await.unwrap();
    assert_eq!(request(2, 2).await.unwrap(), job_id(9));
    let other =
        catalog.request_removal(&project(1), instance_id(1), backup_id(1), job_id(8), at(30)).await;
    assert_eq!(other.unwrap(), job_id(8));
}

pub async fn an_instance_that_is_being_restored_stays(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    let busy = catalog.remove_instance(&project(1), instance_id(2), at(21)).await;
    assert!(matches!(busy, Err(CatalogError::Busy(JobKind::Restore))), "{busy:?}");
    let source = catalog.remove_instance(&project(1), instance_id(1), at(21)).await;
    assert!(matches!(source, Err(CatalogError::HasBackups(1))), "{source:?}");
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(22)).await.unwrap();
    catalog.remove_instance(&project(1), instance_id(2), at(23)).await.unwrap();
    assert_eq!(restore(catalog, 5).await.instance, instance_id(2), "its history stays");
}

pub async fn no_project_sees_the_restores_of_another(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    assert_eq!(catalog.find_restore(&project(2), restore_id(5)).await.unwrap(), None);
    assert_eq!(catalog.find_restore(&project(1), restore_id(6)).await.unwrap(), None);
    let filter = RestoreFilter::default();
    let listing = catalog.list_restores(&project(2), instance_id(2), &filter, ALL).await.unwrap();
    assert_eq!((listing.items.len(), listing.total), (0, 0));
}

pub async fn restores_are_listed_newest_first_and_filtered(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let succeed_at = async |n, target, seconds| {
        let lease = begin_restore(catalog, n, target, seconds).await;
        catalog.finish_restore(&lease, &outcome(TargetData::New), at(seconds + 1)).await.unwrap();
    };
    // Two of them in the same moment: the order must still be total.
    for (n, seconds) in [(5, 20), (6, 30), (7, 30), (8, 40)] {
        succeed_at(n, 2, seconds).await;
    }
    // Into the instance that the backup copies: not in the list of the other.
    succeed_at(9, 1, 35).await;
    let all = RestoreFilter::default();
    let (ids, total) = restored(catalog, all, ALL).await;
    assert_eq!((ids.len(), total), (4, 4));
    assert_eq!((ids[0], ids[3]), (restore_id(8), restore_id(5)));
    let mut paged = Vec::new();
    for offset in 0..5 {
        let (page, total) = restored(catalog, all, Page { offset, limit: 1 }).await;
        assert_eq!(total, 4);
        paged.extend(page);
    }
    assert_eq!(paged, ids);
    assert_eq!(restored(catalog, all, Page { offset: u64::MAX, limit: 1000 }).await, (vec![], 4));
    let listing = catalog.list_restores(&project(1), instance_id(2), &all, ALL).await.unwrap();
    assert_eq!(listing.items[0], restore(catalog, 8).await);
    for (from, to, expected) in [
        (Some(40), Some(40), vec![8]),
        (Some(31), None, vec![8]),
        (None, Some(20), vec![5]),
        (None, Some(19), vec![]),
        (Some(41), None, vec![]),
    ] {
        let filter = RestoreFilter { created_from: from.map(at), created_to: to.map(at) };
        let expected: Vec<_> = expected.into_iter().map(restore_id).collect();
        let count = expected.len() as u64;
        assert_eq!(restored(catalog, filter, ALL).await, (expected, count), "{from:?} {to:?}");
    }
}

pub async fn a_stale_restorer_can_write_nothing(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let stale = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&stale, &safety(2, 20), at(20)).await.unwrap();
    let fresh = claim_kind(catalog, JobKind::Restore, 100).await.unwrap();
    let before = (restore(catalog, 5).await, backup(catalog, 2).await);
    let late = failure(FailureCode::TimedOut, "late");
    let end = outcome(TargetData::Uncertain);
    assert!(is_lost(catalog.restore_of(&stale).await));
    assert!(is_lost(catalog.start_restore(&stale, at(101)).await));
    assert!(is_lost(catalog.report_restore(&stale, Progress::ALMOST, "late").await));
    assert!(is_lost(catalog.begin_safety_backup(&stale, &safety(3, 101), at(101)).await));
    assert!(is_lost(catalog.finish_safety_backup(&stale, 1, 1, at(101)).await));
    assert!(is_lost(catalog.fail_safety_backup(&stale, &late, at(101)).await));
    assert!(is_lost(catalog.finish_restore(&stale, &end, at(101)).await));
    assert!(is_lost(catalog.fail_restore(&stale, &late, &end, at(101)).await));
    assert_eq!((restore(catalog, 5).await, backup(catalog, 2).await), before);
    assert_eq!(catalog.find_backup(&project(1), backup_id(3)).await.unwrap(), None);
    catalog.start_restore(&fresh, at(102)).await.unwrap();
    catalog.finish_restore(&fresh, &outcome(TargetData::New), at(103)).await.unwrap();
    // The end of the job is the end of its lease.
    assert!(is_lost(catalog.finish_restore(&fresh, &end, at(104)).await));
    assert!(is_lost(catalog.fail_restore(&fresh, &late, &end, at(104)).await));
    assert_eq!(restore(catalog, 5).await.outcome, Some(outcome(TargetData::New)));
}

pub async fn a_worker_writes_only_what_its_job_is_about(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let restoring = begin_restore(catalog, 5, 2, 20).await;
    let why = failure(FailureCode::ToolFailed, "x");
    let end = outcome(TargetData::New);
    let refused = |outcome: Result<(), CatalogError>| {
        assert!(matches!(outcome, Err(CatalogError::NotFound(_))), "{outcome:?}");
    };
    // The backup in the lease of a restore is the one that it reads.
    let before = backup(catalog, 1).await;
    refused(catalog.start_backup(&restoring, at(21)).await);
    refused(catalog.report_progress(&restoring, Progress::NONE, 1, "x").await);
    refused(catalog.finish_backup(&restoring, 9, 9, at(21)).await);
    refused(catalog.fail_backup(&restoring, &why, at(21)).await);
    refused(catalog.finish_removal(&restoring, at(21)).await);
    assert_eq!(backup(catalog, 1).await, before);
    catalog.request_backup(&new_backup(3, 1, 22)).await.unwrap();
    let capturing = claim(catalog, 22).await.unwrap();
    refused(catalog.restore_of(&capturing).await.map(drop));
    refused(catalog.start_restore(&capturing, at(23)).await);
    refused(catalog.report_restore(&capturing, Progress::NONE, "x").await);
    refused(catalog.begin_safety_backup(&capturing, &safety(4, 23), at(23)).await.map(drop));
    refused(catalog.finish_safety_backup(&capturing, 1, 1, at(23)).await);
    refused(catalog.fail_safety_backup(&capturing, &why, at(23)).await);
    refused(catalog.finish_restore(&capturing, &end, at(23)).await);
    refused(catalog.fail_restore(&capturing, &why, &end, at(23)).await);
    for (n, kind) in [(5, JobKind::Restore), (3, JobKind::Capture)] {
        let job = catalog.find_job(&project(1), job_id(n)).await.unwrap().unwrap();
        assert_eq!((job.kind, job.state), (kind, JobState::Leased));
    }
}

pub async fn the_progress_of_a_restore_never_goes_back(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    for (hundredths, shown) in [(1_000, 1_000), (500, 1_000), (5_000, 5_000)] {
        let progress = Progress::from_hundredths(hundredths);
        catalog.report_restore(&lease, progress, &format!("at {hundredths}")).await.unwrap();
        let found = restore(catalog, 5).await;
        assert_eq!(found.progress.hundredths(), shown);
        assert_eq!(found.phase, Some(format!("at {hundredths}")));
    }
    // A second attempt begins again; what was shown stays.
    let lease = claim_kind(catalog, JobKind::Restore, 100).await.unwrap();
    catalog.start_restore(&lease, at(100)).await.unwrap();
    let found = restore(catalog, 5).await;
    assert_eq!((found.progress.hundredths(), found.started_at), (5_000, Some(at(20))));
}

pub async fn a_safety_backup_is_begun_once_and_ends_once(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    let none = catalog.finish_safety_backup(&lease, 1, 77, at(21)).await;
    assert!(matches!(none, Err(CatalogError::NotFound("safety backup"))), "{none:?}");
    let begun = catalog.begin_safety_backup(&lease, &safety(2, 21), at(22)).await.unwrap();
    assert_eq!(begun, backup_id(2));
    let running = backup(catalog, 2).await;
    assert_eq!(
        (running.instance, running.state, running.trigger, running.dialect),
        (instance_id(2), BackupState::Running, Trigger::Manual, RdbDialect::Native)
    );
    assert_eq!((running.created_at, running.started_at), (at(21), Some(at(22))));
    assert_eq!(running.note, safety(2, 21).note);
    assert_eq!(restore(catalog, 5).await.safety_backup, Some(backup_id(2)));
    // Another attempt goes on with the one that is there, whatever it proposes.
    let lease = claim_kind(catalog, JobKind::Restore, 100).await.unwrap();
    for n in [2, 3] {
        let again = catalog.begin_safety_backup(&lease, &safety(n, 101), at(101)).await.unwrap();
        assert_eq!(again, backup_id(2));
    }
    assert_eq!(backup(catalog, 2).await, running);
    assert_eq!(catalog.find_backup(&project(1), backup_id(3)).await.unwrap(), None);
    catalog.finish_safety_backup(&lease, 2, 77, at(102)).await.unwrap();
    let succeeded = backup(catalog, 2).await;
    assert_eq!(
        (succeeded.state, succeeded.size_bytes, succeeded.stored_attempt, succeeded.completed_at),
        (BackupState::Succeeded, 77, Some(2), Some(at(102)))
    );
    catalog.finish_safety_backup(&lease, 3, 78, at(103)).await.unwrap();
    let late = failure(FailureCode::TimedOut, "late");
    let refused = catalog.fail_safety_backup(&lease, &late, at(103)).await;
    assert!(matches!(refused, Err(CatalogError::State(_))), "{refused:?}");
    assert_eq!(backup(catalog, 2).await, succeeded);
    // The job went on all the time.
    assert_eq!(restore(catalog, 5).await.state, RestoreState::Running);
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(104)).await.unwrap();
    assert_eq!(backup(catalog, 2).await, succeeded);
}

pub async fn a_safety_backup_that_failed_stays_so(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    let why = failure(FailureCode::StoreUnusable, "the disk is full");
    catalog.fail_safety_backup(&lease, &why, at(22)).await.unwrap();
    let failed = backup(catalog, 2).await;
    assert_eq!((failed.state, failed.failure.as_ref()), (BackupState::Failed, Some(&why)));
    let later = failure(FailureCode::TimedOut, "later");
    catalog.fail_safety_backup(&lease, &later, at(23)).await.unwrap();
    let refused = catalog.finish_safety_backup(&lease, 1, 77, at(23)).await;
    assert!(matches!(refused, Err(CatalogError::State(_))), "{refused:?}");
    let again = catalog.begin_safety_backup(&lease, &safety(3, 23), at(23)).await.unwrap();
    assert_eq!(again, backup_id(2));
    let untouched = outcome(TargetData::Untouched);
    catalog.fail_restore(&lease, &later, &untouched, at(24)).await.unwrap();
    assert_eq!(backup(catalog, 2).await, failed);
}

pub async fn only_a_safety_backup_that_succeeded_tells_a_size(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let sizes = async || {
        let [source, target] = [1, 2].map(instance_id);
        (catalog.last_size(source).await.unwrap(), catalog.last_size(target).await.unwrap())
    };
    let why = failure(FailureCode::ToolFailed, "x");
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    assert_eq!(sizes().await, (Some(1001), None));
    catalog.fail_restore(&lease, &why, &outcome(TargetData::Untouched), at(22)).await.unwrap();
    assert_eq!(sizes().await, (Some(1001), None));
    let lease = begin_restore(catalog, 6, 2, 30).await;
    catalog.begin_safety_backup(&lease, &safety(3, 31), at(31)).await.unwrap();
    catalog.finish_safety_backup(&lease, 1, 77, at(32)).await.unwrap();
    assert_eq!(sizes().await, (Some(1001), Some(77)));
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(33)).await.unwrap();
    assert_eq!(sizes().await, (Some(1001), Some(77)));
}

pub async fn a_restore_that_succeeded_frees_its_target(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.report_restore(&lease, Progress::from_hundredths(300), "loading").await.unwrap();
    // One that was given up half-way does not run for ever.
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(22)).await.unwrap();
    let found = restore(catalog, 5).await;
    assert_eq!(
        (found.state, found.progress, found.phase, found.failure),
        (RestoreState::Succeeded, Progress::DONE, None, None)
    );
    assert_eq!(found.outcome, Some(outcome(TargetData::New)));
    assert_eq!(
        (found.started_at, found.completed_at, found.safety_backup),
        (Some(at(20)), Some(at(22)), Some(backup_id(2)))
    );
    let given_up = backup(catalog, 2).await;
    assert_eq!((given_up.state, given_up.completed_at), (BackupState::Failed, Some(at(22))));
    assert!(given_up.failure.is_some());
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!((job.state, job.last_error), (JobState::Done, None));
    assert_eq!(operation(catalog, 2).await, None);
    begin_restore(catalog, 6, 2, 30).await;
}

pub async fn a_restore_that_failed_ends_everything(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.report_restore(&lease, Progress::from_hundredths(300), "backing up").await.unwrap();
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    let why = failure(FailureCode::RestoreSyncFailed, "the target went away");
    catalog.fail_restore(&lease, &why, &outcome(TargetData::Uncertain), at(22)).await.unwrap();
    let found = restore(catalog, 5).await;
    assert_eq!(
        (found.state, found.progress.hundredths(), found.phase, found.failure.as_ref()),
        (RestoreState::Failed, 300, None, Some(&why))
    );
    assert_eq!(found.outcome, Some(outcome(TargetData::Uncertain)));
    assert_eq!(found.completed_at, Some(at(22)));
    let safety = backup(catalog, 2).await;
    assert_eq!(
        (safety.state, safety.failure.as_ref(), safety.completed_at),
        (BackupState::Failed, Some(&why), Some(at(22)))
    );
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!(
        (job.state, job.last_error.as_deref()),
        (JobState::Failed, Some("the target went away"))
    );
    assert_eq!(operation(catalog, 2).await, None);
    // What it read is as it was, and free.
    assert!(backup(catalog, 1).await.is_restorable());
    catalog.request_backup(&new_backup(3, 2, 30)).await.unwrap();
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(1), job_id(9), at(30))
        .await
        .unwrap();
}

pub async fn a_restore_that_nobody_began_fails_but_does_not_succeed(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Restore, 20).await.unwrap();
    let refused = catalog.finish_restore(&lease, &outcome(TargetData::New), at(21)).await;
    assert!(matches!(refused, Err(CatalogError::RestoreState(_))), "{refused:?}");
    assert_eq!(restore(catalog, 5).await.state, RestoreState::Waiting);
    let why = failure(FailureCode::TimedOut, "nobody came");
    catalog.fail_restore(&lease, &why, &outcome(TargetData::Untouched), at(21)).await.unwrap();
    let found = restore(catalog, 5).await;
    assert_eq!((found.state, found.started_at), (RestoreState::Failed, None));
}

pub async fn every_outcome_reads_back_as_it_was_written(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let unknown = |target| RestoreOutcome {
        way: None,
        target,
        unavailable_ms: None,
        proven: false,
        keys: None,
    };
    let outcomes = TargetData::ALL.into_iter().flat_map(|target| {
        let keys = RestoreOutcome { way: Some(RestoreWay::Keys), ..outcome(target) };
        [outcome(target), keys, unknown(target)]
    });
    for (n, written) in (20..).zip(outcomes) {
        let lease = begin_restore(catalog, n, 2, 20).await;
        catalog.finish_restore(&lease, &written, at(21)).await.unwrap();
        assert_eq!(restore(catalog, n).await.outcome, Some(written));
    }
}

pub async fn a_requested_drill_waits_and_its_backup_shows_it(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let before = backup(catalog, 1).await;
    assert_eq!((&before.proof, &before.drill_failure, before.drilling), (&None, &None, false));
    assert_eq!(request_drill(catalog, 1, 5, 20).await.unwrap(), job_id(5));
    assert_eq!(backup(catalog, 1).await, Backup { drilling: true, ..before.clone() });
    let all = BackupFilter::default();
    let listing = catalog.list_backups(&project(1), instance_id(1), &all, ALL).await.unwrap();
    assert!(listing.items[0].drilling);
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!((job.kind, job.state, job.attempt), (JobKind::Drill, JobState::Queued, 0));
    assert_eq!((job.instance, job.backup), (instance_id(1), backup_id(1)));
    assert_eq!(claim(catalog, 20).await, None, "it is no capture");
    assert_eq!(claim_kind(catalog, JobKind::Drill, 19).await, None);
    let lease = claim_kind(catalog, JobKind::Drill, 20).await.unwrap();
    assert_eq!((lease.kind, lease.job, lease.attempt), (JobKind::Drill, job_id(5), 1));
    assert_eq!((lease.instance, lease.backup), (instance_id(1), backup_id(1)));
    assert!(backup(catalog, 1).await.drilling);
}

pub async fn a_drill_that_is_open_is_asked_for_once(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    succeed(catalog, 2, 12).await;
    assert_eq!(request_drill(catalog, 1, 5, 20).await.unwrap(), job_id(5));
    assert_eq!(request_drill(catalog, 1, 6, 20).await.unwrap(), job_id(5));
    let lease = claim_kind(catalog, JobKind::Drill, 20).await.unwrap();
    assert_eq!(request_drill(catalog, 1, 6, 21).await.unwrap(), job_id(5));
    assert_eq!(claim_kind(catalog, JobKind::Drill, 21).await, None, "the lease still holds");
    // Asking again makes a drill due at once that waits for its next attempt.
    catalog.requeue(&lease, Requeue::Failed, at(500), "no server to be had").await.unwrap();
    assert_eq!(request_drill(catalog, 1, 6, 22).await.unwrap(), job_id(5));
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!(job.last_error, None);
    let lease = claim_kind(catalog, JobKind::Drill, 22).await.unwrap();
    assert_eq!((lease.job, lease.attempt, lease.failures), (job_id(5), 2, 1));
    // Another backup has a drill of its own, and so has this one once the first has ended.
    assert_eq!(request_drill(catalog, 2, 7, 23).await.unwrap(), job_id(7));
    catalog.finish_drill(&lease, "redis 7.0.15", at(24)).await.unwrap();
    assert_eq!(request_drill(catalog, 1, 8, 25).await.unwrap(), job_id(8));
    assert_eq!(catalog.find_job(&project(1), job_id(6)).await.unwrap(), None);
}

pub async fn a_backup_without_files_is_not_drilled(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let refused = async |backup, why: &str| {
        let outcome = request_drill(catalog, backup, 5, 30).await;
        assert!(matches!(outcome, Err(CatalogError::NotRestorable)), "{why}: {outcome:?}");
    };
    let unknown = request_drill(catalog, 9, 5, 30).await;
    assert!(matches!(unknown, Err(CatalogError::NotFound("backup"))), "{unknown:?}");
    let foreign = catalog.request_drill(&project(2), backup_id(1), job_id(5), at(30)).await;
    assert!(matches!(foreign, Err(CatalogError::NotFound("backup"))), "{foreign:?}");
    catalog.request_backup(&new_backup(2, 1, 20)).await.unwrap();
    refused(2, "waiting").await;
    let lease = claim(catalog, 20).await.unwrap();
    catalog.start_backup(&lease, at(20)).await.unwrap();
    refused(2, "running").await;
    let why = failure(FailureCode::ToolFailed, "x");
    catalog.fail_backup(&lease, &why, at(21)).await.unwrap();
    refused(2, "failed").await;
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(1), job_id(9), at(22))
        .await
        .unwrap();
    refused(1, "about to be removed").await;
    let lease = claim_kind(catalog, JobKind::Remove, 22).await.unwrap();
    catalog.finish_removal(&lease, at(23)).await.unwrap();
    refused(1, "removed").await;
    catalog.remove_instance(&project(1), instance_id(1), at(24)).await.unwrap();
    refused(1, "removed, and so is its instance").await;
    assert_eq!(claim_kind(catalog, JobKind::Drill, 99).await, None);
}

pub async fn a_drill_keeps_nobody_from_the_instance(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_drill(catalog, 1, 5, 20).await;
    assert_eq!(operation(catalog, 1).await, None, "it does not need the instance");
    catalog.request_backup(&new_backup(2, 1, 21)).await.unwrap();
    catalog.request_restore(&new_restore(6, 2, 1, 21)).await.unwrap();
    assert_eq!(operation(catalog, 1).await, Some(JobKind::Capture));
    // Nor do they keep it out.
    catalog.finish_drill(&lease, "redis 7.0.15", at(22)).await.unwrap();
    begin_drill(catalog, 1, 7, 23).await;
}

pub async fn a_backup_that_is_being_drilled_is_not_removed(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    succeed(catalog, 2, 12).await;
    let request = async |backup, job| {
        catalog
            .request_removal(&project(1), instance_id(1), backup_id(backup), job_id(job), at(30))
            .await
    };
    let is_busy = |outcome| matches!(outcome, Err(CatalogError::Busy(JobKind::Drill)));
    request_drill(catalog, 1, 5, 20).await.unwrap();
    assert!(is_busy(request(1, 9).await), "the drill waits");
    let lease = claim_kind(catalog, JobKind::Drill, 20).await.unwrap();
    assert!(is_busy(request(1, 9).await), "the drill runs");
    catalog.requeue(&lease, Requeue::Failed, at(25), "no server to be had").await.unwrap();
    assert!(is_busy(request(1, 9).await), "the drill waits for its next attempt");
    assert!(backup(catalog, 1).await.is_restorable());
    let busy = catalog.remove_instance(&project(1), instance_id(1), at(21)).await;
    assert!(matches!(busy, Err(CatalogError::Busy(JobKind::Drill))), "{busy:?}");
    assert_eq!(request(2, 8).await.unwrap(), job_id(8), "that one is not being drilled");
    let lease = claim_kind(catalog, JobKind::Drill, 25).await.unwrap();
    catalog.fail_drill(&lease, "no server to be had", at(26)).await.unwrap();
    assert_eq!(request(1, 9).await.unwrap(), job_id(9));
}

pub async fn a_drill_that_succeeded_proves_its_backup(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let before = backup(catalog, 1).await;
    let lease = begin_drill(catalog, 1, 5, 20).await;
    catalog.fail_drill(&lease, "a key is missing", at(21)).await.unwrap();
    let lease = begin_drill(catalog, 1, 6, 30).await;
    assert!(backup(catalog, 1).await.drill_failure.is_some(), "until it is proven");
    catalog.finish_drill(&lease, "redis 7.0.15", at(31)).await.unwrap();
    let proof = Some(Proof { at: at(31), server: "redis 7.0.15".into() });
    assert_eq!(backup(catalog, 1).await, Backup { proof, ..before.clone() });
    let job = catalog.find_job(&project(1), job_id(6)).await.unwrap().unwrap();
    assert_eq!((job.state, job.last_error), (JobState::Done, None));
    // The newest proof counts; a long name is cut, by characters.
    let lease = begin_drill(catalog, 1, 7, 40).await;
    catalog.finish_drill(&lease, &"é".repeat(65), at(41)).await.unwrap();
    let proof = Some(Proof { at: at(41), server: "é".repeat(64) });
    let proven = Backup { proof, ..before };
    assert_eq!(backup(catalog, 1).await, proven);
    let all = BackupFilter::default();
    let listing = catalog.list_backups(&project(1), instance_id(1), &all, ALL).await.unwrap();
    assert_eq!(listing.items, [proven]);
}

pub async fn a_drill_that_failed_says_why(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let before = backup(catalog, 1).await;
    let failed =
        |seconds, reason: &str| Some(DrillFailure { at: at(seconds), reason: reason.into() });
    let lease = begin_drill(catalog, 1, 5, 20).await;
    catalog.fail_drill(&lease, "a key is missing", at(21)).await.unwrap();
    let drill_failure = failed(21, "a key is missing");
    assert_eq!(backup(catalog, 1).await, Backup { drill_failure, ..before.clone() });
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!(
        (job.state, job.last_error.as_deref()),
        (JobState::Failed, Some("a key is missing"))
    );
    // A later failure takes the place of the first, and leaves what was proven between them.
    let lease = begin_drill(catalog, 1, 6, 30).await;
    catalog.finish_drill(&lease, "redis 7.0.15", at(31)).await.unwrap();
    let proof = backup(catalog, 1).await.proof;
    assert!(proof.is_some());
    let lease = begin_drill(catalog, 1, 7, 40).await;
    catalog.fail_drill(&lease, "the server went away", at(41)).await.unwrap();
    let drill_failure = failed(41, "the server went away");
    assert_eq!(backup(catalog, 1).await, Backup { proof, drill_failure, ..before });
}

pub async fn a_stale_driller_can_write_nothing(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let stale = begin_drill(catalog, 1, 5, 20).await;
    let fresh = claim_kind(catalog, JobKind::Drill, 100).await.unwrap();
    let before = backup(catalog, 1).await;
    assert!(is_lost(catalog.finish_drill(&stale, "late", at(101)).await));
    assert!(is_lost(catalog.fail_drill(&stale, "late", at(101)).await));
    assert_eq!(backup(catalog, 1).await, before);
    catalog.finish_drill(&fresh, "redis 7.0.15", at(102)).await.unwrap();
    // The end of the job is the end of its lease.
    let proven = backup(catalog, 1).await;
    assert!(is_lost(catalog.finish_drill(&fresh, "again", at(103)).await));
    assert!(is_lost(catalog.fail_drill(&fresh, "again", at(103)).await));
    assert_eq!(backup(catalog, 1).await, proven);
}

pub async fn only_a_drill_writes_what_was_proven(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    succeed(catalog, 2, 12).await;
    let refused = |outcome: Result<(), CatalogError>| {
        assert!(matches!(outcome, Err(CatalogError::NotFound(_))), "{outcome:?}");
    };
    let restoring = begin_restore(catalog, 5, 2, 20).await;
    catalog.request_backup(&new_backup(3, 1, 20)).await.unwrap();
    let capturing = claim(catalog, 20).await.unwrap();
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(2), job_id(9), at(20))
        .await
        .unwrap();
    let removing = claim_kind(catalog, JobKind::Remove, 20).await.unwrap();
    for lease in [&restoring, &capturing, &removing] {
        refused(catalog.finish_drill(lease, "redis 7.0.15", at(21)).await);
        refused(catalog.fail_drill(lease, "x", at(21)).await);
    }
    for n in 1..=3 {
        let found = backup(catalog, n).await;
        assert_eq!((found.proof, found.drill_failure), (None, None));
    }
    let drilling = begin_drill(catalog, 1, 6, 20).await;
    let before = backup(catalog, 1).await;
    let (why, end) = (failure(FailureCode::ToolFailed, "x"), outcome(TargetData::New));
    refused(catalog.start_backup(&drilling, at(21)).await);
    refused(catalog.report_progress(&drilling, Progress::NONE, 1, "x").await);
    refused(catalog.finish_backup(&drilling, 9, 9, at(21)).await);
    refused(catalog.fail_backup(&drilling, &why, at(21)).await);
    refused(catalog.finish_removal(&drilling, at(21)).await);
    refused(catalog.restore_of(&drilling).await.map(drop));
    refused(catalog.start_restore(&drilling, at(21)).await);
    refused(catalog.begin_safety_backup(&drilling, &safety(4, 21), at(21)).await.map(drop));
    refused(catalog.finish_restore(&drilling, &end, at(21)).await);
    refused(catalog.fail_restore(&drilling, &why, &end, at(21)).await);
    assert_eq!(backup(catalog, 1).await, before);
    for (n, kind) in
        [(5, JobKind::Restore), (3, JobKind::Capture), (9, JobKind::Remove), (6, JobKind::Drill)]
    {
        let job = catalog.find_job(&project(1), job_id(n)).await.unwrap().unwrap();
        assert_eq!((job.kind, job.state), (kind, JobState::Leased));
    }
}

pub async fn an_instance_shows_the_proven_backup_created_last(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    // Two of them in the same moment: the one recorded last counts.
    for (n, seconds) in [(2, 20), (3, 20), (4, 30)] {
        succeed(catalog, n, seconds).await;
    }
    let shown = async || {
        let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
        let all = InstanceFilter::default();
        let listing = catalog.list_instances(&project(1), &all, ALL).await.unwrap();
        let seen = catalog.instances_seen_before(at(1000), 10).await.unwrap();
        assert_eq!((listing.items.len(), listing.total, seen.len()), (2, 2, 2));
        for instance in listing.items.iter().chain(&seen) {
            let expected = if instance.id == found.id { found.proven } else { None };
            assert_eq!(instance.proven, expected, "{}", instance.name);
        }
        found.proven
    };
    let proven = |n, created, proven| {
        let backup = backup_id(n);
        Some(ProvenBackup { backup, created_at: at(created), proof_at: at(proven) })
    };
    assert_eq!(shown().await, None);
    prove(catalog, 3, 40).await;
    assert_eq!(shown().await, proven(3, 20, 40));
    // What is older stays behind, whenever it was proven.
    prove(catalog, 2, 50).await;
    prove(catalog, 1, 60).await;
    assert_eq!(shown().await, proven(3, 20, 40));
    prove(catalog, 3, 70).await;
    assert_eq!(shown().await, proven(3, 20, 70));
    // A drill that failed proves nothing, and takes nothing away.
    for n in [3, 4] {
        let lease = begin_drill(catalog, n, 100 + n, 80).await;
        catalog.fail_drill(&lease, "no server to be had", at(81)).await.unwrap();
    }
    assert_eq!(shown().await, proven(3, 20, 70));
    // From the wish to remove it on, nobody can go back to it.
    let remove = async |n| {
        catalog
            .request_removal(&project(1), instance_id(1), backup_id(n), job_id(200), at(90))
            .await
            .unwrap()
    };
    remove(3).await;
    assert_eq!(shown().await, proven(2, 20, 50));
    let lease = claim_kind(catalog, JobKind::Remove, 90).await.unwrap();
    catalog.finish_removal(&lease, at(91)).await.unwrap();
    assert_eq!(shown().await, proven(2, 20, 50));
    assert!(backup(catalog, 3).await.proof.is_some(), "its history stays");
}

pub async fn the_newest_backup_is_due_for_a_drill(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let due = async |before| to_drill(catalog, before, 10).await;
    assert_eq!(due(0).await, [1], "never proven, whenever that was");
    succeed(catalog, 2, 20).await;
    succeed(catalog, 3, 20).await;
    assert_eq!(due(100).await, [3], "one of each instance");
    // What has no files, or not for long, does not count.
    catalog.request_backup(&new_backup(4, 1, 30)).await.unwrap();
    assert_eq!(due(100).await, [3], "waiting");
    let lease = claim(catalog, 30).await.unwrap();
    catalog.start_backup(&lease, at(30)).await.unwrap();
    assert_eq!(due(100).await, [3], "running");
    catalog.fail_backup(&lease, &failure(FailureCode::ToolFailed, "x"), at(31)).await.unwrap();
    assert_eq!(due(100).await, [3], "failed");
    let remove = async |n| {
        catalog
            .request_removal(&project(1), instance_id(1), backup_id(n), job_id(200 + n), at(40))
            .await
            .unwrap()
    };
    remove(3).await;
    assert_eq!(due(100).await, [2], "about to be removed");
    let lease = claim_kind(catalog, JobKind::Remove, 40).await.unwrap();
    catalog.finish_removal(&lease, at(41)).await.unwrap();
    assert_eq!(due(100).await, [2], "removed");
    // While a drill of the instance is open there is no second one, of whichever backup.
    request_drill(catalog, 1, 5, 50).await.unwrap();
    assert_eq!(due(100).await, [], "queued");
    let lease = claim_kind(catalog, JobKind::Drill, 50).await.unwrap();
    assert_eq!(due(100).await, [], "leased");
    catalog.finish_drill(&lease, "redis 7.0.15", at(51)).await.unwrap();
    assert_eq!(due(0).await, [2], "it is the other one that was proven");
    prove(catalog, 2, 60).await;
    assert_eq!(due(60).await, []);
    assert_eq!(due(61).await, [2]);
    let lease = begin_drill(catalog, 2, 6, 70).await;
    catalog.fail_drill(&lease, "a key is missing", at(71)).await.unwrap();
    assert_eq!(due(71).await, [], "what failed is not tried again at once");
    assert_eq!(due(72).await, [2]);
    // A new backup is due whatever was proven of the last.
    succeed(catalog, 7, 80).await;
    assert_eq!(due(0).await, [7]);
    // No backups, no drills; and none of what was removed.
    remove(1).await;
    remove(2).await;
    remove(7).await;
    while let Some(lease) = claim_kind(catalog, JobKind::Remove, 90).await {
        catalog.finish_removal(&lease, at(91)).await.unwrap();
    }
    assert_eq!(due(1000).await, []);
    catalog.remove_instance(&project(1), instance_id(1), at(92)).await.unwrap();
    assert_eq!(due(1000).await, []);
}

pub async fn the_instance_drilled_longest_ago_comes_first(catalog: &impl Catalog) {
    prepare(catalog).await;
    open_project(catalog, 2).await;
    for n in 2..=3 {
        catalog.add_instance(&instance(n, &format!("name{n}"))).await.unwrap();
    }
    let foreign = Instance { project: project(2), ..instance(4, "foreign") };
    catalog.add_instance(&foreign).await.unwrap();
    let succeed_of = async |backup: NewBackup, seconds| {
        catalog.request_backup(&backup).await.unwrap();
        let lease = claim(catalog, seconds).await.unwrap();
        catalog.start_backup(&lease, at(seconds)).await.unwrap();
        catalog.finish_backup(&lease, 1, 1, at(seconds + 1)).await.unwrap();
    };
    succeed_of(new_backup(1, 1, 40), 40).await;
    succeed_of(new_backup(2, 2, 30), 30).await;
    succeed_of(new_backup(3, 3, 20), 20).await;
    succeed_of(NewBackup { project: project(2), ..new_backup(4, 4, 10) }, 10).await;
    // Without any drill the oldest backup comes first; all projects take part.
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 3, 2, 1]);
    assert_eq!(to_drill(catalog, 100, 2).await, [4, 3]);
    let found = catalog.backups_to_drill(at(100), 2).await.unwrap();
    assert_eq!(found, [(project(2), backup_id(4)), (project(1), backup_id(3))]);
    prove(catalog, 3, 50).await;
    prove(catalog, 1, 60).await;
    let lease = begin_drill(catalog, 2, 102, 55).await;
    catalog.fail_drill(&lease, "a key is missing", at(55)).await.unwrap();
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 3, 2, 1]);
    assert_eq!(to_drill(catalog, 56, 10).await, [4, 3, 2]);
    // The last drill of the instance counts, of whichever backup: who makes many waits in turn.
    succeed_of(new_backup(5, 3, 70), 70).await;
    succeed_of(new_backup(6, 1, 65), 65).await;
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 5, 2, 6]);
    prove(catalog, 5, 80).await;
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 2, 6, 5]);
    // A drill that failed is a drill too.
    let lease = begin_drill(catalog, 2, 103, 90).await;
    catalog.fail_drill(&lease, "a key is missing", at(90)).await.unwrap();
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 6, 5, 2]);
}

async fn to_check(catalog: &impl Catalog, before: i64) -> Vec<u8> {
    let due = catalog.backups_to_check(at(before), 10).await.unwrap();
    let number = |id| (0..=u8::MAX).find(|n| backup_id(*n) == id).unwrap();
    due.into_iter().map(|(_, id)| number(id)).collect()
}

pub async fn what_was_checked_longest_ago_is_due_first(catalog: &impl Catalog) {
    prepare(catalog).await;
    for (n, seconds) in [(1, 10), (2, 20), (3, 30)] {
        succeed(catalog, n, seconds).await;
    }
    let made = |n| async move { backup(catalog, n).await.completed_at.unwrap() };
    let after = made(3).await.as_second() - at(0).as_second() + 1;
    assert_eq!(to_check(catalog, after).await, [1, 2, 3]);
    assert_eq!(to_check(catalog, 0).await, [0; 0]);
    catalog.record_check(backup_id(1), 1, None, at(99), at(100)).await.unwrap();
    assert_eq!(backup(catalog, 1).await.checked_at, Some(at(100)));
    assert_eq!(to_check(catalog, after).await, [2, 3]);
    assert_eq!(to_check(catalog, 101).await, [2, 3, 1]);
    // What was asked for comes first, and stays due when it was asked for during the check.
    catalog.request_check(&project(1), backup_id(1), at(200)).await.unwrap();
    assert_eq!(to_check(catalog, 0).await, [1]);
    assert_eq!(to_check(catalog, after).await, [1, 2, 3]);
    catalog.record_check(backup_id(1), 1, None, at(199), at(201)).await.unwrap();
    assert_eq!(to_check(catalog, 0).await, [1]);
    catalog.record_check(backup_id(1), 1, None, at(202), at(203)).await.unwrap();
    assert_eq!(to_check(catalog, 0).await, [0; 0]);
    for (project, id) in [(project(2), backup_id(1)), (project(1), backup_id(9))] {
        let refused = catalog.request_check(&project, id, at(300)).await;
        assert!(matches!(refused, Err(CatalogError::NotFound(_))), "{refused:?}");
    }
}

pub async fn a_damaged_backup_is_not_restored_and_can_be_removed(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    // Of other files of the same backup nothing is noted.
    catalog.record_check(backup_id(1), 7, Some("gone"), at(99), at(100)).await.unwrap();
    assert_eq!(backup(catalog, 1).await.damage, None);
    catalog.record_check(backup_id(1), 1, Some("gone"), at(99), at(100)).await.unwrap();
    let found = backup(catalog, 1).await;
    assert_eq!((found.damage.as_deref(), found.is_restorable()), (Some("gone"), false));
    let refused = catalog.request_restore(&new_restore(2, 1, 1, 110)).await;
    assert!(matches!(refused, Err(CatalogError::NotRestorable)), "{refused:?}");
    let refused = catalog.request_drill(&project(1), backup_id(1), job_id(3), at(110)).await;
    assert!(matches!(refused, Err(CatalogError::NotRestorable)), "{refused:?}");
    assert_eq!(to_drill(catalog, 1000, 9).await, [0; 0]);
    // What is found sound again is restorable again.
    catalog.record_check(backup_id(1), 1, None, at(119), at(120)).await.unwrap();
    assert!(backup(catalog, 1).await.is_restorable());
    catalog.record_check(backup_id(1), 1, Some("gone"), at(129), at(130)).await.unwrap();
    let (instance, backup) = (instance_id(1), backup_id(1));
    catalog.request_removal(&project(1), instance, backup, job_id(4), at(140)).await.unwrap();
    assert_eq!(to_check(catalog, 1000).await, [0; 0]);
}

pub async fn a_backup_known_from_its_store_alone_is_added_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    let known = backup(catalog, 1).await;
    let stored = |backup: Backup, name: &str| StoredBackup {
        instance_name: name.parse().unwrap(),
        engine: EngineKind::Redis,
        server_version: ServerVersion { major: 7, minor: 0, patch: 15 },
        address: Address { host: "db".into(), port: 6379 },
        backup,
    };
    assert!(!catalog.adopt_stored(&stored(known.clone(), "one")).await.unwrap());
    assert_eq!(backup(catalog, 1).await, known);
    // Of another project and another instance, whose name is in use only here.
    let (project, instance) = (project(2), instance_id(2));
    let lost = Backup {
        id: backup_id(2),
        project: project.clone(),
        instance,
        trigger: Trigger::Automatic,
        window: Some("22:00-23:00".into()),
        keep_until: Some(at(1000)),
        ..known.clone()
    };
    for is_new in [true, false] {
        assert_eq!(catalog.adopt_stored(&stored(lost.clone(), "one")).await.unwrap(), is_new);
        let found = catalog.find_backup(&project, lost.id).await.unwrap().unwrap();
        assert_eq!(found, lost);
    }
    let found = catalog.find_instance(&project, instance).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.connection.address.port), ("one", 6379));
    assert!(found.connection.password.is_none());
    assert!(matches!(found.health, Health::Unreachable { .. }));
    // An instance that has its name by now keeps it.
    let clash = Backup { id: backup_id(3), instance: instance_id(3), ..known };
    assert!(catalog.adopt_stored(&stored(clash, "one")).await.unwrap());
    let found = catalog.find_instance(&self::project(1), instance_id(3)).await.unwrap().unwrap();
    assert!(found.name.as_str().starts_with("restored-"), "{}", found.name);
}

/// The beginning of the first window of the policy that the instances here have, and of the next.
const WINDOWS: [&str; 2] = ["2025-10-12T00:00:00Z", "2025-10-13T00:00:00Z"];

/// A moment, in seconds after the beginning of the first window.
fn inside(seconds: i64) -> Timestamp {
    let begin: Timestamp = WINDOWS[0].parse().unwrap();
    Timestamp::from_second(begin.as_second() + seconds).unwrap()
}

fn resting(next_at: Timestamp, decided_at: Timestamp) -> Agenda {
    let window = Window { begin: inside(0), end: inside(3600) };
    Agenda { window: Some(window), next_at, decided_at }
}

fn scheduled(n: u8, created_at: Timestamp) -> NewScheduledBackup {
    NewScheduledBackup {
        backup: NewBackup {
            trigger: Trigger::Automatic,
            note: None,
            created_at,
            ..new_backup(n, 1, 0)
        },
        window: Window { begin: inside(0), end: inside(3600) },
        keep_until: inside(7 * 86_400),
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
        let plan = automatic(&[1, 7], "00:00-01:00", 7).due_plan().unwrap().0;
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
        plan: automatic(&[1, 7], "00:00-01:00", 7).due_plan().unwrap().0,
        save_days: SaveDays::new(7).unwrap(),
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
            catalog.finish_backup(&lease, 1, 1000, now).await
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

/// Brings an automatic backup of instance 1 to its success, kept until the second `until`.
async fn keep(catalog: &impl Catalog, n: u8, seconds: i64, until: i64) {
    let mut read = catalog.due_policies(inside(1_000_000), 10).await.unwrap();
    let due = read.remove(0);
    let then = Agenda { decided_at: inside(seconds), ..due.agenda };
    let new = NewScheduledBackup { keep_until: inside(until), ..scheduled(n, inside(seconds)) };
    let turned = catalog.turn_policy(&due, &Turn::Begin(new), &then).await.unwrap();
    assert_eq!(turned, Turned::Done);
    let claimed = catalog.claim_job(JobKind::Capture, node(), inside(seconds), inside(seconds + 9));
    let lease = claimed.await.unwrap().unwrap();
    catalog.start_backup(&lease, inside(seconds)).await.unwrap();
    catalog.finish_backup(&lease, 1, 1000, inside(seconds)).await.unwrap();
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
    keep(catalog, 1, 0, 100).await;
    keep(catalog, 2, 10, 110).await;
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
    keep(catalog, 3, 1000, 2000).await;
    assert_eq!(retain(catalog, 24, 130, 1000).await, [2]);
}

pub async fn it_is_told_when_backups_may_have_to_go(catalog: &impl Catalog) {
    prepare(catalog).await;
    assert_eq!(to_retain(catalog, 1_000_000).await, 0);
    keep(catalog, 1, 0, 100).await;
    keep(catalog, 2, 10, 110).await;
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
    keep(catalog, 1, 0, 100).await;
    keep(catalog, 2, 10, 100).await;
    keep(catalog, 3, 20, 100).await;
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
    catalog.finish_drill(&lease, "redis", inside(300)).await.unwrap();
    assert_eq!(to_retain(catalog, 300).await, 1);
    assert_eq!(retain(catalog, 24, 110, 300).await, [2]);
    assert_eq!(to_retain(catalog, 1_000_000).await, 0);
    hold(1, false).await.unwrap();
    assert_eq!(to_retain(catalog, 300).await, 1);
    assert_eq!(retain(catalog, 24, 120, 300).await, [1]);
    assert!(matches!(hold(1, true).await, Err(CatalogError::NotFound("backup"))));
}

pub async fn the_oldest_beyond_the_limit_go_as_many_as_there_are_jobs(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 1..=6 {
        succeed(catalog, n, i64::from(n)).await;
    }
    keep(catalog, 7, 0, 1000).await;
    keep(catalog, 8, 1, 1000).await;
    assert_eq!(retain(catalog, 8, 100, 10).await, [0; 0]);
    // What a policy asked for goes first, and then what is oldest.
    assert_eq!(retain(catalog, 3, 110, 10).await, [7, 1, 2]);
    assert_eq!(to_retain(catalog, 10).await, 1, "that was not all");
    assert_eq!(retain(catalog, 3, 120, 10).await, [3, 4]);
    assert_eq!(retain(catalog, 0, 130, 10).await, [5, 6], "the newest good one stays");
    remove_files(catalog, 11).await;
    assert_eq!(backup(catalog, 1).await.state, BackupState::Expired);
}

pub async fn a_person_who_deletes_what_expires_has_it_deleted(catalog: &impl Catalog) {
    prepare(catalog).await;
    keep(catalog, 1, 0, 100).await;
    keep(catalog, 2, 10, 200).await;
    assert_eq!(retain(catalog, 24, 100, 100).await, [1]);
    let (project, id, now) = (project(1), backup_id(1), inside(101));
    let job = catalog.request_removal(&project, instance_id(1), id, job_id(90), now).await;
    assert_eq!(job.unwrap(), job_id(100));
    remove_files(catalog, 101).await;
    assert_eq!(backup(catalog, 1).await.state, BackupState::Deleted);
}

fn request_id(n: u8) -> RequestId {
    RequestId::mint(&Numbered(n))
}

fn call(n: u8, seconds: i64) -> NewAuditRecord {
    NewAuditRecord {
        request: request_id(n),
        project: Some(project(1)),
        access_key: Some("AKEXAMPLE1".parse().unwrap()),
        user: Some("ada".into()),
        address: Some("2001:db8::7".parse().unwrap()),
        operation: "DELETE /api/v1/backups/{backup_id}".into(),
        resource: format!("/api/v1/backups/{}", backup_id(n)),
        at: at(seconds),
    }
}

async fn called(catalog: &impl Catalog, filter: AuditFilter, limit: u32) -> Vec<RequestId> {
    let listed = catalog.list_audit(&project(1), &filter, limit).await.unwrap();
    listed.into_iter().map(|record| record.call.request).collect()
}

pub async fn a_call_is_recorded_before_it_is_answered(catalog: &impl Catalog) {
    let first = call(1, 10);
    let nobody = NewAuditRecord {
        access_key: None,
        user: None,
        address: None,
        resource: "é".repeat(AUDIT_TEXT_CHARS_MAX + 1),
        ..call(2, 11)
    };
    catalog.begin_audit(&first).await.unwrap();
    catalog.begin_audit(&nobody).await.unwrap();
    let result = AuditResult { status: 409, error: Some("instance_busy".into()), at: at(12) };
    catalog.end_audit(&first.request, &result).await.unwrap();
    let late = AuditResult { status: 200, error: None, at: at(13) };
    catalog.end_audit(&first.request, &late).await.unwrap();
    let cut = "é".repeat(AUDIT_TEXT_CHARS_MAX);
    let listed = catalog.list_audit(&project(1), &AuditFilter::default(), 10).await.unwrap();
    let expected = [
        AuditRecord { call: NewAuditRecord { resource: cut, ..nobody }, result: None },
        AuditRecord { call: first, result: Some(result) },
    ];
    assert_eq!(listed, expected);
}

pub async fn calls_are_listed_in_both_orders_and_by_time(catalog: &impl Catalog) {
    for n in 1..=5 {
        catalog.begin_audit(&call(n, 10 * i64::from(n))).await.unwrap();
    }
    let ids = |numbers: &[u8]| numbers.iter().map(|n| request_id(*n)).collect::<Vec<_>>();
    let newest = AuditFilter::default();
    let oldest = AuditFilter { oldest_first: true, ..newest.clone() };
    assert_eq!(called(catalog, newest.clone(), 2).await, ids(&[5, 4]));
    let behind = AuditFilter { after: Some(request_id(4)), ..newest.clone() };
    assert_eq!(called(catalog, behind, 2).await, ids(&[3, 2]));
    let behind = AuditFilter { after: Some(request_id(4)), ..oldest.clone() };
    assert_eq!(called(catalog, behind, 9).await, ids(&[5]));
    let between = AuditFilter { from: Some(at(20)), to: Some(at(40)), ..oldest.clone() };
    assert_eq!(called(catalog, between, 9).await, ids(&[2, 3, 4]));
    let unknown = AuditFilter { after: Some(request_id(9)), ..newest };
    let refused = catalog.list_audit(&project(1), &unknown, 9).await;
    assert!(matches!(refused, Err(CatalogError::NotFound("audit record"))));
    assert_eq!(catalog.drop_audit(at(30)).await.unwrap(), 2);
    assert_eq!(called(catalog, oldest, 9).await, ids(&[3, 4, 5]));
}

pub async fn no_project_sees_the_calls_of_another(catalog: &impl Catalog) {
    let other = NewAuditRecord { project: Some(project(2)), ..call(1, 10) };
    let of_none = NewAuditRecord { project: None, ..call(2, 10) };
    catalog.begin_audit(&other).await.unwrap();
    catalog.begin_audit(&of_none).await.unwrap();
    assert_eq!(called(catalog, AuditFilter::default(), 10).await, []);
    let administrator = AuditFilter { with_service: true, ..AuditFilter::default() };
    assert_eq!(called(catalog, administrator, 10).await, [request_id(2)]);
    let behind = AuditFilter { after: Some(request_id(1)), ..AuditFilter::default() };
    let refused = catalog.list_audit(&project(1), &behind, 10).await;
    assert!(matches!(refused, Err(CatalogError::NotFound("audit record"))));
}
