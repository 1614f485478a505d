//! The suite that every catalog has to pass.
//!
//! Each case gets a fresh, empty catalog. `catalog_conformance!(fresh)` makes one test of each,
//! where `fresh` is an expression that gives a future of something that derefs to a [`Catalog`].

#![expect(missing_docs, reason = "the names of the cases are sentences")]
#![expect(clippy::unwrap_used, reason = "a broken promise should panic in the test that checks it")]

use cachevault_domain::{
    Address, Backup, BackupFilter, BackupFormat, BackupId, BackupPolicy, ContentState, EngineKind,
    Entropy, Failure, FailureCode, Health, Instance, InstanceId, InstanceSettings, JobId, JobKind,
    Lease, NewBackup, NewRestore, NewSafetyBackup, NodeId, Observation, Page, PolicyId, ProjectId,
    RdbDialect, Restore, RestoreFilter, RestoreId, RestoreOptions, RestoreOutcome, RestoreWay,
    Role, SaveDays, SealedConnection, SealedSecret, ServerVersion, ShrinkRule, StoredFiles,
    StoredPolicy, Tag, TargetData, Trigger, Weekdays, WeeklyPlan,
};
use jiff::Timestamp;

mod audit;
mod backups;
mod cancel;
mod checks;
mod drills;
mod events;
mod hosts;
mod identity;
mod instances;
mod jobs;
mod restores;
mod retention;
mod schedules;
mod stores;
mod watch;
mod webhooks;

use crate::{Catalog, CatalogError};
pub use audit::*;
pub use backups::*;
pub use cancel::*;
pub use checks::*;
pub use drills::*;
pub use events::*;
pub use hosts::*;
use identity::open_project;
pub use identity::*;
pub use instances::*;
pub use jobs::*;
pub use restores::*;
pub use retention::*;
pub use schedules::*;
pub use stores::*;
pub use watch::*;
pub use webhooks::*;

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
            a_connection_is_replaced_only_where_it_is_the_expected_one
            a_restore_ends_at_the_address_where_it_began
            a_policy_keeps_its_id_and_what_nobody_changes
            every_form_of_a_policy_reads_back_as_it_was_set
            a_policy_is_taken_away_once
            backups_are_kept_of_an_instance_that_is_let_go
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
            a_backup_that_waits_is_cancelled_at_once
            a_running_backup_that_is_cancelled_can_only_fail
            a_cancelled_backup_between_two_attempts_is_due_at_once
            the_first_wish_to_cancel_counts_whenever_it_is_heeded
            a_backup_that_has_ended_is_not_cancelled
            a_restore_that_waits_is_cancelled_at_once
            a_running_restore_that_is_cancelled_can_only_fail
            a_cancelled_restore_between_two_attempts_is_due_at_once
            a_restore_whose_target_is_touched_is_no_longer_cancelled
            only_its_holder_touches_the_target_of_a_restore
            no_project_cancels_the_restores_of_another
            what_is_open_tells_its_attempt_and_why_the_one_before_ended
            a_backup_that_a_restore_makes_is_not_cancelled_alone
            captures_of_one_host_wait_for_each_other
            a_cancelled_capture_waits_for_no_host
            a_host_may_have_more_captures_than_one
            a_capture_that_waits_for_its_host_survives_its_neighbours
            a_requested_restore_waits_and_its_target_shows_it
            every_option_of_a_restore_reads_back_as_it_was_asked_for
            a_restore_needs_its_target_and_its_backup
            a_backup_without_files_is_not_restored
            an_opaque_backup_is_restored_only_where_that_is_asked_for
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
            an_opaque_backup_is_not_drilled
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
            what_has_files_is_listed_by_ids
            an_instance_known_from_its_backups_is_what_the_newest_says
            a_backup_known_from_its_store_alone_is_added_once
            a_policy_is_due_when_there_is_something_to_decide
            a_scheduled_backup_is_recorded_once_with_its_job
            a_policy_that_finds_its_instance_busy_records_that
            a_window_that_was_missed_is_recorded
            what_was_tried_in_a_window_is_told_by_its_records
            a_policy_that_was_changed_or_is_gone_supersedes_what_was_decided
            what_a_wrong_clock_decided_is_due_at_once
            an_opaque_backup_pushes_out_no_verified_one
            a_backup_whose_time_is_over_expires
            it_is_told_when_backups_may_have_to_go
            what_is_held_or_in_use_goes_later
            what_count_and_generations_keep_stays_beyond_its_time
            what_is_being_read_goes_later
            who_deletes_a_backup_waits_for_those_who_read_it
            the_oldest_beyond_the_limit_go_as_many_as_there_are_jobs
            restores_leave_all_backups_that_somebody_asked_for
            a_backup_that_has_shrunk_holds_the_last_larger_one
            what_shrinks_again_and_again_holds_few_backups
            what_a_person_holds_is_released_by_nobody_else
            only_counted_backups_that_were_asked_for_are_compared
            without_the_rule_nothing_has_shrunk
            a_person_who_deletes_what_expires_has_it_deleted
            what_is_watched_of_an_instance_is_its_newest_good_backup
            opaque_backups_are_counted_and_count_as_no_good_backup
            an_instance_that_is_gone_is_watched_no_more
            open_jobs_are_counted_by_kind
            a_call_is_recorded_before_it_is_answered
            calls_are_listed_in_both_orders_and_by_time
            no_project_sees_the_calls_of_another
            what_happens_to_a_backup_is_told_once
            opaque_content_is_told_with_the_success_of_its_backup
            what_was_refused_is_not_told
            what_happens_to_a_restore_is_told_with_its_safety_backup
            what_a_drill_found_is_told
            what_is_done_to_an_instance_is_told
            an_instance_goes_down_once_and_comes_back_once
            what_a_policy_does_is_told
            events_are_listed_in_both_orders_and_between_others
            a_service_event_is_recorded_for_every_project
            old_events_are_forgotten_and_their_numbers_with_them
            who_waits_for_an_event_is_woken_by_it
            a_webhook_reads_back_as_it_was_added_and_changed
            a_project_has_so_many_webhooks_and_no_more
            a_webhook_is_told_in_order_of_its_kinds_since_it_was_added
            a_delivery_that_failed_waits_and_is_given_up_in_time
            a_delivery_has_one_holder_at_a_time
            a_disabled_webhook_is_told_nothing_not_even_later
            a_project_and_its_credential_are_found_again
            a_project_is_created_once
            a_second_key_opens_the_same_project
            a_project_is_named_once_and_found_by_its_name
            a_credential_reads_back_with_what_it_opens
            a_credential_is_changed_listed_and_removed
            a_rotated_credential_ends_when_it_was_said
            a_credential_needs_its_role_and_its_user
            a_project_administers_the_service_while_it_has_a_key_that_does
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
            a_chain_of_tokens_ends_whatever_ends_it
            the_oldest_token_makes_room_for_one_more
            a_store_is_taken_only_in_the_place_of_the_one_that_is_known
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
    let files = [
        include_str!("conformance/instances.rs"),
        include_str!("conformance/backups.rs"),
        include_str!("conformance/jobs.rs"),
        include_str!("conformance/cancel.rs"),
        include_str!("conformance/hosts.rs"),
        include_str!("conformance/restores.rs"),
        include_str!("conformance/drills.rs"),
        include_str!("conformance/checks.rs"),
        include_str!("conformance/schedules.rs"),
        include_str!("conformance/retention.rs"),
        include_str!("conformance/watch.rs"),
        include_str!("conformance/audit.rs"),
        include_str!("conformance/events.rs"),
        include_str!("conformance/webhooks.rs"),
        include_str!("conformance/identity.rs"),
        include_str!("conformance/stores.rs"),
    ];
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
        changed_at: at(i64::from(n)),
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
        unproven: None,
        uncompared: 0,
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

