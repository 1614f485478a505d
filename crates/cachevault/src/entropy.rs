//! Randomness from the operating system.

use cachevault_domain::Entropy;

/// The operating system's random generator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    #[expect(clippy::expect_used, reason = "without randomness no key and no id may be made")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}
