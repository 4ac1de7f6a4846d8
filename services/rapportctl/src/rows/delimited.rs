//! CSV, and what is like it.

use std::{
    collections::HashSet,
    io::{self, Read},
};

use anyhow::{Context as _, bail};
use csv::ByteRecord;
use serde_json::{Map, Value};

use super::{BadRow, Body, ROW_BYTES, Row, Rows, shown};
use crate::error::Usage;

/// How cells stand in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delimited {
    pub delimiter: u8,
    pub quote: u8,
    /// The first row has the names of the columns.
    pub header: bool,
    /// Names of the columns, instead of those in the header.
    pub columns: Option<Vec<String>>,
}

impl Delimited {
    /// A delimiter or quote as people write it: one character, or `tab`.
    ///
    /// # Errors
    /// What would be right.
    pub fn character(text: &str) -> Result<u8, String> {
        match text.as_bytes() {
            [byte] if byte.is_ascii() => Ok(*byte),
            _ if matches!(text, "tab" | "\\t") => Ok(b'\t'),
            _ => Err(format!("{text:?} is not one ASCII character, nor \"tab\"")),
        }
    }

    /// # Errors
    /// The header is missing or names a column twice; a row before `skip` cannot be read.
    pub fn rows(&self, reader: Box<dyn Read + Send>, skip: u64) -> anyhow::Result<Rows> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .quote(self.quote)
            // Rows of another length are rows that are wrong, not the end of the file.
            .flexible(true)
            .has_headers(false)
            .from_reader(Fence { inner: reader, left: FENCE });
        let named = if self.header { self.header(&mut reader)? } else { Vec::new() };
        let columns = self.columns.clone().unwrap_or(named);
        let mut seen = HashSet::new();
        if let Some(twice) = columns.iter().find(|column| !seen.insert(column.as_str())) {
            return Err(Usage(format!("the column {twice:?} is named twice; name them with --columns")).into());
        }
        let mut rows = Cells { reader, columns, record: ByteRecord::new(), number: 0 };
        while rows.number < skip {
            if !rows.advance()? {
                break;
            }
        }
        Ok(Box::new(rows))
    }

    fn header(&self, reader: &mut csv::Reader<Fence>) -> anyhow::Result<Vec<String>> {
        let mut record = ByteRecord::new();
        if !reader.read_byte_record(&mut record).context("reading the header")? {
            bail!("the file is empty: it has no header");
        }
        let columns: Vec<String> = record
            .iter()
            .map(|cell| std::str::from_utf8(cell).map(|name| name.trim().to_owned()))
            .collect::<Result<_, _>>()
            .context("the header is not UTF-8; try: iconv -f latin1 -t utf-8")?;
        if let ([only], None) = (columns.as_slice(), &self.columns)
            && let Some(other) =
                [';', '\t', '|', ','].iter().find(|&&c| u8::try_from(c) != Ok(self.delimiter) && only.contains(c))
        {
            let other = if *other == '\t' { "tab".to_owned() } else { format!("'{other}'") };
            bail!("the header is one column, {only:?}; try: --delimiter {other}");
        }
        Ok(columns)
    }
}

/// A row's bytes and what csv reads ahead.
const FENCE: usize = ROW_BYTES + 64 * 1024;

/// Ends a row that does not end: csv itself would take a whole file for one quoted cell.
struct Fence {
    inner: Box<dyn Read + Send>,
    left: usize,
}

impl Read for Fence {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(format!(
                "it is longer than {ROW_BYTES} bytes; is a quote not closed? (--quote sets the character)"
            )));
        }
        let most = buffer.len().min(self.left);
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

struct Cells {
    reader: csv::Reader<Fence>,
    columns: Vec<String>,
    record: ByteRecord,
    number: u64,
}

impl Cells {
    /// Reads the next row. `false` at the end.
    fn advance(&mut self) -> anyhow::Result<bool> {
        self.reader.get_mut().left = FENCE;
        let line = self.reader.position().line();
        let more = self
            .reader
            .read_byte_record(&mut self.record)
            .with_context(|| format!("row {} (line {line}) cannot be read", self.number + 1))?;
        self.number += u64::from(more);
        Ok(more)
    }

    fn body(&self) -> Result<Body, BadRow> {
        if self.record.len() != self.columns.len() {
            let cells: Vec<Value> = self.record.iter().map(shown).collect();
            return Err(BadRow {
                reason: format!("has {} cells, the header has {}", self.record.len(), self.columns.len()),
                content: Value::Array(cells),
            });
        }
        let mut object = Map::new();
        for (column, cell) in self.columns.iter().zip(&self.record) {
            let Ok(text) = std::str::from_utf8(cell) else {
                return Err(BadRow {
                    reason: format!("{column}: is not UTF-8; try: iconv -f latin1 -t utf-8"),
                    content: Value::Array(self.record.iter().map(shown).collect()),
                });
            };
            object.insert(column.clone(), Value::String(text.to_owned()));
        }
        Ok(Body::Object(Value::Object(object)))
    }
}

