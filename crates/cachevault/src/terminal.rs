//! The only way to a terminal: whatever is printed for people goes through here, so that no remark,
//! name, path or message of somebody else commands the terminal that shows it.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, Write};

/// Prints a line. A reader that has seen enough, such as `head`, is no error.
pub(crate) fn print(text: &dyn Display) {
    let _ = writeln!(io::stdout(), "{}", escaped(&text.to_string()));
}

/// Prints a message on standard error.
pub(crate) fn message(text: &dyn Display) {
    let _ = writeln!(io::stderr(), "{}", escaped(&text.to_string()));
}

/// Asks for something on standard error, and stays in the line.
pub(crate) fn ask(question: &str) {
    let _ = write!(io::stderr(), "{}", escaped(question));
}

/// The text with all escaped that commands a terminal or misleads who reads it, line feeds excepted.
/// The escapes are those of JSON, so that a document stays the same document.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    escaped_if(text, |character| misleads(character) && character != '\n')
}

/// The same for what has to stay one line, such as a line of a log.
pub(crate) fn in_one_line(text: &str) -> Cow<'_, str> {
    escaped_if(text, misleads)
}

/// Whether a terminal would do something else than show it.
pub(crate) fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn escaped_if(text: &str, is_raw: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_raw) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        // Writing to a text does not fail.
        let _ = match character {
            raw if is_raw(raw) => write!(escaped, "\\u{:04x}", u32::from(raw)),
            other => write!(escaped, "{other}"),
        };
        escaped
    });
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_commands_a_terminal_is_escaped_and_json_stays_the_same_document() {
        let remark = "a\u{1b}]0;title\u{7}\u{9b}2J\r\u{7f}b\tc\u{202e}";
        let shown = "a\\u001b]0;title\\u0007\\u009b2J\\u000d\\u007fb\\u0009c\\u202e";
        assert_eq!(escaped(remark), shown);
        assert_eq!(escaped("two\nlines, Ü 🌙"), "two\nlines, Ü 🌙");
        assert_eq!(in_one_line("two\nlines, Ü 🌙"), "two\\u000alines, Ü 🌙");
        for value in [Value::from(remark), json!({"note": [remark]})] {
            let written = format!("{value:#}");
            let printed = escaped(&written);
            assert!(!printed.contains(|c: char| misleads(c) && c != '\n'), "{printed:?}");
            assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value);
        }
    }
}
