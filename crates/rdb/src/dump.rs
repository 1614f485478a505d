//! Payloads for `RESTORE`: what `DUMP` would give for a key.
//!
//! A payload is the type byte, the value's bytes as the RDB has them, two bytes of version and
//! eight of CRC-64 over all before it, both little-endian (`createDumpPayload` of `cluster.c`).
//! A server refuses a version above its own; so the version here is the least that has the type,
//! and any server that knows the type takes the payload.

use crc_fast::{CrcAlgorithm, Digest};

use crate::opcode::ValueType;

/// Length of what follows the value, bytes.
pub const FOOTER_BYTES: usize = 10;

/// Makes a payload of a value that passes in pieces.
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
///         self.current = Some(DumpPayload::new(key.value_type));
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
}

impl DumpPayload {
    /// The beginning of a payload.
    pub fn new(value_type: &ValueType) -> Self {
        Self { bytes: vec![value_type.byte()], version: value_type.dump_version() }
    }

    /// Adds bytes of the value, as [`raw::Visitor::bytes`](crate::raw::Visitor::bytes) gives them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Length of the whole payload if the value ended here, bytes. `RESTORE` refuses what is
    /// longer than the server's `proto-max-bulk-len`, 512 MiB by default.
    pub fn len(&self) -> usize {
        self.bytes.len() + FOOTER_BYTES
    }

    /// Never: a payload has a type and a footer.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The whole payload.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&self.version.to_le_bytes());
        let mut crc = Digest::new(CrcAlgorithm::Crc64Redis);
        crc.update(&self.bytes);
        self.bytes.extend_from_slice(&crc.finalize().to_le_bytes());
        self.bytes
    }
}
