//! Which store the catalog takes for its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cachevault_app::{AcceptedStore, StoreRecord};
use cachevault_catalog::StoreCatalog;
use cachevault_domain::BackupState;
use cachevault_store::{FolderStore, KnownStore, StoreErrorKind, find_store_id};

use crate::rig::Rig;

fn record(rig: &Rig) -> StoreRecord {
    StoreRecord { catalog: rig.catalog.clone(), entropy: rig.app.entropy.clone() }
}

fn known(rig: &Rig, root: &Path) -> KnownStore {
    let folder = Arc::new(FolderStore::at(root));
    KnownStore::new(folder, Arc::new(record(rig)), Duration::ZERO)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_from_before_ids_takes_only_a_store_with_one_of_its_backups() {
    let rig = Rig::new().await;
    rig.request().await;
    rig.run(None).await;
    let empty = tempfile::tempdir().unwrap();
    let error = known(&rig, empty.path()).identify().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Foreign, "{error}");
    assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none(), "nothing was written");
    assert_eq!(rig.catalog.store_id().await.unwrap(), None);

    known(&rig, rig.store.inner().root()).identify().await.unwrap();
    let id = rig.catalog.store_id().await.unwrap();
    assert_eq!(find_store_id(rig.store.inner()).await.unwrap(), id);
    assert!(id.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_without_backups_takes_the_first_store_and_its_id() {
    let (rig, other) = (Rig::new().await, Rig::new().await);
    known(&rig, rig.store.inner().root()).identify().await.unwrap();
    let id = rig.catalog.store_id().await.unwrap();
    known(&other, rig.store.inner().root()).identify().await.unwrap();
    assert_eq!(other.catalog.store_id().await.unwrap(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_accepted_is_the_right_one_and_the_earlier_one_no_more() {
    let rig = Rig::new().await;
    let backup = rig.request().await;
    rig.run(None).await;
    let (first, second) = (rig.store.inner().root(), tempfile::tempdir().unwrap());
    let earlier = known(&rig, first);
    earlier.identify().await.unwrap();
    let accepted = record(&rig).accept(&FolderStore::at(second.path())).await.unwrap();
    assert_eq!(rig.catalog.store_id().await.unwrap(), Some(accepted.id));
    assert_eq!((accepted.backups, accepted.held), (1, 0));
    known(&rig, second.path()).identify().await.unwrap();
    let error = known(&rig, first).identify().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Foreign);
    // Its id is its own still: it is taken again by the same words.
    let back = record(&rig).accept(&FolderStore::at(first)).await.unwrap();
    assert_ne!(back.id, accepted.id);
    assert_eq!(back, AcceptedStore { id: back.id, backups: 1, held: 1 });
    assert_eq!(rig.backup(backup).await.state, BackupState::Succeeded);
}
