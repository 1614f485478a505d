use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use cachevault_app::{MasterKey, Sealer};
use cachevault_store::{Folder, FolderStore, ObjectKind, SealedStore, Store};
use cachevault_testkit::{SeededEntropy, Server, eventually};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cachevault");

/// The service with a data folder of its own, ended when dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) endpoint: String,
    pub(crate) data_dir: PathBuf,
}

impl Service {
    pub(crate) fn start(data_dir: &Path, options: &[&str]) -> Self {
        Self::start_by(Command::new(BINARY), data_dir, options)
            .expect("the service says that it is ready")
    }

    /// Starts the service by `command`, to which its arguments are added. `None` when the process
    /// ended before it was ready.
    pub(crate) fn start_by(
        mut command: Command,
        data_dir: &Path,
        options: &[&str],
    ) -> Option<Self> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data_dir.with_extension("log"))
            .unwrap();
        let mut child = command
            .args(["serve", "--log-level", "debug", "--data-dir"])
            .arg(data_dir)
            .args((!options.contains(&"--listen")).then_some("--listen=127.0.0.1:0"))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(endpoint) = line.trim().strip_prefix("cachevault is ready at ") else {
            child.wait().unwrap();
            return None;
        };
        Some(Self { child, endpoint: endpoint.to_owned(), data_dir: data_dir.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a client command against this service.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        client(&self.data_dir, arguments)
    }

    /// Runs a client command that must succeed; gives its JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    #[track_caller]
    pub(crate) fn adopt(&self, server: &Server) {
        self.adopt_as("orders", server);
    }

    #[track_caller]
    pub(crate) fn adopt_as(&self, name: &str, server: &Server) {
        let url = format!("redis://127.0.0.1:{}", server.port);
        self.json(&["instance", "add", "--name", name, &url]);
    }

    /// What an unsigned request gets: the body, a blank and the status.
    pub(crate) fn get(&self, path: &str) -> String {
        let url = format!("{}{path}", self.endpoint);
        let output = Command::new("curl")
            .args(["-s", "--noproxy", "*", "-w", " %{http_code}", &url])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    pub(crate) fn newest_backup(&self) -> Value {
        self.json(&["backup", "list", "orders"])["items"][0].clone()
    }

    /// Waits until the newest backup has ended.
    #[track_caller]
    pub(crate) fn settled(&self) -> Value {
        eventually("the newest backup ends", || {
            let backup = self.newest_backup();
            matches!(backup["state"].as_str(), Some("succeeded" | "failed")).then_some(backup)
        })
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.with_extension("log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end of the process; its exit code, if it was not killed.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let status = self.child.wait().unwrap();
        status.code()
    }

    /// Whether the process has ended by SIGKILL.
    pub(crate) fn was_killed(&mut self) -> bool {
        let status = self.child.try_wait().unwrap();
        status.is_some_and(|status| status.signal() == Some(9))
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn client(data_dir: &Path, arguments: &[&str]) -> Output {
    client_command(data_dir, arguments).output().unwrap()
}

pub(crate) fn client_command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--data-dir").arg(data_dir);
    command
}

/// A folder for the data and the log of one service.
pub(crate) fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    (folder, data_dir)
}

/// All files of the store that belong to backups, and all that no part of it should have left.
pub(crate) fn stored(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data_dir.join("backups")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.retain(|file| is_of_a_backup(&file.to_string_lossy()));
    found.sort();
    found
}

/// Whether an object is neither the store's id nor what a check left that was killed, which a later
/// one removes after an hour.
pub(crate) fn is_of_a_backup(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap();
    name != ".cachevault-store" && !name.starts_with(".check-")
}

/// Checks that all of one backup is stored, and nothing else: its artifact, the key of that, and
/// the manifest.
#[track_caller]
pub(crate) fn assert_one_backup(files: &[PathBuf], what: &str) {
    let mut folders: Vec<_> = files.iter().map(|file| file.parent().unwrap()).collect();
    folders.dedup();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
    let [key, manifest, artifact] = names[..] else { panic!("{what}: {files:?}") };
    let key = key.to_str().unwrap();
    assert!(key.starts_with("data-key-") && key.ends_with(".json"), "{what}: {files:?}");
    assert_eq!((manifest, artifact), ("manifest.json".as_ref(), "shard-0000.rdb.zst".as_ref()));
    assert_eq!(folders.len(), 1, "{what}: {files:?}");
}

/// The RDB in the only artifact of the store, decrypted with the master key of the data folder and
/// decoded by the `zstd` format alone.
pub(crate) fn only_rdb(data_dir: &Path) -> Vec<u8> {
    let key = std::fs::read_to_string(data_dir.join("master.key")).unwrap();
    let sealer = Sealer::new(&MasterKey::from_hex(&key).unwrap(), Arc::new(SeededEntropy::new(1)));
    let folder = FolderStore::at(data_dir.join("backups"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let packed = runtime.block_on(async {
        let store = SealedStore::new(Arc::new(folder), Arc::new(sealer), true);
        let listed = store.list(&Folder::all(), None).await.unwrap();
        let artifacts = listed.into_iter().filter_map(|object| match object.name.kind() {
            Some(ObjectKind::Artifact(key)) => Some(key),
            _ => None,
        });
        let artifacts: Vec<_> = artifacts.collect();
        let [artifact] = &artifacts[..] else { panic!("{artifacts:?}") };
        let mut source = store.open(artifact).await.unwrap();
        let mut packed = Vec::new();
        while let Some(piece) = source.read().await.unwrap() {
            packed.extend_from_slice(&piece);
        }
        packed
    });
    zstd::decode_all(&packed[..]).unwrap()
}
