//! Payloads for `RESTORE`, equal to the replies of `DUMP`.
//!
//! A payload consists of the type byte, the value's bytes as stored in the RDB, two bytes of
//! version and eight bytes of CRC-64 over all preceding bytes. Version and CRC-64 are little-endian
//! (`createDumpPayload` of `cluster.c`). A server refuses a version above its own. The version here
//! is therefore the minimum version that has the type: every server that supports the type accepts
//! the payload.

use crc_fast::{CrcAlgorithm, Digest};

use crate::cursor::Cursor;
use crate::error::{DecodeErrorKind, Stop, Take, corrupt};
use crate::header::{Header, Magic};
use crate::opcode::ValueType;
use crate::packed::listpack::texts_of_listpack;
use crate::structure::{self, Shape};
use crate::template::{HashTemplate, HashTemplates};

/// Length of the footer that follows the value, in bytes.
pub const FOOTER_BYTES: usize = 10;

/// Builds a payload from a value that arrives in pieces.
///
/// ```
/// use cachevault_rdb::dump::DumpPayload;
/// use cachevault_rdb::raw::{Decoder, Key, Visitor};
/// # use cachevault_rdb::DecodeErrorKind;
///
/// #[derive(Default)]
/// struct Payloads {
///     current: Option<DumpPayload>,
///     done: Vec<Vec<u8>>,
/// }
///
/// impl Visitor for Payloads {
///     fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
///         self.current = Some(DumpPayload::new(key.value_type, key.metadata));
///         Ok(())
///     }
///     fn bytes(&mut self, bytes: &[u8]) {
///         if let Some(payload) = &mut self.current {
///             payload.push(bytes);
///         }
///     }
///     fn key_end(&mut self) -> Result<(), DecodeErrorKind> {
///         self.done.extend(self.current.take().map(DumpPayload::finish));
///         Ok(())
///     }
/// }
///
/// let mut payloads = Payloads::default();
/// Decoder::default().feed(b"REDIS0009\x00\x01k\x01v\xff", &mut payloads)?;
/// // As `DUMP k` on Redis 2.6 would say.
/// assert_eq!(payloads.done[0][..5], *b"\x00\x01v\x06\x00");
/// # Ok::<(), cachevault_rdb::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct DumpPayload {
    bytes: Vec<u8>,
    version: u16,
    /// Position of the value, directly behind its type.
    value_at: usize,
    value_type: &'static ValueType,
}

/// The payload form of a hash by template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateForm {
    /// With the fields of its template (types 29 and 31), for servers that load version 15.
    OwnFields,
    /// A plain hash (type 4), which every server accepts.
    Plain,
}

/// The first version of the format that has module metadata of keys.
const METADATA_VERSION: u16 = 13;
/// Types of hashes: plain, and by template with the fields in front.
const PLAIN_HASH: (u8, u16) = (4, 6);
const OWN_FIELDS_VERSION: u16 = 15;
/// Packed hashes by template, as stored in an RDB and as returned by `DUMP`.
const PACKED_BY_TEMPLATE: u8 = 30;
const PACKED_OWN_FIELDS: u8 = 29;
const OWN_FIELDS: u8 = 31;
/// The mark of a list of single fields.
const FIELDS_COUNTED: u8 = 1;

impl DumpPayload {
    /// Begins a payload of this type with the module metadata of the key
    /// ([`Key::metadata`](crate::raw::Key::metadata)).
    pub fn new(value_type: &'static ValueType, metadata: &[u8]) -> Self {
        let mut bytes = metadata.to_vec();
        bytes.push(value_type.byte());
        let value_at = bytes.len();
        Self { bytes, version: value_type.dump_version(), value_at, value_type }
    }

    /// The bytes of the value so far.
    pub fn value(&self) -> &[u8] {
        &self.bytes[self.value_at..]
    }

    /// Inserts the fields of the template into the payload of a complete hash by template. Other
    /// payloads stay unchanged.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Corrupt`] when the stream has no such template, or the value does not fit
    /// it.
    pub fn resolve(
        self,
        templates: &HashTemplates,
        form: TemplateForm,
    ) -> Result<Self, DecodeErrorKind> {
        if !self.value_type.is_by_template() {
            return Ok(self);
        }
        let (head, value) = self.bytes.split_at(self.value_at);
        let is_packed = self.value_type.byte() == PACKED_BY_TEMPLATE;
        let taken = match is_packed {
            true => packed_by_template(value, templates),
            false => by_template(value, templates),
        };
        let (template, values, stored) = taken.map_err(|stop| match stop {
            Stop::Bad(kind) => *kind,
            Stop::Need(_) => DecodeErrorKind::Corrupt("a hash by template ends too soon"),
        })?;
        if values.len() != template.fields.len() {
            return corrupt("a hash does not have as many values as its template has fields");
        }
        let mut bytes = head[..head.len() - 1].to_vec();
        let (value_type, version) = match form {
            TemplateForm::Plain => PLAIN_HASH,
            TemplateForm::OwnFields if is_packed => (PACKED_OWN_FIELDS, OWN_FIELDS_VERSION),
            TemplateForm::OwnFields => (OWN_FIELDS, OWN_FIELDS_VERSION),
        };
        bytes.push(value_type);
        if form == TemplateForm::OwnFields {
            bytes.push(FIELDS_COUNTED);
        }
        push_length(&mut bytes, template.fields.len() as u64);
        for (field, value) in template.fields.iter().zip(&values) {
            push_text(&mut bytes, field);
            if form == TemplateForm::Plain {
                bytes.extend_from_slice(value);
            }
        }
        if form == TemplateForm::OwnFields {
            bytes.extend_from_slice(stored);
        }
        Ok(Self { bytes, version, ..self })
    }

