//! Results as tables or JSON.

use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use serde_json::Value;

use super::{OutputFormat, audit};
use crate::terminal::{escaped, print};

/// A column: its title and the function that formats a row's cell.
pub(crate) type Column = (&'static str, fn(&Value) -> String);

pub(crate) const INSTANCE: [Column; 8] = [
    ("name", |row| text(&row["name"])),
    ("id", |row| text(&row["id"])),
    ("address", |row| text(&row["address"])),
    ("engine", |row| format!("{} {}", text(&row["engine"]), text(&row["version"]))),
    ("role", |row| text(&row["role"])),
    ("keys", |row| text(&row["keys"])),
    ("memory", |row| bytes(&row["used_memory_bytes"])),
    ("state", |row| match row["reachable"].as_bool() {
        Some(true) => row["operation"].as_str().unwrap_or("idle").to_owned(),
        _ => "unreachable".to_owned(),
    }),
];

pub(crate) const BACKUP: [Column; 7] = [
    ("id", |row| text(&row["id"])),
    ("state", backup_state),
    ("progress", |row| format!("{:.2} %", row["progress_percent"].as_f64().unwrap_or_default())),
    ("size", |row| bytes(&row["size_bytes"])),
    ("created", |row| seconds(&row["created_at"])),
    ("completed", |row| seconds(&row["completed_at"])),
    ("note", |row| {
        row["failure"]["reason"].as_str().map_or_else(|| text(&row["note"]), str::to_owned)
    }),
];

pub(crate) const CHECK: [Column; 4] = [
    ("id", |row| text(&row["id"])),
    ("size", |row| bytes(&row["size_bytes"])),
    ("checked", |row| seconds(&row["checked_at"])),
    ("damage", |row| text(&row["damage"])),
];

pub(crate) const RESTORE: [Column; 7] = [
    ("id", |row| text(&row["id"])),
    ("state", |row| text(&row["state"])),
    ("progress", |row| format!("{:.2} %", row["progress_percent"].as_f64().unwrap_or_default())),
    ("backup", |row| text(&row["backup_id"])),
    ("target data", |row| text(&row["target_data"])),
    ("completed", |row| seconds(&row["completed_at"])),
    ("note", |row| {
        row["failure"]["reason"].as_str().map_or_else(|| text(&row["note"]), str::to_owned)
    }),
];

pub(crate) const AUDIT: [Column; 7] = [
    ("at", |row| seconds(&row["at"])),
    ("who", audit::who),
    ("from", |row| text(&row["address"])),
    ("what", |row| text(&row["operation"])),
    ("resource", |row| text(&row["resource"])),
    ("result", |row| {
        let error = row["error"].as_str().map(|error| format!(" {error}")).unwrap_or_default();
        let times = row["times"].as_u64().filter(|times| *times > 1);
        let times = times.map(|times| format!(" ×{times}")).unwrap_or_default();
        format!("{}{error}{times}", text(&row["status"]))
    }),
    ("sent", |row| bytes(&row["bytes"])),
];

/// Prints a list.
pub(crate) fn list(format: OutputFormat, page: &Value, columns: &[Column]) {
    match format {
        OutputFormat::Json => json(page),
        OutputFormat::Table => {
            let mut table = Table::new();
            table.load_style(presets::UTF8_FULL_CONDENSED);
            table.set_header(columns.iter().map(|(title, _)| *title));
            for row in page["items"].as_array().into_iter().flatten() {
                table.add_row(columns.iter().map(|(_, cell)| cell(row)));
            }
            print(&table);
        }
    }
}

/// Prints one record with all its fields.
pub(crate) fn one(format: OutputFormat, thing: &Value) {
    match format {
        OutputFormat::Json => json(thing),
        OutputFormat::Table => {
            let mut table = Table::new();
            table.load_style(presets::UTF8_BORDERS_ONLY);
            for (name, value) in thing.as_object().into_iter().flatten() {
                table.add_row([name.clone(), text(value)]);
            }
            print(&table);
        }
    }
}

/// Prints links. The table format prints only the URLs, ready for other programs.
pub(crate) fn links(format: OutputFormat, links: &Value) {
    match format {
        OutputFormat::Json => json(links),
        OutputFormat::Table => {
            for link in links["links"].as_array().into_iter().flatten() {
                print(&text(&link["url"]));
            }
        }
    }
}

/// Prints a message for people; nothing in JSON format.
pub(crate) fn say(format: OutputFormat, sentence: &str) {
    if format == OutputFormat::Table {
        print(&sentence);
    }
}

/// Prints one record as one line.
pub(crate) fn line(thing: &Value) {
    print(thing);
}

fn json(value: &Value) {
    print(&format_args!("{value:#}"));
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escaped(text).into_owned(),
        nested @ (Value::Array(_) | Value::Object(_)) => {
            escaped(&format!("{nested:#}")).into_owned()
        }
        other => other.to_string(),
    }
}

/// The state of a backup; marks opaque content of a backup with files.
fn backup_state(backup: &Value) -> String {
    let state = text(&backup["state"]);
    match backup["content"].as_str() {
        Some("opaque") if state == "succeeded" => format!("{state}, opaque"),
        _ => state,
    }
}

fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |bytes| HumanBytes(bytes).to_string())
}

/// A time without fractions of a second.
pub(super) fn seconds(value: &Value) -> String {
    let text = text(value);
    text.split('.').next().map_or(text.clone(), |head| head.trim_end_matches('Z').to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_marks_opaque_backups_that_have_files() {
        for (state, content, shown) in [
            ("succeeded", "opaque", "succeeded, opaque"),
            ("succeeded", "verified", "succeeded"),
            ("succeeded", "unknown", "succeeded"),
            ("deleted", "opaque", "deleted"),
        ] {
            assert_eq!(backup_state(&json!({"state": state, "content": content})), shown);
        }
    }
}
