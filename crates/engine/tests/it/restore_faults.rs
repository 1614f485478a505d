//! Restores whose connection breaks, at many points.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cachevault_engine::{
    LoadRequest, Meter, OurAddress, ProofDemand, RestoreError, RestoreLimits, Withdrawn, load,
    make_durable, prepare, withdraw,
};
use cachevault_testkit::{Engine, Server, free_port, installed_engines, newest_redis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::restore_real::LIMITS;
use crate::support::Rig;

/// Passes connections of the target on to us, and cuts the first `cuts` of them after `bytes` of
/// what we send.
async fn cut_after(to: u16, bytes: usize, cuts: u32) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (target, _) = listener.accept().await.unwrap();
            let number = count.fetch_add(1, Ordering::Relaxed);
            let Ok(ours) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
            let limit = if number < cuts { bytes } else { usize::MAX };
            tokio::spawn(pass_on(target, ours, limit, false));
        }
    });
    (port, connections)
}

/// Passes connections of the target on to us, and holds the first after `bytes` of what we send, as a service does
/// that has stopped.
async fn hold_after(to: u16, bytes: usize) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut limit = bytes;
        loop {
            let (target, _) = listener.accept().await.unwrap();
            let Ok(ours) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
            let limit = std::mem::replace(&mut limit, usize::MAX);
            tokio::spawn(pass_on(target, ours, limit, limit < usize::MAX));
        }
    });
    port
}

