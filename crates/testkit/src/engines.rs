use std::path::PathBuf;

use crate::server::repository_file;

/// A server binary that is installed here.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Such as `redis-7.0`.
    pub name: String,
    pub binary: PathBuf,
}

/// Every engine that `scripts/install-engines` has put in place.
pub fn installed_engines() -> Vec<Engine> {
    let folder = repository_file(".engines");
    let mut engines: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}; run scripts/install-engines first", folder.display()))
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let is_server = name.starts_with("redis-") || name.starts_with("valkey-");
            let binary = entry.path();
            (is_server && binary.is_file()).then_some(Engine { name, binary })
        })
        .collect();
    engines.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(engines.len() >= 2, "only {engines:?}; run scripts/install-engines first");
    engines
}

/// The engine of this name, such as `redis-8.2`; `None` where it could not be installed here.
pub fn installed_engine(name: &str) -> Option<Engine> {
    installed_engines().into_iter().find(|engine| engine.name == name)
}

/// A Redis that calls itself 9.9 and writes a version of the RDB format that nobody knows; `None` where
/// it could not be built here.
pub fn future_engine() -> Option<Engine> {
    let binary = repository_file(".engines/future-9.9");
    binary.is_file().then(|| Engine { name: "future-9.9".to_owned(), binary })
}

/// Redis 7.0, which Debian ships: the one that most tests use.
pub fn newest_redis() -> Engine {
    let engines = installed_engines();
    engines.into_iter().find(|engine| engine.name == "redis-7.0").expect("redis-7.0 is installed")
}
