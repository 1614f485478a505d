//! What the report says of the samples is what their listings say.

use std::collections::BTreeMap;
use std::fs;

use cachevault_rdb::data::Decoder;
use cachevault_rdb::report::{Report, Reporter};

use crate::support::{fixtures, listing};

fn report(file: &[u8], top: usize) -> Report {
    let mut reporter = Reporter::new(0, top);
    Decoder::default().feed(file, &mut reporter).unwrap();
    reporter.finish()
}

#[test]
fn sums_are_those_of_the_listing() {
    for server in ["redis-5.0.14", "redis-7.4.1", "valkey-9.1.2"] {
        let sample = fixtures().join(server).join("all.rdb");
        let report = report(&fs::read(&sample).unwrap(), 5);
        let listing = listing(&sample);
        let mut by_kind: BTreeMap<(u64, String), (u64, u64)> = BTreeMap::new();
        for (db, _, kind, expires) in &listing {
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
        let sizes: Vec<_> = report.largest.iter().map(|key| key.stored_bytes).collect();
        assert!(sizes.len() == 5 && sizes.is_sorted_by(|a, b| a >= b), "{server}: {sizes:?}");
    }
}

#[test]
fn prefixes_tell_where_the_memory_is() {
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
