use rapport_events::personal_numbers::{is_chinese_mobile, is_chinese_resident_id, is_international_phone};

use super::{Found, Kind, is_word};

/// Groups of digits with one space or hyphen between them, as people write long numbers.
pub(super) struct Groups {
    /// Start and end of each.
    groups: [(usize, usize); MOST],
    count: usize,
}

/// A card's five groups, and some before and after it (a date, a country code).
const MOST: usize = 12;
/// No number is written in more groups.
const LONGEST: usize = 5;

impl Groups {
    /// The groups from the digit at `start` on, which no letter or digit stands before.
    pub(super) fn from(bytes: &[u8], start: usize) -> Self {
        let mut read = Self { groups: [(0, 0); MOST], count: 0 };
        let mut at = start;
        while read.count < MOST {
            let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            // The check character of a resident id.
            let x = usize::from(digits > 2 && matches!(bytes.get(at + digits), Some(b'x' | b'X')));
            let end = at + digits + x;
            if digits == 0 || bytes.get(end).is_some_and(|next| is_word(*next)) {
                break;
            }
            read.groups[read.count] = (at, end);
            read.count += 1;
            if x == 1 || !matches!(bytes.get(end), Some(b' ' | b'-')) {
                break;
            }
            at = end + 1;
        }
        read
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All numbers of persons in these groups, from left to right, and where to read on. There must
    /// be a group.
    pub(super) fn find(&self, text: &str, found: &mut Vec<Found>) -> usize {
        // More groups may follow than were read: the last ones are left for the next reading.
        let looked_at = if self.count == MOST { MOST - LONGEST + 1 } else { self.count };
        let mut first = 0;
        while first < looked_at {
            match self.one(text, first) {
                Some((one, next)) => {
                    found.push(one);
                    first = next;
                }
                None => first += 1,
            }
        }
        if first < self.count { self.groups[first].0 } else { self.groups[self.count - 1].1 }
    }

    /// What begins with this group, and the group after it.
    fn one(&self, text: &str, first: usize) -> Option<(Found, usize)> {
        let lengths: [usize; LONGEST] =
            std::array::from_fn(|i| self.groups[..self.count].get(first + i).map_or(0, |(start, end)| end - start));
        let bytes = text.as_bytes();
        for count in resident_id_groups(lengths) {
            if let Some(found) = self.gathered(bytes, first, count, Kind::ChineseResidentId, is_chinese_resident_id) {
                return Some((found, first + count));
            }
        }
        for count in card_groups(lengths) {
            if let Some(found) = self.gathered(bytes, first, count, Kind::Card, is_card) {
                return Some((found, first + count));
            }
        }
        let count = mobile_groups(lengths)?;
        let mut found = self.gathered(bytes, first, count, Kind::ChineseMobile, is_mobile_with_country)?;
        // Where the country stands in a group of its own, it goes too.
        if found.canonical.len() == 11 && first > 0 {
            let (start, end) = self.groups[first - 1];
            if matches!(&bytes[start..end], b"86" | b"0086") {
                found.range.start = start;
            }
        }
        if found.range.start > 0 && bytes[found.range.start - 1] == b'+' {
            found.range.start -= 1;
        }
        let national = &found.canonical[found.canonical.len() - 11..];
        found.canonical = format!("+86{national}");
        (!is_part_of_a_name(bytes, found.range.start, found.range.end)).then_some((found, first + count))
    }

    /// These groups as one number, if they are one.
    fn gathered(
        &self,
        bytes: &[u8],
        first: usize,
        count: usize,
        kind: Kind,
        is: impl Fn(&[u8]) -> bool,
    ) -> Option<Found> {
        let groups = self.groups[..self.count].get(first..first + count)?;
        let mut digits = [0u8; 20];
        let mut len = 0;
        for (start, end) in groups {
            let group = &bytes[*start..*end];
            digits.get_mut(len..len + group.len())?.copy_from_slice(group);
            len += group.len();
        }
        let range = groups.first()?.0..groups.last()?.1;
        if !is(&digits[..len]) || is_fraction(bytes, range.start, range.end) {
            return None;
        }
        let canonical = digits[..len].iter().map(|b| char::from(b.to_ascii_uppercase())).collect();
        Some(Found { range, kind, canonical })
    }
}

/// 18 in one piece, or place, birth and order apart.
fn resident_id_groups(lengths: [usize; LONGEST]) -> impl Iterator<Item = usize> {
    let whole = (lengths[0] == 18).then_some(1);
    let parts = (lengths[..3] == [6, 8, 4]).then_some(3);
    whole.into_iter().chain(parts)
}

/// How cards are written: in one piece, in fours, and as American Express and Diners do. A whole
/// number of 13 digits is an article's (EAN-13) rather than a card of Visa's first years.
fn card_groups(lengths: [usize; LONGEST]) -> impl Iterator<Item = usize> {
    let whole = (14..=19).contains(&lengths[0]).then_some(1);
    let parts = match lengths {
        [4, 4, 4, 4, 1..=3] => Some(5),
        [4, 4, 4, 1 | 4, _] => Some(4),
        [4, 6, 4 | 5, ..] => Some(3),
        [6, 13, ..] => Some(2),
        _ => None,
    };
    // Nineteen digits in five groups may also be sixteen and a number after them.
    let fours = (lengths[..4] == [4, 4, 4, 4] && lengths[4] != 0).then_some(4);
    whole.into_iter().chain(parts).chain(fours)
}

fn mobile_groups(lengths: [usize; LONGEST]) -> Option<usize> {
    match lengths {
        [11 | 13 | 15, ..] => Some(1),
        [3, 8, ..] | [7, 4, ..] => Some(2),
        [3, 4, 4, ..] => Some(3),
        _ => None,
    }
}

fn is_mobile_with_country(digits: &[u8]) -> bool {
    let national = digits.strip_prefix(b"0086").or_else(|| digits.strip_prefix(b"86"));
    is_chinese_mobile(digits) || national.is_some_and(is_chinese_mobile)
}

/// Behind a decimal point, or before one.
fn is_fraction(bytes: &[u8], start: usize, end: usize) -> bool {
    let dot = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(|b| *b == b'.');
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    (dot(start.checked_sub(1)) && digit(start.checked_sub(2))) || (dot(Some(end)) && digit(Some(end + 1)))
}

/// Whether a bare number hangs on a word by a hyphen (`sku-13812345678`) or is a step of an
/// address's path. Only asked for numbers that have no check digit.
fn is_part_of_a_name(bytes: &[u8], start: usize, end: usize) -> bool {
    let word = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(|b| is_word(*b));
    let hyphen = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(|b| *b == b'-');
    let hangs_before = hyphen(start.checked_sub(1)) && word(start.checked_sub(2));
    let hangs_after = hyphen(Some(end)) && word(Some(end + 1));
    let in_path = start > 0 && bytes[start - 1] == b'/' && (bytes.starts_with(b"http") || bytes[0] == b'/');
    hangs_before || hangs_after || in_path
}

/// Payment cards: the issuer's prefix with its lengths, and Luhn's check digit.
pub(super) fn is_card(digits: &[u8]) -> bool {
    let prefix = |n: usize| digits.iter().take(n).fold(0u32, |sum, d| sum * 10 + u32::from(d.wrapping_sub(b'0')));
    if !(13..=19).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let lengths = match (prefix(1), prefix(2), prefix(3), prefix(4)) {
        // Visa.
        (4, ..) => &[13, 16, 18, 19][..],
        // Mastercard.
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) => &[16],
        // American Express.
        (_, 34 | 37, ..) => &[15],
        // Diners Club.
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => &[14, 16],
        // JCB.
        (_, _, _, 3528..=3589) => &[16, 17, 18, 19],
        // UnionPay, Discover, RuPay, Maestro.
        (_, 60 | 62 | 65 | 67 | 81, ..) | (_, _, 644..=649, _) => &[16, 17, 18, 19],
        (_, _, _, 5018 | 5020 | 5038 | 5893 | 6304) => &[16, 17, 18, 19],
        // Mir.
        (_, _, _, 2200..=2204) => &[16, 17, 18, 19],
        _ => &[],
    };
    lengths.contains(&digits.len()) && passes_luhn(digits)
}

