//! Replays the corpus of the fuzzer: inputs that reached new code.

use std::fs;

use crate::support::fixtures;

#[path = "../../../../fuzz/src/checks.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = fixtures().join("../fuzz").join(target);
    let inputs =
        fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let mut count = 0;
    for input in inputs {
        check(&input);
        count += 1;
    }
    assert!(count > 100, "only {count} inputs");
}

#[test]
fn the_corpus_of_bytes_passes() {
    replay("bytes", checks::bytes);
}

#[test]
fn the_corpus_of_feeds_passes() {
    replay("feeds", checks::feeds);
}
