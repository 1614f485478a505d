//! Logical values, from the data level and from the replies of a server.

use std::collections::{BTreeMap, BTreeSet};

use cachevault_rdb::data;
use cachevault_rdb::raw::{Key, StreamId, StreamPart};
use cachevault_rdb::structure::{Item, Piece, Shape};
use cachevault_rdb::{Kind, Role};
use cachevault_testkit::{Reply, Server, text};

use crate::live::{Command, array, bulk, bulks, command, integer, run};

type Bytes = Vec<u8>;

/// Every key with its expiry in milliseconds since 1970.
pub(crate) type Keys = BTreeMap<(u64, Bytes), (Option<i64>, Logical)>;

/// A value, independent of its encoding.
#[derive(Debug, PartialEq)]
pub(crate) enum Logical {
    String(Bytes),
    List(Vec<Bytes>),
    Set(BTreeSet<Bytes>),
    /// Members with the bits of their scores.
    SortedSet(BTreeMap<Bytes, u64>),
    /// Fields with their values and expiries, milliseconds since 1970.
    Hash(BTreeMap<Bytes, (Bytes, Option<i64>)>),
    Stream(Stream),
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stream {
    /// Entries; fields and values alternate.
    entries: Vec<(StreamId, Vec<Bytes>)>,
    last_id: StreamId,
    groups: BTreeMap<Bytes, Group>,
}

#[derive(Debug, Default, PartialEq)]
struct Group {
    last_id: StreamId,
    pending: BTreeMap<StreamId, Pending>,
    /// The time of each consumer's last request.
    consumers: BTreeMap<Bytes, u64>,
}

#[derive(Debug, Default, PartialEq)]
struct Pending {
    consumer: Bytes,
    delivered_at_ms: u64,
    deliveries: u64,
}

/// Collects the findings of the data level.
#[derive(Default)]
pub(crate) struct Collector {
    pub(crate) keys: Keys,
    /// The types of the stored values.
    pub(crate) types: BTreeSet<u8>,
    key: (u64, Bytes),
    expires_at_ms: Option<i64>,
    kind: Option<Kind>,
    open: Option<Bytes>,
    texts: Vec<Bytes>,
    scores: Vec<u64>,
    field_expiries: Vec<Option<i64>>,
    stream: Stream,
    group: Bytes,
    consumer: Bytes,
}

impl data::Visitor for Collector {
    fn key(&mut self, key: &Key<'_>) {
        self.key = (key.db, key.name.to_vec());
        self.expires_at_ms = key.expires_at_ms;
        self.kind = Some(key.value_type.kind());
        self.types.insert(key.value_type.byte());
    }

    fn text(&mut self, piece: Piece<'_>) {
        assert_ne!(piece.is_first, self.open.is_some(), "a string begins inside another");
        self.open.get_or_insert_default().extend_from_slice(piece.bytes);
        if piece.is_last {
            self.text_end(piece.role);
        }
    }

    fn score(&mut self, score: f64) {
        self.scores.push(score.to_bits());
    }

    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::FieldExpiry(expiry) => self.field_expiries.push(expiry),
            Item::Entry(id) => self.stream.entries.push((id, Vec::new())),
            Item::Stream(part) => self.stream_part(part),
            other => panic!("unexpected item: {other:?}"),
        }
    }

    fn key_end(&mut self, shape: &Shape) {
        let kind = self.kind.take().expect("a value that ends has a beginning");
        let (value, elements) = self.value(kind);
        assert_eq!(shape.elements as usize, elements, "{kind:?}");
        let before = self.keys.insert(self.key.clone(), (self.expires_at_ms, value));
        assert_eq!(before, None, "a key occurs twice");
    }
}

impl Collector {
    fn text_end(&mut self, role: Role) {
        let text = self.open.take().expect("a value that ends has a beginning");
        match (self.kind, role) {
            (Some(Kind::Stream), Role::Field | Role::FieldValue) => {
                let (_, texts) = self.stream.entries.last_mut().expect(
                    "an entry precedes its \
                    fields",
                );
                assert_eq!(role == Role::Field, texts.len() % 2 == 0);
                texts.push(text);
            }
            _ => self.texts.push(text),
        }
    }

