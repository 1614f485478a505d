use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cachevault_domain::{Address, Target};
use cachevault_proto::{Limits, ReplyDecoder, encode_command};
use tempfile::TempDir;

use crate::engines::Engine;

pub use cachevault_proto::Reply;

const PATIENCE: Duration = Duration::from_secs(120);

/// A file of this repository.
pub fn repository_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Waits until `condition` returns a value; fails the test after two minutes.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A real Redis or Valkey server, ended when dropped.
pub struct Server {
    child: Child,
    folder: TempDir,
    pub port: u16,
    login: Vec<String>,
    engine: Engine,
    options: Vec<String>,
}

impl Server {
    /// Starts a server with defaults for tests, and with `options` such as `--appendonly yes`.
    pub fn start(engine: &Engine, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(engine, folder, options)
    }

    /// Starts a server that loads `rdb` first.
    pub fn start_with_rdb(engine: &Engine, rdb: &[u8], options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("dump.rdb"), rdb).expect("dump.rdb is written");
        Self::start_in(engine, folder, options)
    }

    fn start_in(engine: &Engine, folder: TempDir, options: &[&str]) -> Self {
        // Another process may take the port before the server binds it.
        for _ in 0..5 {
            let port = free_port();
            let mut child = Self::spawn(engine, folder.path(), port, options);
            let until = Instant::now() + PATIENCE;
            while Instant::now() < until {
                if let Ok(Some(_)) = child.try_wait() {
                    break;
                }
                if answers(port) {
                    let options = options.iter().map(|&option| option.to_owned()).collect();
                    let engine = engine.clone();
                    return Self { child, folder, port, login: Vec::new(), engine, options };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("{} does not start with {options:?}:\n{log}", engine.name);
    }

    fn spawn(engine: &Engine, folder: &Path, port: u16, options: &[&str]) -> Child {
        let log = std::fs::File::create(folder.join("log")).expect("a log file");
        let mut command = Command::new(&engine.binary);
        command
            .current_dir(folder)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--repl-diskless-sync-delay", "0"])
            .args(options)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a second handle"))
            .stdout(log);
        if !engine.name.starts_with("redis-5") && !engine.name.starts_with("redis-6") {
            command.args(["--enable-debug-command", "yes"]);
        }
        command.spawn().unwrap_or_else(|e| panic!("{}: {e}", engine.binary.display()))
    }

    /// Later commands of this value log in with these arguments of `AUTH`.
    pub fn log_in(&mut self, arguments: &[&str]) {
        self.login = arguments.iter().map(|&a| a.to_owned()).collect();
    }

    pub fn address(&self) -> Address {
        Address { host: "127.0.0.1".into(), port: self.port }
    }

    /// The server without a password and without TLS.
    pub fn target(&self) -> Target {
        Target::trusted(self.address())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn log(&self) -> String {
        // The log may contain names of keys, which are arbitrary bytes.
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Sends commands over one connection in a pipeline; returns their replies.
    #[track_caller]
    pub fn pipeline<A: AsRef<[u8]>>(&self, commands: &[Vec<A>]) -> Vec<Reply> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut bytes = Vec::new();
        if !self.login.is_empty() {
            let login: Vec<_> =
                std::iter::once("AUTH").chain(self.login.iter().map(String::as_str)).collect();
            bytes.extend(encode_command(&login));
        }
        let skip = usize::from(!self.login.is_empty());
        for command in commands {
            bytes.extend(encode_command(command));
        }
        let mut writer = stream.try_clone().expect("a second handle");
        let writing = std::thread::spawn(move || writer.write_all(&bytes));
        let limits = Limits {
            bulk_bytes_max: 64 << 20,
            values_max: 1 << 20,
            depth_max: 16,
            ..Limits::default()
        };
        let mut decoder = ReplyDecoder::with_limits(limits);
        let mut replies = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while replies.len() < commands.len() + skip {
            match decoder.next_reply().expect("RESP") {
                Some(reply) => replies.push(reply),
                None => {
                    let len = match stream.read(&mut buffer) {
                        // The end of a child process of Tokio, whose signal interrupts the call.
                        Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                        len => len,
                    };
                    let len = len.unwrap_or_else(|e| panic!("no reply: {e}; {}", self.log()));
                    assert!(len > 0, "the server closed the connection: {}", self.log());
                    decoder.feed(&buffer[..len]);
                }
            }
        }
        writing.join().expect("the writer").expect("the commands are written");
        replies.split_off(skip)
    }

    /// Sends one command.
    #[track_caller]
    pub fn call(&self, command: &[&str]) -> Reply {
        self.pipeline(&[command.to_vec()]).remove(0)
    }

    /// Sends one command that must succeed, and returns its reply as text.
    #[track_caller]
    pub fn ask(&self, command: &[&str]) -> String {
        let reply = self.call(command);
        assert!(!matches!(reply, Reply::Error(_)), "{command:?}: {reply:?}");
        text(&reply)
    }

    /// Slows loading down to 20 ms per key until [`Self::load_at_once`]. The actions of a test
    /// during a load then do not depend on the speed of the machine. The server replies to other
    /// commands about once per kilobyte.
    pub fn load_slowly(&self) {
        self.ask(&["CONFIG", "SET", "loading-process-events-interval-bytes", "1024"]);
        self.ask(&["CONFIG", "SET", "key-load-delay", "20000"]);
    }

    /// Ends the effect of [`Self::load_slowly`].
    pub fn load_at_once(&self) {
        self.ask(&["CONFIG", "SET", "key-load-delay", "0"]);
    }

    /// The server's own digest of its complete data set.
    pub fn digest(&self) -> String {
        self.ask(&["DEBUG", "DIGEST"])
    }

    /// One field of `INFO`.
    pub fn info(&self, field: &str) -> String {
        let info = self.ask(&["INFO"]);
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// Fills database 0 with `count` nearly incompressible strings of `bytes` bytes.
    pub fn fill(&self, count: usize, bytes: usize) {
        let mut state = 1u64;
        for start in (0..count).step_by(1000) {
            let commands: Vec<_> = (start..count.min(start + 1000))
                .map(|n| {
                    let value: Vec<u8> = std::iter::repeat_with(|| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (state >> 56) as u8
                    })
                    .take(bytes)
                    .collect();
                    vec![b"SET".to_vec(), format!("key:{n}").into_bytes(), value]
                })
                .collect();
            self.pipeline(&commands);
        }
    }

    /// Starts the server again after [`Server::kill`], with its remaining files.
    pub fn start_again(&mut self) {
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        self.child = Self::spawn(&self.engine, self.folder.path(), self.port, &options);
        eventually("the server responds again", || answers(self.port).then_some(()));
    }

    /// Kills the server without a shutdown, like a crash.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A reply as text.
pub fn text(reply: &Reply) -> String {
    match reply {
        Reply::Simple(bytes) | Reply::Error(bytes) | Reply::Bulk(Some(bytes)) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        Reply::Integer(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// A free port of the loopback address.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Whether a server has finished loading, or requires a password.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut buffer = [0; 7];
    stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut buffer).is_ok()
        && (&buffer == b"+PONG\r\n" || &buffer == b"-NOAUTH")
}
