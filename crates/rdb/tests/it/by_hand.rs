//! Files made by hand, for content that no installed server writes.

/// A file of version 12 of Redis' format without a checksum.
pub(crate) fn redis(records: &[&[u8]]) -> Vec<u8> {
    framed(b"REDIS0012", records)
}

/// A file of version 81 of Valkey's format without a checksum.
pub(crate) fn valkey(records: &[&[u8]]) -> Vec<u8> {
    framed(b"VALKEY081", records)
}

/// A file with this header and no checksum.
pub(crate) fn framed(header: &[u8], records: &[&[u8]]) -> Vec<u8> {
    [header, &records.concat(), b"\xff\0\0\0\0\0\0\0\0"].concat()
}

/// A length in the shortest form.
pub(crate) fn length(length: u64) -> Vec<u8> {
    match length {
        0..0x40 => vec![length as u8],
        0x40..0x4000 => vec![0x40 | (length >> 8) as u8, length as u8],
        _ => [&[0x81], &length.to_be_bytes()[..]].concat(),
    }
}

pub(crate) fn text(bytes: &[u8]) -> Vec<u8> {
    [&length(bytes.len() as u64), bytes].concat()
}

/// A compressed string of this many bytes, nearly all of them `a`, in an 88th of its length.
pub(crate) fn compressed(bytes: usize) -> Vec<u8> {
    const COPY: usize = 264;
    let copies = bytes / COPY - 1;
    let literals = bytes - copies * COPY;
    let mut units = Vec::new();
    for literal in vec![b'a'; literals].chunks(32) {
        units.push(literal.len() as u8 - 1);
        units.extend_from_slice(literal);
    }
    units.extend([0xE0, 255, 0].repeat(copies));
    [&[0xC3], &length(units.len() as u64)[..], &length(bytes as u64), &units].concat()
}

/// A key of this type, named `k`, and its value.
pub(crate) fn key(value_type: u8, value: &[&[u8]]) -> Vec<u8> {
    [&[value_type, 1, b'k'], &value.concat()[..]].concat()
}

/// A listpack, as a string.
pub(crate) fn listpack(entries: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
    let entries = entries.concat();
    let bytes = entries.len() as u32 + 7;
    text(&[&bytes.to_le_bytes(), &count.to_le_bytes()[..], &entries, b"\xff"].concat())
}

/// An entry of a listpack, as a 64-bit number.
pub(crate) fn number(number: i64) -> Vec<u8> {
    [&[0xF4], &number.to_le_bytes()[..], &[9]].concat()
}

/// An entry of a listpack, with its length backwards behind it.
pub(crate) fn word(word: &[u8]) -> Vec<u8> {
    let mut entry = match word.len() {
        len @ 0..0x40 => vec![0x80 | len as u8],
        len => [&[0xF0], &(len as u32).to_le_bytes()[..]].concat(),
    };
    entry.extend_from_slice(word);
    let len = entry.len();
    let groups = (1..5).find(|groups| len < (1 << (7 * groups)) - usize::from(*groups > 1));
    let groups = groups.unwrap_or(5);
    for group in (0..groups).rev() {
        let mark = if group + 1 == groups { 0 } else { 0x80 };
        entry.push((len >> (7 * group) & 0x7F) as u8 | mark);
    }
    entry
}

/// The encoding of a number below 128 in a listpack.
pub(crate) fn digit(digit: u8) -> Vec<u8> {
    vec![digit, 1]
}
