//! `cachevault inspect` on what real servers wrote, sound and damaged.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cachevault_testkit::{Server, newest_redis, repository_file};
use serde_json::Value;

use crate::service::{BINARY, Service, client, folder, stored};
use crate::sources::resident_kib;

fn sample(name: &str) -> PathBuf {
    repository_file("fixtures/rdb").join(name)
}

fn inspect(source: &Path, options: &[&str]) -> Output {
    Command::new(BINARY).arg("inspect").arg(source).args(options).output().unwrap()
}

fn inspect_bytes(bytes: &[u8], options: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.rdb");
    fs::write(&path, bytes).unwrap();
    inspect(&path, options)
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// Every sample that has a listing of the server that wrote it, with the number of its keys.
fn samples() -> Vec<(PathBuf, u64)> {
    let mut samples = Vec::new();
    for folder in fs::read_dir(repository_file("fixtures/rdb")).unwrap().map(Result::unwrap) {
        if !folder.path().is_dir() {
            continue;
        }
        for entry in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            let keys = entry.path().with_extension("keys");
            if entry.path().extension().is_some_and(|e| e == "rdb") && keys.exists() {
                let listing = fs::read_to_string(keys).unwrap();
                let count = listing.lines().filter(|line| !line.starts_with('#')).count();
                samples.push((entry.path(), count as u64));
            }
        }
    }
    assert!(samples.len() > 50, "{}", samples.len());
    samples
}

#[test]
fn every_count_agrees_with_the_server_that_wrote_the_sample() {
    for (path, keys) in samples() {
        let document: Value =
            serde_json::from_str(&stdout(&inspect(&path, &["--json"]))).expect("one document");
        assert_eq!(document["report"]["total"]["keys"], keys, "{}", path.display());
        assert_eq!(document["digest"]["key_count"], keys, "{}", path.display());
        let size = fs::metadata(&path).unwrap().len();
        assert_eq!(document["envelope"]["size_bytes"], size, "{}", path.display());
        let listing = stdout(&inspect(&path, &["--keys"]));
        assert_eq!(listing.lines().count() as u64, keys, "{}", path.display());
        let verdict = stdout(&inspect(&path, &["--verify"]));
        assert!(verdict.contains(&format!(", {keys} keys, {size} bytes, ")), "{verdict}");
    }
}

#[test]
fn the_listing_says_for_each_key_what_it_is() {
    let path = sample("redis-7.0.15/ttl.rdb");
    let text = stdout(&inspect(&path, &["--keys"]));
    let line = text.lines().find(|line| line.contains("ttl:hash")).unwrap();
    assert_eq!(line, "0\tttl:hash\thash\tlistpack\t1\t22\t2027-01-18T14:32:32.881Z");
    let lines = stdout(&inspect(&path, &["--keys", "--json"]));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["name"] == "ttl:hash").unwrap();
    assert_eq!(line["expires_at"], "2027-01-18T14:32:32.881Z");
    assert_eq!((&line["kind"], &line["stored_bytes"]), (&"hash".into(), &22.into()));
    let name = b"REDIS0009\x00\x05a\n\xff\\b\x01v\xff\0\0\0\0\0\0\0\0";
    let text = stdout(&inspect_bytes(name, &["--keys"]));
    assert_eq!(text, "0\ta\\n\\xff\\\\b\tstring\tstring\t1\t7\t-\n");
}

#[test]
fn people_get_a_summary() {
    let text = stdout(&inspect(&sample("valkey-9.1.2/all.rdb"), &["--top", "1"]));
    for part in ["VALKEY080", "valkey 9.1.2", "Encodings", "str:big", "mylib", "digest of keys"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("list:bigelem"), "{text}");
}

#[test]
fn compression_and_pipes_change_nothing() {
    let path = sample("redis-7.0.15/all.rdb");
    let plain = fs::read(&path).unwrap();
    let packed = zstd::encode_all(&plain[..], 3).unwrap();
    let verdict = stdout(&inspect(&path, &["--verify"]));
    assert_eq!(stdout(&inspect_bytes(&packed, &["--verify"])), verdict);
    for bytes in [&plain, &packed] {
        assert_eq!(stdout(&from_stdin(bytes, &["--verify"])), verdict);
    }
    let slots = stdout(&inspect(&path, &["--json", "--slots"]));
    let slots: Value = serde_json::from_str(&slots).unwrap();
    assert!(slots["digest"]["slots"].as_object().unwrap().len() > 50);
    let digests = stdout(&from_stdin(&packed, &["--digest"]));
    let keys = slots["digest"]["keys"].as_str().unwrap();
    let functions = slots["digest"]["functions"].as_str().unwrap();
    assert_eq!(digests, format!("{keys}  -\n{functions}  - (functions)\n"));
}

