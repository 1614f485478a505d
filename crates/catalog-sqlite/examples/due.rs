//! For `bench/policies`: looks at what is due in a catalog, as the scheduler does.
//!
//!     due CATALOG decide MOMENT          decides about all that is due, until nothing is
//!     due CATALOG find MOMENT LIMIT      finds what is due, again and again
//!
//! Prints one JSON object.

use std::path::Path;
use std::time::Instant;

use cachevault_catalog::{CatalogError, ScheduleCatalog, Turn};
use cachevault_catalog_sqlite::SqliteCatalog;
use cachevault_domain::{Decision, MissedWindow};
use jiff::Timestamp;

/// What the scheduler takes at a time.
const ROUND_MAX: u32 = 64;
/// How often it is looked for what is due.
const LOOKS: usize = 301;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (path, what) = words.split_first().ok_or("no catalog is named")?;
        let catalog = SqliteCatalog::open(Path::new(path)).await?;
        match what {
            ["decide", now] => Ok(decide(&catalog, now.parse()?).await?),
            ["find", now, limit] => Ok(find(&catalog, now.parse()?, limit.parse()?).await?),
            _ => Err("see the head of this file".into()),
        }
    })
}

async fn decide(catalog: &SqliteCatalog, now: Timestamp) -> Result<(), CatalogError> {
    let (began, mut decided, mut begun) = (Instant::now(), 0, 0);
    loop {
        let due = catalog.due_policies(now, ROUND_MAX).await?;
        if due.is_empty() {
            break;
        }
        for policy in &due {
            let decision = policy.agenda.decide(
                &policy.says.plan,
                MissedWindow::Skip,
                policy.instance,
                policy.tried,
                now,
            );
            match decision {
                Decision::Rest(then) => catalog.turn_policy(policy, &Turn::Rest, &then).await?,
                Decision::Begin(_, then) | Decision::Miss(_, then) => {
                    begun += 1;
                    catalog.turn_policy(policy, &Turn::Rest, &then).await?
                }
            };
            decided += 1;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(r#"{{"seconds": {seconds:.3}, "decided": {decided}, "begun": {begun}}}"#);
    Ok(())
}

async fn find(catalog: &SqliteCatalog, now: Timestamp, limit: u32) -> Result<(), CatalogError> {
    let (mut times, mut found) = (Vec::new(), 0);
    for _ in 0..LOOKS {
        let began = Instant::now();
        found = catalog.due_policies(now, limit).await?.len();
        times.push(began.elapsed());
    }
    times.sort();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    let peak_kib = peak.trim().trim_end_matches(" kB");
    let median_us = times[LOOKS / 2].as_micros();
    println!(r#"{{"median_us": {median_us}, "found": {found}, "peak_kib": {peak_kib}}}"#);
    Ok(())
}
