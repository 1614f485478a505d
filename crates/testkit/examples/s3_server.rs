//! The S3 server as a program: prints the URL of a store in it and the file with the key to it, a
//! line each, and serves until its standard input ends.

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