fn from_stdin(bytes: &[u8], options: &[&str]) -> Output {
    let mut child = Command::new(BINARY)
        .args(["inspect", "-"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A source that is refused at once closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

#[test]
fn damage_is_told_with_its_place_and_its_own_exit_code() {
    let sound = fs::read(sample("redis-7.0.15/strings.rdb")).unwrap();
    let mut altered = sound.clone();
    altered[60_000] ^= 1;
    let mut unknown = sound.clone();
    let middle = unknown.windows(2).position(|pair| pair == [0xFB, 15]).unwrap();
    unknown[middle] = 0x3F;
    let packed = zstd::encode_all(&sound[..], 3).unwrap();
    for (bytes, word) in [
        (&altered[..], "CRC-64 mismatch"),
        (&unknown, "CRC-64 mismatch"),
        (&sound[..60_000], "60000 bytes"),
        (&sound[..sound.len() - 1], "does not end"),
        (&[&sound[..], b"x"].concat(), "bytes follow the end"),
        (&packed[..packed.len() / 2], "compression error after"),
        (&[&packed[..], b"x"].concat(), "compression error after"),
        (b"", "after 0 bytes"),
        (b"*3\r\n$3\r\nSET\r\n", "not with REDIS or VALKEY"),
    ] {
        for options in [&["--verify"][..], &["--digest"], &["--keys"], &["--json"], &[]] {
            let (code, message) = complaint(&inspect_bytes(bytes, options));
            assert_eq!(code, Some(1), "{word} {options:?}: {message}");
            assert!(message.contains(word), "{word} {options:?}: {message}");
        }
    }
    let torn = b"REDIS0009\x0b\x01k\x03abc\xff\0\0\0\0\0\0\0\0";
    let (code, message) = complaint(&inspect_bytes(torn, &["--verify"]));
    assert!(code == Some(1) && message.contains("at byte 12: corrupt"), "{message}");
}

#[test]
fn what_a_newer_server_wrote_is_opaque_and_no_damage() {
    let newer = b"REDIS0016\x00\x01k\x01v\x1c\x01a\x05\xff\x54\xc5\x15\xf2\x47\x6f\x04\x6b";
    for options in [&["--verify"][..], &["--digest"], &["--keys"], &["--json"], &[]] {
        let output = inspect_bytes(newer, options);
        let (code, message) = complaint(&output);
        assert_eq!(code, Some(3), "{options:?}: {message}");
        assert!(message.starts_with("opaque: not verified"), "{message}");
        if options.contains(&"--json") {
            let document: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&document["report"], &document["digest"]), (&Value::Null, &Value::Null));
            assert_eq!(document["envelope"]["header"], "REDIS0016");
        }
    }
}

#[test]
fn wrong_usage_is_no_damage() {
    let path = sample("redis-7.0.15/strings.rdb");
    for options in [&["--keys", "--verify"][..], &["--top", "10001"], &["--slots"]] {
        assert_eq!(inspect(&path, options).status.code(), Some(2), "{options:?}");
    }
    for (source, word) in [
        ("no-such-file", "No such file"),
        ("backup:7", "is not a UUID"),
        ("backup:4631832a-14c6-45b0-a0b3-3abd8f591ad1", "cannot list"),
    ] {
        let output = inspect(Path::new(source), &["--data-dir", "no-such-folder"]);
        let (code, message) = complaint(&output);
        assert!(code == Some(2) && message.contains(word), "{source}: {message}");
    }
    let (code, message) = complaint(&inspect_bytes(b"\x1f\x8b\x08\0\0\0\0\0", &["--verify"]));
    assert!(code == Some(2) && message.contains("gzip -dc"), "{message}");
    for options in [&["--verify"][..], &[]] {
        let (code, message) = complaint(&inspect_bytes(b"VCS\x01\0\0\0\0\0\0\0\0", options));
        assert!(code == Some(2) && message.contains("`rdbcompression yes`"), "{message}");
        assert!(!message.contains("damaged"), "{message}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.rdb");
    fs::write(&path, many_keys(0..50_000)).unwrap();
    let mut child = Command::new(BINARY)
        .arg("inspect")
        .arg(&path)
        .arg("--keys")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 1]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(complaint(&output), (Some(0), String::new()));
}

#[test]
fn a_stored_backup_is_inspected_by_its_id() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(100, 100);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let source = format!("backup:{}", backup["id"].as_str().unwrap());
    // Beside the running service, and without it.
    let verdict = stdout(&client(&data_dir, &["inspect", &source, "--verify"]));
    assert!(verdict.contains("REDIS0010, 100 keys"), "{verdict}");
    drop(service);
    assert_eq!(stdout(&client(&data_dir, &["inspect", &source, "--verify"])), verdict);
    let equal = client(&data_dir, &["diff", &source, &source]);
    assert_eq!(stdout(&equal), "0 added, 0 removed, 0 changed, 100 the same\n");
    let file = fs::File::options().write(true).open(artifact(&data_dir)).unwrap();
    file.set_len(100).unwrap();
    let (code, message) = complaint(&client(&data_dir, &["inspect", &source]));
    assert!(code == Some(1) && message.contains("by the manifest"), "{message}");
}

