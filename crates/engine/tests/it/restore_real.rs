//! Restores into real servers of every installed engine.

use std::time::Duration;

use cachevault_domain::Target;
use cachevault_engine::{
    LoadRequest, Loaded, Meter, OurAddress, Prepared, RestoreError, RestoreLimits, load,
    make_durable, prepare,
};
use cachevault_store::ArtifactEntry;
use cachevault_testkit::{Engine, Server, eventually, installed_engines, newest_redis};
use tokio_util::sync::CancellationToken;

use crate::capture_real::{contents, sample_for};
use crate::support::Rig;

pub(crate) const LIMITS: RestoreLimits = RestoreLimits {
    command: Duration::from_secs(5),
    stall: Duration::from_secs(5),
    busy_wait: Duration::from_secs(20),
    total: Duration::from_secs(60),
};

async fn prepared(target: &Target, swap: bool) -> Prepared {
    let ours = OurAddress::default();
    prepare(target, swap, &ours, [7; 20], &LIMITS).await.unwrap()
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
            prove: true,
            identity: None,
            gate: &self.gate,
            limits: LIMITS,
        };
        load(request, prepared, &Meter::default(), &CancellationToken::new()).await
    }
}

/// Restores a sample of everything into a server with other data, and compares what both hold.
async fn restore_into(engine: &Engine, options: &[&str], swap: bool, fill: usize) {
    let source = Server::start_with_rdb(engine, &sample_for(engine), &[]);
    let target = Server::start(engine, options);
    target.fill(fill, 50);
    let settings = |server: &Server| {
        ["repl-diskless-load", "repl-diskless-sync-delay", "replica-lazy-flush"]
            .map(|name| server.ask(&["CONFIG", "GET", name]))
    };
    let before = settings(&target);
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    let prepared = prepared(&target.target(), swap).await;
    let loaded = rig.load(&entry, &target.target(), &prepared).await;
    let loaded =
        loaded.unwrap_or_else(|error| panic!("{}: {error}\n{}", engine.name, target.log()));
    assert!(loaded.proven);
    assert_eq!(target.info("role"), "master", "{}", engine.name);
    make_durable(&target.target(), &prepared, &LIMITS).await.unwrap();
    assert_eq!(settings(&target), before, "{}", engine.name);
    // Keys whose time is over are gone from a primary sooner or later; then the rest is equal.
    eventually("both hold the same", || (contents(&source) == contents(&target)).then_some(()));
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