    fn stream_part(&mut self, part: StreamPart<'_>) {
        if let StreamPart::Group(group) = part {
            self.group = group.name.to_vec();
        }
        let group = self.stream.groups.entry(self.group.clone());
        match part {
            StreamPart::Meta(meta) => self.stream.last_id = meta.last_id,
            StreamPart::Group(found) => group.or_default().last_id = found.last_id,
            StreamPart::Pending(found) => {
                let pending = group.or_default().pending.entry(found.id).or_default();
                pending.delivered_at_ms = found.delivered_at_ms;
                pending.deliveries = found.deliveries;
            }
            StreamPart::Consumers(_)
            | StreamPart::Unowned(_)
            | StreamPart::UnownedPending(_)
            | StreamPart::Producers(_)
            | StreamPart::Producer(_)
            | StreamPart::ProducerEntry(_)
            | StreamPart::ProducerTotals(_) => {}
            StreamPart::Consumer(found) => {
                self.consumer = found.name.to_vec();
                group.or_default().consumers.insert(found.name.to_vec(), found.seen_at_ms);
            }
            StreamPart::ConsumerPending(id) => {
                let pending = group.or_default().pending.get_mut(&id);
                let consumer = &mut pending.expect("the entry is pending in the group").consumer;
                assert_eq!(consumer, b"", "an entry is pending for two consumers");
                consumer.clone_from(&self.consumer);
            }
        }
    }

    /// The collected value, and its number of elements in the file.
    fn value(&mut self, kind: Kind) -> (Logical, usize) {
        let (mut texts, scores) =
            (std::mem::take(&mut self.texts), std::mem::take(&mut self.scores));
        let count = texts.len();
        match kind {
            Kind::String => (Logical::String(texts.remove(0)), count),
            Kind::List => (Logical::List(texts), count),
            Kind::Set => (Logical::Set(texts.into_iter().collect()), count),
            Kind::SortedSet => {
                assert_eq!(scores.len(), count);
                (Logical::SortedSet(texts.into_iter().zip(scores).collect()), count)
            }
            Kind::Hash => {
                let expiries = std::mem::take(&mut self.field_expiries);
                assert_eq!(expiries.len(), count / 2);
                (Logical::Hash(expiring(pairs(texts), expiries)), count / 2)
            }
            Kind::Stream => {
                let stream = std::mem::take(&mut self.stream);
                let entries = stream.entries.len();
                (Logical::Stream(stream), entries)
            }
            Kind::Module | Kind::Array | Kind::Gcra => panic!("unexpected kind of value"),
        }
    }
}

fn pairs(texts: Vec<Bytes>) -> impl Iterator<Item = (Bytes, Bytes)> {
    let mut texts = texts.into_iter();
    std::iter::from_fn(move || Some((texts.next()?, texts.next().expect("a field has a value"))))
}

fn expiring(
    pairs: impl Iterator<Item = (Bytes, Bytes)>,
    expiries: Vec<Option<i64>>,
) -> BTreeMap<Bytes, (Bytes, Option<i64>)> {
    pairs.zip(expiries).map(|((field, value), expiry)| (field, (value, expiry))).collect()
}

/// Reads all keys of these databases from a server.
pub(crate) fn ask_for_keys(server: &Server, databases: &[u64]) -> Keys {
    let mut keys = Keys::new();
    for &db in databases {
        let select = command!["SELECT", db.to_string()];
        let names = bulks(&run(server, &[select.clone(), command!["KEYS", "*"]])[1]);
        let ask_type = |name: &Bytes| command!["TYPE", name];
        let types: Vec<_> =
            std::iter::once(select.clone()).chain(names.iter().map(ask_type)).collect();
        let types: Vec<_> = run(server, &types)[1..].iter().map(text).collect();
        let questions = names.iter().zip(&types).flat_map(|(name, kind)| {
            [command!["PEXPIRETIME", name], question(kind, name), detail(kind, name)]
        });
        let questions: Vec<_> = std::iter::once(select.clone()).chain(questions).collect();
        let replies = run(server, &questions);
        for ((name, kind), replies) in
            names.into_iter().zip(&types).zip(replies[1..].chunks_exact(3))
        {
            let expiry = Some(integer(&replies[0])).filter(|at| *at >= 0);
            let value = match kind.as_str() {
                "hash" => ask_for_hash(server, &select, &name, bulks(&replies[1])),
                kind => answer(kind, &replies[1], &replies[2]),
            };
            keys.insert((db, name), (expiry, value));
        }
    }
    keys
}

