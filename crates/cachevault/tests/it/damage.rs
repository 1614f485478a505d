//! Every way in which what is stored can be damaged: named by `verify`, refused by a restore.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use cachevault_app::{MasterKey, Sealer};
use cachevault_store::{FolderStore, ObjectKind, SealedStore, Store};
use cachevault_testkit::{SeededEntropy, Server, newest_redis};
use serde_json::Value;

use crate::bucket::Bucket;
use crate::service::{Service, folder, stored};

/// The files of one backup.
struct Files {
    data_dir: PathBuf,
    folder: PathBuf,
}

impl Files {
    fn of(data_dir: &Path, id: &str) -> Self {
        let files = stored(data_dir);
        let file = files.iter().find(|file| file.to_string_lossy().contains(id)).unwrap();
        Self { data_dir: data_dir.to_owned(), folder: file.parent().unwrap().to_owned() }
    }

    fn file(&self, part: &str) -> PathBuf {
        let files = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.to_string_lossy().contains(part)).unwrap()
    }

    fn remove(&self, part: &str) {
        std::fs::remove_file(self.file(part)).unwrap();
    }

    fn change(&self, part: &str, change: impl Fn(&mut Vec<u8>)) {
        let path = self.file(part);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    fn copy(&self, part: &str, from: &Self) {
        std::fs::copy(from.file(part), self.file(part)).unwrap();
    }

    /// The manifest, decrypted.
    fn manifest(&self) -> Value {
        let key = std::fs::read_to_string(self.data_dir.join("master.key")).unwrap();
        let entropy = Arc::new(SeededEntropy::new(1));
        let sealer = Sealer::new(&MasterKey::from_hex(key.trim()).unwrap(), entropy);
        let root = FolderStore::at(self.data_dir.join("backups"));
        let store = SealedStore::new(Arc::new(root), Arc::new(sealer), true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let manifest = runtime.block_on(async {
            let listed = store.list(&cachevault_store::Folder::all(), None).await.unwrap();
            let is_it = |key: &cachevault_store::AttemptKey| {
                self.folder.ends_with(Path::new(&key.to_string()))
            };
            let found = listed.into_iter().find_map(|object| match object.name.kind() {
                Some(ObjectKind::Manifest(key)) if is_it(&key) => Some(key),
                _ => None,
            });
            store.find_manifest(&found.unwrap()).await.unwrap().unwrap()
        });
        serde_json::to_value(manifest).unwrap()
    }

    /// Puts another manifest in place of the one that is there; a plain one is as good.
    fn rewrite(&self, change: impl Fn(&mut Value)) {
        let mut manifest = self.manifest();
        change(&mut manifest);
        std::fs::write(self.file("manifest"), manifest.to_string()).unwrap();
    }
}

/// What is done to one backup, given another; what `verify` says of it; whether the request for a
/// restore says so too, before anything was checked.
type Damage = (&'static str, fn(&Files, &Files), &'static str, bool);

const DAMAGES: [Damage; 16] = [
    ("a missing part", |f, _| f.remove("shard"), "not found in the store", false),
    ("a part cut short", |f, _| f.change("shard", |b| b.truncate(500)), "size is 500", false),
    ("a longer part", |f, _| f.change("shard", |b| b.resize(1 << 20, 0)), "size is 1048576", false),
    (
        "a flipped byte",
        |f, _| {
            f.change("shard", |b| {
                let at = b.len() / 2;
                b[at] ^= 1;
            })
        },
        "bytes, but some of them were changed",
        false,
    ),
    (
        "the key of another backup",
        |f, other| f.copy("data-key", other),
        "does not open with the master key that it names",
        true,
    ),
    (
        "a key under an unknown master key",
        |f, _| {
            let key = f.file("data-key");
            let text = std::fs::read_to_string(&key).unwrap();
            let mut document: Value = serde_json::from_str(&text).unwrap();
            document["master_key"] = "0123456789abcdef".into();
            std::fs::remove_file(key).unwrap();
            let moved = f.folder.join("data-key-0123456789abcdef.json");
            std::fs::write(moved, document.to_string()).unwrap();
        },
        "the master key 0123456789abcdef, which this service does not have",
        true,
    ),
    ("a lost key", |f, _| f.remove("data-key"), "its key is missing from the store", true),
    (
        "a damaged key",
        |f, _| f.change("data-key", |b| b.truncate(9)),
        "the document of the backup's key cannot be read",
        true,
    ),
    (
        "an older manifest",
        |f, _| f.rewrite(|manifest| manifest["version"] = 0.into()),
        "the manifest has version 0, which there never was",
        true,
    ),
    (
        "a newer manifest",
        |f, _| f.rewrite(|manifest| manifest["version"] = 99.into()),
        "the manifest has version 99, this build reads up to 1",
        true,
    ),
    (
        "a manifest without files",
        |f, _| f.rewrite(|manifest| manifest["artifacts"] = Value::Array(Vec::new())),
        "its manifest names no artifacts",
        true,
    ),
    (
        "files without a manifest",
        |f, _| f.remove("manifest"),
        "its manifest is missing from the store",
        true,
    ),
    (
        "the manifest of another backup",
        |f, other| f.copy("manifest", other),
        "it is encrypted with another key than the one of its backup",
        true,
    ),
    (
        "the text of the manifest of another backup",
        |f, other| {
            std::fs::write(f.file("manifest"), other.manifest().to_string()).unwrap();
        },
        "its manifest is of another backup",
        true,
    ),
    (
        "a manifest of other sizes",
        |f, _| f.rewrite(|manifest| manifest["artifacts"][0]["rdb"]["size_bytes"] = 77.into()),
        "its manifest is of 77 bytes of RDB",
        true,
    ),
    (
        "no manifest but some text",
        |f, _| std::fs::write(f.file("manifest"), "{\"version\": 1}").unwrap(),
        "not a manifest",
        true,
    ),
];

fn standard_error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asks for a restore that is to be refused by the request itself, or by its first step.
#[track_caller]
fn assert_refused(service: &Service, id: &str, (what, _, named, at_once): &Damage) {
    let create = ["restore", "create", "orders", "--backup", id, "--wait"];
    let output = service.run(&create);
    let told = standard_error(&output);
    assert!(told.contains(named), "{what}: {told}");
    if *at_once {
        assert_eq!(output.status.code(), Some(4), "{what}: {told}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{what}: {told}");
    assert!(told.contains("the instance is unchanged"), "{what}: {told}");
    let listed = service.json(&["restore", "list", "orders"]);
    let restore = &listed["items"][0];
    assert_eq!(restore["failure"]["dcs_code"], "dcs.08.0006", "{what}: {restore}");
}

#[test]
fn every_damage_is_named_by_verify_and_refused_by_a_restore() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(500, 100);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let backup = || {
        let backup = service.json(&["backup", "create", "orders", "--wait"]);
        backup["id"].as_str().unwrap().to_owned()
    };
    let sound = backup();
    let damaged: Vec<_> = DAMAGES.iter().map(|damage| (backup(), damage)).collect();
    let other = Files::of(&data_dir, &sound);
    for (id, (_, harm, ..)) in &damaged {
        harm(&Files::of(&data_dir, id), &other);
    }
    // What it holds now is in no backup, so none that came through could pass for it.
    server.ask(&["SET", "only", "here"]);
    let digest = server.digest();
    for (id, damage) in &damaged {
        assert_refused(&service, id, damage);
        assert_eq!(server.digest(), digest, "{}", damage.0);
    }

    let output = service.run(&["verify", "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let told = standard_error(&output);
    assert!(told.contains("16 of 17 backups are damaged"), "{told}");
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let damage_of = |id: &str| {
        let backups = checked["items"].as_array().unwrap();
        backups.iter().find(|backup| backup["id"] == id).unwrap()["damage"].clone()
    };
    assert_eq!(damage_of(&sound), Value::Null);
    for (id, (what, _, named, _)) in &damaged {
        let damage = damage_of(id).as_str().unwrap().to_owned();
        let by_others = DAMAGES.iter().filter(|other| damage.contains(other.2)).count();
        assert!(damage.contains(named) && by_others == 1, "{what}: {damage}");
        let refused = service.run(&["restore", "create", "orders", "--backup", id]);
        assert_eq!(refused.status.code(), Some(4), "{what}");
    }
    assert_eq!(server.digest(), digest);
}

#[test]
fn a_store_that_is_away_ends_verify_soon_and_hides_no_record() {
    let (_folder, data_dir) = folder();
    let mut bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &[]);
    let service = bucket.serve(&data_dir, &["--store-timeout", "2s"]);
    service.adopt(&server);
    let ids = [(); 2].map(|()| {
        let backup = service.json(&["backup", "create", "orders", "--wait"]);
        backup["id"].as_str().unwrap().to_owned()
    });
    bucket.stop();
    let output = service.run(&["verify"]);
    let told = standard_error(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("0 of 0 backups are damaged, 2 more could not be verified"), "{told}");
    for id in &ids {
        assert!(told.contains(&format!("{id} was not verified: read `")), "{told}");
        let shown = service.json(&["backup", "show", id]);
        assert!(shown["store_error"].as_str().unwrap().contains("the store failed"), "{shown}");
        assert_eq!((&shown["damage"], &shown["restorable"]), (&Value::Null, &true.into()));
    }
    bucket.start_again();
    let shown = service.json(&["backup", "show", &ids[0]]);
    assert_eq!(
        (&shown["store_error"], shown["artifacts"].as_array().unwrap().len()),
        (&Value::Null, 1)
    );
}
