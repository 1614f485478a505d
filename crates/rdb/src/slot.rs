//! Cluster slots.

use crc::{CRC_16_XMODEM, Crc};

/// This CRC is made for short input, for which the vector code of `crc_fast` is slower.
static CRC_16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// Number of slots in a cluster.
pub const SLOTS: u16 = 16_384;

/// The slot of a key. The hash tag is hashed if the name has one, otherwise the whole name. A hash
/// tag is the text between the first `{` and the next `}`, unless it is empty (cluster
/// specification, "hash tags").
pub fn slot_of(name: &[u8]) -> u16 {
    let tag = name.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &name[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    CRC_16.checksum(tag.unwrap_or(name)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_specification() {
        // `CLUSTER KEYSLOT` of Redis 7.0.
        assert_eq!(slot_of(b"somekey"), 11_058);
        assert_eq!(slot_of(b"foo{hash_tag}"), 2_515);
        assert_eq!(slot_of(b"foo{}{bar}"), slot_of(b"foo{}{bar}"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        assert_eq!(slot_of(b""), 0);
    }
}
