use super::{Found, Kind, is_word};

/// Country codes and how long an account number is there (the SWIFT registry of IBAN formats).
#[rustfmt::skip]
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22),
    (b"BH", 22), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24), (b"DE", 22),
    (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18), (b"FO", 18), (b"FR", 27),
    (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27), (b"GT", 28), (b"HR", 21), (b"HU", 28),
    (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26), (b"IT", 27), (b"JO", 30), (b"KW", 30), (b"KZ", 20),
    (b"LB", 28), (b"LC", 32), (b"LI", 21), (b"LT", 20), (b"LU", 20), (b"LV", 21), (b"LY", 25), (b"MC", 27),
    (b"MD", 24), (b"ME", 22), (b"MK", 19), (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NL", 18), (b"NO", 15),
    (b"PK", 24), (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"SA", 24),
    (b"SC", 31), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"SV", 28), (b"TL", 23), (b"TN", 24),
    (b"TR", 26), (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20),
];

/// An account number that begins with the word at `start`, in one piece or in groups with single
/// spaces between them.
pub(super) fn find(text: &str, start: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let head = bytes.get(start..start + 4)?;
    let (letters, digits) = head.split_at(2);
    if !(letters.iter().all(u8::is_ascii_uppercase) && digits.iter().all(u8::is_ascii_digit)) {
        return None;
    }
    let length = LENGTHS.iter().find(|(code, _)| code[..] == head[..2])?.1;
    let mut canonical = String::with_capacity(length);
    let mut at = start;
    while canonical.len() < length {
        match *bytes.get(at)? {
            b if b.is_ascii_digit() || b.is_ascii_uppercase() => canonical.push(char::from(b)),
            b' ' if bytes[at - 1] != b' ' => {}
            _ => return None,
        }
        at += 1;
    }
    let whole = bytes.get(at).is_none_or(|next| !is_word(*next));
    (whole && remainder(&canonical) == 1).then_some(Found { range: start..at, kind: Kind::Iban, canonical })
}

/// ISO 7064 MOD 97-10: the first four characters go to the end, letters count from A = 10.
fn remainder(iban: &str) -> u32 {
    let bytes = iban.as_bytes();
    bytes[4..].iter().chain(&bytes[..4]).fold(0, |sum, b| match b {
        b'0'..=b'9' => (sum * 10 + u32::from(b - b'0')) % 97,
        _ => (sum * 100 + u32::from(b - b'A') + 10) % 97,
    })
}
