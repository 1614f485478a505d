//! A summary of a data set, computed in constant memory.
//!
//! Sums are exact. Lists have a limit, and [`Unlisted`] counts the items beyond it. The weight of
//! prefixes is a lower bound with a stated error (Misra and Gries 1982, for weighted items).

mod largest;
mod prefixes;
mod streams;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data;
use crate::header::{Header, Magic};
use crate::opcode::{Kind, ValueType};
use crate::raw::{Key, ModuleId, Record};
use crate::structure::{Item, Shape};
use largest::Largest;
use prefixes::Prefixes;
use streams::StreamFacts;
pub use streams::{InconsistentStream, InconsistentStreams, StreamInconsistency};

/// Maximum number of listed databases.
const DATABASES_MAX: usize = 1024;
const AUX_MAX: usize = 64;
const MODULES_MAX: usize = 64;
const FUNCTIONS_MAX: usize = 256;
/// Maximum stored length of an aux field, a key or a prefix, bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Size classes of values: up to 2^0, 2^1, … 2^39 bytes, and all above.
const SIZE_CLASSES: usize = 41;

/// The first version of the format that has module metadata of keys.
const METADATA_VERSION: u16 = 13;
/// The first version of Valkey's own format.
const VALKEY_FIRST: u16 = 80;
/// The first version of the format that has functions.
const FUNCTIONS_VERSION: u16 = 10;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Upper limits of the classes of expiry, relative to the moment of reference.
const HORIZON: [(&str, i64); 6] = [
    ("expired", 0),
    ("within_an_hour", HOUR_MS),
    ("within_a_day", DAY_MS),
    ("within_a_week", 7 * DAY_MS),
    ("within_30_days", 30 * DAY_MS),
    ("within_a_year", 365 * DAY_MS),
];
const LATER: &str = "later";

/// A summary of a data set. Text that is not UTF-8 contains escapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The stream's header, such as `REDIS0011`.
    pub header: String,
    /// The minimum version of the Redis format that has all occurring encodings, and functions if
    /// there are any; `None` if an encoding belongs to Valkey's own format. A server with an older
    /// format cannot hold the data set.
    pub least_redis_version: Option<u16>,
    /// The minimum version of the Redis format whose servers accept all values by commands, and
    /// functions if there are any; `None` if no version accepts some encoding.
    #[serde(default)]
    pub least_redis_version_by_commands: Option<u16>,
    /// The same for Valkey's own format: 80 if Valkey 9.0 accepts all values.
    #[serde(default)]
    pub least_valkey_version_by_commands: Option<u16>,
    /// Auxiliary fields; the last value of a repeated field.
    pub aux: BTreeMap<String, String>,
    /// Sums over all keys.
    pub total: Sums,
    /// Sums by database and kind, the first 7,168 of them.
    pub databases: Vec<DatabaseSums>,
    /// Sums by kind and encoding.
    pub encodings: Vec<EncodingSums>,
    /// Keys by stored size of their value: each class contains the sizes above half of
    /// `up_to_bytes` up to it.
    pub sizes: Vec<SizeClass>,
    /// The keys with the largest memory size, the largest first.
    pub largest: Vec<LargeKey>,
    /// The prefixes with the most bytes, the heaviest first.
    pub prefixes: Vec<PrefixSums>,
    /// Maximum error of a prefix's `memory_bytes`, which may be too low; 0 if all prefixes were
    /// counted.
    pub prefix_error_bytes: u64,
    /// Expiry times of the keys.
    pub expiry: ExpiryHorizon,
    /// Names of function libraries.
    pub functions: Vec<String>,
    /// Modules that own data, with the number of values.
    pub modules: BTreeMap<String, u64>,
    /// Keys with module metadata (Redis 8.6 and later).
    #[serde(default)]
    pub keys_with_metadata: u64,
    /// Lists, sets, sorted sets and hashes without elements, which servers since Redis 7.0 skip on
    /// loading; `None` in older reports.
    #[serde(default)]
    pub empty_keys: Option<u64>,
    /// Streams that some servers refuse to load.
    #[serde(default)]
    pub inconsistent_streams: InconsistentStreams,
    /// Items beyond the limits of the lists.
    #[serde(default)]
    pub unlisted: Unlisted,
}

