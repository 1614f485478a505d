use std::path::PathBuf;

use crate::server::repository_file;

/// An installed server binary.
#[derive(Debug, Clone)]
pub struct Engine {
    /// For example `redis-7.0`.
    pub name: String,
    pub binary: PathBuf,
}

/// All engines that `scripts/install-engines` has installed.
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

/// The engine of this name, such as `redis-8.2`; `None` if it is not installed.
pub fn installed_engine(name: &str) -> Option<Engine> {
    installed_engines().into_iter().find(|engine| engine.name == name)
}

/// A Redis with version number 9.9 and an unknown version of the RDB format; `None` if it is not
/// installed.
pub fn future_engine() -> Option<Engine> {
    let binary = repository_file(".engines/future-9.9");
    binary.is_file().then(|| Engine { name: "future-9.9".to_owned(), binary })
}

/// Redis 7.0, the version of Debian, which most tests use.
pub fn newest_redis() -> Engine {
    let engines = installed_engines();
    engines.into_iter().find(|engine| engine.name == "redis-7.0").expect("redis-7.0 is installed")
}