/// The expiries of a hash's fields; none if the server does not support them.
fn ask_for_hash(server: &Server, select: &Command, name: &[u8], texts: Vec<Bytes>) -> Logical {
    let fields: Vec<_> = texts.iter().step_by(2).cloned().collect();
    let mut ask = command!["HPEXPIRETIME", name, "FIELDS", fields.len().to_string()];
    ask.extend_from_slice(&fields);
    let expiries = match &server.pipeline(&[select.clone(), ask])[1] {
        Reply::Error(error) if error.starts_with(b"ERR unknown command") => {
            vec![None; fields.len()]
        }
        reply => {
            let expiries = array(reply).iter().map(|at| Some(integer(at)).filter(|at| *at >= 0));
            expiries.collect()
        }
    };
    Logical::Hash(expiring(pairs(texts), expiries))
}

fn question(kind: &str, name: &[u8]) -> Command {
    match kind {
        "string" => command!["GET", name],
        "list" => command!["LRANGE", name, "0", "-1"],
        "set" => command!["SMEMBERS", name],
        "zset" => command!["ZRANGE", name, "0", "-1", "WITHSCORES"],
        "hash" => command!["HGETALL", name],
        "stream" => command!["XRANGE", name, "-", "+"],
        other => panic!("unexpected type {other}"),
    }
}

/// The command for details that the first command does not return.
fn detail(kind: &str, name: &[u8]) -> Command {
    match kind {
        "stream" => command!["XINFO", "STREAM", name, "FULL", "COUNT", "0"],
        _ => command!["PING"],
    }
}

fn answer(kind: &str, value: &Reply, detail: &Reply) -> Logical {
    match kind {
        "string" => Logical::String(bulk(value)),
        "list" => Logical::List(bulks(value)),
        "set" => Logical::Set(bulks(value).into_iter().collect()),
        "zset" => Logical::SortedSet(pairs(bulks(value)).map(score_bits).collect()),
        _ => Logical::Stream(stream(value, detail)),
    }
}

/// Minus zero is zero at the data level.
fn score_bits((member, score): (Bytes, Bytes)) -> (Bytes, u64) {
    let score: f64 = std::str::from_utf8(&score).unwrap().parse().unwrap();
    (member, (score + 0.0).to_bits())
}

fn stream(entries: &Reply, info: &Reply) -> Stream {
    let entry = |reply: &Reply| match array(reply) {
        [id, texts] => (stream_id(id), bulks(texts)),
        other => panic!("not an entry: {other:?}"),
    };
    let groups = array(field(info, "groups")).iter();
    Stream {
        entries: array(entries).iter().map(entry).collect(),
        last_id: stream_id(field(info, "last-generated-id")),
        groups: groups.map(|info| (bulk(field(info, "name")), group(info))).collect(),
    }
}

fn group(info: &Reply) -> Group {
    let pending = array(field(info, "pending")).iter().map(|reply| match array(reply) {
        [id, consumer, delivered, deliveries] => {
            let delivered_at_ms = integer(delivered).cast_unsigned();
            let deliveries = integer(deliveries).cast_unsigned();
            (stream_id(id), Pending { consumer: bulk(consumer), delivered_at_ms, deliveries })
        }
        other => panic!("not a pending entry: {other:?}"),
    });
    let consumers = array(field(info, "consumers")).iter().map(|consumer| {
        let seen_at_ms = integer(field(consumer, "seen-time")).cast_unsigned();
        (bulk(field(consumer, "name")), seen_at_ms)
    });
    Group {
        last_id: stream_id(field(info, "last-delivered-id")),
        pending: pending.collect(),
        consumers: consumers.collect(),
    }
}

/// A field of a reply in which names and values alternate.
#[track_caller]
fn field<'r>(info: &'r Reply, name: &str) -> &'r Reply {
    let pair = array(info).chunks_exact(2).find(|pair| text(&pair[0]) == name);
    &pair.unwrap_or_else(|| panic!("{info:?} has no field {name}"))[1]
}

fn stream_id(reply: &Reply) -> StreamId {
    let id = text(reply);
    let (ms, seq) = id.split_once('-').unwrap();
    StreamId { ms: ms.parse().unwrap(), seq: seq.parse().unwrap() }
}
