//! `cachevault diff`: which keys differ between two RDBs, in bounded memory, without any service.
//!
//! Of every key of A the hash of its name and the fingerprint of its content go into a table; then
//! B passes by it. Where the table has no room for all, it takes a range of the hashes, and both
//! sources are read again for each further range. The names of keys that B lacks are not in the
//! table: a last pass over A finds them.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use cachevault_rdb::EnvelopeReport;
use cachevault_rdb::data;
use cachevault_rdb::digest::{Fingerprint, Fingerprinter, KeyFingerprint, KeyVisitor};
use cachevault_rdb::inspect::Reading;
use cachevault_rdb::raw::Key;
use cachevault_rdb::structure;
use clap::Args;
use serde_json::json;
use twox_hash::XxHash3_128;

use super::diff_table::{Entry, Found, Table};
use super::rdb_name::escaped;
use super::rdb_pass::{Interrupts, pass};
use super::rdb_source::{Source, Trouble};
use super::stored_backup::StoreOptions;
use crate::terminal;

const EXIT_DIFFERENT: u8 = 1;
const EXIT_TROUBLE: u8 = 2;

pub(crate) const DIFF_HELP: &str = "\
A line is `+ DB NAME` for a key that only B has, `- DB NAME` for one that only A has, `~ DB NAME` \
where kind, value or expiry differ; a summary ends the output. Encodings, the order of keys and \
the servers' versions make no difference, nor does data that modules keep outside of keys. Values of \
modules other than vector sets are compared by key, type and expiry alone, and counted. Lists, sets, sorted sets \
and hashes without elements, which servers leave out when they load, are left out and counted. Lines \
come in no particular order; a key that B holds twice, which no server loads, and A lacks has two. Names are shown with \\\\, \\n and \\xNN for what is no printable \
text.\n\n\
Exit codes: 0 the data are the same; 1 they differ; 2 wrong usage, or a source cannot be read, is \
damaged or was written by a server newer than this build: then what was printed is not all.";

#[derive(Debug, Args)]
pub(crate) struct DiffOptions {
    /// What to compare from: a file, or `backup:ID` for a stored backup
    a: OsString,

    /// What to compare to, likewise
    b: OsString,

    /// Print JSON: one line per key, and one for the summary
    #[arg(long)]
    json: bool,

    /// Memory for the table of keys, MiB: a million keys need 33; with less, A and B are read
    /// several times
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    memory: u32,

    #[command(flatten)]
    store: StoreOptions,
}

