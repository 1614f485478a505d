//! Captures from recorded servers: what versions that are not installed here do on the wire.

use crate::support::{Rig, decoded};
use cachevault_domain::{Login, RdbDialect, Target};
use cachevault_testkit::{Act, ScriptedServer, recordings, repository_file};

#[tokio::test]
async fn every_recorded_payload_is_captured_byte_for_byte() {
    let mut captured = 0;
    for recording in recordings() {
        for (name, scenario) in &recording.scenarios {
            let Some(payload) = scenario.payload.as_ref().filter(|payload| payload.complete) else {
                continue;
            };
            // Recorded without the capability that we always announce, or as a cluster node.
            if name == "cluster_enabled" || name == "diskless_without_capa_eof" {
                continue;
            }
            let server = scenario.replay();
            let auth = scenario.steps.iter().find(|step| step.send[0] == "AUTH");
            let login = auth.map(|step| Login {
                username: (step.send.len() == 3).then(|| step.send[1].clone()),
                password: step.send.last().unwrap().clone().into(),
            });
            let dialect =
                if name == "version_7_2" { RdbDialect::Portable } else { RdbDialect::Native };
            let rig = Rig { dialect, ..Rig::new() };
            let entry =
                rig.capture(&Target { login, ..server.target() }).await.unwrap_or_else(|e| {
                    panic!("{} {} {name}: {e}", recording.engine, recording.version)
                });
            assert_eq!(decoded(&rig.file()), payload.rdb());
            assert_eq!(entry.source.server_version, recording.version);
            captured += 1;
        }
    }
    assert!(captured >= 25, "only {captured} recordings were replayed");
}

#[tokio::test]
async fn every_recorded_refusal_fails_the_capture_and_leaves_nothing() {
    for recording in recordings() {
        for (name, scenario) in &recording.scenarios {
            if scenario.payload.as_ref().is_some_and(|payload| payload.complete)
                && name != "cluster_enabled"
            {
                continue;
            }
            let server = scenario.replay();
            let dialect = if name == "version_too_old_for_data" {
                RdbDialect::Portable
            } else {
                RdbDialect::Native
            };
            let rig = Rig { dialect, ..Rig::new() };
            let outcome = rig.capture(&server.target()).await;
            assert!(outcome.is_err(), "{} {} {name}", recording.engine, recording.version);
            assert_eq!(rig.files(), [""; 0]);
        }
    }
}

/// The wire of versions for which there is neither a server nor a recording, from what was
/// measured of them: all know `rdb-only`, only Valkey 8 and later knows `version`.
#[tokio::test]
async fn samples_of_other_versions_pass_in_both_framings() {
    const MARK: &str = "fedcba9876543210fedcba9876543210fedcba98";
    for (folder, version) in [
        ("redis-5.0.14", "redis_version:5.0.14"),
        ("redis-6.2.16", "redis_version:6.2.16"),
        ("redis-7.4.1", "redis_version:7.2.6"),
        ("redis-7.4.1", "redis_version:7.4.1"),
        ("redis-7.4.1", "redis_version:8.0.6"),
        ("valkey-8.0.1", "redis_version:7.2.4\r\nvalkey_version:7.2.7"),
        ("valkey-8.0.1", "redis_version:7.2.4\r\nvalkey_version:8.1.1"),
        ("valkey-9.1.2", "redis_version:7.2.4\r\nvalkey_version:9.0.0"),
    ] {
        let rdb =
            std::fs::read(repository_file(&format!("fixtures/rdb/{folder}/all.rdb"))).unwrap();
        for framed in [
            [format!("$EOF:{MARK}\r\n").as_bytes(), &rdb, MARK.as_bytes()].concat(),
            [format!("\n\n${}\r\n", rdb.len()).as_bytes(), &rdb, b"*1\r\n$4\r\nPING\r\n"].concat(),
        ] {
            let info = format!("{version}\r\nrole:master\r\n");
            let server = ScriptedServer::start(move |command| match command[0].as_str() {
                "INFO" => vec![Act::bulk(&info)],
                "PSYNC" => vec![
                    Act::Send(format!("\n\n+FULLRESYNC {MARK} 42\r\n").into()),
                    Act::Send(framed.clone()),
                    Act::Silence,
                ],
                "REPLCONF" if command[1] == "version" => {
                    vec![Act::Send(b"-ERR Unrecognized REPLCONF option: version\r\n".to_vec())]
                }
                _ => vec![Act::Send(b"+OK\r\n".to_vec())],
            });
            let rig = Rig::new();
            let entry =
                rig.capture(&server.target()).await.unwrap_or_else(|e| panic!("{version}: {e}"));
            assert_eq!(decoded(&rig.file()), rdb, "{version}");
            assert_eq!(entry.source.replication_offset, 42);
        }
    }
}
