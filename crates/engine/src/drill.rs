//! Proves a backup by loading it into a throw-away server of this machine.
//!
//! The server is empty, listens on the loopback address under a password of its own, and is gone
//! with its folder when the drill ends. It loads the backup as any target does, and its data is
//! read back and compared.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cachevault_domain::{Address, Login, RestoreOptions, Target};
use cachevault_store::{ArtifactEntry, ArtifactKey, Store};
use secrecy::SecretString;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::gate::SourceGate;
use crate::meter::Meter;
use crate::restore::{
    Comparison, LoadRequest, Loaded, OurAddress, PlanRequest, ProofDemand, RestoreError,
    RestoreLimits, load, plan, prepare,
};

const START_MAX: Duration = Duration::from_secs(30);
const START_POLL: Duration = Duration::from_millis(10);
const CONFIGURATION_FILE: &str = "configuration";
const LOG_FILE: &str = "log";
/// As many databases as any sensible server has.
const DATABASES: u32 = 16_384;
/// A server needs some memory beside its data; so does everyone else on this machine.
const MEMORY_PERCENT: u64 = 125;

/// What to prove, and where.
#[derive(Debug, Clone, Copy)]
pub struct DrillRequest<'a> {
    /// Where the artifact is.
    pub store: &'a dyn Store,
    /// The artifact.
    pub key: &'a ArtifactKey,
    /// What its manifest says of it.
    pub entry: &'a ArtifactEntry,
    /// Server binaries to try, paths or names; one after the other, until one proves the backup.
    pub servers: &'a [PathBuf],
    /// Where the throw-away server has its folder.
    pub folder: &'a Path,
    /// 80 bytes that were never used before.
    pub random: [u8; 80],
    /// Keeps two captures from the same server.
    pub gate: &'a SourceGate,
    /// Bounds.
    pub limits: RestoreLimits,
}

/// A backup was loaded, and its data was equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The server that loaded it, such as `redis 7.0.15`.
    pub server: String,
    /// Its keys.
    pub keys: u64,
    /// Keys with data of modules that was counted, and not compared.
    pub uncompared: u64,
    /// Keys of the backup without elements, which the server leaves out.
    pub empty: u64,
}