/// Numbers of items beyond the limits of the lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlisted {
    /// Auxiliary fields; each occurrence counts.
    pub aux: u64,
    /// Keys of databases without their own sums.
    pub keys: u64,
    /// Function libraries.
    pub functions: u64,
    /// Values of modules, and module data outside of keys.
    pub modules: u64,
}

/// Sums over keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Keys.
    pub keys: u64,
    /// Keys with expiry.
    pub expiring: u64,
    /// Elements, members, fields, entries; 1 for a string.
    pub elements: u64,
    /// Size of names and stored values, bytes.
    pub stored_bytes: u64,
    /// Memory size on a 64-bit server in bytes: an estimate from sizes and encodings.
    pub memory_bytes: u64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.keys += other.keys;
        self.expiring += other.expiring;
        self.elements += other.elements;
        self.stored_bytes += other.stored_bytes;
        self.memory_bytes += other.memory_bytes;
    }
}

/// Sums of one kind in one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSums {
    /// Number of the database.
    pub db: u64,
    /// The kind's name, as in the reply of `TYPE`.
    pub kind: String,
    /// The sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// Sums of one encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodingSums {
    /// The kind's name, as in the reply of `TYPE`.
    pub kind: String,
    /// The encoding's name.
    pub encoding: String,
    /// The sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// Keys whose values have similar sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeClass {
    /// The class's upper limit in bytes; `None` for the last class.
    pub up_to_bytes: Option<u64>,
    /// Keys of the class.
    pub keys: u64,
    /// Size of their stored values, bytes.
    pub stored_bytes: u64,
}

/// One of the largest keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeKey {
    /// Number of its database.
    pub db: u64,
    /// Its name, truncated to 256 bytes.
    pub name: String,
    /// Its kind, as in the reply of `TYPE`.
    pub kind: String,
    /// Its encoding.
    pub encoding: String,
    /// Elements, members, fields, entries.
    pub elements: u64,
    /// Size of name and stored value, bytes.
    pub stored_bytes: u64,
    /// Memory size on a 64-bit server in bytes: an estimate.
    pub memory_bytes: u64,
}

/// Keys with a common prefix of up to two parts that end in `:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixSums {
    /// The prefix.
    pub prefix: String,
    /// Number of keys, a lower bound.
    pub keys: u64,
    /// Memory size on a 64-bit server in bytes: an estimate and a lower bound.
    pub memory_bytes: u64,
}

/// Numbers of keys by expiry time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryHorizon {
    /// The moment of reference, milliseconds since 1970.
    pub as_of_ms: i64,
    /// Keys by class, the earliest first; each key counts in the first matching class.
    pub classes: Vec<ExpiryClass>,
}

/// Keys that expire within a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryClass {
    /// The class's name, such as `within_a_day`.
    pub name: String,
    /// Keys of the class.
    pub keys: u64,
}

