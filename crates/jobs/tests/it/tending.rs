//! What becomes of stored files that were damaged, of what no backup is made of, and of a store
//! whose catalog is lost.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cachevault_app::{
    App, AppError, MasterKey, NewCredential, RequestBackup, RequestRestore, Sealer,
};
use cachevault_catalog_sqlite::SqliteCatalog;
use cachevault_domain::{
    Address, AuditFilter, Backup, BackupFilter, BackupId, BackupState, FailureCode, Page,
    RdbDialect, RequestId, RestoreOptions, RestoreState, TargetData, Trigger,
};
use cachevault_jobs::{JobFigures, Swept, Tender};
use cachevault_store::{
    AttemptKey, BackupKey, BucketSettings, BucketStore, Fault, Folder, Manifest, SealedStore,
    SpoolStore, Store, StoreErrorKind, StoreUrl,
};
use cachevault_testkit::{BUCKET, S3Call, S3Fault, S3Server, SeededEntropy, eventually};
use jiff::SignedDuration;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::rig::Rig;

const DAY: Duration = Duration::from_hours(24);

pub(crate) fn tender(app: &App) -> Tender {
    Tender {
        app: app.clone(),
        check_every: DAY * 7,
        sweep_every: DAY,
        grace: DAY,
        audit_keep: DAY * 30,
        time_max: DAY,
        events_keep: DAY * 30,
        figures: JobFigures::default(),
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
    sealed_in(rig, rig.store.clone(), seeds)
}

fn sealed_in(rig: &Rig, store: Arc<dyn Store>, seeds: &[u64]) -> App {
    let keys: Vec<_> = seeds.iter().map(|seed| master_key(*seed)).collect();
    let entropy = Arc::new(SeededEntropy::new(99));
    let sealer = Arc::new(Sealer::with_earlier(&keys[0], &keys[1..], entropy));
    let store = SealedStore::new(store, sealer.clone(), true);
    App { store: Arc::new(store), sealer, ..rig.app.clone() }
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

/// Makes every file below a folder look as if it had been written long ago.
pub(crate) fn age(folder: &Path) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            age(&path);
        } else {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
    }
}

/// A request to the bucket that has taken so long is sent again.
const REQUEST: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// A rig whose store is a bucket, stacked as the service has it.
pub(crate) async fn with_bucket(patience: Duration) -> (Rig, S3Server) {
    let (mut rig, server) = (Rig::new().await, S3Server::start().await);
    let credentials = rig.folder.path().join("key of the bucket");
    server.write_credentials(&credentials);
    let Ok(StoreUrl::Bucket(url)) = server.store_url(BUCKET).parse() else { unreachable!() };
    let settings = BucketSettings {
        url,
        credentials_file: Some(credentials),
        create: false,
        request: REQUEST,
        patience,
    };
    let bucket = Arc::new(BucketStore::new(&settings).unwrap());
    let spool = SpoolStore::new(bucket, rig.folder.path().to_owned(), 1 << 30);
    rig.app = sealed_in(&rig, Arc::new(spool), &[1]);
    (rig, server)
}

pub(crate) fn backup_key(rig: &Rig, backup: BackupId) -> BackupKey {
    BackupKey { project: rig.project.clone(), instance: rig.instance, backup }
}

/// The attempts of which anything is listed, in order of their names.
async fn attempts(rig: &Rig) -> Vec<AttemptKey> {
    let listed = rig.app.store.list(&Folder::all(), None).await.unwrap();
    let kinds = listed.iter().map(|object| object.name.kind().unwrap());
    let mut attempts: Vec<_> = kinds.map(|kind| kind.attempt().clone()).collect();
    attempts.dedup();
    attempts
}

/// What an attempt leaves that is never committed.
async fn leftover(rig: &Rig, key: &BackupKey, attempt: u32) -> PathBuf {
    let artifact = key.attempt(attempt).artifact(0);
    let mut sink = rig.app.store.create(&artifact, None).await.unwrap();
    sink.write("left over".into()).await.unwrap();
    sink.finish().await.unwrap();
    Path::new(&rig.app.store.locate(&artifact)).parent().unwrap().to_owned()
}

