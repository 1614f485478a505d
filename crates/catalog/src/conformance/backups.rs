//! Backups: how they are asked for and listed.

use cachevault_domain::{BackupFilter, BackupState, JobKind, JobState, NewBackup, Page, Progress};

use super::{
    ALL, at, backup, backup_id, claim, claim_kind, instance, instance_id, job_id, listed,
    new_backup, prepare, project, succeed,
};
use crate::{Catalog, CatalogError};

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