/// Runs the command and tells its outcome by the exit code.
pub(crate) fn diff(options: &DiffOptions) -> ExitCode {
    let mut printer = Printer {
        output: BufWriter::new(io::stdout().lock()),
        json: options.json,
        tally: Tally::default(),
        failed: None,
    };
    let outcome = run(options, &mut printer).and_then(|()| Ok(printer.finish()?));
    // What was found before some trouble is still worth printing; the trouble weighs more.
    let flushed = printer.output.flush().map_err(Trouble::Output);
    let message = match outcome.and(flushed) {
        // A reader that has seen enough, such as `head`, is no error.
        Err(Trouble::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => {
            return printer.tally.exit();
        }
        Ok(()) => return printer.tally.exit(),
        Err(Trouble::Output(e)) => format!("cannot write: {e}"),
        Err(Trouble::Unreadable(message) | Trouble::Damaged(message)) => message,
        Err(Trouble::Opaque(message)) => format!("opaque, so it cannot be compared: {message}"),
    };
    terminal::message(&format_args!("error: {message}"));
    ExitCode::from(EXIT_TROUBLE)
}

fn run(options: &DiffOptions, printer: &mut Printer<'_>) -> Result<(), Trouble> {
    let mut a = Repeated::find(&options.a, options)?;
    let mut b = Repeated::find(&options.b, options)?;
    let budget_bytes = u64::from(options.memory) << 20;
    let mut first = Some(0);
    while let Some(from) = first {
        let table = Table::new(from, budget_bytes);
        let functions = Fingerprint::default();
        // Every pass meets all keys; the first one counts those that no table takes.
        let empty = Empty { is_counted: from == 0, keys: 0 };
        let fill = Fill { table, hash: 0, functions, empty };
        let Fill { mut table, functions, empty, .. } = a.pass(reading(fill))?.1.keys;
        printer.tally.empty += empty.keys;
        table
            .seal()
            .map_err(|_| a.source.damaged("it holds a key twice, which no server loads"))?;
        let compare = Compare {
            table: &mut table,
            printer: &mut *printer,
            hash: 0,
            functions: Fingerprint::default(),
            twice: None,
            empty: Empty { is_counted: from == 0, keys: 0 },
        };
        let Compare { functions: functions_b, empty, .. } = b.pass(reading(compare))?.1.keys;
        printer.tally.empty += empty.keys;
        printer.tally.functions_differ = functions != functions_b;
        if table.keep_unseen() {
            let unseen = Unseen { table: &table, printer: &mut *printer };
            a.pass((structure::Decoder::default(), unseen))?;
        }
        first = table.next_first();
    }
    Ok(())
}

/// Reads fingerprints.
fn reading<K>(keys: K) -> (data::Decoder, Fingerprinter<K>) {
    (data::Decoder::default(), Fingerprinter::new(keys))
}

/// A source that may be read several times, and must not change meanwhile.
struct Repeated {
    source: Source,
    envelope: Option<EnvelopeReport>,
}

impl Repeated {
    fn find(argument: &OsString, options: &DiffOptions) -> Result<Self, Trouble> {
        let source = Source::find(argument, &options.store)?;
        source.must_be_repeatable()?;
        Ok(Self { source, envelope: None })
    }

    fn pass<R: Reading + Interrupts>(&mut self, reading: R) -> Result<R, Trouble> {
        let (envelope, reading) = pass(&self.source, reading)?;
        match self.envelope.replace(envelope) {
            Some(before) if before != envelope => Err(Trouble::Unreadable(format!(
                "`{}` has changed while it was compared",
                self.source.name()
            ))),
            _ => Ok(reading),
        }
    }
}

/// The hash by which a key is known, of database and name. 128 bits never collide by chance: 10^9
/// keys do with a probability of 10^-21. Who can choose names can make a collision, but gains no
/// more by it than a key that is not listed.
fn hash_of(key: &Key<'_>) -> u128 {
    XxHash3_128::oneshot_with_seed(key.db, key.name)
}

/// Fills the table with keys of A.
struct Fill {
    table: Table,
    /// The hash of the key that is passing.
    hash: u128,
    functions: Fingerprint,
    empty: Empty,
}

/// Keys without elements.
struct Empty {
    is_counted: bool,
    keys: u64,
}

impl Empty {
    /// Whether a key that begins may have to be counted.
    fn may_be(&self, key: &Key<'_>) -> bool {
        self.is_counted && key.value_type.kind().drops_empty()
    }
}

impl Interrupts for Fill {}

impl KeyVisitor for Fill {
    #[inline]
    fn wants(&mut self, key: &Key<'_>) -> bool {
        self.hash = hash_of(key);
        self.table.wants(self.hash) || self.empty.may_be(key)
    }
    fn key(&mut self, key: &KeyFingerprint<'_>) {
        if key.is_empty {
            self.empty.keys += u64::from(self.empty.is_counted);
        } else if self.table.wants(self.hash) {
            self.table.insert(Entry { key: self.hash, fingerprint: key.fingerprint.0 });
        }
    }
    fn function(&mut self, fingerprint: Fingerprint) {
        self.functions += fingerprint;
    }
}

/// Compares keys of B with the table.
struct Compare<'c, 'o> {
    table: &'c mut Table,
    printer: &'c mut Printer<'o>,
    /// The hash of the key that is passing.
    hash: u128,
    functions: Fingerprint,
    /// The name of a key that came twice.
    twice: Option<String>,
    empty: Empty,
}

impl Interrupts for Compare<'_, '_> {
    fn interruption(&mut self) -> Option<Trouble> {
        let twice = self.twice.take().map(|name| {
            Trouble::Damaged(format!("B holds the key `{name}` twice, which no server loads"))
        });
        twice.or_else(|| self.printer.interruption())
    }
}

impl KeyVisitor for Compare<'_, '_> {
    #[inline]
    fn wants(&mut self, key: &Key<'_>) -> bool {
        self.hash = hash_of(key);
        self.table.wants(self.hash) || self.empty.may_be(key)
    }
    fn key(&mut self, key: &KeyFingerprint<'_>) {
        if key.is_empty {
            self.empty.keys += u64::from(self.empty.is_counted);
            return;
        }
        if !self.table.wants(self.hash) {
            return;
        }
        match self.table.find(self.hash, key.fingerprint.0) {
            Found::Same => {
                self.printer.tally.same += 1;
                self.printer.tally.uncompared += u64::from(!key.is_compared);
            }
            Found::Changed => self.printer.print(Change::Changed, key.db, key.name),
            Found::Missing => self.printer.print(Change::Added, key.db, key.name),
            Found::Twice => self.twice = Some(escaped(key.name)),
        }
    }
    fn function(&mut self, fingerprint: Fingerprint) {
        self.functions += fingerprint;
    }
}

/// Finds the names of keys of A that B lacks.
struct Unseen<'c, 'o> {
    table: &'c Table,
    printer: &'c mut Printer<'o>,
}

impl Interrupts for Unseen<'_, '_> {
    fn interruption(&mut self) -> Option<Trouble> {
        self.printer.interruption()
    }
}

impl structure::Visitor for Unseen<'_, '_> {
    const WANTS_TEXTS: bool = false;

    fn key(&mut self, key: &Key<'_>) {
        if self.table.is_unseen(hash_of(key)) {
            self.printer.print(Change::Removed, key.db, key.name);
        }
    }
}

#[derive(Clone, Copy)]
enum Change {
    Added,
    Removed,
    Changed,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    added: u64,
    removed: u64,
    changed: u64,
    same: u64,
    /// Keys among the same ones with data of modules that was not compared.
    uncompared: u64,
    /// Keys of either without elements, which servers leave out.
    empty: u64,
    functions_differ: bool,
}

impl Tally {
    fn exit(&self) -> ExitCode {
        let keys = self.added + self.removed + self.changed;
        if keys == 0 && !self.functions_differ {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_DIFFERENT)
        }
    }
}