/// Why a backup was not proven.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// No server of this machine proves it; of each, why not.
    #[error("no server of this machine proves it: {}; name others with --drill-servers", .0.join("; "))]
    NoServer(Vec<String>),
    /// The machine has too little memory for it.
    #[error(
        "it needs about {needed_bytes} bytes of memory, and this machine has {available_bytes} to spare"
    )]
    Memory {
        /// What it needs.
        needed_bytes: u64,
        /// What there is.
        available_bytes: u64,
    },
    /// The folder for the server cannot be used.
    #[error("the folder for a throw-away server cannot be used: {0}")]
    Folder(#[source] io::Error),
    /// It could not be loaded, or its data differs.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Loads an artifact into a throw-away server, and compares what that holds with it.
///
/// # Errors
/// [`DrillError`]; nothing is left of the server in any case.
pub async fn drill(
    request: DrillRequest<'_>,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Proven, DrillError> {
    let mut refused = Vec::new();
    for binary in request.servers {
        meter.enter("starting a server");
        match attempt(&request, binary, meter, cancel).await {
            Ok(proven) => return Ok(proven),
            Err(Attempted::Refused(reason)) => refused.push(reason),
            Err(Attempted::Failed(error)) => return Err(error),
        }
    }
    Err(DrillError::NoServer(refused))
}

/// Why a server has not proven a backup.
enum Attempted {
    /// Another one may.
    Refused(String),
    /// None will.
    Failed(DrillError),
}

async fn attempt(
    request: &DrillRequest<'_>,
    binary: &Path,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Proven, Attempted> {
    let (own, replication) = request.random.split_at(40);
    let (id, password) = own.split_at(20);
    let folder = request.folder.join(hex::encode(id));
    let started = ThrowAway::start(binary, folder, &hex::encode(password)).await;
    let server =
        started.map_err(|error| Attempted::Refused(format!("`{}`: {error}", binary.display())))?;
    let options = RestoreOptions { prove: Some(true), ..RestoreOptions::default() };
    let plan = plan(PlanRequest {
        target: &server.target,
        entry: request.entry,
        options: &options,
        has_certificate: false,
        target_writes: None,
        command: request.limits.command,
    });
    let unplanned =
        |error: RestoreError| Attempted::Refused(format!("`{}`: {error}", binary.display()));
    let plan = plan.await.map_err(unplanned)?;
    let name = format!("{} {}", plan.engine.as_str(), plan.version);
    if let Some(blocker) = plan.blockers.first() {
        return Err(Attempted::Refused(format!("{name}: {blocker}")));
    }
    enough_memory(plan.needed_bytes).map_err(Attempted::Failed)?;
    let mut random = [0; 40];
    random.copy_from_slice(replication);
    match server.load(request, random, meter, cancel).await {
        Ok(Loaded { comparison, keys }) => {
            let Comparison { uncompared, empty, .. } = comparison;
            Ok(Proven { server: name, keys, uncompared, empty })
        }
        // The artifact is to blame, or nobody.
        Err(error @ (RestoreError::Artifact(_) | RestoreError::Cancelled)) => {
            Err(Attempted::Failed(error.into()))
        }
        Err(error) => Err(Attempted::Refused(format!("{name}: {error}"))),
    }
}

fn enough_memory(needed_bytes: u64) -> Result<(), DrillError> {
    let Some(available_bytes) = available_memory() else { return Ok(()) };
    if needed_bytes / 100 * MEMORY_PERCENT <= available_bytes {
        return Ok(());
    }
    Err(DrillError::Memory { needed_bytes, available_bytes })
}

/// Memory of this machine that can be had without swapping, bytes; `None` where it does not tell.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// A server that is ended, and its folder removed, when it is dropped.
struct ThrowAway {
    target: Target,
    _process: Child,
    _folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl ThrowAway {
    async fn start(binary: &Path, folder: PathBuf, password: &str) -> Result<Self, String> {
        let make = |error: io::Error| format!("its folder cannot be made: {error}");
        std::fs::create_dir_all(&folder).map_err(make)?;
        let folder = Folder(folder);
        let address = Address { host: "127.0.0.1".to_owned(), port: free_port().map_err(make)? };
        let configuration = folder.0.join(CONFIGURATION_FILE);
        write_private(&configuration, &settings(&folder.0, address.port, password))
            .map_err(make)?;
        let mut process = Command::new(binary)
            // Arguments can be seen by everyone; and what comes by a pipe comes too late when we are
            // killed: a server without settings listens everywhere, for everyone.
            .arg(&configuration)
            .current_dir(&folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("it cannot be started: {error}"))?;
        let password = SecretString::from(password.to_owned());
        let login = Some(Login { username: None, password });
        let target = Target { login, ..Target::trusted(address) };
        let until = Instant::now() + START_MAX;
        while Client::connect(&target, START_MAX).await.is_err() {
            if process.try_wait().is_ok_and(|ended| ended.is_some()) || Instant::now() >= until {
                return Err(format!("it does not start: {}", last_words(&folder.0)));
            }
            tokio::time::sleep(START_POLL).await;
        }
        Ok(Self { target, _process: process, _folder: folder })
    }

    async fn load(
        &self,
        request: &DrillRequest<'_>,
        random: [u8; 40],
        meter: &Meter,
        cancel: &CancellationToken,
    ) -> Result<Loaded, RestoreError> {
        let ours = OurAddress { host: Some("127.0.0.1".to_owned()), ..OurAddress::default() };
        let limits = request.limits;
        let prepared = prepare(&self.target, false, &ours, random, &limits).await?;
        let loading = LoadRequest {
            target: &self.target,
            store: request.store,
            key: request.key,
            entry: request.entry,
            prove: ProofDemand::Required,
            identity: None,
            gate: request.gate,
            limits,
        };
        load(loading, &prepared, meter, cancel).await
    }
}

fn settings(folder: &Path, port: u16, password: &str) -> String {
    let folder = folder.display();
    format!(
        "bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir \"{folder}\"\n\
         logfile \"{folder}/{LOG_FILE}\"\nsave \"\"\nappendonly no\ndatabases {DATABASES}\n\
         daemonize no\n"
    )
}

/// Writes a new file that nobody else may read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The end of a server's log.
fn last_words(folder: &Path) -> String {
    const CHARS_MAX: usize = 300;
    let log = std::fs::read(folder.join(LOG_FILE)).unwrap_or_default();
    let end = &log[log.len().saturating_sub(CHARS_MAX)..];
    end.escape_ascii().to_string()
}

/// Ends throw-away servers that a crash of this service has left in `folder`, and removes what they
/// left.
///
/// # Errors
/// When the folder cannot be read; one that is not there holds nothing.
pub fn sweep_drills(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        end_servers_in(&path);
        std::fs::remove_dir_all(&path)?;
    }
    Ok(())
}

/// Ends every process that lives in the folder: a server is there before it can say who it is.
fn end_servers_in(folder: &Path) {
    let Ok(folder) = folder.canonicalize() else { return };
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(rustix::process::Pid::from_raw) else { continue };
        // That of another user cannot be read, and is none of ours.
        if std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder) {
            tracing::info!(pid = pid.as_raw_nonzero(), "ending a server that a drill had left");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
