use super::{Found, Kind};

/// E-mail addresses anywhere in a text: `local@domain.tld`, also with the `@` as a URL carries it
/// (`%40`). Letters of other scripts around it are not part of it.
pub(super) fn find(text: &str, found: &mut Vec<Found>) {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(mark) = next_mark(bytes, from) {
        let width = if bytes[mark] == b'@' { 1 } else { 3 };
        let start = local_start(bytes, from, mark);
        let end = domain_end(bytes, mark + width);
        from = mark + width;
        if start < mark && is_domain(&text[mark + width..end]) {
            let canonical = format!("{}@{}", &text[start..mark], text[mark + width..end].to_ascii_lowercase());
            found.push(Found { range: start..end, kind: Kind::Email, canonical });
            from = end;
        }
    }
}

fn next_mark(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|at| match bytes[*at] {
        b'@' => true,
        b'%' => bytes[*at..].starts_with(b"%40"),
        _ => false,
    })
}

/// Where the characters of a local part begin, not before `from`: never reading a byte twice for
/// two marks keeps the search linear.
fn local_start(bytes: &[u8], from: usize, mark: usize) -> usize {
    let is_local = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-' | b'\'');
    let length = bytes[from..mark].iter().rev().take(64).take_while(|b| is_local(b)).count();
    // A sentence's dash, dot or quotation mark is not part of it.
    let start = mark - length;
    start + bytes[start..mark].iter().take_while(|b| matches!(b, b'.' | b'-' | b'+' | b'\'')).count()
}

fn domain_end(bytes: &[u8], from: usize) -> usize {
    let is_domain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let length = bytes[from..].iter().take(253).take_while(|b| is_domain(b)).count();
    from + length - bytes[from..from + length].iter().rev().take_while(|b| matches!(b, b'.' | b'-')).count()
}

/// At least two labels, the last one of letters. Not the stand-ins of tokenised addresses, and not
/// images for dense screens (`logo@2x.png`).
fn is_domain(domain: &str) -> bool {
    let Some((name, top)) = domain.rsplit_once('.') else { return false };
    let dense = name.strip_suffix('x').is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()));
    let lettered = top.len() >= 2 && top.bytes().all(|b| b.is_ascii_alphabetic()) || top.starts_with("xn--");
    lettered && !dense && domain.split('.').all(|label| !label.is_empty()) && domain != super::TOKEN_DOMAIN
}
