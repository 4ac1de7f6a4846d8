//! Personal data by what it looks like, in whole values and inside texts in English and Chinese.
//!
//! Written by hand rather than as patterns: one pass, linear in the text, no copies unless something
//! is found. What has a check digit (cards, resident ids, account numbers) must have the right one.

mod email;
mod full_width;
mod iban;
mod ip;
mod numbers;

use std::ops::Range;

use rapport_events::pseudonym::looks_like_email;
use rapport_policy::{Action, Detect};

pub(super) use self::ip::network;

/// What a match is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Email,
    Phone,
    ChineseMobile,
    ChineseResidentId,
    Card,
    Iban,
    Ip,
}

impl Kind {
    pub(super) fn action(self, detect: &Detect) -> Action {
        match self {
            Self::Email => detect.email,
            Self::Phone => detect.phone,
            Self::ChineseMobile => detect.chinese_mobile,
            Self::ChineseResidentId => detect.chinese_resident_id,
            Self::Card => detect.card,
            Self::Iban => detect.iban,
            Self::Ip => detect.ip,
        }
    }

    /// Whether nothing but digits and separators tells it: then a field's name may say that it is
    /// the number of a thing.
    pub(super) fn is_bare_number(self) -> bool {
        matches!(self, Self::ChineseMobile | Self::Card | Self::Ip)
    }
}

/// A place in a text, and what stands there in the one spelling that is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub range: Range<usize>,
    pub kind: Kind,
    pub canonical: String,
}

/// Where tokenised e-mail addresses live (RFC 2606: never a real domain).
pub(super) const TOKEN_DOMAIN: &str = "token.invalid";

/// A text with fewer digits and no `@` holds nothing (the shortest is an IP address, `1.1.1.1`).
const FEWEST_DIGITS: usize = 4;

/// Everything in the text, from left to right, without overlaps.
pub(super) fn find(text: &str) -> Vec<Found> {
    let signs = Signs::of(text.as_bytes());
    if signs.nothing() {
        return Vec::new();
    }
    if signs.full_width
        && full_width::matters(text.as_bytes())
        && let Some(folded) = full_width::folded(text)
    {
        let mut found = find_in(&folded.text, &Signs::of(folded.text.as_bytes()));
        for one in &mut found {
            one.range = folded.original(one.range.clone());
        }
        return found;
    }
    find_in(text, &signs)
}

fn find_in(text: &str, signs: &Signs) -> Vec<Found> {
    let mut found = Vec::new();
    if signs.at {
        email::find(text, &mut found);
        // An address of another script (用户@例子.公司) is one when it is the whole value.
        let trimmed = text.trim();
        if found.is_empty() && !trimmed.is_ascii() && looks_like_email(trimmed) {
            let start = text.len() - text.trim_start().len();
            let range = start..start + trimmed.len();
            return vec![Found { range, kind: Kind::Email, canonical: trimmed.to_owned() }];
        }
    }
    if signs.digits >= FEWEST_DIGITS {
        let emails = std::mem::take(&mut found);
        let mut from = 0;
        for email in emails {
            find_numbers(text, from..email.range.start, &mut found);
            from = email.range.end;
            found.push(email);
        }
        find_numbers(text, from..text.len(), &mut found);
    }
    found
}

/// Everything but e-mail addresses. Goes from word to word (letters, digits and `_`); what begins
/// before the range's end may go on behind it only up to what is not a word, so it cannot reach
/// into an address.
fn find_numbers(text: &str, within: Range<usize>, found: &mut Vec<Found>) {
    // What follows the range is an address, which begins with a word: a number that touches it
    // would be part of it.
    let text = &text[..within.end];
    let bytes = text.as_bytes();
    let mut at = within.start;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'+' && (at == 0 || !is_word(bytes[at - 1])) {
            match numbers::international_phone(text, at) {
                Some(phone) => at = push(found, phone),
                None => at += 1,
            }
            continue;
        }
        if !is_word(byte) {
            at += 1;
            continue;
        }
        at = match word(text, at, within.start, found) {
            Some(next) => next,
            None => at + bytes[at..].iter().take_while(|b| is_word(**b)).count(),
        };
    }
}

/// What begins with the word at `start`; where to go on when something was found.
fn word(text: &str, start: usize, not_before: usize, found: &mut Vec<Found>) -> Option<usize> {
    let bytes = text.as_bytes();
    let length = bytes[start..].iter().take_while(|b| is_word(**b)).count();
    let (word, next) = (&bytes[start..start + length], bytes.get(start + length));
    let colon = next == Some(&b':') || (start > not_before && bytes[start - 1] == b':');
    if length <= 4
        && colon
        && word.iter().all(u8::is_ascii_hexdigit)
        && let Some(address) = ip::version_6(text, start, not_before)
    {
        return Some(push(found, address));
    }
    if !word[0].is_ascii_digit() {
        let account = if length >= 4 { iban::find(text, start) } else { None };
        return account.map(|account| push(found, account));
    }
    if length <= 3
        && next == Some(&b'.')
        && let Some(address) = ip::version_4(text, start)
    {
        return Some(push(found, address));
    }
    let groups = numbers::Groups::from(bytes, start);
    if groups.is_empty() {
        return None;
    }
    Some(groups.find(text, found))
}

fn push(found: &mut Vec<Found>, one: Found) -> usize {
    let end = one.range.end;
    found.push(one);
    end
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether a number without a point is a payment card's; for values that were sent as numbers.
pub(super) fn is_card_number(digits: &str) -> bool {
    digits.len() >= 14 && numbers::is_card(digits.as_bytes())
}

/// What a glance at the bytes tells.
struct Signs {
    digits: usize,
    at: bool,
    full_width: bool,
}

impl Signs {
    /// Counts without branches and in bytes, so that it is done for 16 or 32 bytes at once: a text
    /// with nothing in it costs a fraction of a nanosecond a byte.
    fn of(bytes: &[u8]) -> Self {
        let mut signs = Self { digits: 0, at: false, full_width: false };
        for chunk in bytes.chunks(128) {
            let (mut digits, mut marks, mut wide) = (0u8, 0u8, 0u8);
            for byte in chunk {
                digits = digits.wrapping_add(u8::from(byte.wrapping_sub(b'0') < 10));
                marks |= u8::from(*byte == b'@') | u8::from(*byte == b'%');
                // Full-width characters are U+FF01 to U+FF5E: their first byte is 0xEF.
                wide |= u8::from(*byte == 0xef);
            }
            signs.digits += usize::from(digits);
            signs.at |= marks != 0;
            signs.full_width |= wide != 0;
        }
        signs
    }

    fn nothing(&self) -> bool {
        self.digits < FEWEST_DIGITS && !self.at && !self.full_width
    }
}

#[cfg(test)]
mod tests;