async fn sweep(rig: &Rig) -> Swept {
    tender(&rig.app).sweep().await.unwrap()
}

/// `age` makes all that is stored look old.
async fn removes_what_no_backup_is_made_of(rig: &Rig, age: impl Fn()) {
    let id = rig.request().await;
    rig.run(None).await;
    let of = |backup| backup_key(rig, backup);
    leftover(rig, &of(BackupId::mint(&*rig.app.entropy)), 1).await;
    leftover(rig, &of(id), 7).await;
    let waiting = rig.request().await;
    leftover(rig, &of(waiting), 1).await;
    // It may be an upload that is still going on.
    assert_eq!(sweep(rig).await, Swept::default());
    age();
    assert_eq!(sweep(rig).await, Swept { removed: 2, ..Swept::default() });
    // The job of the other may still commit it.
    let mut kept = [id, waiting].map(|id| of(id).attempt(1));
    kept.sort_by_key(ToString::to_string);
    assert_eq!(attempts(rig).await, kept);
    assert_eq!(checked(rig, &rig.app, id).await.damage, None);
    // Without its manifest it is damaged, and may yet be mended by hand.
    rig.app.store.retract(&of(id).attempt(1)).await.unwrap();
    assert_eq!(sweep(rig).await, Swept::default());
    assert_eq!(attempts(rig).await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_backup_is_made_of_is_removed_from_a_folder_after_a_while() {
    let mut rig = Rig::new().await;
    rig.app = sealed(&rig, &[1]);
    let folder = rig.folder.path().join("backups");
    removes_what_no_backup_is_made_of(&rig, || age(&folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_backup_is_made_of_is_removed_from_a_bucket_after_a_while() {
    let (rig, server) = with_bucket(PATIENCE).await;
    removes_what_no_backup_is_made_of(&rig, || server.age()).await;
}

/// More than two parts of an upload.
const LONG: (usize, usize) = (1200, 10_000);

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_ended_only_when_no_job_may_finish_it() {
    let (rig, server) = with_bucket(PATIENCE).await;
    rig.server.fill(LONG.0, LONG.1);
    // One whose beginning gets no answer is begun again, and the first is left.
    server.inject(S3Call::CreateUpload, S3Fault::LoseReply, 1);
    let id = rig.request().await;
    rig.run(None).await;
    assert_eq!(server.uploads().len(), 1);
    let running = rig.request().await;
    rig.claim().await.unwrap();
    let artifact = backup_key(&rig, running).attempt(1).artifact(0);
    let bytes = Some((LONG.0 * LONG.1) as u64);
    let mut sink = rig.app.store.create(&artifact, bytes).await.unwrap();
    for _ in 0..LONG.0 {
        sink.write(vec![7; LONG.1].into()).await.unwrap();
    }
    eventually("it is begun", || (server.uploads().len() == 2).then_some(()));
    assert_eq!(sweep(&rig).await, Swept::default());
    assert_eq!(server.uploads().len(), 2);
    server.age();
    assert_eq!(sweep(&rig).await, Swept::default());
    assert_eq!(server.uploads(), [format!("backups/{artifact}")]);
    sink.finish().await.unwrap();
    assert_eq!(server.uploads(), [""; 0]);
    assert!(server.part_files().is_empty());
    assert_eq!(checked(&rig, &rig.app, id).await.damage, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_a_sweep_leaves_only_whole_backups() {
    let (rig, server) = with_bucket(PATIENCE).await;
    rig.server.fill(LONG.0, LONG.1);
    let mut made = Vec::new();
    for fault in [S3Fault::Refuse, S3Fault::LoseReply, S3Fault::Stall(REQUEST + REQUEST / 2)] {
        for call in [
            S3Call::Put,
            S3Call::Get,
            S3Call::List,
            S3Call::CreateUpload,
            S3Call::UploadPart,
            S3Call::CompleteUpload,
        ] {
            server.inject(call, fault, 1);
        }
        let id = rig.request().await;
        rig.run(None).await;
        assert_eq!(server.faults_left(), 0, "{fault:?}");
        made.push(id);
    }
    server.age();
    assert_eq!(sweep(&rig).await, Swept::default());
    assert_eq!(server.uploads(), [""; 0]);
    assert!(server.part_files().is_empty(), "{:?}", server.part_files());
    // An artifact, its key and the manifest.
    assert_eq!(server.keys().len(), 3 * made.len(), "{:?}", server.keys());
    for id in made {
        assert_eq!(checked(&rig, &rig.app, id).await.damage, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_seals_keys_with_the_new_master_key() {
    let (rig, id, folder) = backed_up().await;
    let artifact = std::fs::read(file(&folder, "shard")).unwrap();
    let both = sealed(&rig, &[2, 1]);
    for rewrapped in [1, 0] {
        let swept = tender(&both).sweep().await.unwrap();
        assert_eq!(swept, Swept { rewrapped, ..Swept::default() });
    }
    assert_eq!(std::fs::read(file(&folder, "shard")).unwrap(), artifact);
    assert_eq!(checked(&rig, &sealed(&rig, &[2]), id).await.damage, None);
}

/// How many keys need which master key, as it is shown.
fn needed(tender: &Tender) -> Vec<String> {
    let mut registry = Registry::default();
    tender.figures.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text.lines().filter(|line| line.starts_with("data_keys{")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_needs_an_earlier_master_key_is_counted_until_nothing_does() {
    let (rig, id, _) = backed_up().await;
    let waiting = rig.request().await;
    let key = BackupKey { project: rig.project.clone(), instance: rig.instance, backup: waiting };
    leftover(&rig, &key, 1).await;
    let [first, second] = [1, 2].map(|seed| master_key(seed).id());
    // Without the earlier key in the file nobody can seal the new one.
    let alone = tender(&sealed(&rig, &[2]));
    let swept = alone.sweep().await.unwrap();
    assert_eq!(swept, Swept { failed: 1, earlier: 2, ..Swept::default() });
    assert_eq!(needed(&alone), ["data_keys{master_key=\"unknown\"} 2"]);
    let both = sealed(&rig, &[2, 1]);
    // A job may be at work on the other.
    let tender = tender(&both);
    let swept = tender.sweep().await.unwrap();
    assert_eq!(swept, Swept { rewrapped: 1, earlier: 1, ..Swept::default() });
    let mut expected = [&first, &second].map(|id| format!("data_keys{{master_key=\"{id}\"}} 1"));
    expected.sort();
    let mut shown = needed(&tender);
    shown.sort();
    assert_eq!(shown, expected);
    rig.run(None).await;
    assert_eq!(rig.backup(waiting).await.state, BackupState::Succeeded);
    let swept = tender.sweep().await.unwrap();
    assert_eq!(swept, Swept { rewrapped: 1, ..Swept::default() });
    assert_eq!(needed(&tender), [format!("data_keys{{master_key=\"{second}\"}} 2")]);
    for id in [id, waiting] {
        assert_eq!(checked(&rig, &sealed(&rig, &[2]), id).await.damage, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_that_the_catalog_does_not_know_are_sealed_anew_too() {
    let (rig, id, _) = backed_up().await;
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = without_catalog(&rig, folder.path()).await;
    let both = App { catalog: app.catalog, ..sealed(&rig, &[2, 1]) };
    let swept = tender(&both).sweep().await.unwrap();
    assert_eq!(swept, Swept { rewrapped: 1, unknown: 1, ..Swept::default() });
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

    // As `catalog rebuild` does: with a key its project administers the service again.
    let key = NewCredential { project: rig.project.clone(), ..NewCredential::mint(&app) };
    app.add_first_credential(&key).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_marks_what_the_store_has_no_longer() {
    let (rig, sound, _) = backed_up().await;
    let mut folders = Vec::new();
    for _ in 0..2 {
        let id = rig.request().await;
        rig.run(None).await;
        let detail = rig.app.get_backup(&rig.caller, id).await.unwrap();
        folders.push((id, Path::new(&detail.locations[0]).parent().unwrap().to_owned()));
    }
    std::fs::remove_dir_all(&folders[0].1).unwrap();
    std::fs::remove_file(file(&folders[1].1, "shard")).unwrap();
    for _ in 0..2 {
        let rebuilt = rig.app.rebuild().await.unwrap();
        assert_eq!((rebuilt.added, rebuilt.known, rebuilt.lost), (0, 2, 2));
    }
    for ((id, _), what) in folders.iter().zip(["manifest", "artifact"]) {
        let found = rig.app.catalog.find_backup(&rig.project, *id).await.unwrap().unwrap();
        let told = format!("its {what} is missing from the store");
        assert_eq!((found.damage, found.checked_at), (Some(told), Some(rig.app.clock.now())));
        let (backup, options) = (*id, RestoreOptions::default());
        let wish = RequestRestore { backup, options, note: None };
        assert!(rig.app.request_restore(&rig.caller, rig.instance, wish).await.is_err());
    }
    assert_eq!(rig.backup(sound).await.damage, None);
}

/// Stores another manifest of the rig's instance, made `seconds` after its like.
async fn told_too(rig: &Rig, like: &Manifest, seconds: i64, change: impl Fn(&mut Manifest)) {
    let backup = BackupId::mint(&*rig.app.entropy);
    let created_at = like.created_at + SignedDuration::from_secs(seconds);
    let mut manifest = Manifest { backup_id: backup.to_string(), created_at, ..like.clone() };
    // As from a replica, which captures prefer.
    manifest.artifacts[0].source.address = "10.0.0.7:6380".to_owned();
    change(&mut manifest);
    let key = BackupKey { project: rig.project.clone(), instance: rig.instance, backup };
    rig.app.store.commit(&key.attempt(1), &manifest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_instance_is_where_and_what_it_was_at_last() {
    let (rig, _, _) = backed_up().await;
    rig.pass(60);
    let wish = RequestBackup { dialect: RdbDialect::Portable, ..RequestBackup::default() };
    let id = rig.app.request_backup(&rig.caller, rig.instance, wish).await.unwrap();
    rig.run(None).await;
    let before = listed(&rig, &rig.app).await;
    let manifest = rig.app.get_backup(&rig.caller, id).await.unwrap().manifest.unwrap().unwrap();
    told_too(&rig, &manifest, 60, |later| later.instance_name = "renamed".to_owned()).await;
    told_too(&rig, &manifest, -10, |earlier| {
        earlier.instance_name = "first".to_owned();
        earlier.instance_address = Some("10.0.0.1:6379".to_owned());
    })
    .await;
    let seen = async || {
        let fresh = tempfile::tempdir().unwrap();
        let (app, _) = without_catalog(&rig, fresh.path()).await;
        app.rebuild().await.unwrap();
        let instance = app.get_instance(&rig.caller, rig.instance).await.unwrap();
        let mut known = listed(&rig, &app).await;
        known.retain(|backup| before.iter().any(|earlier| earlier.id == backup.id));
        assert_eq!(known, before);
        (instance.name.to_string(), instance.connection.address)
    };
    let its_own = rig.app.get_instance(&rig.caller, rig.instance).await.unwrap();
    let its_own = its_own.connection.address;
    assert_eq!(seen().await, ("renamed".to_owned(), its_own));
    // Of before manifests had it: then nothing better is known than the source.
    told_too(&rig, &manifest, 120, |old| {
        (old.instance_address, old.dialect) = (None, None);
    })
    .await;
    let source = Address { host: "10.0.0.7".to_owned(), port: 6380 };
    assert_eq!(seen().await, ("orders".to_owned(), source));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_catalog_tells_safety_backups_apart() {
    let (rig, id, _) = backed_up().await;
    let manifest = rig.app.get_backup(&rig.caller, id).await.unwrap().manifest.unwrap().unwrap();
    told_too(&rig, &manifest, 60, |later| later.trigger = "safety".to_owned()).await;
    let fresh = tempfile::tempdir().unwrap();
    let (app, _) = without_catalog(&rig, fresh.path()).await;
    app.rebuild().await.unwrap();
    let triggers = listed(&rig, &app).await.into_iter().map(|backup| backup.trigger);
    assert_eq!(triggers.collect::<Vec<_>>(), [Trigger::Safety, Trigger::Manual]);
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