/// From the right every second digit counts double, and its digits are added (ISO/IEC 7812-1).
fn passes_luhn(digits: &[u8]) -> bool {
    let sum = digits.iter().rev().enumerate().fold(0u32, |sum, (i, digit)| {
        let n = u32::from(digit - b'0') << (i % 2);
        sum + if n > 9 { n - 9 } else { n }
    });
    sum.is_multiple_of(10)
}

/// An international number that begins with the `+` at `start`: the longest one that can be one, and
/// of a Chinese mobile number no more than its digits.
pub(super) fn international_phone(text: &str, start: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let mut digits = [0u8; 15];
    let mut len = 0;
    let mut best = None;
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'0'..=b'9' if len < digits.len() => {
                digits[len] = *byte;
                len += 1;
                let whole = bytes.get(at + 1).is_none_or(|next| !is_word(*next));
                if whole && is_international_phone(&digits[..len]) {
                    best = Some((at + 1, len));
                    if is_mobile_of_86(&digits[..len]) {
                        break;
                    }
                }
            }
            b' ' | b'-' | b'.' | b')' if at > start + 1 && !matches!(bytes[at - 1], b' ' | b'-' | b'.') => {}
            b'(' => {}
            _ => break,
        }
        at += 1;
    }
    let (end, len) = best?;
    let kind = if is_mobile_of_86(&digits[..len]) { Kind::ChineseMobile } else { Kind::Phone };
    let canonical = std::iter::once('+').chain(digits[..len].iter().map(|d| char::from(*d))).collect();
    Some(Found { range: start..end, kind, canonical })
}

fn is_mobile_of_86(digits: &[u8]) -> bool {
    digits.strip_prefix(b"86").is_some_and(is_chinese_mobile)
}