/// What a capture has stored whose content is verified.
fn files(attempt: u32, size_bytes: u64) -> StoredFiles {
    StoredFiles {
        attempt,
        size_bytes,
        content: ContentState::Verified,
        opaque_because: None,
        keys: None,
    }
}

/// What a capture has stored whose content is of a format that was not known.
fn opaque_files(attempt: u32) -> StoredFiles {
    let content = ContentState::Opaque;
    StoredFiles { content, opaque_because: Some(OPAQUE.into()), ..files(attempt, 1000) }
}

const OPAQUE: &str = "type 34 is unknown";

/// Brings a new backup of instance 1 to its success, of a format that was not known.
async fn succeed_opaque(catalog: &impl Catalog, n: u8, seconds: i64) {
    catalog.request_backup(&new_backup(n, 1, seconds)).await.unwrap();
    let lease = claim(catalog, seconds).await.unwrap();
    catalog.start_backup(&lease, at(seconds)).await.unwrap();
    catalog
        .finish_backup(&lease, &opaque_files(lease.attempt), ShrinkRule::default(), at(seconds + 1))
        .await
        .unwrap();
}

/// Brings a new backup of instance 1 to its success.
async fn succeed(catalog: &impl Catalog, n: u8, seconds: i64) {
    catalog.request_backup(&new_backup(n, 1, seconds)).await.unwrap();
    let lease = claim(catalog, seconds).await.unwrap();
    catalog.start_backup(&lease, at(seconds)).await.unwrap();
    catalog
        .finish_backup(
            &lease,
            &files(lease.attempt, 1000 + u64::from(n)),
            ShrinkRule::default(),
            at(seconds + 1),
        )
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
    catalog.finish_drill(&lease, "redis 7.0.15", 0, at(seconds)).await.unwrap();
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
