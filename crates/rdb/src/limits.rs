//! Bounds on what a stream may ask for.

/// How long, in bytes, what may pass in pieces can be and still be handled whole. Under the fuzzer
/// that is little, so that its short inputs reach all that comes in pieces; but more than the longest
/// score.
#[expect(unexpected_cfgs, reason = "cargo-fuzz sets it, and nothing declares it")]
pub(crate) const fn whole_bytes(usual: usize) -> usize {
    if cfg!(fuzzing) { 140 } else { usual }
}

/// Bounds on a stream's parts. Parts are read as they come, so none of these is allocated ahead;
/// they bound what a decoder may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest part that is held whole: a key, an aux field, a function library, the name of a
    /// stream's group or consumer. Bytes, as stored and as decoded. A few such parts may be held
    /// at a time.
    pub held_bytes_max: u64,
    /// Longest names of fields that the entries of a stream's node share, together, each counted
    /// with 8 bytes more; and longest fields of all templates of hashes, each with 48 bytes more.
    pub names_bytes_max: u64,
    /// Longest string of a value, bytes as stored and as decoded. It is passed on in pieces.
    pub text_bytes_max: u64,
}

impl Default for Limits {
    /// What fits into a small service: 16 MiB for what is held, where servers accept 512; any
    /// length of what passes in pieces. Of names 4 MiB, where a server's default is to begin a new
    /// node after 4 KiB.
    fn default() -> Self {
        Self { held_bytes_max: 16 << 20, names_bytes_max: 4 << 20, text_bytes_max: u64::MAX }
    }
}
