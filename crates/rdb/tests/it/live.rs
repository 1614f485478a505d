//! Helpers for tests with real servers.

use std::fs;

use cachevault_testkit::{Reply, Server};

pub(crate) type Command = Vec<Vec<u8>>;

/// A command of text or bytes.
macro_rules! command {
    ($($word:expr),+ $(,)?) => { vec![$(AsRef::<[u8]>::as_ref(&$word).to_vec()),+] };
}
pub(crate) use command;

/// Sends commands that must not fail.
#[track_caller]
pub(crate) fn run(server: &Server, commands: &[Command]) -> Vec<Reply> {
    let replies = server.pipeline(commands);
    for (command, reply) in commands.iter().zip(&replies) {
        assert!(!matches!(reply, Reply::Error(_)), "{}: {reply:?}", shown(command));
    }
    replies
}

/// The RDB that a server with this data set writes.
#[track_caller]
pub(crate) fn save(server: &Server) -> Vec<u8> {
    server.ask(&["SAVE"]);
    fs::read(server.folder().join("dump.rdb")).unwrap()
}

/// A command in printable form.
pub(crate) fn shown(command: &[Vec<u8>]) -> String {
    let word = |word: &Vec<u8>| word[..word.len().min(40)].escape_ascii().to_string();
    command.iter().take(12).map(word).collect::<Vec<_>>().join(" ")
}

/// The bytes of a bulk string.
#[track_caller]
pub(crate) fn bulk(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Bulk(Some(bytes)) => bytes.to_vec(),
        other => panic!("not a bulk string: {other:?}"),
    }
}

/// The elements of an array.
#[track_caller]
pub(crate) fn array(reply: &Reply) -> &[Reply] {
    match reply {
        Reply::Array(Some(elements)) => elements,
        other => panic!("not an array: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn bulks(reply: &Reply) -> Vec<Vec<u8>> {
    array(reply).iter().map(bulk).collect()
}

#[track_caller]
pub(crate) fn integer(reply: &Reply) -> i64 {
    match reply {
        Reply::Integer(number) => *number,
        other => panic!("not a number: {other:?}"),
    }
}

/// Incompressible bytes; the same seed yields the same bytes.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect()
}
