//! Numbers that name a person by themselves: what the cleaner's detectors and the rule for customer
//! ids have in common.

/// Whether 18 characters are a resident identity card number of mainland China (GB 11643-1999): the
/// code of a province, a date of birth that exists, and the right check character (ISO 7064 MOD
/// 11-2; `X` stands for ten).
pub fn is_chinese_resident_id(characters: &[u8]) -> bool {
    if characters.len() != 18 || !characters[..17].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = |from: usize, to: usize| characters[from..to].iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    let province = matches!(
        number(0, 2),
        11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83 | 91
    );
    province
        && is_date(number(6, 10), number(10, 12), number(12, 14))
        && resident_check_character(&characters[..17]) == characters[17].to_ascii_uppercase()
}

/// ISO 7064 MOD 11-2 over the first 17 digits: the weight of the digit at `i` from the right is
/// 2^(i + 1) mod 11.
fn resident_check_character(digits: &[u8]) -> u8 {
    let sum = digits.iter().fold(0u32, |sum, digit| (sum + u32::from(digit - b'0')) * 2 % 11);
    match (12 - sum) % 11 {
        10 => b'X',
        check => b'0' + u8::try_from(check).unwrap_or(0),
    }
}

fn is_date(year: u32, month: u32, day: u32) -> bool {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => 0,
    };
    (1900..2100).contains(&year) && (1..=days).contains(&day)
}

/// Whether eleven digits are a mobile number of mainland China: 13 to 19 and nine digits.
pub fn is_chinese_mobile(digits: &[u8]) -> bool {
    digits.len() == 11 && digits.iter().all(u8::is_ascii_digit) && digits[0] == b'1' && digits[1] >= b'3'
}

/// Whether the digits after a `+` can be a telephone number (E.164: 8 to 15 digits with the country
/// code). Where the plan of a large country is fixed, its length is checked. 999 is reserved, and
/// stands in for numbers that were tokenised.
pub fn is_international_phone(digits: &[u8]) -> bool {
    if !(8..=15).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    match digits {
        [b'0', ..] | [b'9', b'9', b'9', ..] => false,
        [b'1', area, ..] => digits.len() == 11 && *area >= b'2',
        [b'7', ..] => digits.len() == 11,
        [b'8', b'6', ..] => (10..=14).contains(&digits.len()),
        _ => true,
    }
}

/// A whole text that is one of these numbers, in the one spelling that is hashed: separators gone,
/// `+86` before a Chinese mobile number.
pub fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    // Nearly every id ends here.
    if !(11..=32).contains(&text.len()) && !text.starts_with('+') {
        return None;
    }
    if is_chinese_resident_id(text.as_bytes()) {
        return Some(text.to_ascii_uppercase());
    }
    let international = text.strip_prefix('+');
    let mut digits = [0u8; 17];
    let mut count = 0;
    for byte in international.unwrap_or(text).bytes() {
        match byte {
            b'0'..=b'9' => {
                *digits.get_mut(count)? = byte;
                count += 1;
            }
            b' ' | b'-' | b'(' | b')' | b'.' => {}
            _ => return None,
        }
    }
    let digits = &digits[..count];
    let national = match international {
        // +1 415 ... has eleven digits too.
        Some(_) => digits.strip_prefix(b"86").unwrap_or_default(),
        None => digits.strip_prefix(b"0086").or_else(|| digits.strip_prefix(b"86")).unwrap_or(digits),
    };
    if is_chinese_mobile(national) {
        return Some(written("+86", national));
    }
    (international.is_some() && is_international_phone(digits)).then(|| written("+", digits))
}

fn written(prefix: &str, digits: &[u8]) -> String {
    let mut text = String::with_capacity(prefix.len() + digits.len());
    text.push_str(prefix);
    text.extend(digits.iter().map(|d| char::from(*d)));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The standard's own description: weights written out, and a table of check characters.
    fn by_the_table(digits: &str) -> char {
        let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
        let sum: u32 = digits.chars().zip(weights).map(|(d, w)| d.to_digit(10).unwrap() * w).sum();
        ['1', '0', 'X', '9', '8', '7', '6', '5', '4', '3', '2'][(sum % 11) as usize]
    }

    #[test]
    fn the_standards_example_is_a_resident_id_and_no_change_of_it() {
        assert!(is_chinese_resident_id(b"11010519491231002X"));
        assert!(is_chinese_resident_id(b"11010519491231002x"));
        for wrong in ["110105194912310021", "11010519491331002X", "10010519491231002X", "1101051949123100X", ""] {
            assert!(!is_chinese_resident_id(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_day_that_never_was_is_nobodys_birthday() {
        assert!(is_date(2000, 2, 29) && !is_date(1900, 2, 29) && !is_date(2023, 2, 29));
        assert!(!is_date(2024, 4, 31) && !is_date(1899, 1, 1) && !is_date(2024, 0, 1) && !is_date(2024, 1, 0));
    }

    #[test]
    fn one_number_has_one_spelling() {
        for text in
            ["13812345678", "138 1234 5678", "138-1234-5678", "+86 138-1234-5678", "0086 13812345678", "8613812345678"]
        {
            assert_eq!(canonical(text).as_deref(), Some("+8613812345678"), "{text}");
        }
        assert_eq!(canonical("+49 (151) 234-5678").as_deref(), Some("+491512345678"));
        assert_eq!(canonical(" 11010519491231002x ").as_deref(), Some("11010519491231002X"));
        assert_eq!(canonical("+1 (415) 555-0100").as_deref(), Some("+14155550100"));
    }

    #[test]
    fn ids_timestamps_and_amounts_are_no_numbers_of_persons() {
        for text in [
            "42",
            "",
            "4915123456789",
            "1700000000000",
            "12812345678",
            "+1000000000",
            "+12",
            "user-13812345678",
            "550e8400-e29b-41d4-a716-446655440000",
            "4111111111111111",
            "+999123456789012",
            "20241124160000",
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn exactly_one_check_character_fits(
            province in prop::sample::select(vec!["11", "31", "44", "65"]), place in "[0-9]{4}",
            year in 1900u32..2100, month in 1u32..=12, day in 1u32..=28, order in "[0-9]{3}",
        ) {
            let first = format!("{province}{place}{year}{month:02}{day:02}{order}");
            let fitting: Vec<char> =
                "0123456789X".chars().filter(|c| is_chinese_resident_id(format!("{first}{c}").as_bytes())).collect();
            prop_assert_eq!(fitting, [by_the_table(&first)]);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", odd in "[0-9+() .xX-]{0,40}") {
            let _ = (canonical(&text), canonical(&odd));
        }
    }
}
