//! What becomes of stored files that were damaged, of what no backup is made of, and of a store
//! whose catalog is lost.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cachevault_app::{App, AppError, MasterKey, RequestBackup, RequestRestore, Sealer};
use cachevault_catalog_sqlite::SqliteCatalog;
use cachevault_domain::{
    AuditFilter, Backup, BackupFilter, BackupId, FailureCode, Page, RequestId, RestoreOptions,
    RestoreState, TargetData,
};
use cachevault_jobs::{Swept, Tender};
use cachevault_store::{BackupKey, Fault, SealedStore, StoreErrorKind};
use cachevault_testkit::SeededEntropy;

use crate::rig::Rig;

const DAY: Duration = Duration::from_hours(24);

fn tender(app: &App) -> Tender {
    Tender {
        app: app.clone(),
        check_every: DAY * 7,
        sweep_every: DAY,
        grace: DAY,
        audit_keep: DAY * 30,
        time_max: DAY,
        events_keep: DAY * 30,
        tried: Mutex::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_takes_too_long_is_no_damage_and_keeps_nobody_from_theirs() {
    let rig = Rig::new().await;
    let id = rig.request().await;
    rig.run(None).await;
    rig.app.request_check(&rig.caller, id).await.unwrap();
    let hasty = Tender { time_max: Duration::ZERO, ..tender(&rig.app) };
    assert_eq!(hasty.check_round().await, 1);
    assert_eq!(hasty.check_round().await, 0, "the others have their turn first");
    let backup = rig.backup(id).await;
    assert_eq!((backup.checked_at, backup.damage), (None, None));
    assert_eq!(tender(&rig.app).check_round().await, 1);
    assert!(rig.backup(id).await.checked_at.is_some());
}

fn master_key(seed: u64) -> MasterKey {
    MasterKey::mint(&SeededEntropy::new(seed))
}

/// A store in front of the rig's, with these master keys, the current one first.
fn sealed(rig: &Rig, seeds: &[u64]) -> App {
    let keys: Vec<_> = seeds.iter().map(|seed| master_key(*seed)).collect();
    let entropy = Arc::new(SeededEntropy::new(99));
    let sealer = Arc::new(Sealer::with_earlier(&keys[0], &keys[1..], entropy));
    let store = SealedStore::new(rig.store.clone(), sealer, true);
    App { store: Arc::new(store), ..rig.app.clone() }
}

/// A rig with one encrypted backup, and the folder of its only attempt.
async fn backed_up() -> (Rig, BackupId, PathBuf) {
    let mut rig = Rig::new().await;
    rig.app = sealed(&rig, &[1]);
    let id = rig.request().await;
    rig.run(None).await;
    let detail = rig.app.get_backup(&rig.caller, id).await.unwrap();
    let folder = Path::new(&detail.locations[0]).parent().unwrap().to_owned();
    (rig, id, folder)
}

async fn checked(rig: &Rig, app: &App, id: BackupId) -> Backup {
    rig.pass(1);
    app.request_check(&rig.caller, id).await.unwrap();
    assert_eq!(tender(app).check_round().await, 1);
    rig.app.catalog.find_backup(&rig.project, id).await.unwrap().unwrap()
}

fn file(folder: &Path, part: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.to_string_lossy().contains(part)).unwrap()
}

fn change(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

type Damage = fn(&Path);

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_named_and_nothing_is_restored_from_it() {
    let damages: [(&str, Damage, &str); 9] = [
        (
            "no manifest",
            |f| std::fs::remove_file(file(f, "manifest")).unwrap(),
            "manifest is missing",
        ),
        ("no JSON", |f| change(&file(f, "manifest"), |b| b.truncate(20)), "not a manifest"),
        (
            "no artifact",
            |f| std::fs::remove_file(file(f, "shard")).unwrap(),
            "not found in the store",
        ),
        ("a cut artifact", |f| change(&file(f, "shard"), |b| b.truncate(900)), "its size is 900,"),
        ("a longer one", |f| change(&file(f, "shard"), |b| b.resize(1 << 20, 0)), "is 1048576,"),
        (
            "a changed byte",
            |f| {
                change(&file(f, "shard"), |b| {
                    let at = b.len() / 2;
                    b[at] ^= 1;
                })
            },
            "some of them were changed",
        ),
        (
            "a changed manifest",
            |f| {
                change(&file(f, "manifest"), |b| {
                    let at = b.len() - 9;
                    b[at] ^= 1;
                })
            },
            "decrypt",
        ),
        ("no key", |f| std::fs::remove_file(file(f, "data-key")).unwrap(), "key is missing"),
        ("a changed key", |f| change(&file(f, "data-key"), |b| b.truncate(9)), "cannot be read"),
    ];
    for (what, damage, named) in damages {
        let (rig, id, folder) = backed_up().await;
        assert_eq!(checked(&rig, &rig.app, id).await.damage, None, "{what}");
        damage(&folder);
        let backup = checked(&rig, &rig.app, id).await;
        let told = backup.damage.clone().unwrap_or_else(|| panic!("{what} is not noticed"));
        assert!(told.contains(named), "{what}: {told}");
        assert!(!backup.is_restorable());
        let wish = RequestRestore { backup: id, options: RestoreOptions::default(), note: None };
        let refused = rig.app.request_restore(&rig.caller, rig.instance, wish).await;
        assert!(matches!(refused, Err(AppError::BackupDamaged(_))), "{what}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_backup_loses_its_manifest_meanwhile_fails_at_once() {
    let (rig, id, folder) = backed_up().await;
    let digest = rig.server.digest();
    let wish = RequestRestore { backup: id, options: RestoreOptions::default(), note: None };
    let restore = rig.app.request_restore(&rig.caller, rig.instance, wish).await.unwrap();
    std::fs::remove_file(file(&folder, "manifest")).unwrap();
    rig.run(None).await;
    let record = rig.app.get_restore(&rig.caller, restore).await.unwrap();
    assert_eq!(record.state, RestoreState::Failed, "{record:?}");
    let failure = record.failure.unwrap();
    assert_eq!(failure.code, FailureCode::SizeUnconfirmed);
    assert!(failure.reason.contains("manifest is missing"), "{failure:?}");
    assert_eq!(record.outcome.unwrap().target, TargetData::Untouched);
    assert_eq!(rig.server.digest(), digest);
}

/// Changes the manifest's text, whatever it is stored as.
async fn rewrite(rig: &Rig, id: BackupId, change: impl Fn(String) -> String) {
    let key = BackupKey { project: rig.project.clone(), instance: rig.instance, backup: id };
    let name = key.attempt(1).manifest();
    let bytes = rig.app.store.get(&name).await.unwrap().unwrap();
    let text = change(String::from_utf8(bytes.to_vec()).unwrap());
    rig.app.store.put(&name, text.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_a_newer_build_or_another_backup_is_told_as_such() {
    let (rig, id, _) = backed_up().await;
    rewrite(&rig, id, |text| text.replacen("\"version\": 1", "\"version\": 99", 1)).await;
    let damage = checked(&rig, &rig.app, id).await.damage.unwrap();
    assert!(damage.contains("version 99"), "{damage}");
    rewrite(&rig, id, |text| text.replacen("\"version\": 99", "\"version\": 1", 1)).await;
    assert_eq!(checked(&rig, &rig.app, id).await.damage, None);
    let (own, other) = (id.to_string(), BackupId::mint(&SeededEntropy::new(5)).to_string());
    rewrite(&rig, id, |text| text.replace(&own, &other)).await;
    let damage = checked(&rig, &rig.app, id).await.damage.unwrap();
    assert!(damage.contains("of another backup"), "{damage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_master_key_is_told_and_the_right_one_heals_it() {
    let (rig, id, _) = backed_up().await;
    let other = sealed(&rig, &[2]);
    let damage = checked(&rig, &other, id).await.damage.unwrap();
    assert!(damage.contains(&master_key(1).id()), "{damage}");
    let backup = checked(&rig, &rig.app, id).await;
    assert_eq!((backup.damage.as_deref(), backup.is_restorable()), (None, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_no_damage() {
    let (rig, id, _) = backed_up().await;
    rig.store.fail(Fault::Read, StoreErrorKind::Unavailable);
    rig.pass(1);
    rig.app.request_check(&rig.caller, id).await.unwrap();
    let tender = tender(&rig.app);
    assert_eq!(tender.check_round().await, 1);
    let backup = rig.app.catalog.find_backup(&rig.project, id).await.unwrap().unwrap();
    assert_eq!((backup.damage, backup.checked_at), (None, None));
    // It stays due, and is tried again after a while, so that others have their turn.
    rig.store.heal();
    assert_eq!(tender.check_round().await, 0);
    rig.pass(601);
    assert_eq!(tender.check_round().await, 1);
    assert!(rig.backup(id).await.checked_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_backup_is_read_again_from_time_to_time() {
    let (rig, id, _) = backed_up().await;
    assert_eq!(tender(&rig.app).check_round().await, 0);
    rig.pass(7 * 24 * 3600 + 60);
    assert_eq!(tender(&rig.app).check_round().await, 1);
    assert!(rig.backup(id).await.checked_at.is_some());
    assert_eq!(tender(&rig.app).check_round().await, 0);
}

/// Makes every file in a folder look as if it had been written long ago.
fn age(folder: &Path) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
}

/// What an attempt leaves that is never committed.
async fn leftover(rig: &Rig, key: &BackupKey, attempt: u32) -> PathBuf {
    let artifact = key.attempt(attempt).artifact(0);
    let mut sink = rig.app.store.create(&artifact).await.unwrap();
    sink.write("left over".into()).await.unwrap();
    sink.finish().await.unwrap();
    Path::new(&rig.app.store.locate(&artifact)).parent().unwrap().to_owned()
}

async fn sweep(rig: &Rig) -> Swept {
    tender(&rig.app).sweep(false).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_backup_is_made_of_is_removed_after_a_while() {
    let (rig, id, folder) = backed_up().await;
    let key = |backup| BackupKey { project: rig.project.clone(), instance: rig.instance, backup };
    let of_nobody = leftover(&rig, &key(BackupId::mint(&*rig.app.entropy)), 1).await;
    let earlier_attempt = leftover(&rig, &key(id), 7).await;
    let waiting = rig.request().await;
    let of_waiting = leftover(&rig, &key(waiting), 1).await;
    // It may be an upload that is still going on.
    assert_eq!(sweep(&rig).await, Swept::default());
    for left in [&of_nobody, &earlier_attempt, &of_waiting, &folder] {
        age(left);
    }
    assert_eq!(sweep(&rig).await, Swept { removed: 2, ..Swept::default() });
    assert!(!of_nobody.exists() && !earlier_attempt.exists());
    assert!(of_waiting.exists(), "its job may still commit it");
    assert!(folder.exists());
    assert_eq!(checked(&rig, &rig.app, id).await.damage, None);
    // Without its manifest it is damaged, and may yet be mended by hand.
    std::fs::remove_file(file(&folder, "manifest")).unwrap();
    assert_eq!(sweep(&rig).await, Swept::default());
    assert!(folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_seals_keys_with_the_new_master_key() {
    let (rig, id, folder) = backed_up().await;
    let artifact = std::fs::read(file(&folder, "shard")).unwrap();
    let both = sealed(&rig, &[2, 1]);
    for rewrapped in [1, 0] {
        let swept = tender(&both).sweep(true).await.unwrap();
        assert_eq!(swept, Swept { rewrapped, ..Swept::default() });
    }
    assert_eq!(std::fs::read(file(&folder, "shard")).unwrap(), artifact);
    assert_eq!(checked(&rig, &sealed(&rig, &[2]), id).await.damage, None);
}

/// The rig's service with another catalog, which is empty.
pub(crate) async fn without_catalog(rig: &Rig, folder: &Path) -> (App, Arc<SqliteCatalog>) {
    let catalog = SqliteCatalog::open(&folder.join("catalog.sqlite")).await.unwrap();
    let catalog = Arc::new(catalog);
    (App { catalog: catalog.clone(), ..rig.app.clone() }, catalog)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_is_made_again_from_the_store() {
    let (rig, first, folder) = backed_up().await;
    rig.server.ask(&["SET", "more", "of it"]);
    rig.pass(60);
    let wish =
        RequestBackup { note: Some("nächtlich".parse().unwrap()), ..RequestBackup::default() };
    let second = rig.app.request_backup(&rig.caller, rig.instance, wish).await.unwrap();
    rig.run(None).await;
    // A half-written set, and one that cannot be read.
    let key = |backup| BackupKey { project: rig.project.clone(), instance: rig.instance, backup };
    leftover(&rig, &key(BackupId::mint(&*rig.app.entropy)), 1).await;
    let broken = leftover(&rig, &key(BackupId::mint(&*rig.app.entropy)), 1).await;
    std::fs::write(broken.join("manifest.json"), "{}").unwrap();

    let fresh = tempfile::tempdir().unwrap();
    let (app, catalog) = without_catalog(&rig, fresh.path()).await;
    for (added, known) in [(2, 0), (0, 2)] {
        let rebuilt = app.rebuild().await.unwrap();
        assert_eq!((rebuilt.added, rebuilt.known, rebuilt.unfinished), (added, known, 1));
        assert_eq!(rebuilt.projects, std::slice::from_ref(&rig.project));
        assert!(matches!(&rebuilt.unreadable[..], [one] if one.contains("not a manifest")));
    }
    let before = listed(&rig, &rig.app).await;
    assert_eq!(listed(&rig, &app).await, before);
    assert_eq!(before.iter().map(|backup| backup.id).collect::<Vec<_>>(), [second, first]);
    for id in [first, second] {
        let [old, new] = [&rig.app, &app].map(async |app| {
            let detail = app.get_backup(&rig.caller, id).await.unwrap();
            detail.manifest.unwrap().unwrap()
        });
        assert_eq!(new.await, old.await);
    }
    let instance = app.get_instance(&rig.caller, rig.instance).await.unwrap();
    assert_eq!(instance.name.as_str(), "orders");
    assert!(folder.exists());

    // The backups restore as before.
    let digest = rig.server.digest();
    rig.server.ask(&["FLUSHALL"]);
    let rig = Rig { app, catalog, ..rig };
    let wish = RequestRestore { backup: second, options: RestoreOptions::default(), note: None };
    let restore = rig.app.request_restore(&rig.caller, rig.instance, wish).await.unwrap();
    rig.run(None).await;
    let record = rig.app.get_restore(&rig.caller, restore).await.unwrap();
    assert_eq!(record.state, RestoreState::Succeeded, "{record:?}");
    assert_eq!(rig.server.digest(), digest);
}

async fn listed(rig: &Rig, app: &App) -> Vec<Backup> {
    let (filter, page) = (BackupFilter::default(), Page { offset: 0, limit: 10 });
    app.list_backups(&rig.caller, rig.instance, filter, page).await.unwrap().items
}

#[tokio::test]
async fn who_did_what_is_forgotten_after_its_time() {
    let rig = Rig::new().await;
    for seed in [1, 2] {
        let request = RequestId::mint(&SeededEntropy::new(seed));
        let call = rig.caller.call(request, rig.app.clock.now());
        rig.app.begin_audit(&call).await.unwrap();
        rig.pass(20 * 24 * 3600);
    }
    assert_eq!(tender(&rig.app).drop_audit().await, 1);
    let left = rig.app.list_audit(&rig.caller, &AuditFilter::default(), 10).await.unwrap();
    assert_eq!(left.len(), 1);
}