/// Creates a [`Report`] from the data level, alone or together with other visitors.
#[derive(Debug)]
pub struct Reporter {
    as_of_ms: i64,
    header: Option<Header>,
    least_redis_version: Option<u16>,
    by_commands: [Option<u16>; 2],
    aux: BTreeMap<String, String>,
    databases: BTreeMap<(u64, Kind), Sums>,
    encodings: BTreeMap<u8, (&'static ValueType, Sums)>,
    total: Sums,
    sizes: [(u64, u64); SIZE_CLASSES],
    largest: Largest,
    prefixes: Prefixes,
    horizon: [u64; HORIZON.len() + 1],
    functions: Vec<String>,
    modules: BTreeMap<String, u64>,
    keys_with_metadata: u64,
    empty_keys: u64,
    streams: StreamFacts,
    unlisted: Unlisted,
    current: Option<Current>,
    /// The beginning of the current key's name; the report shows no more of it.
    name: Vec<u8>,
}

/// The current key.
#[derive(Debug, Clone, Copy)]
struct Current {
    db: u64,
    name_bytes: u64,
    expires_at_ms: Option<i64>,
}

impl Reporter {
    /// Creates a reporter that lists the `top` largest keys and heaviest prefixes. Expiries are
    /// relative to `as_of_ms`, milliseconds since 1970.
    pub fn new(as_of_ms: i64, top: usize) -> Self {
        Self {
            as_of_ms,
            header: None,
            least_redis_version: Some(1),
            by_commands: [Some(1), Some(VALKEY_FIRST)],
            aux: BTreeMap::new(),
            databases: BTreeMap::new(),
            encodings: BTreeMap::new(),
            total: Sums::default(),
            sizes: [(0, 0); SIZE_CLASSES],
            largest: Largest::new(top),
            prefixes: Prefixes::new(top),
            horizon: [0; HORIZON.len() + 1],
            functions: Vec::new(),
            modules: BTreeMap::new(),
            keys_with_metadata: 0,
            empty_keys: 0,
            streams: StreamFacts::default(),
            unlisted: Unlisted::default(),
            current: None,
            name: Vec::new(),
        }
    }

    /// Returns the report of the stream so far.
    pub fn finish(self) -> Report {
        let (prefixes, prefix_error_bytes) = self.prefixes.finish();
        let [by_redis, by_valkey] = self.by_commands;
        Report {
            header: self.header.map(|header| header.to_string()).unwrap_or_default(),
            least_redis_version: self.least_redis_version,
            least_redis_version_by_commands: by_redis,
            least_valkey_version_by_commands: by_valkey,
            aux: self.aux,
            total: self.total,
            databases: self.databases.into_iter().map(database_sums).collect(),
            encodings: self.encodings.into_values().map(encoding_sums).collect(),
            sizes: size_classes(&self.sizes),
            largest: self.largest.finish(),
            prefixes,
            prefix_error_bytes,
            expiry: ExpiryHorizon { as_of_ms: self.as_of_ms, classes: classes(&self.horizon) },
            functions: self.functions,
            modules: self.modules,
            keys_with_metadata: self.keys_with_metadata,
            empty_keys: Some(self.empty_keys),
            inconsistent_streams: self.streams.finish(),
            unlisted: self.unlisted,
        }
    }

    fn on_record(&mut self, record: Record<'_>) {
        match record {
            Record::Header(header) => self.header = Some(header),
            Record::Aux { name, value } => {
                let name = shown(name);
                if self.aux.len() < AUX_MAX || self.aux.contains_key(&name) {
                    self.aux.insert(name, shown(value));
                } else {
                    self.unlisted.aux += 1;
                }
            }
            Record::Function(source) => {
                self.needs(Some(FUNCTIONS_VERSION));
                raise(&mut self.by_commands[0], Some(FUNCTIONS_VERSION));
                if self.functions.len() < FUNCTIONS_MAX {
                    self.functions.push(library_name(source));
                } else {
                    self.unlisted.functions += 1;
                }
            }
            Record::ModuleAux(module) => self.on_module(module, 0),
            Record::KeyMetadata(1..) => {
                self.keys_with_metadata += 1;
                self.needs(Some(METADATA_VERSION));
                raise(&mut self.by_commands[0], Some(METADATA_VERSION));
                self.by_commands[1] = None;
            }
            _ => {}
        }
    }

    /// Records the first version of an occurring feature; `None` if no Redis version has it.
    #[inline]
    fn needs(&mut self, version: Option<u16>) {
        raise(&mut self.least_redis_version, version);
    }

    #[inline]
    fn needs_by_commands(&mut self, value_type: &ValueType) {
        let [redis, valkey] = &mut self.by_commands;
        raise(redis, value_type.least_version_by_commands(Magic::Redis));
        raise(valkey, value_type.least_version_by_commands(Magic::Valkey));
    }

