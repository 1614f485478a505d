//! What is watched over all projects.

use cachevault_domain::{FailureCode, JobKind, Requeue};

use super::{
    at, backup_id, claim, failure, instance, instance_id, job_id, new_backup, prepare, project,
    prove, succeed, succeed_opaque,
};
use crate::{Catalog, OpenJobs};

pub async fn what_is_watched_of_an_instance_is_its_newest_good_backup(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    let watched = async || catalog.watched_instances(10).await.unwrap();
    let first = watched().await;
    let names: Vec<_> = first.iter().map(|instance| instance.name.to_string()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!((first[0].project.clone(), first[0].id), (project(1), instance_id(1)));
    assert_eq!((first[0].is_down, first[0].backup_at, first[0].proof_at), (false, None, None));
    assert_eq!(catalog.watched_instances(1).await.unwrap().len(), 1);

    succeed(catalog, 1, 10).await;
    prove(catalog, 1, 20).await;
    succeed(catalog, 2, 30).await;
    // One that runs or failed is no backup yet.
    catalog.request_backup(&new_backup(3, 1, 40)).await.unwrap();
    let seen = watched().await.remove(0);
    assert_eq!(seen.backup_at, Some(at(30)));
    assert_eq!((seen.proven_backup_at, seen.proof_at), (Some(at(10)), Some(at(20))));
    // Damage, and a wish to remove it, end that it is good.
    let damaged = catalog.record_check(backup_id(2), 1, Some("gone"), at(41), at(42)).await;
    damaged.unwrap();
    assert_eq!(watched().await[0].backup_at, Some(at(10)));
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(1), job_id(50), at(43))
        .await
        .unwrap();
    let seen = watched().await.remove(0);
    assert_eq!((seen.backup_at, seen.proven_backup_at, seen.proof_at), (None, None, None));
}

pub async fn opaque_backups_are_counted_and_count_as_no_good_backup(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    succeed(catalog, 1, 10).await;
    let watched = async || {
        let seen = catalog.watched_instances(10).await.unwrap();
        assert_eq!(seen[1].opaque_backups, 0, "they are of the other instance");
        (seen[0].backup_at, seen[0].opaque_backups)
    };
    assert_eq!(watched().await, (Some(at(10)), 0));
    succeed_opaque(catalog, 2, 20).await;
    succeed_opaque(catalog, 3, 30).await;
    assert_eq!(watched().await, (Some(at(10)), 2));
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(2), job_id(50), at(40))
        .await
        .unwrap();
    assert_eq!(watched().await, (Some(at(10)), 1));
}

pub async fn an_instance_that_is_gone_is_watched_no_more(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.remove_instance(&project(1), instance_id(1), at(10)).await.unwrap();
    assert_eq!(catalog.watched_instances(10).await.unwrap(), []);
}

pub async fn open_jobs_are_counted_by_kind(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    let jobs = async |kind| {
        let open = catalog.open_jobs().await.unwrap();
        assert_eq!(open.iter().map(|jobs| jobs.kind).collect::<Vec<_>>(), JobKind::ALL);
        open.into_iter().find(|jobs| jobs.kind == kind).unwrap()
    };
    let capture = JobKind::Capture;
    let none = OpenJobs { kind: capture, waiting: 0, running: 0, waiting_since: None };
    assert_eq!(jobs(capture).await, none);
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    catalog.request_backup(&new_backup(2, 2, 12)).await.unwrap();
    let expected = OpenJobs { waiting: 2, waiting_since: Some(at(10)), ..none };
    assert_eq!(jobs(capture).await, expected);
    let lease = claim(catalog, 20).await.unwrap();
    let expected = OpenJobs { waiting: 1, running: 1, waiting_since: Some(at(12)), ..none };
    assert_eq!(jobs(capture).await, expected);
    assert_eq!(jobs(JobKind::Remove).await, OpenJobs { kind: JobKind::Remove, ..none });
    catalog.requeue(&lease, Requeue::Failed, at(90), "later").await.unwrap();
    let lease = claim(catalog, 20).await.unwrap();
    catalog.fail_backup(&lease, &failure(FailureCode::ToolFailed, "x"), at(21)).await.unwrap();
    let expected = OpenJobs { waiting: 1, waiting_since: Some(at(90)), ..none };
    assert_eq!(jobs(capture).await, expected);
}
