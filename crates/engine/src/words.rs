//! What a server has said, on its way into an error.

use cachevault_domain::{Address, ServerWords, Target};
use cachevault_proto::{HandshakeError, SessionError};

/// The longest text of a server that an error repeats, bytes.
const WORDS_BYTES_MAX: usize = 200;
const HIDDEN: &str = "what it said is in the log of the service";
/// What decides how we go on, and is no secret of any server: what of its words is told in any case.
const TELLING: [&str; 6] =
    ["NOPERM", " key", "access database", "unknown command", "wrong number of arg", "in progress"];

/// Hears a server, and tells of it what its target allows.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    address: Address,
    words: ServerWords,
}

impl Listener {
    pub(crate) fn of(target: &Target) -> Self {
        Self { address: target.address.clone(), words: target.words }
    }

    /// A server's words, harmless to print and not too long, or that they are in the log.
    pub(crate) fn heard(&self, words: &[u8]) -> String {
        self.told(printable(words))
    }

    /// The same of a text that is harmless already.
    pub(crate) fn told(&self, words: String) -> String {
        match self.words {
            ServerWords::Shown => words,
            ServerWords::Hidden => {
                tracing::info!(address = %self.address, words, "a server said");
                gist(&words)
            }
        }
    }

    /// The same of why a synchronisation failed.
    pub(crate) fn told_by(&self, session: SessionError) -> SessionError {
        match session {
            SessionError::Unexpected { step, got } => {
                SessionError::Unexpected { step, got: self.told(got) }
            }
            SessionError::Handshake(refusal) => match refusal {
                HandshakeError::PasswordRequired => refusal,
                HandshakeError::WrongPassword(detail) => {
                    HandshakeError::WrongPassword(self.told(detail))
                }
                HandshakeError::NotNow(detail) => HandshakeError::NotNow(self.told(detail)),
                HandshakeError::Denied { step, detail } => {
                    HandshakeError::Denied { step, detail: self.told(detail) }
                }
                HandshakeError::Refused { step, detail } => {
                    HandshakeError::Refused { step, detail: self.told(detail) }
                }
            }
            .into(),
        }
    }
}

/// Of a server's words only those that decide how we go on.
fn gist(words: &str) -> String {
    let telling: Vec<_> = TELLING.into_iter().filter(|part| words.contains(part)).collect();
    match telling.is_empty() {
        true => HIDDEN.to_owned(),
        false => format!("{}; {HIDDEN}", telling.join(" ")),
    }
}

/// A server's words, harmless to print and not too long.
pub(crate) fn printable(words: &[u8]) -> String {
    words[..words.len().min(WORDS_BYTES_MAX)].escape_ascii().to_string()
}
