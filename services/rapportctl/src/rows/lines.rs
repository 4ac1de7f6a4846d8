//! NDJSON: a line is a row. Blank lines count, so that a row's number is its line's.

use std::io::{BufRead, BufReader, Read};

use anyhow::Context as _;

use super::{BadRow, Body, ROW_BYTES, Row, Rows, shown};

/// # Errors
/// A line before `skip` cannot be read.
pub fn rows(reader: Box<dyn Read + Send>, skip: u64) -> anyhow::Result<Rows> {
    let mut lines = Lines { reader: BufReader::new(reader), number: 0 };
    while lines.number < skip && lines.advance(&mut Vec::new())?.is_some() {}
    Ok(Box::new(lines))
}

struct Lines<R> {
    reader: BufReader<R>,
    number: u64,
}

impl<R: Read> Lines<R> {
    /// Reads a line into `line`, at most [`ROW_BYTES`] of it. Returns how long it is; `None` at the
    /// end of the file.
    fn advance(&mut self, line: &mut Vec<u8>) -> anyhow::Result<Option<usize>> {
        let mut length = 0;
        loop {
            let chunk = self.reader.fill_buf().with_context(|| format!("line {} cannot be read", self.number + 1))?;
            if chunk.is_empty() {
                if length == 0 {
                    return Ok(None);
                }
                break;
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            let room = ROW_BYTES.saturating_sub(line.len());
            line.extend_from_slice(&chunk[..taken.min(room)]);
            length += taken;
            self.reader.consume(taken);
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        Ok(Some(length))
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            let length = match self.advance(&mut line) {
                Ok(Some(length)) => length,
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            };
            if length > ROW_BYTES {
                let reason = format!("may have {ROW_BYTES} bytes, has {length}");
                return Some(Ok(Row { number: self.number, body: Err(BadRow { reason, content: shown(&line) }) }));
            }
            if !line.trim_ascii().is_empty() {
                return Some(Ok(Row { number: self.number, body: Ok(Body::Line(line.trim_ascii().to_vec())) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8], skip: u64) -> Vec<Row> {
        rows(Box::new(Cursor::new(text.to_vec())), skip).unwrap().collect::<anyhow::Result<_>>().unwrap()
    }

    #[test]
    fn a_row_is_a_line_and_blank_lines_are_none() {
        let rows = all(b"{\"a\":1}\r\n\n  \n{\"a\":2}", 0);
        let found: Vec<(u64, Body)> = rows.into_iter().map(|row| (row.number, row.body.unwrap())).collect();
        assert_eq!(found, [(1, Body::Line(b"{\"a\":1}".to_vec())), (4, Body::Line(b"{\"a\":2}".to_vec()))]);
        assert_eq!(all(b"1\n\n3\n", 2)[0].number, 3);
    }

    #[test]
    fn a_line_without_end_is_rejected_and_fills_no_memory() {
        let text = [vec![b'x'; 3 * ROW_BYTES], b"\n{}\n".to_vec()].concat();
        let rows = all(&text, 0);
        let bad = rows[0].body.clone().unwrap_err();
        assert!(bad.reason.contains("1048576"), "{}", bad.reason);
        assert!(bad.content.as_str().unwrap().len() < 5_000);
        assert_eq!(rows[1].body, Ok(Body::Line(b"{}".to_vec())));
    }

    proptest! {
        #[test]
        fn every_line_that_is_not_blank_is_a_row(lines in proptest::collection::vec("[^\r\n]{0,20}", 0..20), skip in 0u64..25) {
            let rows = all(lines.join("\n").as_bytes(), skip);
            let wanted: Vec<(u64, &str)> = (1u64..).zip(lines.iter().map(|line| line.trim_matches(|c: char| c.is_ascii_whitespace())))
                .filter(|(number, line)| !line.is_empty() && *number > skip).collect();
            let found: Vec<(u64, String)> = rows.into_iter().map(|row| match row.body {
                Ok(Body::Line(line)) => (row.number, String::from_utf8(line).unwrap()),
                other => panic!("{other:?}"),
            }).collect();
            prop_assert_eq!(found, wanted.into_iter().map(|(n, line)| (n, line.to_owned())).collect::<Vec<_>>());
        }
    }
}
