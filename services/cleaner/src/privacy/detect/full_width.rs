use std::ops::Range;

/// A text with its full-width letters, digits and marks (Ａ １ ＠) as the ASCII ones that they stand
/// for, and where each byte stood.
pub(super) struct Folded {
    pub text: String,
    /// Of every byte of `text`, and of its end.
    places: Vec<u32>,
}

/// Whether a full-width digit, `＠` or `＋` stands in the text: Chinese punctuation is full-width too,
/// and changes nothing.
pub(super) fn matters(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|w| w[0] == 0xef && w[1] == 0xbc && matches!(w[2], 0x90..=0x99 | 0xa0 | 0x8b))
}

/// `None` when the text holds none of them, which is nearly always.
pub(super) fn folded(text: &str) -> Option<Folded> {
    if !text.chars().any(|c| ascii(c).is_some()) {
        return None;
    }
    let mut out = Folded { text: String::with_capacity(text.len()), places: Vec::with_capacity(text.len() + 1) };
    let mut buffer = [0; 4];
    for (at, c) in text.char_indices() {
        let place = u32::try_from(at).unwrap_or(u32::MAX);
        let bytes = ascii(c).unwrap_or(c).encode_utf8(&mut buffer);
        out.text.push_str(bytes);
        out.places.extend(std::iter::repeat_n(place, bytes.len()));
    }
    out.places.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
    Some(out)
}

impl Folded {
    /// Where a range of the folded text stood.
    pub(super) fn original(&self, range: Range<usize>) -> Range<usize> {
        let place = |at: usize| self.places.get(at).map_or(0, |place| *place as usize);
        place(range.start)..place(range.end)
    }
}

/// U+FF01 to U+FF5E are ASCII 0x21 to 0x7E in full width; U+3000 is a space.
fn ascii(c: char) -> Option<char> {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0),
        '\u{3000}' => Some(' '),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_in_the_folded_text_is_found_in_the_original() {
        let text = "电话：１３８ａ。";
        let folded = folded(text).unwrap();
        assert_eq!(folded.text, "电话:138a。");
        let at = folded.text.find("138").unwrap();
        assert_eq!(&text[folded.original(at..at + 3)], "１３８");
        assert_eq!(folded.original(0..folded.text.len()), 0..text.len());
        assert!(super::folded("电话。abc").is_none());
        assert!(["１", "９", "＠", "＋"].iter().all(|c| matters(format!("电{c}话").as_bytes())));
        assert!(!matters("价格，多少？（约）".as_bytes()));
    }
}
