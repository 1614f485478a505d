//! Any bytes, as a whole: no level may panic, hang, or take memory that is not there.

#![no_main]

use cachevault_rdb::data;
use cachevault_rdb::digest::Digester;
use cachevault_rdb::structure::{self, Shape};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Shapes(u64);

impl structure::Visitor for Shapes {
    const WANTS_TEXTS: bool = false;
    fn key_end(&mut self, shape: &Shape) {
        self.0 = self.0.wrapping_mul(31).wrapping_add(shape.stored_bytes ^ shape.elements);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut structure = structure::Decoder::default();
    let is_sound = structure.feed(bytes, &mut Shapes::default()).is_ok();
    let mut data = data::Decoder::default();
    let is_readable = data.feed(bytes, &mut Digester::default()).is_ok();
    // Checking what nobody wants to see is as strict as reading it.
    assert_eq!(is_sound, is_readable);
    assert_eq!(structure.finish().is_ok(), data.finish().is_ok());
});
