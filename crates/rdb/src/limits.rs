//! Limits of a decoder.

/// Size in bytes up to which a part is processed as a whole. The size is small under the fuzzer, so
/// that short inputs reach the code for parts that arrive in pieces; it is larger than the longest
/// score.
#[expect(unexpected_cfgs, reason = "cargo-fuzz sets the flag, and no manifest declares it")]
pub(crate) const fn whole_bytes(usual: usize) -> usize {
    if cfg!(fuzzing) { 140 } else { usual }
}

/// Limits of the parts of a stream. Parts are read as their bytes arrive, so no limit is allocated
/// in advance; the limits bound the memory of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size in bytes, stored and decoded, of a part that is held as a whole: a key, an aux
    /// field, a function library, the name of a stream's group or consumer. A decoder may hold a
    /// few such parts at a time.
    pub held_bytes_max: u64,
    /// Maximum size of the field names that the entries of a stream node share, each counted with 8
    /// additional bytes; and of the fields of all templates of hashes, each counted with 48.
    pub names_bytes_max: u64,
    /// Maximum size in bytes, stored and decoded, of a string of a value. Such a string passes in
    /// pieces.
    pub text_bytes_max: u64,
}

impl Default for Limits {
    /// Defaults for a service with little memory: 16 MiB for a held part, where servers accept 512
    /// MiB; no limit for parts that pass in pieces. Field names may have 4 MiB; by default a server
    /// begins a new node after 4 KiB.
    fn default() -> Self {
        Self { held_bytes_max: 16 << 20, names_bytes_max: 4 << 20, text_bytes_max: u64::MAX }
    }
}
