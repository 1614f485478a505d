//! The decimal notation of a number, without an allocation.

/// Digits and sign of an `i64`.
pub(crate) struct Decimal {
    bytes: [u8; 20],
    from: usize,
}

impl Decimal {
    pub(crate) fn new(number: i64) -> Self {
        let mut bytes = [0; 20];
        let mut from = bytes.len();
        let mut rest = number.unsigned_abs();
        loop {
            from -= 1;
            bytes[from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            from -= 1;
            bytes[from] = b'-';
        }
        Self { bytes, from }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_standard_library_writes() {
        for number in [0, 1, -1, 9, 10, -10, 12_345, i64::MAX, i64::MIN] {
            assert_eq!(Decimal::new(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
