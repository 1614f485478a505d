//! The range of a file that a request asks for (RFC 9110, section 14).

use axum::http::{HeaderMap, header};

/// A range of a file, or the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// No range was requested, or in a form that a server may ignore.
    Whole,
    /// From `first` to `end`, exclusive; at least one byte.
    Part { first: u64, end: u64 },
    /// The range contains no byte of the file.
    Unsatisfiable,
}

/// The range that a request with these headers asks for.
pub(super) fn asked_for(headers: &HeaderMap, entity_tag: &str, size_bytes: u64) -> Range {
    // A date never matches, because it is not a strong validator.
    let is_current = headers.get(header::IF_RANGE).is_none_or(|tag| tag == entity_tag);
    let mut ranges = headers.get_all(header::RANGE).iter();
    match (ranges.next().map(|range| range.to_str()), ranges.next()) {
        (Some(Ok(text)), None) if is_current => parse(text, size_bytes).unwrap_or(Range::Whole),
        _ => Range::Whole,
    }
}

/// Parses a single byte range. `None` for several ranges, another unit, and invalid ranges.
fn parse(text: &str, size_bytes: u64) -> Option<Range> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let (first, end) = match (first, last) {
        ("", suffix) => (size_bytes.saturating_sub(number(suffix)?), size_bytes),
        (first, "") => (number(first)?, size_bytes),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(size_bytes))
        }
    };
    Some(if first < end { Range::Part { first, end } } else { Range::Unsatisfiable })
}

/// Parses digits. A number that is too large becomes the maximum.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn asked(range: &str, if_range: Option<&str>) -> Range {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, HeaderValue::from_str(tag).unwrap());
        }
        asked_for(&headers, "\"tag\"", 100)
    }

    #[test]
    fn every_form_of_a_range_is_read_as_the_rfc_says() {
        let part = |first, end| Range::Part { first, end };
        let huge = "bytes=5-99999999999999999999999999";
        for (text, range) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=10-19", part(10, 20)),
            ("bytes=99-", part(99, 100)),
            ("bytes=50-1000", part(50, 100)),
            (huge, part(5, 100)),
            ("bytes=-1", part(99, 100)),
            ("bytes=-1000", part(0, 100)),
            ("Bytes= 0-9 ", part(0, 10)),
            ("bytes=100-", Range::Unsatisfiable),
            ("bytes=100-200", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=0-1,5-6", Range::Whole),
            ("bytes=9-8", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes", Range::Whole),
            ("lines=0-9", Range::Whole),
            ("", Range::Whole),
        ] {
            assert_eq!(asked(text, None), range, "{text}");
        }
    }

    #[test]
    fn a_range_of_another_file_is_the_whole_of_this_one() {
        let part = Range::Part { first: 0, end: 10 };
        for (tag, range) in [
            ("\"tag\"", part),
            ("\"other\"", Range::Whole),
            ("W/\"tag\"", Range::Whole),
            ("Fri, 10 May 2019 08:31:16 GMT", Range::Whole),
        ] {
            assert_eq!(asked("bytes=0-9", Some(tag)), range, "{tag}");
        }
    }
}
