//! The summary of `cachevault inspect` for people.

use std::fmt::Write;

use cachevault_rdb::Checksum;
use cachevault_rdb::digest::Digest;
use cachevault_rdb::inspect::{Content, Inspection};
use cachevault_rdb::report::{Report, Sums};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanBytes, HumanCount};
use jiff::Timestamp;

use super::rdb_pass::END_MARK;

const NOTHING: &str = "-";

/// The facts and tables of a source, as text.
pub(super) fn summary(source: &str, inspection: &Inspection) -> String {
    let mut facts = frame_facts(source, inspection);
    let Content::Verified { digest, report } = &inspection.content else {
        facts.push(("content", "opaque: not verified".to_owned()));
        return fact_table(facts);
    };
    facts.extend(content_facts(digest, report));
    let mut text = fact_table(facts);
    for (title, table) in tables(report) {
        // Writing into a string cannot fail.
        let _ = write!(text, "\n{title}\n{table}\n");
    }
    text
}

fn fact_table(facts: Vec<(&'static str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    for (name, value) in facts {
        table.add_row([name.to_owned(), value]);
    }
    format!("{table}\n")
}

fn frame_facts(source: &str, inspection: &Inspection) -> Vec<(&'static str, String)> {
    let envelope = &inspection.envelope;
    let checksum = match envelope.checksum {
        Checksum::Matches(crc) => format!("CRC-64 {crc:016x} matches"),
        Checksum::Absent => "none: disabled in the server".to_owned(),
    };
    let mark = if envelope.has_end_mark { END_MARK } else { "" };
    vec![
        ("source", source.to_owned()),
        ("header", envelope.header.to_string()),
        ("size", bytes(envelope.size_bytes)),
        ("checksum", format!("{checksum}{mark}")),
    ]
}

fn content_facts(digest: &Digest, report: &Report) -> Vec<(&'static str, String)> {
    let Sums { keys, expiring, elements, stored_bytes, memory_bytes } = report.total;
    let least = report.least_redis_version;
    let least = least.map_or("none: only Valkey's".to_owned(), |version| version.to_string());
    let modules = report.modules.iter().map(|(name, values)| format!("{name} ({values} values)"));
    vec![
        ("server", server(report)),
        ("created", created(report)),
        ("keys", format!("{}, of which {} expire", HumanCount(keys), HumanCount(expiring))),
        ("elements", HumanCount(elements).to_string()),
        ("stored", bytes(stored_bytes)),
        ("memory (estimate)", bytes(memory_bytes)),
        ("least Redis RDB version", least),
        ("functions", listed(report.functions.iter().cloned())),
        ("modules", listed(modules)),
        ("inconsistent streams", inconsistent_streams(report)),
        ("digest of keys", digest_of_keys(digest)),
        ("digest of functions", digest.functions.to_string()),
    ]
}

fn digest_of_keys(digest: &Digest) -> String {
    match digest.uncompared {
        0 => digest.keys.to_string(),
        uncompared => format!(
            "{} (for {} keys with module data only name, type and expiry)",
            digest.keys,
            HumanCount(uncompared)
        ),
    }
}

/// Streams that Redis 8.8 and newer refuse to load.
fn inconsistent_streams(report: &Report) -> String {
    let streams = &report.inconsistent_streams;
    let Some(first) = streams.listed.first() else { return NOTHING.to_owned() };
    format!("{}, such as key {}: {}", streams.count, first.place, first.reason.as_str())
}

fn server(report: &Report) -> String {
    let version = |engine: &str| {
        let version = report.aux.get(&format!("{engine}-ver"))?;
        Some(format!("{engine} {version}"))
    };
    version("valkey").or_else(|| version("redis")).unwrap_or(NOTHING.to_owned())
}

fn created(report: &Report) -> String {
    let seconds = report.aux.get("ctime").and_then(|seconds| seconds.parse().ok());
    let moment = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    moment.map_or(NOTHING.to_owned(), |moment| moment.to_string())
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { NOTHING.to_owned() } else { names.join(", ") }
}

/// The tables that have rows.
fn tables(report: &Report) -> impl Iterator<Item = (String, Table)> {
    let (largest, prefixes) = (largest(report), prefixes(report));
    [
        ("Databases and kinds".to_owned(), databases(report)),
        ("Encodings".to_owned(), encodings(report)),
        ("Sizes of values as stored".to_owned(), sizes(report)),
        ("Expiry".to_owned(), expiry(report)),
        ("Largest keys".to_owned(), largest),
        (prefixes_title(report), prefixes),
    ]
    .into_iter()
    .filter(|(_, table)| !table.is_empty())
}

const SUMS: [&str; 5] = ["keys", "expiring", "elements", "stored", "memory"];

fn sums(sums: &Sums) -> [String; 5] {
    [
        HumanCount(sums.keys).to_string(),
        HumanCount(sums.expiring).to_string(),
        HumanCount(sums.elements).to_string(),
        bytes(sums.stored_bytes),
        bytes(sums.memory_bytes),
    ]
}

fn databases(report: &Report) -> Table {
    let rows = report.databases.iter().map(|row| {
        let names = [row.db.to_string(), row.kind.clone()];
        names.into_iter().chain(sums(&row.sums)).collect()
    });
    table(&["db", "kind"], &SUMS, rows)
}

fn encodings(report: &Report) -> Table {
    let rows = report.encodings.iter().map(|row| {
        let names = [row.kind.clone(), row.encoding.clone()];
        names.into_iter().chain(sums(&row.sums)).collect()
    });
    table(&["kind", "encoding"], &SUMS, rows)
}

fn sizes(report: &Report) -> Table {
    let rows = report.sizes.iter().map(|row| {
        let up_to =
            row.up_to_bytes.map_or("more".to_owned(), |end| format!("up to {}", bytes(end)));
        vec![up_to, HumanCount(row.keys).to_string(), bytes(row.stored_bytes)]
    });
    table(&["size"], &["keys", "stored"], rows)
}

fn expiry(report: &Report) -> Table {
    let classes = report.expiry.classes.iter().filter(|class| class.keys > 0);
    let rows =
        classes.map(|class| vec![class.name.replace('_', " "), HumanCount(class.keys).to_string()]);
    table(&["expires"], &["keys"], rows)
}

fn largest(report: &Report) -> Table {
    let rows = report.largest.iter().map(|key| {
        vec![
            key.db.to_string(),
            key.name.clone(),
            key.kind.clone(),
            key.encoding.clone(),
            HumanCount(key.elements).to_string(),
            bytes(key.stored_bytes),
            bytes(key.memory_bytes),
        ]
    });
    table(&["db", "name", "kind", "encoding"], &["elements", "stored", "memory"], rows)
}

fn prefixes(report: &Report) -> Table {
    let rows = report.prefixes.iter().map(|row| {
        vec![row.prefix.clone(), HumanCount(row.keys).to_string(), bytes(row.memory_bytes)]
    });
    table(&["prefix"], &["keys", "memory"], rows)
}

fn prefixes_title(report: &Report) -> String {
    match report.prefix_error_bytes {
        0 => "Top prefixes".to_owned(),
        error => format!("Top prefixes (at least; memory may be up to {} more)", bytes(error)),
    }
}

/// A table of text columns followed by number columns.
fn table(texts: &[&str], numbers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(texts.iter().chain(numbers));
    table.add_rows(rows);
    for number in texts.len()..texts.len() + numbers.len() {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}