    /// Whether the complete value is a list, set, sorted set or hash without elements. Servers
    /// since Redis 7.0 refuse such values.
    pub fn is_of_nothing(&self) -> bool {
        // A value without elements is short in every encoding.
        if !self.value_type.kind().drops_empty() || self.value().len() > NOTHING_BYTES_MAX {
            return false;
        }
        // Builds a stream of one value. Its version has every type of the family and needs no
        // checksum.
        let header = match self.value_type.family() {
            Some(Magic::Valkey) => "VALKEY080".to_owned(),
            _ => Header { magic: Magic::Redis, version: self.version }.to_string(),
        };
        let mut stream = header.into_bytes();
        stream.extend([self.value_type.byte(), 0]);
        stream.extend_from_slice(self.value());
        let mut elements = Elements(None);
        // Decoding a hash by template fails without its template; such a hash is never empty.
        let fed = structure::Decoder::default().feed(&stream, &mut elements);
        fed.is_ok() && elements.0 == Some(0)
    }

    /// Appends bytes of the value, as [`raw::Visitor::bytes`](crate::raw::Visitor::bytes) passes
    /// them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Length in bytes of the whole payload if the value ended here. `RESTORE` refuses a payload
    /// longer than the server's `proto-max-bulk-len`, 512 MiB by default.
    pub fn len(&self) -> usize {
        self.bytes.len() + FOOTER_BYTES
    }

    /// Always false: a payload has a type and a footer.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The whole payload.
    pub fn finish(mut self) -> Vec<u8> {
        let has_metadata = self.value_at > 1;
        let least = if has_metadata { METADATA_VERSION } else { self.version };
        self.bytes.extend_from_slice(&self.version.max(least).to_le_bytes());
        let mut crc = Digest::new(CrcAlgorithm::Crc64Redis);
        crc.update(&self.bytes);
        self.bytes.extend_from_slice(&crc.finalize().to_le_bytes());
        self.bytes
    }
}

/// Values above this length have elements. The longest values without elements are a hash with
/// expiries, a node of a list in its list, or a packed value, with a few bytes of lengths around
/// it.
const NOTHING_BYTES_MAX: usize = 32;

/// Counts the elements of a single key.
struct Elements(Option<u64>);

impl structure::Visitor for Elements {
    const WANTS_TEXTS: bool = false;

    fn key_end(&mut self, shape: &Shape) {
        self.0 = Some(shape.elements);
    }
}

/// The template of a hash, its values as RDB strings, and the stored bytes of the values.
type ByTemplate<'v, 't> = (&'t HashTemplate, Vec<Vec<u8>>, &'v [u8]);

fn packed_by_template<'v, 't>(
    value: &'v [u8],
    templates: &'t HashTemplates,
) -> Take<ByTemplate<'v, 't>> {
    let mut cursor = Cursor::new(value);
    let (mut scratch, mut texts) = (Vec::new(), Vec::new());
    let packed = cursor.held_text("the values of a hash", u64::MAX)?;
    texts_of_listpack(packed.decode(&mut scratch)?, |text| {
        let mut stored = Vec::new();
        push_text(&mut stored, text);
        texts.push((text.to_vec(), stored));
        Ok(())
    })?;
    let mut texts = texts.into_iter();
    let number = texts.next().and_then(|(text, _)| str::from_utf8(&text).ok()?.parse::<i64>().ok());
    let Some(number) = number else {
        return corrupt("the values of a hash by template do not begin with a template number");
    };
    let template = templates.find(number.cast_unsigned())?;
    Ok((template, texts.map(|(_, stored)| stored).collect(), value))
}

fn by_template<'v, 't>(value: &'v [u8], templates: &'t HashTemplates) -> Take<ByTemplate<'v, 't>> {
    let mut cursor = Cursor::new(value);
    let template = templates.find(cursor.length()?)?;
    let (values_at, mut values) = (cursor.at(), Vec::new());
    while cursor.left() > 0 {
        let from = cursor.at();
        cursor.held_text("a value of a hash", u64::MAX)?;
        values.push(cursor.taken_since(from).to_vec());
    }
    Ok((template, values, &value[values_at..]))
}