/// A data folder with one backup in it, and how that is named. The service has ended.
fn backed_up(data_dir: &Path, options: &[&str]) -> String {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(100, 1000);
    server.ask(&["SET", "page", &"offer ".repeat(10_000)]);
    let service = Service::start(data_dir, options);
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    format!("backup:{}", backup["id"].as_str().unwrap())
}

fn artifact(data_dir: &Path) -> PathBuf {
    let files = stored(data_dir);
    files.into_iter().find(|file| file.extension().is_some_and(|e| e == "zst")).unwrap()
}

/// Checks that no way of reading a damaged backup ends well.
#[track_caller]
fn assert_damaged(data_dir: &Path, source: &str, word: &str) {
    for options in [&["--verify"][..], &["--digest"], &["--keys"], &["--json"], &[]] {
        let (code, message) =
            complaint(&client(data_dir, &[&["inspect", source], options].concat()));
        assert!(code == Some(1) && message.contains(word), "{word} {options:?}: {message}");
    }
    let (code, message) = complaint(&client(data_dir, &["diff", source, source]));
    assert!(code == Some(2) && message.contains(word), "{word}: {message}");
}

#[test]
fn a_stored_backup_that_was_altered_never_ends_well() {
    let (_folder, data_dir) = folder();
    let source = backed_up(&data_dir, &[]);
    let artifact = artifact(&data_dir);
    let sound = fs::read(&artifact).unwrap();
    for at in [30, sound.len() / 2, sound.len() - 1] {
        let mut altered = sound.clone();
        altered[at] ^= 1;
        fs::write(&artifact, altered).unwrap();
        assert_damaged(&data_dir, &source, "the stored object differs from what was written");
    }
    fs::write(&artifact, [&sound[..], b"x"].concat()).unwrap();
    assert_damaged(&data_dir, &source, "by the manifest");
    fs::remove_file(&artifact).unwrap();
    assert_damaged(&data_dir, &source, "which does not exist");
}

/// It decodes to the very same RDB, and is not what was stored all the same.
#[test]
fn another_encoding_of_the_same_data_is_not_the_stored_backup() {
    let (_folder, data_dir) = folder();
    let source = backed_up(&data_dir, &["--encrypt", "false"]);
    let artifact = artifact(&data_dir);
    let stored = fs::read(&artifact).unwrap();
    // Without encryption it is an ordinary zstd file, and read as one.
    let verdict = stdout(&inspect(&artifact, &["--verify"]));
    assert_eq!(stdout(&client(&data_dir, &["inspect", &source, "--verify"])), verdict);
    fs::remove_file(data_dir.join("master.key")).unwrap();
    assert_eq!(stdout(&client(&data_dir, &["inspect", &source, "--verify"])), verdict);
    let rdb = zstd::decode_all(&stored[..]).unwrap();
    let mut other = zstd::encode_all(&rdb[..], 19).unwrap();
    let padding = stored.len() - other.len() - 8;
    // A frame that decoders skip.
    other.extend([0x50, 0x2A, 0x4D, 0x18]);
    other.extend(u32::try_from(padding).unwrap().to_le_bytes());
    other.resize(stored.len(), 0);
    fs::write(&artifact, &other).unwrap();
    assert_eq!(stdout(&inspect(&artifact, &["--verify"])), verdict);
    assert_damaged(&data_dir, &source, "the SHA-256 is");
}

