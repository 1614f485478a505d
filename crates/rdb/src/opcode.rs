//! The table of type bytes and opcodes: the server family and the versions that use each, and the
//! layout of its value.
//!
//! Sources: `rdb.h` and `rdb.c` of Redis 2.8 to 8.6 and Valkey 7.2 to 9.1, and files of a build of
//! Redis' main branch of June 2026 (version 14). [Documented only](ValueType::is_documented_only)
//! rows come from public documents of Redis 8.10 (version 15) and Valkey 9.2 (version 81). They
//! were not tested with a server; bytes that do not fit such a row make the stream opaque, not
//! damaged. No tested file contains the previews of 7.4 or type 6.

use crate::header::{Header, Magic};

/// The kind of a key's value, independent of its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
    /// A value of a module's own type.
    Module,
    /// An array (Redis 8.8).
    Array,
    /// The state of a rate limiter (Redis 8.8, in builds that support it).
    Gcra,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::String,
        Self::List,
        Self::Set,
        Self::SortedSet,
        Self::Hash,
        Self::Stream,
        Self::Module,
        Self::Array,
        Self::Gcra,
    ];

    /// The reply of `TYPE`; for a module value its value contains the module's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
            Self::Array => "array",
            Self::Gcra => "gcra",
        }
    }

    /// Whether a value without elements does not exist for a server. Servers delete such a key with
    /// its last element. Since Redis 7.0 they skip such keys, which faults can leave, when they
    /// load.
    pub fn drops_empty(self) -> bool {
        matches!(self, Self::List | Self::Set | Self::SortedSet | Self::Hash)
    }
}

/// The role of a string inside a value.
///
/// The enum has its own tag, because it is read for every string: a tag in a niche of [`Packing`]
/// costs several instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The value of a string key.
    Value,
    /// An element of a list.
    Element,
    /// A member of a set or sorted set.
    Member,
    /// A path of a path hash; its fields and values follow.
    Path,
    /// A field's name, in a hash or a stream entry.
    Field,
    /// A field's value, in a hash or a stream entry.
    FieldValue,
    /// A string in an array; its index came before it.
    ArrayValue,
    /// A string in a module's data.
    Module,
    /// The identifier that a node of a stream is stored under, 16 bytes.
    NodeId,
    /// Several elements in one string.
    Packed(Packing),
}

/// The encoding of several elements in one string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// A zipmap of fields and values.
    Zipmap,
    /// An intset of members.
    Intset,
    /// A ziplist or listpack.
    Entries(Container, Row),
    /// A listpack of stream entries.
    StreamNode,
    /// A listpack of a template number and the values of a hash by template.
    TemplateValues,
    /// The same with a number without meaning: the template precedes the value.
    OwnTemplateValues,
}

/// The string that contains the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Up to Redis 6.2.
    Ziplist,
    /// Since Redis 7.0, and in streams since 5.0.
    Listpack,
}

/// The repeating sequence of entries in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// List elements.
    Element,
    /// Set members.
    Member,
    /// Member and score.
    MemberScore,
    /// Field and value.
    FieldValue,
    /// Field, value and absolute expiry in milliseconds, 0 for none.
    FieldValueExpiry,
}

/// A part of a value, except for parts of a stream's tail or of a module's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    Text(Role),
    /// Eight bytes, little-endian.
    Score,
    /// A length byte and decimal digits; 253 to 255 stand for values that are not numbers.
    AsciiScore,
    /// A length that determines how the following string holds its elements.
    QuicklistNode,
    /// A length: 0, or one more than the difference to the earliest expiry.
    RelativeExpiry,
    /// A length: 0, or the expiry in milliseconds.
    Expiry,
    /// Eight bytes, little-endian: -1, or the expiry in milliseconds.
    SignedExpiry,
    /// A count of at least one; the rest of the row repeats that many times.
    InnerCount,
    /// A length: the index of an array's value.
    ArrayIndex,
    /// A length that determines the form of an array's value, and the value.
    ArrayValue,
    /// A length: a moment in the internal unit of a rate limiter.
    Time,
    /// No bytes: the decoder passes the next field of the hash's template.
    TemplateField,
}