pub(crate) fn push_length(bytes: &mut Vec<u8>, length: u64) {
    match length {
        0..0x40 => bytes.push(length as u8),
        _ => {
            bytes.push(0x81);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
}

pub(crate) fn push_text(bytes: &mut Vec<u8>, text: &[u8]) {
    push_length(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;
    use crate::digest::Digester;
    use crate::raw::{Decoder, Key, Record, Visitor};

    #[derive(Default)]
    struct Resolved {
        templates: HashTemplates,
        current: Option<DumpPayload>,
        payloads: Vec<Vec<u8>>,
    }

    impl Visitor for Resolved {
        fn record(&mut self, record: Record<'_>) {
            if let Record::HashTemplate(template) = record {
                self.templates.add(std::sync::Arc::clone(template), u64::MAX).unwrap();
            }
        }
        fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
            self.current = Some(DumpPayload::new(key.value_type, key.metadata));
            Ok(())
        }
        fn bytes(&mut self, bytes: &[u8]) {
            self.current.as_mut().unwrap().push(bytes);
        }
        fn key_end(&mut self) -> Result<(), DecodeErrorKind> {
            let payload = self.current.take().unwrap();
            for form in [TemplateForm::Plain, TemplateForm::OwnFields] {
                let again = DumpPayload { bytes: payload.bytes.clone(), ..payload };
                self.payloads.push(again.resolve(&self.templates, form)?.finish());
            }
            Ok(())
        }
    }

    fn digest(file: &[u8]) -> u128 {
        let mut digester = Digester::default();
        data::Decoder::default().feed(file, &mut digester).unwrap();
        digester.finish().keys.0
    }

    #[test]
    fn a_hash_by_template_becomes_a_payload_without_template() {
        let template = b"\xf2\x07\x02\x01f\x01g";
        let packed = b"\x1e\x01k\x0d\x0d\0\0\0\x03\0\x07\x01\x05\x01\x05\x01\xff";
        let counted = b"\x20\x01k\x07\xc0\x05\x015";
        let expected = digest(b"REDIS0012\x04\x01k\x02\x01f\x015\x01g\x015\xff");
        for (value, types) in [(&packed[..], [4, 29]), (counted, [4, 31])] {
            let file = [b"REDIS0015", &template[..], value, b"\xff"].concat();
            let mut resolved = Resolved::default();
            Decoder::default().feed(&file, &mut resolved).unwrap();
            for ((payload, byte), version) in resolved.payloads.iter().zip(types).zip([6, 15]) {
                let (value, footer) = payload.split_at(payload.len() - FOOTER_BYTES);
                assert_eq!((value[0], footer[0]), (byte, version));
                let again = [b"REDIS0015", &resolved.templates.records()[..]].concat();
                assert_eq!(again, [b"REDIS0015", &template[..]].concat());
                let alone = [b"REDIS0015", &value[..1], b"\x01k", &value[1..], b"\xff"].concat();
                assert_eq!(digest(&alone), expected, "{}", alone.escape_ascii());
            }
        }
    }

    #[test]
    fn a_value_without_elements_is_recognized_in_every_encoding() {
        let ziplist = b"\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff";
        let listpack = b"\x07\x07\0\0\0\0\0\xff";
        let one = b"\x09\x09\0\0\0\x01\0\x05\x01\xff";
        let concat = |parts: &[&[u8]]| parts.concat();
        for (byte, value, is_nothing) in [
            (1, b"\0".to_vec(), true),
            (2, b"\0".to_vec(), true),
            (4, b"\0".to_vec(), true),
            (5, b"\0".to_vec(), true),
            (14, b"\0".to_vec(), true),
            (18, b"\0".to_vec(), true),
            (10, ziplist.to_vec(), true),
            (12, ziplist.to_vec(), true),
            (14, concat(&[b"\x01", ziplist]), true),
            (16, listpack.to_vec(), true),
            (18, concat(&[b"\x01\x02", listpack]), true),
            (0, b"\0".to_vec(), false),
            (1, b"\x01\x01a".to_vec(), false),
            (20, one.to_vec(), false),
            (18, concat(&[b"\x01\x02", one]), false),
        ] {
            let header = Header { magic: Magic::Redis, version: 12 };
            let mut payload = DumpPayload::new(ValueType::find(byte, header).unwrap(), b"");
            payload.push(&value);
            assert_eq!(payload.is_of_nothing(), is_nothing, "{byte} {}", value.escape_ascii());
        }
    }

    #[test]
    fn module_metadata_precedes_the_type() {
        let metadata = b"\xf3\x01\x01\x02\x03\x04\x02\x07\0";
        let file = [b"REDIS0013", &metadata[..], b"\0\x01k\x01v\xff"].concat();
        let mut resolved = Resolved::default();
        Decoder::default().feed(&file, &mut resolved).unwrap();
        let payload = &resolved.payloads[0];
        assert!(payload.starts_with(&[metadata, &b"\0\x01v\x0d\0"[..]].concat()));
    }
}
