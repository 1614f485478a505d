//! What the store told: backups that were read again, and such as only it knows.

use cachevault_domain::{
    Address, Backup, ContentState, EngineKind, Health, ServerVersion, StoredBackup, Trigger,
};

use super::{
    at, backup, backup_id, instance_id, job_id, new_backup, new_restore, prepare, project, succeed,
    to_drill,
};
use crate::{Catalog, CatalogError};

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
    let wished = || async move { backup(catalog, 1).await.check_requested_at };
    assert_eq!(wished().await, None);
    catalog.request_check(&project(1), backup_id(1), at(200)).await.unwrap();
    assert_eq!(wished().await, Some(at(200)));
    assert_eq!(to_check(catalog, 0).await, [1]);
    assert_eq!(to_check(catalog, after).await, [1, 2, 3]);
    catalog.record_check(backup_id(1), 1, None, at(199), at(201)).await.unwrap();
    assert_eq!(to_check(catalog, 0).await, [1]);
    assert_eq!(wished().await, Some(at(200)));
    catalog.record_check(backup_id(1), 1, None, at(202), at(203)).await.unwrap();
    assert_eq!((to_check(catalog, 0).await, wished().await), (vec![], None));
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
    let (instance, id) = (instance_id(1), backup_id(1));
    catalog.request_check(&project(1), id, at(135)).await.unwrap();
    catalog.request_removal(&project(1), instance, id, job_id(4), at(140)).await.unwrap();
    assert_eq!(to_check(catalog, 1000).await, [0; 0]);
    assert_eq!(backup(catalog, 1).await.check_requested_at, None, "nobody fulfils it any more");
}

pub async fn what_has_files_is_listed_by_ids(catalog: &impl Catalog) {
    prepare(catalog).await;
    for (n, seconds) in [(3, 10), (1, 20), (2, 30), (4, 40)] {
        succeed(catalog, n, seconds).await;
    }
    let removed = (instance_id(1), backup_id(2));
    catalog.request_removal(&project(1), removed.0, removed.1, job_id(9), at(50)).await.unwrap();
    catalog.request_backup(&new_backup(5, 1, 60)).await.unwrap();
    let page = async |after: Option<u8>, limit| {
        let found = catalog.stored_backups(after.map(backup_id), limit).await.unwrap();
        found.into_iter().map(|backup| backup.id).collect::<Vec<_>>()
    };
    let mut all = [1, 3, 4].map(backup_id);
    all.sort_by_key(ToString::to_string);
    let number = |id| (0..=u8::MAX).find(|n| backup_id(*n) == id);
    assert_eq!(page(None, 9).await, all);
    assert_eq!(page(None, 2).await, all[..2]);
    assert_eq!(page(number(all[1]), 2).await, all[2..]);
    assert_eq!(page(number(all[2]), 2).await, []);
}

/// A backup of an instance that only its backups tell of.
fn lost(known: &Backup, n: u8, created: i64, name: &str, host: &str) -> StoredBackup {
    StoredBackup {
        instance_name: name.parse().unwrap(),
        engine: EngineKind::Redis,
        server_version: ServerVersion { major: 7, minor: 0, patch: 15 },
        address: Address { host: host.into(), port: 6379 },
        backup: Backup {
            id: backup_id(n),
            instance: instance_id(7),
            created_at: at(created),
            ..known.clone()
        },
    }
}

pub async fn an_instance_known_from_its_backups_is_what_the_newest_says(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    let known = backup(catalog, 1).await;
    let seen = async || {
        let found = catalog.find_instance(&project(1), instance_id(7)).await.unwrap().unwrap();
        (found.name.to_string(), found.connection.address.host)
    };
    let shown = |name: &str, host: &str| (name.to_owned(), host.to_owned());
    // In whatever order they come, and however often.
    for (n, created, name, host, expected) in [
        (2, 200, "was", "then", shown("was", "then")),
        (3, 100, "earlier", "before", shown("was", "then")),
        (4, 300, "is", "now", shown("is", "now")),
        (2, 200, "was", "then", shown("is", "now")),
        // The name belongs to another instance by now.
        (5, 400, "one", "later", shown("is", "later")),
    ] {
        catalog.adopt_stored(&lost(&known, n, created, name, host)).await.unwrap();
        assert_eq!(seen().await, expected, "{n}");
    }
    // Of one that is looked after backups tell nothing new.
    let alive = catalog.find_instance(&project(1), instance_id(1)).await.unwrap();
    let mut newer = lost(&known, 6, 10_000, "other", "elsewhere");
    newer.backup.instance = instance_id(1);
    catalog.adopt_stored(&newer).await.unwrap();
    assert_eq!(catalog.find_instance(&project(1), instance_id(1)).await.unwrap(), alive);
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
        content: ContentState::Opaque,
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
    // What was promised of it holds: when its time is over somebody looks.
    let due = async |seconds| catalog.instances_to_retain(at(seconds), 9).await.unwrap();
    assert!(!due(999).await.contains(&instance));
    assert!(due(1000).await.contains(&instance));
    // An instance that has its name by now keeps it.
    let clash = Backup { id: backup_id(3), instance: instance_id(3), ..known };
    assert!(catalog.adopt_stored(&stored(clash, "one")).await.unwrap());
    let found = catalog.find_instance(&self::project(1), instance_id(3)).await.unwrap().unwrap();
    assert!(found.name.as_str().starts_with("restored-"), "{}", found.name);
}
