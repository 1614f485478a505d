//! Restores into real servers of every installed engine.

use std::time::Duration;

use cachevault_domain::{Address, Identity, Login, Target, TlsSettings};
use cachevault_engine::{
    LoadRequest, Loaded, Meter, OurAddress, Prepared, ProofDemand, RestoreError, RestoreLimits,
    load, make_durable, prepare,
};
use cachevault_store::ArtifactEntry;
use cachevault_testkit::{
    Certificates, Engine, Server, dataset_for, eventually, free_port, installed_engines,
    newest_redis,
};
use tokio_util::sync::CancellationToken;

use crate::capture_real::contents;
use crate::support::Rig;

pub(crate) const LIMITS: RestoreLimits = RestoreLimits {
    command: Duration::from_secs(5),
    stall: Duration::from_secs(5),
    busy_wait: Duration::from_secs(20),
    total: Duration::from_secs(60),
};

async fn prepared(target: &Target, swap: bool) -> Prepared {
    let ours = OurAddress::default();
    prepare(target, swap, &ours, [7; 40], &LIMITS).await.unwrap()
}

impl Rig {
    pub(crate) async fn load(
        &self,
        entry: &ArtifactEntry,
        target: &Target,
        prepared: &Prepared,
    ) -> Result<Loaded, RestoreError> {
        let request = LoadRequest {
            target,
            store: &self.store,
            key: &self.key,
            entry,
            prove: ProofDemand::Required,
            identity: self.identity.as_ref(),
            gate: &self.gate,
            limits: LIMITS,
        };
        load(request, prepared, &Meter::default(), &CancellationToken::new()).await
    }
}

/// Restores a sample of everything into a server with other data, and compares what both hold.
async fn restore_into(engine: &Engine, options: &[&str], swap: bool, fill: usize) {
    let target = Server::start(engine, options);
    target.fill(fill, 50);
    restore_sample(engine, &target, &target.target(), swap, None).await;
}

/// The same into a server that is reached in some other way.
async fn restore_sample(
    engine: &Engine,
    target: &Server,
    reached: &Target,
    swap: bool,
    identity: Option<&Identity>,
) {
    let source = Server::start_with_rdb(engine, &dataset_for(engine), &[]);
    let settings = |server: &Server| {
        ["repl-diskless-load", "repl-diskless-sync-delay", "replica-lazy-flush", "repl-timeout"]
            .map(|name| server.ask(&["CONFIG", "GET", name]))
    };
    let before = settings(target);
    let rig = Rig { identity: identity.cloned(), ..Rig::new() };
    let entry = rig.capture(&source.target()).await.unwrap();
    let prepared = prepared(reached, swap).await;
    let loaded = rig.load(&entry, reached, &prepared).await;
    let loaded =
        loaded.unwrap_or_else(|error| panic!("{}: {error}\n{}", engine.name, target.log()));
    assert!(loaded.comparison.proven);
    assert_eq!(target.info("role"), "master", "{}", engine.name);
    make_durable(reached, &prepared, &LIMITS).await.unwrap();
    assert_eq!(settings(target), before, "{}", engine.name);
    // Keys whose time is over are gone from a primary sooner or later; then the rest is equal.
    eventually("both hold the same", || (contents(&source) == contents(target)).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_target_takes_over_the_data_of_every_engine_in_every_way_of_loading() {
    for engine in installed_engines() {
        restore_into(&engine, &[], false, 1000).await;
        if engine.name != "redis-5.0" {
            restore_into(&engine, &[], true, 1000).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_target_does_too() {
    for engine in installed_engines() {
        if engine.name != "redis-5.0" {
            restore_into(&engine, &[], false, 0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_an_aof_does_too() {
    restore_into(&newest_redis(), &["--appendonly", "yes"], true, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_for_us_and_one_for_the_primary_are_no_obstacle() {
    let options = ["--masterauth", "of another primary", "--masteruser", "somebody"];
    let mut target = Server::start(&newest_redis(), &options);
    target.fill(100, 50);
    // What a restore needs, and nothing else.
    target.ask(
        &"ACL SETUSER restorer on >secret +replicaof +psync +replconf +ping +info +config|get \
          +config|set +bgsave"
            .split_whitespace()
            .collect::<Vec<_>>(),
    );
    target.ask(&["CONFIG", "SET", "requirepass", "admin"]);
    target.log_in(&["admin"]);
    let login = Login { username: Some("restorer".into()), password: "secret".to_owned().into() };
    let reached = Target { login: Some(login), ..target.target() };
    restore_sample(&newest_redis(), &target, &reached, true, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_the_target_gets_the_data_too() {
    let engine = newest_redis();
    let target = Server::start(&engine, &[]);
    target.fill(100, 50);
    let replica = Server::start(&engine, &[]);
    replica.ask(&["REPLICAOF", "127.0.0.1", &target.port.to_string()]);
    eventually("the replica is in sync", || {
        (replica.info("master_link_status") == "up").then_some(())
    });
    restore_sample(&engine, &target, &target.target(), false, None).await;
    eventually("the replica has the new data", || {
        (replica.digest() == target.digest()).then_some(())
    });
    assert_eq!(replica.info("master_port"), target.port.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_replicates_by_tls_is_served_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::issue(folder.path());
    let port = free_port();
    let mut options = certificates.server_options(port, true);
    options.extend(["--tls-replication".to_owned(), "yes".to_owned()]);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let target = Server::start(&newest_redis(), &options);
    target.fill(100, 50);
    let client = Identity {
        certificate_pem: certificates.client_certificate_pem.clone(),
        key_pem: certificates.client_key_pem.clone().into(),
    };
    let settings =
        TlsSettings { ca_pem: Some(certificates.ca_pem.clone()), identity: Some(client) };
    let address = Address { host: "127.0.0.1".into(), port };
    let reached = Target { tls: Some(settings), ..Target::trusted(address) };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let ours = Identity { certificate_pem: read("server.pem"), key_pem: read("server.key").into() };
    restore_sample(&newest_redis(), &target, &reached, true, Some(&ours)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_closes_idle_connections_is_promoted_after_a_long_proof() {
    let engine = newest_redis();
    let target = Server::start(&engine, &["--timeout", "1"]);
    target.fill(100, 50);
    // Its child takes some seconds to send the data back.
    target.ask(&["CONFIG", "SET", "rdb-key-save-delay", "200000"]);
    restore_sample(&engine, &target, &target.target(), true, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_at_an_address_of_ipv6_finds_us_there() {
    let engine = newest_redis();
    let target = Server::start(&engine, &["--bind", "127.0.0.1", "::1"]);
    target.fill(100, 50);
    let address = Address { host: "::1".into(), port: target.port };
    let reached = Target { address, ..target.target() };
    restore_sample(&engine, &target, &reached, true, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_comes_from_another_address_is_known_by_its_password() {
    let engine = newest_redis();
    for own in [&[][..], &["--masterauth", "of another primary"]] {
        let source = ["--bind-source-addr", "127.0.0.3"];
        let target = Server::start(&engine, &[&source[..], own].concat());
        target.fill(100, 50);
        restore_sample(&engine, &target, &target.target(), true, None).await;
        assert_eq!(
            target.ask(&["CONFIG", "GET", "masterauth"]).contains("primary"),
            !own.is_empty()
        );
    }
}
