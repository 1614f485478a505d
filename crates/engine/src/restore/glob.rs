//! Patterns of key names, with the meaning that servers give them in `KEYS` and `SCAN`.
//!
//! Follows `stringmatchlen` of Redis' `util.c` to the letter: what is odd there is odd here, such
//! as a bracket that is never closed, or ranges that compare bytes as signed numbers (as servers on
//! x86 do). Only the way is another: a star that did not match is tried again further on without a
//! recursion, so that no pattern takes more than its length times that of the name.

/// Whether a name matches a pattern.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // A server does not even look at the name.
    if pattern == b"*" {
        return true;
    }
    if name.is_empty() {
        return pattern.is_empty();
    }
    let (mut at, mut from) = (0, 0);
    // Behind the last star, and where in the name its rest was tried last.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&byte) = name.get(from) {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, from));
            continue;
        }
        if let Some(next) = one(pattern, at, byte) {
            (at, from) = (next, from + 1);
            continue;
        }
        // Earlier stars need not be tried: whatever they could leave, the last one can take.
        let Some((behind, tried)) = &mut retry else { return false };
        *tried += 1;
        (at, from) = (*behind, *tried);
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Where the pattern goes on when what stands at `at`, which is no star, matches one byte.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match (*pattern.get(at)?, pattern.get(at + 1)) {
        (b'?', _) => Some(at + 1),
        (b'[', _) => bracket(pattern, at + 1, byte),
        (b'\\', Some(escaped)) => (*escaped == byte).then_some(at + 2),
        (plain, _) => (plain == byte).then_some(at + 1),
    }
}

/// As [`one`], behind an opening bracket.
fn bracket(pattern: &[u8], mut at: usize, byte: u8) -> Option<usize> {
    let is_negated = pattern.get(at) == Some(&b'^');
    at += usize::from(is_negated);
    let mut is_in = false;
    loop {
        match pattern[at..] {
            [b'\\', escaped, ..] => {
                is_in |= escaped == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [] => break,
            [start, b'-', end, ..] => {
                let (start, end) = (start.cast_signed(), end.cast_signed());
                is_in |= (start.min(end)..=start.max(end)).contains(&byte.cast_signed());
                at += 3;
            }
            [plain, ..] => {
                is_in |= plain == byte;
                at += 1;
            }
        }
    }
    (is_in != is_negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use cachevault_testkit::{Reply, Server, newest_redis};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;

    #[test]
    fn each_sign_means_what_it_means_in_keys() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**", "", false),
            ("a*", "a", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("user:*:name", "user:1:2:name", true),
            ("user:*:name", "user:1:2:names", false),
            ("h[ae]llo", "hallo", true),
            ("h[^ae]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-]llo", "hallo", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("[", "[", false),
            ("[^", "x", true),
            ("[ab", "b", true),
            ("A", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = "a*".repeat(500) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(100_000).as_bytes()));
    }

    #[test]
    fn a_server_finds_the_same_names() {
        let sign = || proptest::sample::select(b"ab-^\\]*[?\xc3\xbc".to_vec());
        let names = proptest::collection::vec(sign(), 0..6);
        let patterns = proptest::collection::vec(sign(), 0..9);
        let mut runner = TestRunner::deterministic();
        let mut sample = |strategy: &dyn Fn(&mut TestRunner) -> Vec<u8>, count| {
            (0..count).map(|_| strategy(&mut runner)).collect::<Vec<_>>()
        };
        let of = |strategy: proptest::collection::VecStrategy<_>| {
            move |runner: &mut TestRunner| strategy.new_tree(runner).unwrap().current()
        };
        let mut names: Vec<Vec<u8>> = sample(&of(names), 600);
        names.sort();
        names.dedup();
        let patterns: Vec<Vec<u8>> = sample(&of(patterns), 3000);
        let server = Server::start(&newest_redis(), &[]);
        let sets: Vec<Vec<&[u8]>> = names.iter().map(|n| vec![&b"SET"[..], n, b""]).collect();
        server.pipeline(&sets);
        let asks: Vec<Vec<&[u8]>> = patterns.iter().map(|p| vec![&b"KEYS"[..], p]).collect();
        for (pattern, reply) in patterns.iter().zip(server.pipeline(&asks)) {
            let Reply::Array(Some(found)) = reply else { panic!("{reply:?}") };
            let mut found: Vec<Vec<u8>> = found
                .into_iter()
                .map(|name| match name {
                    Reply::Bulk(Some(name)) => name.to_vec(),
                    other => panic!("{other:?}"),
                })
                .collect();
            found.sort();
            let ours: Vec<_> =
                names.iter().filter(|name| matches(pattern, name)).cloned().collect();
            assert_eq!(ours, found, "{}", pattern.escape_ascii());
        }
    }
}
