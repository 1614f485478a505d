//! What an RDB stream says of itself: its header, its checksum and its end.
//!
//! A sans-IO crate: bytes in, findings out; it reads no file, no socket and no clock.
//! [`Envelope`] is fed the stream in pieces of any size while it passes and tells at the end
//! whether the whole arrived unharmed.
//!
//! Layout (Redis `rdb.c`, Valkey `rdb.c`): nine bytes of header, the content, the opcode `0xFF`,
//! and since version 5 eight bytes of CRC-64, little-endian, over everything before them. A CRC
//! of zero means that the server was told not to compute one (`rdbchecksum no`).

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
pub mod raw;
pub mod report;
mod slot;
pub mod structure;

pub use cursor::Form;
pub use envelope::{Checksum, Envelope, EnvelopeError, EnvelopeReport};
pub use error::{DecodeError, DecodeErrorKind};
pub use header::{HEADER_BYTES, Header, HeaderError, Magic};
pub use limits::Limits;
pub use opcode::{Container, Kind, Packing, Role, Row, ValueType};
pub use slot::{SLOTS, slot_of};
