//! Reads RDB, the format in which Redis and Valkey save their data: every version from 1 to 15 of
//! Redis', and 80 and 81 of Valkey's.
//!
//! A sans-IO crate: bytes in, findings out; it reads no file, no socket and no clock, and has no
//! `unsafe` code. Decoders are fed in pieces of any size, and how a stream is cut changes nothing of
//! what is found in a sound one.
//! Memory is bounded whatever the stream claims: long strings pass in pieces, packed ones are
//! walked in place, and no length is trusted before the bytes are there ([`Limits`]).
//!
//! Three levels, each built on the one below:
//!
//! | level | gives | for |
//! |---|---|---|
//! | [`raw`] | keys, expiries, and values as opaque bytes | `RESTORE` ([`dump`]), counting |
//! | [`structure`] | encodings and sizes; every packed string walked, every compressed one checked | proof that a server would load it, [`report`] |
//! | [`data`] | logical values, the same whatever the encoding | [`digest`], comparison, export |
//!
//! Beside them, [`Envelope`] checks header, end and CRC-64, and [`inspect`] does all at once.
//!
//! # Raw: the keys and how much they take
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
//! # Structure: what the values are made of
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
//! # Data: what a client would see
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
//! Nine bytes of header ([`Header`]), records, the opcode `0xFF`, and since version 5 eight bytes
//! of CRC-64, little-endian, over everything before them; zero means that the server was told not
//! to compute one (`rdbchecksum no`). A record is an opcode and what belongs to it, or the type of
//! a value, a key, and the value. There is no length of a record and no end of a value: who wants
//! the next key has to follow the value's grammar.
//!
//! Redis and Valkey number new types on their own, so the same byte can mean two things: 22 and 23
//! are previews of hashes with expiring fields in Redis 7.4, such hashes in Valkey 9.0 and path
//! hashes in Valkey 9.2. The letters of the header decide. Type 29 is a rate limiter in version 14 and
//! a hash in version 15: there the number decides.
//!
//! Versions 1 to 14 and VALKEY080 were met in files of real servers. Version 15 (Redis 8.10: templates
//! of hashes, opcode 242 and types 29 to 33) and VALKEY081 (Valkey 9.2: path hashes, type 23) are known
//! from public documents alone. Where bytes do not fit such a layout the layout may be wrong, so that
//! is [`DecodeErrorKind::Unfit`], which makes a stream opaque, and not damage.
//!
//! Sources: `rdb.c`, `rdb.h`, `listpack.c`, `ziplist.c`, `intset.c`, `zipmap.c`, `t_stream.c`,
//! `module.c`, `keymeta.c`, `lzf_d.c` and `vset.c` of Redis and Valkey, and files that fourteen of their
//! versions wrote. What newer versions write is an error that says so
//! ([`DecodeErrorKind::UnknownOpcode`]) and never a guess, as are Valkey 9.2's commands inside a stream
//! (opcode 242). [`inspect`] trusts no such version even where nothing in it is unknown
//! ([`DecodeErrorKind::UnknownVersion`]). A file that Valkey 9.2 compressed as a whole (`rdbcompression
//! lz4`) begins with `VCS` and is refused by its header ([`HeaderError::Compressed`]); replicas get such
//! a stream only if they ask for it.

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
