//! Checks only the frame and CRC-64 of an RDB file: the upper limit of the speed of reading.
//!
//!     envelope FILE

use std::error::Error;
use std::fs::File;
use std::io::Read;

use cachevault_rdb::Envelope;

const READ_BYTES: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let path =
        std::env::args_os().nth(1).ok_or("no file is given; pass the path of an RDB file")?;
    let mut file = File::open(path)?;
    let (mut envelope, mut buffer) = (Envelope::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            len => envelope.feed(&buffer[..len])?,
        }
    }
    println!("{:?}", envelope.finish()?);
    Ok(())
}
