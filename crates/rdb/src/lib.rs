//! Reads RDB, the format in which Redis and Valkey save their data: versions 1 to 15 of Redis and
//! versions 80 and 81 of Valkey.
//!
//! The crate is sans-IO: it reads no file, no socket and no clock, and has no `unsafe` code.
//! Decoders are fed in pieces of any size; the size of the pieces does not change the findings.
//! Memory is bounded for every input: long strings pass in pieces, packed strings are decoded in
//! place, and no memory is allocated for a length before its bytes have arrived ([`Limits`]).
//!
//! Three levels, each built on the one below:
//!
//! | level | provides | for |
//! |---|---|---|
//! | [`raw`] | keys, expiries, and values as opaque bytes | `RESTORE` ([`dump`]), counting |
//! | [`structure`] | encodings and sizes; every packed and every compressed string is checked | proof that a server would load it, [`report`] |
//! | [`data`] | logical values, independent of the encoding | [`digest`], comparison, export |
//!
//! In addition, [`Envelope`] checks header, end and CRC-64, and [`inspect`] does everything in one
//! pass.
//!
//! # Raw: keys and their sizes
//!
//! ```
//! use cachevault_rdb::DecodeErrorKind;
//! use cachevault_rdb::raw::{Decoder, Key, Visitor};
//!
//! #[derive(Default)]
//! struct Listing(Vec<(String, usize)>);
//!
//! impl Visitor for Listing {
//!     fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
//!         self.0.push((String::from_utf8_lossy(key.name).into_owned(), 0));
//!         Ok(())
//!     }
//!     fn bytes(&mut self, bytes: &[u8]) {
//!         self.0.last_mut().expect("bytes belong to a key").1 += bytes.len();
//!     }
//! }
//!
//! let (mut decoder, mut listing) = (Decoder::default(), Listing::default());
//! for piece in [&b"REDIS0009\x00\x08gree"[..], b"ting\x05hello\xff", &[0; 8]] {
//!     decoder.feed(piece, &mut listing)?;
//! }
//! decoder.finish()?;
//! assert_eq!(listing.0, [("greeting".to_owned(), 6)]);
//! # Ok::<(), cachevault_rdb::DecodeError>(())
//! ```
//!
//! # Structure: encodings and elements
//!
//! ```
//! use cachevault_rdb::structure::{Decoder, Shape, Visitor};
//!
//! struct Shapes(Vec<Shape>);
//!
//! impl Visitor for Shapes {
//!     // Sizes are enough here, so compressed strings need not be decompressed.
//!     const WANTS_TEXTS: bool = false;
//!     fn key_end(&mut self, shape: &Shape) {
//!         self.0.push(*shape);
//!     }
//! }
//!
//! // A set of the numbers 1 and 2, as an intset of two bytes each.
//! let file = b"REDIS0009\x0b\x03set\x0c\x02\0\0\0\x02\0\0\0\x01\0\x02\0\xff\0\0\0\0\0\0\0\0";
//! let mut shapes = Shapes(Vec::new());
//! Decoder::default().feed(file, &mut shapes)?;
//! assert_eq!((shapes.0[0].value_type.encoding(), shapes.0[0].elements), ("intset", 2));
//! # Ok::<(), cachevault_rdb::DecodeError>(())
//! ```
//!
//! # Data: logical values
//!
//! ```
//! use cachevault_rdb::data::{Decoder, Visitor};
//! use cachevault_rdb::structure::Piece;
//!
//! #[derive(Default)]
//! struct Members(Vec<Vec<u8>>);
//!
//! impl Visitor for Members {
//!     fn text(&mut self, piece: Piece<'_>) {
//!         if piece.is_first {
//!             self.0.push(Vec::new());
//!         }
//!         self.0.last_mut().expect("a string has begun").extend_from_slice(piece.bytes);
//!     }
//! }
//!
//! let file = b"REDIS0009\x0b\x03set\x0c\x02\0\0\0\x02\0\0\0\x01\0\x02\0\xff\0\0\0\0\0\0\0\0";
//! let mut members = Members::default();
//! Decoder::default().feed(file, &mut members)?;
//! assert_eq!(members.0, [b"1", b"2"]);
//! # Ok::<(), cachevault_rdb::DecodeError>(())
//! ```
//!
//! # The format
//!
//! A stream consists of nine bytes of header ([`Header`]), records, the opcode `0xFF`, and since
//! version 5 eight bytes of CRC-64. The CRC-64 is little-endian and covers all preceding bytes;
//! zero means that the server does not compute it (`rdbchecksum no`). A record is either an opcode
//! with its fields, or the type of a value, a key, and the value. Records have no length and values
//! have no end mark: a reader has to follow the grammar of a value to find the next key.
//!
//! Redis and Valkey assign type numbers independently, so the same byte can have two meanings: 22
//! and 23 are previews of hashes with expiring fields in Redis 7.4, such hashes in Valkey 9.0, and
//! path hashes in Valkey 9.2. The letters of the header decide. Type 29 is a rate limiter in
//! version 14 and a hash in version 15: there the version decides.
//!
//! Versions 1 to 14 and VALKEY080 are tested with files of real servers. Version 15 (Redis 8.10:
//! templates of hashes, opcode 242 and types 29 to 33) and VALKEY081 (Valkey 9.2: path hashes, type
//! 23) are known from public documents only. Bytes that do not fit such a layout yield
//! [`DecodeErrorKind::Unfit`], because the layout itself may be wrong. This error makes a stream
//! opaque, not damaged.
//!
//! Sources: `rdb.c`, `rdb.h`, `listpack.c`, `ziplist.c`, `intset.c`, `zipmap.c`, `t_stream.c`,
//! `module.c`, `keymeta.c`, `lzf_d.c` and `vset.c` of Redis and Valkey, and files of fourteen of
//! their versions. Content of newer versions yields [`DecodeErrorKind::UnknownOpcode`]; so do
//! Valkey 9.2's commands inside a stream (opcode 242). [`inspect`] treats a newer version as
//! unknown even without unknown parts ([`DecodeErrorKind::UnknownVersion`]). A file that Valkey 9.2
//! compressed as a whole (`rdbcompression lz4`) begins with `VCS`; its header is refused
//! ([`HeaderError::Compressed`]). Replicas receive such a stream only on request.

#![deny(missing_docs)]

mod carry;
mod cursor;
pub mod data;
pub mod digest;
pub mod dump;
mod envelope;
mod error;
mod header;
pub mod inspect;
mod limits;
mod lzf;
mod opcode;
mod packed;
pub mod raw;
pub mod report;
mod slot;
pub mod structure;
mod template;

pub use cursor::Form;
pub use envelope::{Checksum, Envelope, EnvelopeError, EnvelopeReport};
pub use error::{DecodeError, DecodeErrorKind};
pub use header::{HEADER_BYTES, Header, HeaderError, Magic};
pub use limits::Limits;
pub use opcode::{Container, Kind, Packing, Role, Row, ValueType};
pub use slot::{SLOTS, slot_of};
pub use template::{HashTemplate, HashTemplates};
