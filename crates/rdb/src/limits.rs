//! Bounds on what a stream may ask for.

/// Bounds on a stream's parts. Parts are read as they come, so none of these is allocated ahead;
/// they bound what a decoder may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest part that is held whole: a key, an aux field, a function library, the name of a
    /// stream's group or consumer. Bytes, as stored and as decoded.
    pub held_bytes_max: u64,
    /// Longest names of fields that the entries of a stream's node share, together, each counted
    /// with 8 bytes more.
    pub names_bytes_max: u64,
    /// Longest string of a value, bytes as stored and as decoded. It is passed on in pieces.
    pub text_bytes_max: u64,
}

impl Default for Limits {
    /// What a server accepts: 512 MiB for what is held; any length of what passes in pieces. Of
    /// names 64 MiB, where a server's default is to begin a new node after 4 KiB.
    fn default() -> Self {
        Self { held_bytes_max: 512 << 20, names_bytes_max: 64 << 20, text_bytes_max: u64::MAX }
    }
}