/// For how long a server has at most not answered, until it is told to stop looking.
fn longest_silence(port: u16, is_over: Arc<AtomicU32>) -> Duration {
    let mut longest = Duration::ZERO;
    while is_over.load(Ordering::Relaxed) == 0 {
        let began = Instant::now();
        let mut asking = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        asking.write_all(b"PING\r\n").unwrap();
        // `LOADING` is an answer.
        asking.read_exact(&mut [0; 5]).unwrap();
        longest = longest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    longest
}

async fn stall(engine: Engine, swap: bool) {
    let restoring = Restoring::of(&engine).await;
    if !swap {
        restoring.target.ask(&["FLUSHALL"]);
    }
    restoring.target.ask(&["CONFIG", "SET", "repl-timeout", "60"]);
    let ours = free_port();
    let port = hold_after(ours, restoring.rdb_bytes() / 2).await;
    let address = OurAddress { port: ours, announced_port: Some(port), ..OurAddress::default() };
    let target = restoring.target.target();
    let limits = RestoreLimits { stall: Duration::from_secs(100), ..LIMITS };
    let limits = RestoreLimits { total: Duration::from_secs(200), ..limits };
    let prepared = prepare(&target, swap, &address, [7; 40], &limits).await.unwrap();
    let is_over = Arc::new(AtomicU32::new(0));
    let (of, until) = (restoring.target.port, Arc::clone(&is_over));
    let looking = tokio::task::spawn_blocking(move || longest_silence(of, until));
    let request = LoadRequest {
        target: &target,
        store: &restoring.rig.store,
        key: &restoring.rig.key,
        entry: &restoring.entry,
        prove: ProofDemand::None,
        identity: None,
        gate: &restoring.rig.gate,
        limits,
    };
    let loaded = load(request, &prepared, &Meter::default(), &CancellationToken::new()).await;
    is_over.store(1, Ordering::Relaxed);
    let what = format!("{} {swap}", engine.name);
    loaded.unwrap_or_else(|error| panic!("{what}: {error}\n{}", restoring.target.log()));
    let silence = looking.await.unwrap();
    assert!(silence < Duration::from_secs(20), "{what}: silent for {silence:?}");
    assert!(silence > Duration::from_secs(5), "{what}: it never waited: {silence:?}");
    assert!(restoring.target.ask(&["CONFIG", "GET", "repl-timeout"]).contains("60"), "{what}");
    make_durable(&target, &prepared, &limits).await.unwrap();
    assert_eq!(restoring.target.digest(), restoring.source.digest(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stalls_makes_the_target_answer_nobody_for_seconds_only() {
    let engines = installed_engines().into_iter();
    let loading = engines.filter(|engine| engine.name != "redis-5.0");
    let mut running = JoinSet::new();
    for (engine, swap) in loading.flat_map(|engine| [(engine.clone(), true), (engine, false)]) {
        running.spawn_blocking(move || Handle::current().block_on(stall(engine, swap)));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

async fn pass_on(target: TcpStream, ours: TcpStream, limit: usize, hold: bool) {
    let (mut target_read, mut target_write) = target.into_split();
    let (mut our_read, mut our_write) = ours.into_split();
    let up = async { tokio::io::copy(&mut target_read, &mut our_write).await.map(drop) };
    let down = async {
        let (mut left, mut buffer) = (limit, vec![0; 4096]);
        while left > 0 {
            let want = left.min(buffer.len());
            let len = our_read.read(&mut buffer[..want]).await?;
            if len == 0 {
                break;
            }
            target_write.write_all(&buffer[..len]).await?;
            left -= len;
        }
        if hold {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let _: std::io::Result<()> = tokio::select! { ended = up => ended, ended = down => ended };
}

struct Restoring {
    rig: Rig,
    entry: cachevault_store::ArtifactEntry,
    source: Server,
    target: Server,
}

impl Restoring {
    async fn new() -> Self {
        Self::of(&newest_redis()).await
    }

    async fn of(engine: &Engine) -> Self {
        let (source, target) = (Server::start(engine, &[]), Server::start(engine, &[]));
        source.fill(2000, 200);
        target.fill(300, 50);
        let rig = Rig::new();
        let entry = rig.capture(&source.target()).await.unwrap();
        Self { rig, entry, source, target }
    }

    fn rdb_bytes(&self) -> usize {
        usize::try_from(self.entry.rdb.size_bytes).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_once_anywhere_does_not_matter() {
    let restoring = Restoring::new().await;
    let size = restoring.rdb_bytes();
    for swap in [false, true] {
        // In the handshake, at the beginning, within, before the last byte, and right after it.
        let points = [1, 20, 120, 5000, size / 2, size - 1, size, size + 60, size + 200];
        for (number, bytes) in (1..).zip(points) {
            let ours = free_port();
            let (port, connections) = cut_after(ours, bytes, 1).await;
            let address =
                OurAddress { port: ours, announced_port: Some(port), ..OurAddress::default() };
            restoring.target.ask(&["FLUSHALL"]);
            restoring.target.fill(300, 50);
            let target = restoring.target.target();
            let id = [number + if swap { 100 } else { 0 }; 40];
            let prepared = prepare(&target, swap, &address, id, &LIMITS).await.unwrap();
            let loaded = restoring.rig.load(&restoring.entry, &target, &prepared).await;
            loaded.unwrap_or_else(|error| panic!("{bytes}: {error}\n{}", restoring.target.log()));
            make_durable(&target, &prepared, &LIMITS).await.unwrap();
            assert_eq!(restoring.target.digest(), restoring.source.digest(), "{bytes}");
            // Cut behind the end nothing needs to come again.
            let connections = connections.load(Ordering::Relaxed);
            assert!(connections >= 2 || bytes >= size, "{bytes}: {connections}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_again_and_again_leaves_the_old_data() {
    let restoring = Restoring::new().await;
    let (target, old) = (restoring.target.target(), restoring.target.digest());
    for swap in [false, true] {
        let ours = free_port();
        let (port, _) = cut_after(ours, restoring.rdb_bytes() / 2, u32::MAX).await;
        let address =
            OurAddress { port: ours, announced_port: Some(port), ..OurAddress::default() };
        let prepared = prepare(&target, swap, &address, [9; 40], &LIMITS).await.unwrap();
        let error = restoring.rig.load(&restoring.entry, &target, &prepared).await.unwrap_err();
        assert!(matches!(error, RestoreError::KeepsFailing { .. }), "{error}");
        let found = withdraw(&target, &prepared, &LIMITS).await.unwrap();
        assert_eq!(found, Withdrawn::OldData, "{swap}");
        assert_eq!(
            (restoring.target.digest(), restoring.target.info("role")),
            (old.clone(), "master".into())
        );
    }
    let prepared = prepare(&target, true, &OurAddress::default(), [8; 40], &LIMITS).await.unwrap();
    restoring.rig.load(&restoring.entry, &target, &prepared).await.unwrap();
    assert_eq!(restoring.target.digest(), restoring.source.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_reach_us_is_told_so_and_not_touched() {
    let restoring = Restoring::new().await;
    let (target, old) = (restoring.target.target(), restoring.target.digest());
    // Nobody listens there.
    let address = OurAddress { announced_port: Some(free_port()), ..OurAddress::default() };
    let prepared = prepare(&target, true, &address, [9; 40], &LIMITS).await.unwrap();
    let error = restoring.rig.load(&restoring.entry, &target, &prepared).await.unwrap_err();
    assert!(matches!(error, RestoreError::NotConnected { .. }), "{error}");
    assert_eq!(withdraw(&target, &prepared, &LIMITS).await.unwrap(), Withdrawn::OldData);
    assert_eq!(restoring.target.digest(), old);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_target_gets_nothing() {
    let restoring = Restoring::new().await;
    restoring.target.load_slowly();
    let target = restoring.target.target();
    let ours = free_port();
    let address = OurAddress { port: ours, ..OurAddress::default() };
    let prepared = prepare(&target, true, &address, [9; 40], &LIMITS).await.unwrap();
    let (loaded, ()) =
        tokio::join!(restoring.rig.load(&restoring.entry, &target, &prepared), async {
            // Another server of the same machine announces another port; somebody there who knows the
            // target's lacks its password.
            let wishes = [1, restoring.target.port]
                .map(|port| format!("REPLCONF listening-port {port}\r\nPSYNC ? -1\r\n"));
            let mut strangers = Vec::new();
            while strangers.len() < wishes.len() {
                // They come before the target does: it is told of us only after we listen.
                match TcpStream::connect(("127.0.0.1", ours)).await {
                    Ok(stream) => strangers.push(stream),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            for (mut stranger, wish) in strangers.into_iter().zip(wishes) {
                stranger.write_all(wish.as_bytes()).await.unwrap();
                stranger.shutdown().await.unwrap();
                let mut answer = Vec::new();
                let _ = stranger.read_to_end(&mut answer).await;
                let said = answer.escape_ascii().to_string();
                assert!(!said.contains("FULLRESYNC"), "{wish}: {said}");
            }
            restoring.target.load_at_once();
        });
    loaded.unwrap();
}

/// Connections that come as soon as somebody listens.
async fn strangers(port: u16, count: usize) -> Vec<TcpStream> {
    let mut strangers = Vec::new();
    while strangers.len() < count {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => strangers.push(stream),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    strangers
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_say_nothing_do_not_keep_the_target_out() {
    let restoring = Restoring::new().await;
    let target = restoring.target.target();
    let ours = free_port();
    let address = OurAddress { port: ours, ..OurAddress::default() };
    let prepared = prepare(&target, true, &address, [9; 40], &LIMITS).await.unwrap();
    // Who comes too late finds nobody who listens, and goes on trying.
    let silent = async {
        let _silent = strangers(ours, 30).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        loaded = restoring.rig.load(&restoring.entry, &target, &prepared) => drop(loaded.unwrap()),
        () = silent => {}
    }
    assert_eq!(restoring.target.digest(), restoring.source.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_in_place_of_the_target_is_named() {
    let restoring = Restoring::new().await;
    let target = restoring.target.target();
    let ours = free_port();
    // The target is told another port, where nobody listens.
    let address =
        OurAddress { port: ours, announced_port: Some(free_port()), ..OurAddress::default() };
    let prepared = prepare(&target, true, &address, [9; 40], &LIMITS).await.unwrap();
    let (loaded, ()) =
        tokio::join!(restoring.rig.load(&restoring.entry, &target, &prepared), async {
            let mut stranger = strangers(ours, 1).await.remove(0);
            stranger.write_all(b"AUTH guessed\r\n").await.unwrap();
            let _ = stranger.read_to_end(&mut Vec::new()).await;
        });
    let error = loaded.unwrap_err().to_string();
    assert!(error.contains("`127.0.0.1` came and was turned away"), "{error}");
}
