//! Printable names of keys.

use crate::terminal::misleads;

/// Escapes a name to one line that is safe for a terminal. Different names stay different. A
/// backslash is doubled; invalid UTF-8, control characters and bidirectional controls become `\n`,
/// `\t`, `\r` or `\xNN`.
pub(crate) fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' || misleads(character) {
                let mut bytes = [0; 4];
                push_escapes(&mut text, character.encode_utf8(&mut bytes).as_bytes());
            } else {
                text.push(character);
            }
        }
        push_escapes(&mut text, chunk.invalid());
    }
    text
}

fn push_escapes(text: &mut String, bytes: &[u8]) {
    text.extend(bytes.iter().flat_map(|byte| byte.escape_ascii()).map(char::from));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_harmless() {
        for (name, shown) in [
            (b"user:1 \"x\" 'y'".as_slice(), "user:1 \"x\" 'y'"),
            ("käse".as_bytes(), "käse"),
            (b"a\nb\t\x1b[31m\x00", "a\\nb\\t\\x1b[31m\\x00"),
            (b"a\\nb", "a\\\\nb"),
            (b"\xff\xc3", "\\xff\\xc3"),
            ("\u{202e}\u{85}".as_bytes(), "\\xe2\\x80\\xae\\xc2\\x85"),
            (b"", ""),
        ] {
            assert_eq!(escaped(name), shown);
        }
    }
}
