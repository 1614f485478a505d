//! One pass over an RDB: frame and checksum, and beside them whatever is made of the content.
//!
//! The rule by which content is damaged or only unknown is that of `cachevault_rdb::inspect`.

use cachevault_rdb::{
    Checksum, DecodeError, Envelope, EnvelopeReport, Header, Limits, data, structure,
};

use super::rdb_source::{Source, Trouble};

/// Takes the content of a source.
pub(crate) trait Reading {
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError>;
    fn finish(&self) -> Result<(), DecodeError>;
    /// Why the pass has to end before the source does, if it has to.
    fn interruption(&mut self) -> Option<Trouble>;
}

/// Something that may want the pass to end: the decoders' visitors cannot say so themselves.
pub(crate) trait Interrupts {
    fn interruption(&mut self) -> Option<Trouble> {
        None
    }
}

impl Interrupts for cachevault_rdb::digest::Digester {}

/// Reads how values are stored.
pub(crate) struct Structure<V> {
    decoder: structure::Decoder,
    pub(crate) visitor: V,
}

impl<V> Structure<V> {
    pub(crate) fn new(visitor: V) -> Self {
        Self { decoder: structure::Decoder::new(Limits::default()), visitor }
    }
}

impl<V: structure::Visitor + Interrupts> Reading for Structure<V> {
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        self.decoder.feed(piece, &mut self.visitor)
    }
    fn finish(&self) -> Result<(), DecodeError> {
        self.decoder.finish()
    }
    fn interruption(&mut self) -> Option<Trouble> {
        self.visitor.interruption()
    }
}

/// Reads what values are.
pub(crate) struct Data<V> {
    decoder: data::Decoder,
    pub(crate) visitor: V,
}

impl<V> Data<V> {
    pub(crate) fn new(visitor: V) -> Self {
        Self { decoder: data::Decoder::new(Limits::default()), visitor }
    }
}

impl<V: data::Visitor + Interrupts> Reading for Data<V> {
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        self.decoder.feed(piece, &mut self.visitor)
    }
    fn finish(&self) -> Result<(), DecodeError> {
        self.decoder.finish()
    }
    fn interruption(&mut self) -> Option<Trouble> {
        self.visitor.interruption()
    }
}

/// Reads a source to its end. Fails unless it is sound and all of it is understood.
pub(crate) fn pass(source: &Source, reading: &mut impl Reading) -> Result<EnvelopeReport, Trouble> {
    let mut envelope = Envelope::new();
    let mut unknown = None;
    source.read(|piece| {
        envelope.feed(piece).map_err(|e| source.damaged(e))?;
        if unknown.is_none()
            && let Err(error) = reading.feed(piece)
        {
            if !may_be_unknown(&error, envelope.header()) {
                return Err(source.damaged(error));
            }
            unknown = Some(error);
        }
        reading.interruption().map_or(Ok(()), Err)
    })?;
    // The frame's error comes first: it says in better words that a source was cut.
    let envelope = envelope.finish().map_err(|e| source.damaged(e))?;
    match unknown.map_or_else(|| reading.finish(), Err) {
        Ok(()) => Ok(envelope),
        // Without a checksum nothing tells what is unknown from what is damaged.
        Err(error)
            if may_be_unknown(&error, Some(envelope.header))
                && envelope.checksum != Checksum::Absent =>
        {
            Err(source.opaque(format_args!("{}; {error}", sentence(&envelope))))
        }
        Err(error) => Err(source.damaged(error)),
    }
}

fn may_be_unknown(error: &DecodeError, header: Option<Header>) -> bool {
    error.kind.is_beyond_us() || !header.is_some_and(Header::is_known)
}

/// What a frame is, in words.
pub(crate) fn sentence(envelope: &EnvelopeReport) -> String {
    let EnvelopeReport { header, size_bytes, checksum } = envelope;
    match checksum {
        Checksum::Matches(crc) => {
            format!("{header}, {size_bytes} bytes, CRC-64 {crc:016x} matches")
        }
        Checksum::Absent => format!("{header}, {size_bytes} bytes, has no checksum"),
    }
}