impl Iterator for Cells {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(Ok(Row { number: self.number, body: self.body() })),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn plain() -> Delimited {
        Delimited { delimiter: b',', quote: b'"', header: true, columns: None }
    }

    fn all(how: &Delimited, text: &[u8], skip: u64) -> anyhow::Result<Vec<Row>> {
        how.rows(Box::new(io::Cursor::new(text.to_vec())), skip)?.collect()
    }

    fn object(row: &Row) -> Value {
        match row.body.clone().unwrap() {
            Body::Object(object) => object,
            Body::Line(_) => panic!("a line"),
        }
    }

    #[test]
    fn quoted_cells_hold_delimiters_quotes_and_line_ends() {
        let rows = all(&plain(), b"id,Name of it\r\n1,\"a \"\"b\"\", c\nd\"\r\n2,\r\n", 0).unwrap();
        assert_eq!(object(&rows[0]), json!({"id": "1", "Name of it": "a \"b\", c\nd"}));
        assert_eq!((rows[1].number, object(&rows[1])), (2, json!({"id": "2", "Name of it": ""})));
    }

    #[test]
    fn delimiter_quote_and_columns_can_be_told() {
        let how =
            Delimited { delimiter: b';', quote: b'\'', header: false, columns: Some(vec!["a".into(), "b".into()]) };
        let rows = all(&how, b"1;'x;y'\n", 0).unwrap();
        assert_eq!(object(&rows[0]), json!({"a": "1", "b": "x;y"}));
        let renamed = all(&Delimited { header: true, ..how }, b"x;y\n1;2\n", 0).unwrap();
        assert_eq!(object(&renamed[0]), json!({"a": "1", "b": "2"}));
    }

    #[test]
    fn a_bad_row_has_a_reason_and_the_next_is_read() {
        let rows = all(&plain(), b"a,b\n1\n2,caf\xe9\n3,4\n", 0).unwrap();
        assert_eq!(rows[0].body.clone().unwrap_err().reason, "has 1 cells, the header has 2");
        assert!(rows[1].body.clone().unwrap_err().reason.starts_with("b: is not UTF-8"));
        assert_eq!((rows[2].number, object(&rows[2])), (3, json!({"a": "3", "b": "4"})));
    }

    #[test]
    fn reading_goes_on_where_it_ended() {
        let text = b"a\n1\n2\n3\n";
        let rows = all(&plain(), text, 2).unwrap();
        assert_eq!((rows.len(), rows[0].number, object(&rows[0])), (1, 3, json!({"a": "3"})));
        assert_eq!(all(&plain(), text, 9).unwrap().len(), 0);
    }

    #[test]
    fn what_cannot_be_a_file_says_what_to_try() {
        let fails = |text: &[u8]| format!("{:#}", all(&plain(), text, 0).unwrap_err());
        assert!(fails(b"").contains("no header"));
        assert!(fails(b"a;b\n1;2\n").contains("--delimiter ';'"));
        assert!(fails(b"a,a\n").contains("named twice"));
        let open_quote = [b"a\n\"".as_slice(), &vec![b'x'; 2 * FENCE]].concat();
        let error = fails(&open_quote);
        assert!(error.contains("row 1 (line 2)") && error.contains("quote not closed"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_give_rows_or_one_error(text: Vec<u8>, skip in 0u64..5) {
            if let Ok(mut rows) = plain().rows(Box::new(io::Cursor::new(text.clone())), skip) {
                prop_assert!(rows.by_ref().take(text.len() + 2).count() <= text.len() + 1);
            }
        }

        #[test]
        fn what_csv_writes_reads_back(cells in proptest::collection::vec(proptest::collection::vec("\\PC{0,9}", 3), 1..9)) {
            let mut out = csv::Writer::from_writer(Vec::new());
            for row in &cells { out.write_record(row).unwrap(); }
            let columns = Some(vec!["x".into(), "y".into(), "z".into()]);
            let how = Delimited { header: false, columns, ..plain() };
            let rows = all(&how, &out.into_inner().unwrap(), 0).unwrap();
            prop_assert_eq!(rows.len(), cells.len());
            for (row, cells) in rows.iter().zip(&cells) {
                prop_assert_eq!(object(row), json!({"x": cells[0], "y": cells[1], "z": cells[2]}));
            }
        }
    }
}