    fn on_module(&mut self, module: ModuleId, values: u64) {
        let name = module.name();
        if self.modules.len() < MODULES_MAX || self.modules.contains_key(&name) {
            *self.modules.entry(name).or_default() += values;
        } else {
            self.unlisted.modules += values.max(1);
        }
    }

    #[inline]
    fn on_key(&mut self, key: &Key<'_>) {
        let Key { db, name, expires_at_ms, .. } = *key;
        self.current = Some(Current { db, name_bytes: name.len() as u64, expires_at_ms });
        self.name.clear();
        // One additional byte shows that the name is longer.
        self.name.extend_from_slice(&name[..name.len().min(TEXT_BYTES_MAX + 1)]);
    }

    fn on_key_end(&mut self, shape: &Shape) {
        let Some(current) = self.current.take() else { return };
        self.streams.key_end(self.total.keys + 1, shape.elements);
        self.needs(shape.value_type.least_redis_version());
        self.needs_by_commands(shape.value_type);
        let (value_type, name) = (shape.value_type, self.name.as_slice());
        let is_empty = value_type.kind().drops_empty() && shape.elements == 0;
        self.empty_keys += u64::from(is_empty);
        let sums = Sums {
            keys: 1,
            expiring: u64::from(current.expires_at_ms.is_some()),
            elements: shape.elements,
            stored_bytes: current.name_bytes + shape.stored_bytes,
            memory_bytes: memory_bytes(&current, shape),
        };
        self.total.add(&sums);
        let place = (current.db, value_type.kind());
        if self.databases.len() < DATABASES_MAX * Kind::ALL.len()
            || self.databases.contains_key(&place)
        {
            self.databases.entry(place).or_default().add(&sums);
        } else {
            self.unlisted.keys += 1;
        }
        let encoding = self.encodings.entry(value_type.byte());
        encoding.or_insert((value_type, Sums::default())).1.add(&sums);
        let (keys, bytes) = &mut self.sizes[size_class(shape.stored_bytes)];
        (*keys, *bytes) = (*keys + 1, *bytes + shape.stored_bytes);
        if let Some(expires_at_ms) = current.expires_at_ms {
            let left = expires_at_ms.saturating_sub(self.as_of_ms);
            let class = HORIZON.iter().position(|(_, until)| left <= *until);
            self.horizon[class.unwrap_or(HORIZON.len())] += 1;
        }
        self.largest.offer(sums.memory_bytes, || LargeKey {
            db: current.db,
            name: shown(name),
            kind: value_type.kind().as_str().to_owned(),
            encoding: value_type.encoding().to_owned(),
            elements: sums.elements,
            stored_bytes: sums.stored_bytes,
            memory_bytes: sums.memory_bytes,
        });
        self.prefixes.add(name, sums.memory_bytes);
    }
}

impl data::Visitor for Reporter {
    fn record(&mut self, record: Record<'_>) {
        self.on_record(record);
    }
    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        self.on_key(key);
    }
    #[inline]
    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::ModuleValue(module) => self.on_module(module, 1),
            Item::Stream(part) => self.streams.part(part),
            _ => {}
        }
    }
    #[inline]
    fn key_end(&mut self, shape: &Shape) {
        self.on_key_end(shape);
    }
}

/// Raises the required version to `version`; `None` means that no version is enough.
#[inline]
fn raise(least: &mut Option<u16>, version: Option<u16>) {
    *least = least.zip(version).map(|(least, version)| least.max(version));
}