/// The layout of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// These cells, once.
    Once(&'static [Cell]),
    /// A count and these cells that many times.
    Counted(&'static [Cell]),
    /// The earliest expiry in eight bytes, then as `Once`.
    ExpiryOnce(&'static [Cell]),
    /// The earliest expiry in eight bytes, then as `Counted`.
    ExpiryCounted(&'static [Cell]),
    /// A count of at least one, optionally the next insert index, and rows of these cells.
    Array(&'static [Cell]),
    /// These cells: a packed string that begins with the number of its template, or, behind that
    /// number, once for each field of the template.
    Template(&'static [Cell]),
    /// A template's fields, and these cells as with `Template`: the form of `DUMP`.
    OwnTemplate(&'static [Cell]),
    /// Nodes, then the tail of this version of the layout.
    Stream(StreamVersion),
    /// A module's identifier and its parts.
    Module,
    /// A known type that only its module can read.
    Opaque(&'static str),
}

/// The position of a field's expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldExpiry {
    None,
    Before,
    After,
}

/// The content of a stream's tail; each version adds parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamVersion {
    V1,
    /// First and largest deleted identifier, entries added and read.
    V2,
    /// The time of a consumer's last activity.
    V3,
    /// Idempotent producers.
    V4,
    /// Pending entries without a consumer.
    V5,
}

/// The families and versions that use an opcode or a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// In both families.
    Both(u16),
    Redis(u16),
    /// In versions up to this one: the next version gave the byte another meaning.
    RedisOnly(u16),
    /// In versions from this one on: earlier versions gave the byte another meaning.
    RedisAnew(u16),
    Valkey(u16),
}

impl Since {
    /// The version matters only for bytes that changed their meaning: a server may write an old
    /// header over newer content.
    fn covers(self, header: Header) -> bool {
        match self {
            Self::Both(_) => true,
            Self::Redis(_) => header.magic == Magic::Redis,
            Self::RedisOnly(version) => header.magic == Magic::Redis && header.version <= version,
            Self::RedisAnew(version) => header.magic == Magic::Redis && header.version >= version,
            Self::Valkey(_) => header.magic == Magic::Valkey,
        }
    }

    fn least_redis_version(self) -> Option<u16> {
        match self {
            Self::Both(version)
            | Self::Redis(version)
            | Self::RedisOnly(version)
            | Self::RedisAnew(version) => Some(version),
            Self::Valkey(_) => None,
        }
    }
}

/// The versions that introduced expiring fields: Redis 7.4 and Valkey 9.0.
const FIELD_EXPIRY_REDIS: u16 = 12;
const FIELD_EXPIRY_VALKEY: u16 = 80;
/// Redis 2.6 introduced `DUMP`; its format was version 6 when it was released.
const DUMP_VERSION_MIN: u16 = 6;

/// One row of the table of types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueType {
    byte: u8,
    name: &'static str,
    kind: Kind,
    since: Since,
    layout: Layout,
    is_documented_only: bool,
}

impl ValueType {
    /// The type byte.
    pub fn byte(&self) -> u8 {
        self.byte
    }

    /// The encoding's name, such as `listpack`, without the kind.
    pub fn encoding(&self) -> &'static str {
        self.name
    }

    /// The kind of the value.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The minimum version of the Redis format that has this encoding; `None` for encodings of
    /// Valkey's own format.
    pub fn least_redis_version(&self) -> Option<u16> {
        self.since.least_redis_version()
    }

    /// The minimum version of a `DUMP` payload of this type: every server that supports the type
    /// accepts it.
    pub(crate) fn dump_version(&self) -> u16 {
        let (Since::Both(version)
        | Since::Redis(version)
        | Since::RedisOnly(version)
        | Since::RedisAnew(version)
        | Since::Valkey(version)) = self.since;
        version.max(DUMP_VERSION_MIN)
    }

    /// The family that has this encoding; `None` if both have it.
    pub fn family(&self) -> Option<Magic> {
        match self.since {
            Since::Both(_) => None,
            Since::Redis(_) | Since::RedisOnly(_) | Since::RedisAnew(_) => Some(Magic::Redis),
            Since::Valkey(_) => Some(Magic::Valkey),
        }
    }

    /// The minimum version of a family's format whose servers accept values of this encoding by
    /// commands; `None` if no version does. Servers accept them as a payload of `RESTORE`. For
    /// hashes with expiring fields in the encoding of the other family, they accept the commands
    /// for hashes.
    pub fn least_version_by_commands(&self, family: Magic) -> Option<u16> {
        match (self.since, family) {
            (Since::Both(version), _) => Some(version),
            (_, Magic::Redis) if self.family() == Some(Magic::Redis) => self.least_redis_version(),
            (Since::Valkey(version), Magic::Valkey) => Some(version),
            (_, Magic::Redis) if self.has_field_expiries() => Some(FIELD_EXPIRY_REDIS),
            (_, Magic::Valkey) if self.has_field_expiries() => Some(FIELD_EXPIRY_VALKEY),
            _ => None,
        }
    }

    /// Whether the layout is known from public documents only, and was not tested with a server.
    /// Bytes that do not fit such a layout may show that the layout is wrong.
    pub fn is_documented_only(&self) -> bool {
        self.is_documented_only
    }

    /// Whether a template before the keys names the fields of the hash. The bytes of such a value
    /// alone are no payload for `RESTORE`
    /// ([`DumpPayload::resolve`](crate::dump::DumpPayload::resolve)).
    pub fn is_by_template(&self) -> bool {
        matches!(self.layout, Layout::Template(_))
    }

    /// Whether single fields can expire.
    pub fn has_field_expiries(&self) -> bool {
        self.field_expiry() != FieldExpiry::None
    }

    /// Whether a field's expiry is stored, and on which side of the field.
    pub(crate) fn field_expiry(&self) -> FieldExpiry {
        match self.layout {
            Layout::ExpiryCounted(_) => FieldExpiry::Before,
            Layout::Counted([Cell::Expiry, ..]) => FieldExpiry::Before,
            Layout::Counted([.., Cell::SignedExpiry]) | Layout::ExpiryOnce(_) => FieldExpiry::After,
            Layout::Once(
                [Cell::Text(Role::Packed(Packing::Entries(_, Row::FieldValueExpiry)))],
            ) => FieldExpiry::After,
            _ => FieldExpiry::None,
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The type of `byte` in a stream with this header.
    pub(crate) fn find(byte: u8, header: Header) -> Option<&'static Self> {
        let first = DIRECT.get(usize::from(byte)).copied().flatten();
        first.or_else(|| VALUE_TYPES.iter().find(|t| t.byte == byte && t.since.covers(header)))
    }
}

const fn row(byte: u8, name: &'static str, kind: Kind, since: Since, layout: Layout) -> ValueType {
    ValueType { byte, name, kind, since, layout, is_documented_only: false }
}

impl ValueType {
    const fn documented_only(self) -> Self {
        Self { is_documented_only: true, ..self }
    }
}

const TEXT: Cell = Cell::Text(Role::Value);
const ELEMENT: Cell = Cell::Text(Role::Element);
const MEMBER: Cell = Cell::Text(Role::Member);
const PATH: Cell = Cell::Text(Role::Path);
const FIELD: Cell = Cell::Text(Role::Field);
const VALUE: Cell = Cell::Text(Role::FieldValue);
const ARRAY: &[Cell] = &[Cell::ArrayIndex, Cell::ArrayValue];
const TEMPLATE_FIELDS: &[Cell] = &[Cell::TemplateField, VALUE];
const TEMPLATE_VALUES: &[Cell] = &[packed(Packing::TemplateValues)];
const OWN_TEMPLATE_VALUES: &[Cell] = &[packed(Packing::OwnTemplateValues)];

const fn packed(packing: Packing) -> Cell {
    Cell::Text(Role::Packed(packing))
}

const fn ziplist(row: Row) -> Cell {
    packed(Packing::Entries(Container::Ziplist, row))
}

const fn listpack(row: Row) -> Cell {
    packed(Packing::Entries(Container::Listpack, row))
}

/// All types. Bytes 22 and 23 differ between the families, 29 between two Redis versions.
pub(crate) static VALUE_TYPES: &[ValueType] = {
    use Kind::{Array, Gcra, Hash, List, Module, Set, SortedSet, Stream, String};
    use Layout::{Counted, ExpiryCounted, ExpiryOnce, Once, Opaque, OwnTemplate, Template};
    use Row::{Element, FieldValue, FieldValueExpiry, Member, MemberScore};
    use Since::{Both, Redis, RedisAnew, RedisOnly, Valkey};
    &[
        row(0, "string", String, Both(1), Once(&[TEXT])),
        row(1, "linked list", List, Both(1), Counted(&[ELEMENT])),
        row(2, "hash table", Set, Both(1), Counted(&[MEMBER])),
        row(
            3,
            "skiplist, decimal scores",
            SortedSet,
            Both(1),
            Counted(&[MEMBER, Cell::AsciiScore]),
        ),
        row(4, "hash table", Hash, Both(1), Counted(&[FIELD, VALUE])),
        row(5, "skiplist", SortedSet, Both(8), Counted(&[MEMBER, Cell::Score])),
        row(6, "module, first version", Module, Both(8), Opaque("a module value of type 6")),
        row(7, "module", Module, Both(8), Layout::Module),
        row(9, "zipmap", Hash, Both(1), Once(&[packed(Packing::Zipmap)])),
        row(10, "ziplist", List, Both(1), Once(&[ziplist(Element)])),
        row(11, "intset", Set, Both(1), Once(&[packed(Packing::Intset)])),
        row(12, "ziplist", SortedSet, Both(1), Once(&[ziplist(MemberScore)])),
        row(13, "ziplist", Hash, Both(4), Once(&[ziplist(FieldValue)])),
        row(14, "quicklist of ziplists", List, Both(7), Counted(&[ziplist(Element)])),
        row(15, "stream", Stream, Both(9), Layout::Stream(StreamVersion::V1)),
        row(16, "listpack", Hash, Both(10), Once(&[listpack(FieldValue)])),
        row(17, "listpack", SortedSet, Both(10), Once(&[listpack(MemberScore)])),
        row(18, "quicklist", List, Both(10), Counted(&[Cell::QuicklistNode])),
        row(19, "stream, version 2", Stream, Both(10), Layout::Stream(StreamVersion::V2)),
        row(20, "listpack", Set, Both(11), Once(&[listpack(Member)])),
        row(21, "stream, version 3", Stream, Both(11), Layout::Stream(StreamVersion::V3)),
        row(
            22,
            "hash table with expiry",
            Hash,
            Valkey(80),
            Counted(&[FIELD, VALUE, Cell::SignedExpiry]),
        ),
        row(
            22,
            "hash table with expiry, preview",
            Hash,
            Redis(12),
            Counted(&[Cell::Expiry, FIELD, VALUE]),
        ),
        row(
            23,
            "listpack with expiry, preview",
            Hash,
            Redis(12),
            Once(&[listpack(FieldValueExpiry)]),
        ),
        row(23, "path hash", Hash, Valkey(81), Counted(&[PATH, Cell::InnerCount, FIELD, VALUE]))
            .documented_only(),
        row(
            24,
            "hash table with expiry",
            Hash,
            Redis(12),
            ExpiryCounted(&[Cell::RelativeExpiry, FIELD, VALUE]),
        ),
        row(25, "listpack with expiry", Hash, Redis(12), ExpiryOnce(&[listpack(FieldValueExpiry)])),
        row(26, "stream, version 4", Stream, Redis(13), Layout::Stream(StreamVersion::V4)),
        row(27, "stream, version 5", Stream, Redis(14), Layout::Stream(StreamVersion::V5)),
        row(28, "sliced-array", Array, Redis(14), Layout::Array(ARRAY)),
        row(29, "rate limiter", Gcra, RedisOnly(14), Once(&[Cell::Time])).documented_only(),
        row(
            29,
            "listpack by template, of DUMP",
            Hash,
            RedisAnew(15),
            OwnTemplate(OWN_TEMPLATE_VALUES),
        )
        .documented_only(),
        row(30, "listpack by template", Hash, Redis(15), Template(TEMPLATE_VALUES))
            .documented_only(),
        row(31, "hash table by template, of DUMP", Hash, Redis(15), OwnTemplate(TEMPLATE_FIELDS))
            .documented_only(),
        row(32, "hash table by template", Hash, Redis(15), Template(TEMPLATE_FIELDS))
            .documented_only(),
        row(33, "rate limiter", Gcra, Redis(15), Once(&[Cell::Time])).documented_only(),
    ]
};

/// Types by their byte, where both families agree.
static DIRECT: [Option<&'static ValueType>; 22] = {
    let mut table = [None; 22];
    let mut at = 0;
    while at < VALUE_TYPES.len() {
        if matches!(VALUE_TYPES[at].since, Since::Both(_)) {
            table[VALUE_TYPES[at].byte as usize] = Some(&VALUE_TYPES[at]);
        }
        at += 1;
    }
    table
};

/// The opcodes of records between keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    HashTemplate,
    InlineCommands,
    KeyMetadata,
    SlotImport,
    SlotInfo,
    Function2,
    FunctionPreview,
    ModuleAux,
    Idle,
    Frequency,
    Aux,
    ResizeDb,
    ExpiryMilliseconds,
    ExpirySeconds,
    SelectDb,
    End,
}

static OPCODES: &[(u8, Since, Opcode)] = {
    use Since::{Both, Redis, Valkey};
    &[
        // Both meanings are known from public documents only.
        (242, Redis(15), Opcode::HashTemplate),
        (242, Valkey(81), Opcode::InlineCommands),
        (243, Redis(13), Opcode::KeyMetadata),
        (243, Valkey(80), Opcode::SlotImport),
        (244, Redis(12), Opcode::SlotInfo),
        (244, Valkey(80), Opcode::SlotInfo),
        (245, Both(10), Opcode::Function2),
        (246, Both(10), Opcode::FunctionPreview),
        (247, Both(9), Opcode::ModuleAux),
        (248, Both(9), Opcode::Idle),
        (249, Both(9), Opcode::Frequency),
        (250, Both(7), Opcode::Aux),
        (251, Both(7), Opcode::ResizeDb),
        (252, Both(3), Opcode::ExpiryMilliseconds),
        (253, Both(1), Opcode::ExpirySeconds),
        (254, Both(1), Opcode::SelectDb),
        (255, Both(1), Opcode::End),
    ]
};

impl Opcode {
    pub(crate) fn find(byte: u8, header: Header) -> Option<Self> {
        let known =
            OPCODES.iter().find(|(opcode, since, _)| *opcode == byte && since.covers(header));
        known.map(|(_, _, opcode)| *opcode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS: Header = Header { magic: Magic::Redis, version: 12 };
    const REDIS_14: Header = Header { magic: Magic::Redis, version: 14 };
    const REDIS_15: Header = Header { magic: Magic::Redis, version: 15 };
    const VALKEY: Header = Header { magic: Magic::Valkey, version: 80 };

    #[test]
    fn a_byte_has_one_meaning_per_family() {
        for header in [REDIS, REDIS_14, REDIS_15, VALKEY] {
            for byte in 0..=u8::MAX {
                let types = VALUE_TYPES.iter().filter(|t| t.byte == byte && t.since.covers(header));
                let opcodes = OPCODES.iter().filter(|o| o.0 == byte && o.1.covers(header));
                assert!(types.count() + opcodes.count() <= 1, "{byte} in {header}");
            }
        }
    }

    #[test]
    fn the_header_letters_select_the_type() {
        assert_eq!(ValueType::find(22, VALKEY).unwrap().least_redis_version(), None);
        assert_eq!(ValueType::find(22, REDIS).unwrap().least_redis_version(), Some(12));
        assert_eq!(ValueType::find(24, VALKEY), None);
        assert_eq!(Opcode::find(243, REDIS), Some(Opcode::KeyMetadata));
        assert_eq!(Opcode::find(243, VALKEY), Some(Opcode::SlotImport));
        assert_eq!(ValueType::find(8, REDIS), None);
    }

    #[test]
    fn the_version_selects_the_type_of_a_reassigned_byte() {
        assert_eq!(ValueType::find(29, REDIS_14).unwrap().kind(), Kind::Gcra);
        assert_eq!(ValueType::find(29, REDIS_15).unwrap().kind(), Kind::Hash);
        assert_eq!(ValueType::find(33, REDIS_15).unwrap().kind(), Kind::Gcra);
        assert_eq!(ValueType::find(28, VALKEY), None);
    }
}
