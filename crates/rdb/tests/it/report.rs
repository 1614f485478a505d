//! The report of a sample matches the listing of its keys.

use std::collections::BTreeMap;
use std::fs;

use cachevault_rdb::data::Decoder;
use cachevault_rdb::report::{Report, Reporter};
use cachevault_testkit::{Server, newest_redis};

use crate::by_hand::{compressed, redis, text};
use crate::live::{bulks, command, integer, noise, run, save};
use crate::support::{fixtures, listing};

fn report(file: &[u8], top: usize) -> Report {
    report_as_of(0, file, top)
}

fn report_as_of(as_of_ms: i64, file: &[u8], top: usize) -> Report {
    let mut reporter = Reporter::new(as_of_ms, top);
    Decoder::default().feed(file, &mut reporter).unwrap();
    reporter.finish()
}

#[test]
fn sums_match_the_listing() {
    for server in ["redis-5.0.14", "redis-7.4.1", "valkey-9.1.2"] {
        let sample = fixtures().join(server).join("all.rdb");
        let report = report(&fs::read(&sample).unwrap(), 5);
        let listing = listing(&sample);
        let mut by_kind: BTreeMap<(u64, String), (u64, u64)> = BTreeMap::new();
        for (db, _, kind, expires, _) in &listing {
            let (keys, expiring) = by_kind.entry((*db, kind.clone())).or_default();
            *keys += 1;
            *expiring += u64::from(*expires);
        }
        let reported = report.databases.iter();
        let reported: BTreeMap<_, _> = reported
            .map(|sums| ((sums.db, sums.kind.clone()), (sums.sums.keys, sums.sums.expiring)))
            .collect();
        assert_eq!(reported, by_kind, "{server}");
        assert_eq!(report.total.keys, listing.len() as u64, "{server}");
        assert_eq!(report.encodings.iter().map(|e| e.sums.keys).sum::<u64>(), report.total.keys);
        assert_eq!(report.sizes.iter().map(|class| class.keys).sum::<u64>(), report.total.keys);
        let horizon = report.expiry.classes.iter().map(|class| class.keys).sum::<u64>();
        assert_eq!(horizon, report.total.expiring, "{server}");
        let sizes: Vec<_> = report.largest.iter().map(|key| key.memory_bytes).collect();
        assert!(sizes.len() == 5 && sizes.is_sorted_by(|a, b| a >= b), "{server}: {sizes:?}");
    }
}

#[test]
fn an_expiry_counts_in_the_first_matching_class() {
    const HOUR_MS: i64 = 3_600_000;
    let as_of_ms = 1_800_000_000_000;
    let day = 24 * HOUR_MS;
    // A key at the upper limit of each class, and one a millisecond above it.
    let ends = [0, HOUR_MS, day, 7 * day, 30 * day, 365 * day];
    let moments = ends.into_iter().flat_map(|end| [end, end + 1]).chain([-1, 400 * day]);
    let record =
        |left: i64| [b"\xfc", &(as_of_ms + left).to_le_bytes()[..], b"\0\x01k\x01v"].concat();
    let records: Vec<_> = moments.map(record).chain([b"\0\x01k\x01v".to_vec()]).collect();
    let report = report_as_of(as_of_ms, &redis(&[&records.concat()]), 1);
    let classes: Vec<_> =
        report.expiry.classes.iter().map(|class| (class.name.as_str(), class.keys)).collect();
    let near = [("expired", 2), ("within_an_hour", 2), ("within_a_day", 2), ("within_a_week", 2)];
    let far = [("within_30_days", 2), ("within_a_year", 2), ("later", 2)];
    assert_eq!(classes, [&near[..], &far].concat());
    assert_eq!((report.total.keys, report.total.expiring), (15, 14));
}

#[test]
fn the_largest_keys_have_the_largest_memory_size() {
    let giant = [b"\0\x05giant", &compressed(1 << 20)[..]].concat();
    let noise = [b"\0\x05noise", &text(&noise(50_000, 1))[..]].concat();
    assert!(giant.len() < noise.len());
    let report = report(&redis(&[&noise, &giant]), 1);
    assert_eq!(report.largest[0].name, "giant");
    assert!(report.largest[0].memory_bytes > 1 << 20);
}

#[test]
fn items_beyond_the_limit_of_a_list_are_counted() {
    let aux = |n: u32| [b"\xfa", &text(n.to_string().as_bytes())[..], b"\x01v"].concat();
    let function = |n: u32| [b"\xf5", &text(format!("#!lua name={n}").as_bytes())[..]].concat();
    let records: Vec<_> = (0..70).map(aux).chain((0..260).map(function)).collect();
    let report = report(&redis(&[&records.concat()]), 1);
    assert_eq!((report.aux.len(), report.functions.len()), (64, 256));
    assert_eq!((report.unlisted.aux, report.unlisted.functions), (6, 4));
}

/// The memory usage that a server reports for its keys, and the estimate of the report.
#[test]
fn estimated_memory_is_close_to_that_of_the_server() {
    let server = Server::start(&newest_redis(), &[]);
    let mut commands = Vec::new();
    for n in 0..300u64 {
        commands.push(command!["SET", format!("string:{n}"), noise(200, n)]);
        commands.push(command!["SET", format!("expiring:{n}"), noise(20, n), "PX", "100000000"]);
        for m in 0..300 {
            let member = format!("member of some length {m}");
            commands.push(command!["ZADD", format!("zset:{}", n % 3), m.to_string(), member]);
            commands.push(command![
                "HSET",
                format!("hash:{}", n % 3),
                format!("f{m}"),
                noise(90, m)
            ]);
            commands.push(command!["RPUSH", format!("list:{}", n % 30), noise(50, m)]);
            commands.push(command!["SADD", format!("set:{}", n % 3), noise(12, n * 1000 + m)]);
        }
    }
    run(&server, &commands);
    let report = report(&save(&server), 10);
    for prefix in ["string", "expiring", "zset", "hash", "list", "set"] {
        let names = bulks(&run(&server, &[command!["KEYS", format!("{prefix}:*")]])[0]);
        let ask: Vec<_> =
            names.iter().map(|name| command!["MEMORY", "USAGE", name, "SAMPLES", "0"]).collect();
        let said: i64 = run(&server, &ask).iter().map(integer).sum();
        let keys = report.prefixes.iter().find(|found| found.prefix == format!("{prefix}:"));
        let estimated = keys.map(|keys| keys.memory_bytes).unwrap_or_default() as f64;
        let ratio = estimated / said as f64;
        assert!(
            (0.7..1.4).contains(&ratio),
            "{prefix}: the estimate is {estimated}, the server \
                                              reports {said}"
        );
    }
}

#[test]
fn prefixes_show_the_use_of_memory() {
    let mut file = b"REDIS0009".to_vec();
    for n in 0..9 {
        let key = format!("{}:{n}", if n < 6 { "cart" } else { "user" });
        file.extend([0, key.len() as u8]);
        file.extend(key.as_bytes());
        file.extend([1, b'v']);
    }
    file.push(0xFF);
    let found: Vec<_> = report(&file, 2).prefixes.into_iter().map(|p| (p.prefix, p.keys)).collect();
    assert_eq!(found, [("cart:".to_owned(), 6), ("user:".to_owned(), 3)]);
}
