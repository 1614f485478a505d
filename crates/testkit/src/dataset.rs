//! A data set with every feature of a server: types and encodings, several databases, expiries,
//! functions; and since Redis 8 vector sets and streams with idempotent producers.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use crate::engines::Engine;
use crate::server::{Server, repository_file};

/// Elements of the largest vector set.
const VECTORS: usize = 300;
/// Number of elements that are removed again.
const REMOVED: usize = 30;

/// An RDB with every feature of the engine, written by the engine or by a server of its version.
pub fn dataset_for(engine: &Engine) -> Vec<u8> {
    static MADE: LazyLock<Mutex<HashMap<String, Vec<u8>>>> = LazyLock::new(Mutex::default);
    let folder = match engine.name.as_str() {
        "redis-5.0" => "redis-5.0.14",
        "redis-6.2" => "redis-6.2.16",
        "redis-7.0" => "redis-7.0.15",
        "valkey-8.0" => "valkey-8.0.1",
        "valkey-9.1" => "valkey-9.1.2",
        name if name.starts_with("redis-8") => {
            let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            return made.entry(name.to_owned()).or_insert_with(|| make_newest(engine)).clone();
        }
        other => panic!("no sample for {other}"),
    };
    sample(folder)
}

fn sample(folder: &str) -> Vec<u8> {
    let path = repository_file(&format!("fixtures/rdb/{folder}/all.rdb"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The features of Redis 7.4 and those of Redis 8.
fn make_newest(engine: &Engine) -> Vec<u8> {
    let server = Server::start_with_rdb(engine, &sample("redis-7.4.1"), &[]);
    add_vector_sets(&server);
    if engine.name != "redis-8.2" {
        add_producers(&server);
    }
    server.ask(&["SAVE"]);
    let path = server.folder().join("dump.rdb");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Vector sets of all quantizations, with attributes, deletions and a projection, in two databases.
pub fn add_vector_sets(server: &Server) {
    let mut commands = Vec::new();
    for db in ["0", "3"] {
        commands.push(vec!["SELECT".to_owned(), db.to_owned()]);
        for n in 0..VECTORS {
            let mut command = add(&format!("vectors:{{{db}}}"), &[], n);
            if n % 3 == 0 {
                command.extend(["SETATTR".to_owned(), format!("{{\"n\":{n}}}")]);
            }
            commands.push(command);
        }
        let remove =
            |n: usize| ["VREM".to_owned(), format!("vectors:{{{db}}}"), format!("element:{n}")];
        commands.extend((0..REMOVED).map(|n| remove(n * 7).to_vec()));
        for (name, reduce, quantization) in [
            ("vectors:plain", &[][..], "NOQUANT"),
            ("vectors:binary", &[], "BIN"),
            ("vectors:reduced", &["REDUCE", "3"], "Q8"),
        ] {
            for n in 0..40 {
                let mut command = add(name, reduce, n);
                command.push(quantization.to_owned());
                commands.push(command);
            }
        }
    }
    run(server, &commands);
}

/// `VADD` of an element with eight numbers.
fn add(name: &str, options: &[&str], n: usize) -> Vec<String> {
    let mut command = vec!["VADD".to_owned(), name.to_owned()];
    command.extend(options.iter().map(|&option| option.to_owned()));
    command.extend(["VALUES".to_owned(), "8".to_owned()]);
    command.extend((1..=8).map(|axis| format!("{}.5", (n * axis * 37) % 101)));
    command.push(format!("element:{n}"));
    command
}

/// Streams with idempotent producers, and a group with pending entries.
fn add_producers(server: &Server) {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut commands = vec![words("SELECT 0")];
    for n in 0..5 {
        commands.push(words(&format!("XADD produced IDMP one {n} * field {n}")));
        commands.push(words("XADD produced IDMPAUTO two * field same"));
    }
    commands.extend(
        [
            "XCFGSET produced IDMP-DURATION 86400 IDMP-MAXSIZE 500",
            "XGROUP CREATE produced readers 0",
            "XREADGROUP GROUP readers ann COUNT 2 STREAMS produced >",
            "XGROUP CREATECONSUMER produced readers idle",
        ]
        .map(words),
    );
    run(server, &commands);
}

#[track_caller]
fn run(server: &Server, commands: &[Vec<String>]) {
    for (command, reply) in commands.iter().zip(server.pipeline(commands)) {
        assert!(!matches!(reply, crate::Reply::Error(_)), "{command:?}: {reply:?}");
    }
}
