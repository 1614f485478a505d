//! One pass over an RDB: frame, checksum, and a visitor of the content.

use cachevault_rdb::digest::Fingerprinter;
use cachevault_rdb::inspect::{Checked, Read, Reading};
use cachevault_rdb::{Checksum, EnvelopeReport};

use super::rdb_source::{Source, Trouble};

/// A visitor that can end the pass early. The decoders' visitors cannot return errors.
pub(crate) trait Interrupts {
    /// The reason to end the pass, if any.
    fn interruption(&mut self) -> Option<Trouble> {
        None
    }
}

impl<D, V: Interrupts> Interrupts for (D, V) {
    fn interruption(&mut self) -> Option<Trouble> {
        self.1.interruption()
    }
}

impl<K: Interrupts> Interrupts for Fingerprinter<K> {
    fn interruption(&mut self) -> Option<Trouble> {
        self.keys.interruption()
    }
}

impl Interrupts for cachevault_rdb::digest::Summing {}

/// Reads a source to its end. Fails when the RDB is damaged or not fully understood.
pub(crate) fn pass<R: Reading + Interrupts>(
    source: &Source,
    reading: R,
) -> Result<(EnvelopeReport, R), Trouble> {
    let mut checked = Checked::new(reading);
    source.read(|piece| {
        checked.feed(piece).map_err(|e| source.refused(&e))?;
        checked.reading_mut().interruption().map_or(Ok(()), Err)
    })?;
    let Read { envelope, reading, opaque } = checked.finish().map_err(|e| source.refused(&e))?;
    match opaque {
        None => Ok((envelope, reading)),
        Some(reason) => Err(source.opaque(format_args!("{}; {reason}", sentence(&envelope)))),
    }
}

/// The note for a file that was cut out of a replication stream.
pub(crate) const END_MARK: &str =
    ", followed by the 40-byte end mark of a replication stream, which servers ignore";

/// A one-line description of a frame.
pub(crate) fn sentence(envelope: &EnvelopeReport) -> String {
    let EnvelopeReport { header, size_bytes, checksum, has_end_mark } = envelope;
    let mark = if *has_end_mark { END_MARK } else { "" };
    match checksum {
        Checksum::Matches(crc) => {
            format!("{header}, {size_bytes} bytes, CRC-64 {crc:016x} matches{mark}")
        }
        Checksum::Absent => format!("{header}, {size_bytes} bytes, has no checksum{mark}"),
    }
}