/// Prints and counts differences.
struct Printer<'o> {
    output: BufWriter<io::StdoutLock<'o>>,
    json: bool,
    tally: Tally,
    failed: Option<io::Error>,
}

impl Printer<'_> {
    fn print(&mut self, change: Change, db: u64, name: &[u8]) {
        let (count, sign, word) = match change {
            Change::Added => (&mut self.tally.added, '+', "added"),
            Change::Removed => (&mut self.tally.removed, '-', "removed"),
            Change::Changed => (&mut self.tally.changed, '~', "changed"),
        };
        *count += 1;
        if self.failed.is_some() {
            return;
        }
        let name = escaped(name);
        let written = if self.json {
            writeln!(self.output, "{}", json!({"change": word, "db": db, "name": name}))
        } else {
            writeln!(self.output, "{sign} {db} {name}")
        };
        self.failed = written.err();
    }

    fn interruption(&mut self) -> Option<Trouble> {
        self.failed.take().map(Trouble::Output)
    }

    fn finish(&mut self) -> io::Result<()> {
        let Tally { added, removed, changed, same, uncompared, empty, functions_differ } =
            self.tally;
        if self.json {
            let summary = json!({
                "added": added,
                "removed": removed,
                "changed": changed,
                "same": same,
                "uncompared": uncompared,
                "empty": empty,
                "functions_differ": functions_differ,
            });
            return writeln!(self.output, "{}", json!({"summary": summary}));
        }
        let functions = if functions_differ { "; the functions differ" } else { "" };
        let modules = match uncompared {
            0 => String::new(),
            keys => format!("; of {keys} keys the data of modules was not compared"),
        };
        let nothing = match empty {
            0 => String::new(),
            keys => format!("; {keys} keys without elements were left out, as servers do"),
        };
        writeln!(
            self.output,
            "{added} added, {removed} removed, {changed} changed, {same} the same{functions}{modules}{nothing}"
        )
    }
}
