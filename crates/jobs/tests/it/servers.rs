//! The table of servers in the README, made of what each of them really did.

use cachevault_domain::{BackupId, ContentState, RestoreOptions, RestoreWay};
use cachevault_testkit::{Engine, Reply, Server, dataset_for, installed_engines, repository_file};

use crate::newest::{register, restore};
use crate::rig::Rig;

const BEGIN: &str = "<!-- Made by the test `the_table_of_servers_is_what_they_did`. -->\n";
const END: &str = "<!-- End of the table. -->\n";
const HEAD: &str = "\
| server | backup | verified | restore, native | restore, commands | drill | field expiry | vector sets |
|---|---|---|---|---|---|---|---|
";
/// Set to write the table into the README instead of comparing it.
const WRITE_VARIABLE: &str = "CACHEVAULT_WRITE_TABLE";

/// What one server did; each step panics where it fails.
struct Row {
    engine: Engine,
    version: String,
    has_field_expiry: bool,
    has_vector_sets: bool,
}

impl Row {
    async fn of(engine: Engine) -> Self {
        let source = Server::start_with_rdb(&engine, &dataset_for(&engine), &[]);
        let field_expiry: [&[&str]; 2] = [
            &["HSET", "table:expiring", "a", "1", "b", "2"],
            &["HPEXPIREAT", "table:expiring", "4102444800123", "FIELDS", "1", "a"],
        ];
        let vector_sets: [&[&str]; 1] = [&["VADD", "table:vectors", "VALUES", "2", "1", "2", "a"]];
        let has_field_expiry = knows(&source, &field_expiry);
        let has_vector_sets = knows(&source, &vector_sets);
        let version = version_of(&source);
        let rig = Rig::with_server(source).await;
        let backup = rig.request().await;
        rig.run(None).await;
        assert_eq!(rig.backup(backup).await.content, ContentState::Verified, "{version}");
        for way in [RestoreWay::Replica, RestoreWay::Keys] {
            restore_into_another(&rig, &engine, backup, way).await;
        }
        rig.app.request_drill(&rig.caller, backup).await.unwrap();
        rig.run(None).await;
        assert!(rig.backup(backup).await.proof.is_some(), "{version}");
        Self { engine, version, has_field_expiry, has_vector_sets }
    }

    fn line(&self, version: &str) -> String {
        let [expiry, vectors] =
            [self.has_field_expiry, self.has_vector_sets].map(|has| if has { "yes" } else { "–" });
        format!("| {version} | yes | yes | proven | proven | proven | {expiry} | {vectors} |\n")
    }

    /// The name without the patch number, which a machine's packages decide.
    fn name(&self) -> String {
        self.engine.name.replace('-', " ")
    }
}

/// Whether a server takes these commands; what it does not know is no failure.
fn knows(server: &Server, commands: &[&[&str]]) -> bool {
    commands.iter().all(|command| match server.call(command) {
        Reply::Error(error) => {
            assert!(error.starts_with(b"ERR unknown command"), "{}", error.escape_ascii());
            false
        }
        _ => true,
    })
}

fn version_of(server: &Server) -> String {
    match server.info("valkey_version") {
        version if version.is_empty() => format!("redis {}", server.info("redis_version")),
        version => format!("valkey {version}"),
    }
}

/// Restores natively or by commands, and looks at what only some servers have.
async fn restore_into_another(rig: &Rig, engine: &Engine, backup: BackupId, way: RestoreWay) {
    let target = Server::start(engine, &[]);
    target.fill(100, 20);
    let instance = register(rig, &target, &format!("table-{}", way.as_str())).await;
    let options = RestoreOptions { way: Some(way), ..RestoreOptions::default() };
    let outcome = restore(rig, backup, instance, options).await;
    assert!(outcome.proven && outcome.uncompared == 0, "{}: {outcome:?}", engine.name);
    assert_eq!(target.digest(), rig.server.digest(), "{} {way:?}", engine.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_servers_is_what_they_did() {
    let mut rows = Vec::new();
    for engine in installed_engines() {
        rows.push(Row::of(engine).await);
    }
    let path = repository_file("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has the table");
    let (table, after) = rest.split_once(END).expect("the table has an end");
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        let lines: String = rows.iter().map(|row| row.line(&row.version)).collect();
        std::fs::write(&path, [before, BEGIN, HEAD, &lines, END, after].concat()).unwrap();
        return;
    }
    let lines = table.strip_prefix(HEAD).expect("the head of the table");
    for row in &rows {
        let written = lines.lines().find(|line| line.starts_with(&format!("| {}.", row.name())));
        let written = written.unwrap_or_else(|| panic!("the table lacks {}", row.name()));
        let version = written.split('|').nth(1).unwrap().trim();
        assert_eq!(format!("{written}\n"), row.line(version), "made with {}", row.version);
    }
}