#[test]
fn an_encrypted_backup_wants_its_master_key() {
    let (_folder, data_dir) = folder();
    let source = backed_up(&data_dir, &[]);
    let refused = |word: &str| {
        let (code, message) = complaint(&client(&data_dir, &["inspect", &source, "--verify"]));
        assert!(code == Some(2) && message.contains(word), "{word}: {message}");
        assert!(message.contains("master.key"), "{message}");
        let (code, message) = complaint(&client(&data_dir, &["diff", &source, &source]));
        assert!(code == Some(2) && message.contains(word), "{word}: {message}");
    };
    let key_file = data_dir.join("master.key");
    let key = fs::read_to_string(&key_file).unwrap();
    fs::remove_file(&key_file).unwrap();
    let before = tree(&data_dir);
    refused("is encrypted under the master key");
    assert_eq!(tree(&data_dir), before, "something was made");
    fs::write(&key_file, format!("{}\n", "5a".repeat(32))).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    refused("which this service does not have");
    fs::write(&key_file, format!("{}\n{key}", "5a".repeat(32))).unwrap();
    stdout(&client(&data_dir, &["inspect", &source, "--verify"]));
    let (code, message) = complaint(&inspect(&artifact(&data_dir), &["--verify"]));
    assert!(code == Some(2) && message.contains("it is encrypted"), "{message}");
    let documents = stored(&data_dir);
    let sealed = documents.iter().find(|file| file.to_string_lossy().contains("data-key"));
    fs::remove_file(sealed.unwrap()).unwrap();
    refused("its key is missing from the store");
}

#[test]
fn what_is_no_backup_is_told_as_such_and_nothing_is_made() {
    let (folder, data_dir) = folder();
    let source = backed_up(&data_dir, &[]);
    let manifest = stored(&data_dir).into_iter().find(|file| file.ends_with("manifest.json"));
    fs::remove_file(manifest.unwrap()).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    let url = format!("file://{}", elsewhere.display());
    let unknown = "backup:4631832a-14c6-45b0-a0b3-3abd8f591ad1";
    for (arguments, word) in [
        (&["inspect", &source][..], "has no manifest"),
        (&["inspect", unknown], "does not exist in"),
        (&["inspect", unknown, "--store", &url], "cannot list"),
        (&["inspect", unknown, "--store", "ftp://x"], "names no store"),
    ] {
        let (code, message) = complaint(&client(&data_dir, arguments));
        assert!(code == Some(2) && message.contains(word), "{arguments:?}: {message}");
    }
    assert!(!elsewhere.exists());
}

/// Every path below a folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            found.extend(tree(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}

#[test]
fn memory_does_not_grow_with_the_source() {
    const LIMIT_KIB: u64 = 40 << 10;
    let rdb = many_keys(0..400_000);
    for options in [&["--verify"][..], &["--digest"], &["--json"], &["--keys"]] {
        let mut child = Command::new(BINARY)
            .args(["inspect", "-"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // All but the last byte: what is still in the pipe is less than what it has read.
        stdin.write_all(&rdb[..rdb.len() - 1]).unwrap();
        let (_, highest) = resident_kib(child.id());
        stdin.write_all(&rdb[rdb.len() - 1..]).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
        assert!(highest < LIMIT_KIB, "{options:?}: {highest} KiB for {} bytes", rdb.len());
    }
}

/// An RDB of strings, without a checksum.
pub(crate) fn many_keys(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut rdb = b"REDIS0009".to_vec();
    for number in numbers {
        let name = format!("user:{number}:profile");
        let value = format!("{number:060}");
        rdb.extend([0, name.len() as u8]);
        rdb.extend(name.as_bytes());
        rdb.push(value.len() as u8);
        rdb.extend(value.as_bytes());
    }
    rdb.push(0xFF);
    rdb.extend([0; 8]);
    rdb
}
