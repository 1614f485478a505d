use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use cachevault_domain::{Address, Target};

/// The next action of a scripted server on a connection.
#[derive(Debug, Clone)]
pub enum Act {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Sends nothing more, but keeps the connection until the client closes it.
    Silence,
}

impl Act {
    /// Sends text as a bulk string.
    pub fn bulk(text: &str) -> Self {
        Self::Send(format!("${}\r\n{text}\r\n", text.len()).into_bytes())
    }
}

type Script = dyn Fn(&[String]) -> Vec<Act> + Send + Sync;

/// A server with scripted replies, for states that no real server can produce on demand, and for
/// versions that are not installed.
pub struct ScriptedServer {
    port: u16,
}

impl ScriptedServer {
    /// Starts to listen; `script` receives each command with its name in upper case and returns the
    /// actions.
    pub fn start(script: impl Fn(&[String]) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&script);
                std::thread::spawn(move || serve(stream, &*script));
            }
        });
        Self { port }
    }

    pub fn address(&self) -> Address {
        Address { host: "127.0.0.1".into(), port: self.port }
    }

    pub fn target(&self) -> Target {
        Target::trusted(self.address())
    }
}

fn serve(stream: TcpStream, script: &Script) {
    let mut writer = stream.try_clone().expect("a second handle");
    let mut reader = BufReader::new(stream);
    while let Some(command) = read_command(&mut reader) {
        for act in script(&command) {
            match act {
                Act::Send(bytes) => {
                    if writer.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Act::Close => return,
                Act::Silence => {
                    let _ = reader.read_to_end(&mut Vec::new());
                    return;
                }
            }
        }
    }
}

fn read_command(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let count = read_number(reader, '*')?;
    let mut words: Vec<String> = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; read_number(reader, '$')? + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    words.first_mut()?.make_ascii_uppercase();
    Some(words)
}

fn read_number(reader: &mut BufReader<TcpStream>, prefix: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(prefix)?.parse().ok()
}