/// Estimates the memory that jemalloc allocates for a key, by the structures of Redis 7: the entry
/// in the table of keys (24 bytes and 8 of the table), the object (16), the name; one more entry
/// for an expiry; and for each element the overhead of its encoding.
fn memory_bytes(key: &Current, shape: &Shape) -> u64 {
    const KEY_BYTES: u64 = 24 + 8 + 16 + 4;
    const EXPIRY_BYTES: u64 = 24 + 8;
    let is_packed = shape.packed > 0;
    let per_element = match (shape.value_type.kind(), is_packed) {
        (Kind::String | Kind::Module | Kind::Gcra, _) => 4,
        // A slot of a slice, and the object of its pointer.
        (Kind::Array, _) => 8 + 16,
        (Kind::List | Kind::Set | Kind::SortedSet | Kind::Hash, true) => 3,
        (Kind::List, false) => 40,
        (Kind::Set, false) => 24 + 8 + 4,
        (Kind::Hash, false) => 24 + 8 + 8,
        // Skiplist node and hash table entry.
        (Kind::SortedSet, false) => 24 + 8 + 40 + 4,
        (Kind::Stream, _) => 8,
    };
    let per_node = match shape.value_type.kind() {
        Kind::List => 32 + 7,
        Kind::Stream => 48,
        _ => 7,
    };
    KEY_BYTES
        + key.name_bytes
        + if key.expires_at_ms.is_some() { EXPIRY_BYTES } else { 0 }
        + shape.text_bytes
        + per_element * shape.elements
        + per_node * shape.packed
}

fn size_class(bytes: u64) -> usize {
    let class = (u64::BITS - bytes.saturating_sub(1).leading_zeros()) as usize;
    class.min(SIZE_CLASSES - 1)
}

fn size_classes(sizes: &[(u64, u64)]) -> Vec<SizeClass> {
    let numbered = sizes.iter().enumerate().filter(|(_, (keys, _))| *keys > 0);
    let class = |(class, (keys, stored_bytes)): (usize, &(u64, u64))| SizeClass {
        up_to_bytes: (class < SIZE_CLASSES - 1).then(|| 1 << class),
        keys: *keys,
        stored_bytes: *stored_bytes,
    };
    numbered.map(class).collect()
}

fn classes(horizon: &[u64]) -> Vec<ExpiryClass> {
    let names = HORIZON.iter().map(|(name, _)| *name).chain([LATER]);
    let class = |(name, keys): (&str, &u64)| ExpiryClass { name: name.to_owned(), keys: *keys };
    names.zip(horizon).map(class).collect()
}

fn database_sums(((db, kind), sums): ((u64, Kind), Sums)) -> DatabaseSums {
    DatabaseSums { db, kind: kind.as_str().to_owned(), sums }
}

fn encoding_sums((value_type, sums): (&'static ValueType, Sums)) -> EncodingSums {
    EncodingSums {
        kind: value_type.kind().as_str().to_owned(),
        encoding: value_type.encoding().to_owned(),
        sums,
    }
}

/// The beginning of a text, escaped for terminals and JSON.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let shown = match std::str::from_utf8(cut) {
        Ok(text) => Some(text),
        // The cut may have split a character.
        Err(error) if error.error_len().is_none() && cut.len() < bytes.len() => {
            std::str::from_utf8(&cut[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match shown {
        Some(text) if !text.chars().any(|c| c.is_control() || c == '\\') => text.to_owned(),
        _ => cut.escape_ascii().to_string(),
    }
}

/// The name in the first line of a library, `#!lua name=…`.
fn library_name(source: &[u8]) -> String {
    let line = source.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = line.split(|byte| byte.is_ascii_whitespace());
    let name = words.filter_map(|word| word.strip_prefix(b"name=")).next();
    shown(name.unwrap_or(b"(unnamed)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_belongs_to_the_first_class_whose_upper_limit_it_does_not_exceed() {
        for (bytes, class) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 39, 39)] {
            assert_eq!(size_class(bytes), class, "{bytes}");
        }
        assert_eq!(size_class(u64::MAX), SIZE_CLASSES - 1);
    }

    #[test]
    fn the_first_line_of_a_library_contains_its_name() {
        assert_eq!(library_name(b"#!lua name=mylib engine=x\nreturn 1"), "mylib");
        assert_eq!(library_name(b"return 1"), "(unnamed)");
        assert_eq!(library_name(b"#!lua name=\x1b[31m"), "\\x1b[31m");
    }
}
