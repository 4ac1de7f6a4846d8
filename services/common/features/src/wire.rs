//! Compact bytes for states: LEB128 integers, little-endian doubles, length-prefixed text. Reading
//! never panics and never allocates more than the bytes at hand can fill.

use crate::Error;

/// Appends `n`, seven bits a byte.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8 & 0x7f) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed number; small ones of either sign stay short.
pub fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)) as u64);
}

pub fn put_f64(out: &mut Vec<u8>, x: f64) {
    out.extend_from_slice(&x.to_bits().to_le_bytes());
}

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the `put_` functions wrote.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `what` names the thing in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub fn corrupt(&self, why: &'static str) -> Error {
        Error::Corrupt { what: self.what, why }
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or_else(|| self.corrupt("ends too early"))?;
        self.rest = tail;
        Ok(head)
    }

    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    pub fn varint(&mut self) -> Result<u64, Error> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(self.corrupt("has a number beyond 64 bits"))
    }

    pub fn signed(&mut self) -> Result<i64, Error> {
        let n = self.varint()?;
        Ok(((n >> 1) as i64) ^ -((n & 1) as i64))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.corrupt("ends too early"))
    }

    pub fn f64(&mut self) -> Result<f64, Error> {
        Ok(f64::from_bits(u64::from_le_bytes(self.array()?)))
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let n = self.count(1)?;
        self.take(n)
    }

    pub fn text(&mut self) -> Result<&'a str, Error> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("has text that is not UTF-8"))
    }

    /// A number of things that take at least `each` bytes: never more than the rest can hold.
    pub fn count(&mut self, each: usize) -> Result<usize, Error> {
        let n = self.varint()?;
        match usize::try_from(n) {
            Ok(n) if n.saturating_mul(each) <= self.rest.len() => Ok(n),
            Ok(_) | Err(_) => Err(self.corrupt("claims more than it holds")),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("has bytes after its end")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back(n: u64, i: i64, x: f64, text in ".{0,40}") {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            put_signed(&mut out, i);
            put_f64(&mut out, x);
            put_text(&mut out, &text);
            let mut reader = Reader::new("test", &out);
            prop_assert_eq!(reader.varint().unwrap(), n);
            prop_assert_eq!(reader.signed().unwrap(), i);
            prop_assert_eq!(reader.f64().unwrap().to_bits(), x.to_bits());
            prop_assert_eq!(reader.text().unwrap(), text);
            prop_assert!(reader.end().is_ok());
        }
    }
}
