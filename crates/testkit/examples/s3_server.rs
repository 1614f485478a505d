//! The S3 server as a program: prints the URL of a store and the path of a credentials file, one
//! per line, and serves until the end of its standard input.

use std::io::{Read, Write};

use cachevault_testkit::{BUCKET, S3Server};

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let server = runtime.block_on(S3Server::start());
    let credentials = server.folder().join("credentials");
    server.write_credentials(&credentials);
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}\n{}", server.store_url(BUCKET), credentials.display())?;
    stdout.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
