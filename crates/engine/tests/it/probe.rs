//! Adopting a server: each thing that can be wrong with it is told apart.

use std::time::Duration;

use cachevault_domain::{
    EngineKind, Identity, Login, Observation, ProbeError, Role, Target, TlsSettings,
};
use cachevault_engine::{ProbeLimits, probe};
use cachevault_testkit::{
    Act, Certificates, ScriptedServer, Server, eventually, free_port, installed_engines,
    newest_redis,
};

async fn look(target: &Target) -> Result<Observation, ProbeError> {
    probe(target, ProbeLimits { command: Duration::from_secs(5) }).await
}

fn login(username: Option<&str>, password: &str) -> Option<Login> {
    Some(Login { username: username.map(Into::into), password: password.to_owned().into() })
}

#[tokio::test]
async fn every_engine_tells_its_real_figures() {
    for engine in installed_engines() {
        let server = Server::start(&engine, &["--maxmemory", "500mb"]);
        server.fill(120, 10);
        let seen = look(&server.target()).await.unwrap_or_else(|e| panic!("{}: {e}", engine.name));
        let kind =
            if engine.name.starts_with("valkey") { EngineKind::Valkey } else { EngineKind::Redis };
        assert_eq!(
            (seen.engine, seen.keys, seen.databases_used),
            (kind, 120, 1),
            "{}",
            engine.name
        );
        assert!(engine.name.ends_with(&format!("{}.{}", seen.version.major, seen.version.minor)));
        assert_eq!((seen.role, seen.max_memory_bytes), (Role::Primary, 500 << 20));
        assert!(
            seen.used_memory_bytes > 100_000 && seen.system_memory_bytes > seen.used_memory_bytes
        );
        assert_eq!(
            server.info("total_forks"),
            if kind == EngineKind::Redis && seen.version.major < 6 { "" } else { "0" }
        );
        assert_eq!(
            server.info("connected_slaves"),
            "0",
            "{}: a probe must not synchronise",
            engine.name
        );
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused() {
    let mut server = Server::start(&newest_redis(), &[]);
    server.kill();
    assert!(matches!(look(&server.target()).await, Err(ProbeError::Refused { .. })));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told() {
    let address = cachevault_domain::Address { host: "no-such-host.invalid".into(), port: 6379 };
    let target = Target::trusted(address);
    assert!(matches!(look(&target).await, Err(ProbeError::UnknownHost { .. })));
}

#[tokio::test]
async fn passwords_are_checked() {
    for engine in installed_engines() {
        let server = Server::start(&engine, &["--requirepass", "right"]);
        let target = server.target();
        let error = look(&target).await.unwrap_err();
        assert!(matches!(error, ProbeError::PasswordRequired { .. }), "{}: {error}", engine.name);
        let wrong = Target { login: login(None, "wrong"), ..target.clone() };
        let error = look(&wrong).await.unwrap_err();
        assert!(matches!(error, ProbeError::WrongPassword { .. }), "{}: {error}", engine.name);
        look(&Target { login: login(None, "right"), ..target }).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_permission_is_named_with_the_cure() {
    for engine in installed_engines().iter().filter(|e| e.name != "redis-5.0") {
        let server = Server::start(engine, &[]);
        for (grants, denied) in [
            ("+psync +replconf +ping", Some("info")),
            ("+psync +info +ping", Some("replconf")),
            ("+replconf +info +ping", Some("psync")),
            ("+psync +replconf +ping +info", None),
        ] {
            let acl: Vec<_> = ["ACL", "SETUSER", "backup", "reset", "on", ">secret"]
                .into_iter()
                .chain(grants.split(' '))
                .collect();
            server.ask(&acl);
            let target = Target { login: login(Some("backup"), "secret"), ..server.target() };
            match (look(&target).await, denied) {
                (Ok(_), None) => {}
                (Err(error @ ProbeError::Denied { command, .. }), Some(denied)) => {
                    assert_eq!(command, denied, "{}", engine.name);
                    assert!(error.to_string().contains("ACL SETUSER"), "{error}");
                }
                (other, _) => panic!("{} {grants}: {other:?}", engine.name),
            }
        }
    }
}

#[tokio::test]
async fn a_renamed_command_is_a_missing_permission() {
    for engine in installed_engines() {
        let server = Server::start(&engine, &["--rename-command", "PSYNC", "hidden"]);
        let error = look(&server.target()).await.unwrap_err();
        assert!(
            matches!(error, ProbeError::Denied { command: "psync", .. }),
            "{}: {error}",
            engine.name
        );
    }
}

#[tokio::test]
async fn clusters_and_sentinels_are_told_apart() {
    let engine = newest_redis();
    let cluster = Server::start(&engine, &["--cluster-enabled", "yes"]);
    assert!(matches!(look(&cluster.target()).await, Err(ProbeError::Cluster { .. })));
    let configuration = tempfile::NamedTempFile::new().unwrap();
    let port = free_port();
    let mut sentinel = std::process::Command::new(&engine.binary)
        .arg(configuration.path())
        .args(["--sentinel", "--port", &port.to_string(), "--bind", "127.0.0.1"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the sentinel listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let address = cachevault_domain::Address { host: "127.0.0.1".into(), port };
    let outcome = look(&Target::trusted(address)).await;
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
    assert!(matches!(outcome, Err(ProbeError::Sentinel { .. })), "{outcome:?}");
}

#[tokio::test]
async fn an_old_version_is_refused_by_name() {
    let server = ScriptedServer::start(|command| match command[0].as_str() {
        "INFO" => vec![Act::bulk("redis_version:4.0.14\r\nrole:master\r\n")],
        _ => vec![Act::Send(b"+OK\r\n".to_vec())],
    });
    let error = look(&server.target()).await.unwrap_err();
    assert!(
        error.to_string().contains("redis 4.0.14; the oldest supported version is 5.0.0"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_redis_is_told() {
    let server =
        ScriptedServer::start(|_| vec![Act::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]);
    assert!(matches!(look(&server.target()).await, Err(ProbeError::NotRedis { .. })));
}

#[tokio::test]
async fn silence_is_not_waited_for_ever() {
    let server = ScriptedServer::start(|_| vec![Act::Silence]);
    let limits = ProbeLimits { command: Duration::from_millis(50) };
    let outcome = probe(&server.target(), limits).await;
    assert!(matches!(outcome, Err(ProbeError::TimedOut { .. })), "{outcome:?}");
}

#[tokio::test]
async fn tls_works_with_and_without_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::issue(folder.path());
    let ca = || Some(certificates.ca_pem.clone());
    for ask_client in [false, true] {
        let port = free_port();
        let options = certificates.server_options(port, ask_client);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let server = Server::start(&newest_redis(), &options);
        let address = cachevault_domain::Address { host: "127.0.0.1".into(), port };
        let with = |tls| Target { tls, ..Target::trusted(address.clone()) };

        let identity = Identity {
            certificate_pem: certificates.client_certificate_pem.clone(),
            key_pem: certificates.client_key_pem.clone().into(),
        };
        look(&with(Some(TlsSettings { ca_pem: ca(), identity: Some(identity) }))).await.unwrap();

        let without = look(&with(Some(TlsSettings { ca_pem: ca(), identity: None }))).await;
        assert_eq!(without.is_ok(), !ask_client, "{without:?}");

        let untrusted = look(&with(Some(TlsSettings::default()))).await;
        assert!(matches!(untrusted, Err(ProbeError::Tls { .. })), "{untrusted:?}");

        let plain = look(&with(None)).await.unwrap_err();
        assert!(
            plain.to_string().contains("rediss://")
                || matches!(plain, ProbeError::Unreachable { .. }),
            "{plain}"
        );

        let to_plain_port =
            Target { tls: Some(TlsSettings { ca_pem: ca(), identity: None }), ..server.target() };
        let limits = ProbeLimits { command: Duration::from_millis(200) };
        let outcome = probe(&to_plain_port, limits).await;
        assert!(matches!(outcome, Err(ProbeError::Tls { .. })), "{outcome:?}");
    }
}
