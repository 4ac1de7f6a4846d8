//! A file of interactions: customer, item, perhaps a rating, perhaps a time; more where its header says so.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use super::{Builder, Dataset, Limits, Memory, Seen, columns::Columns};
use crate::Error;

/// Longest line that is read: anything longer is another kind of file.
const LINE_BYTES: usize = 4_096;

/// Reads a text file whose columns are separated by tabs, commas or spaces. Two columns are customer and
/// item; three have a time (Unix seconds) at the end; four a rating before it, as MovieLens has. Without
/// times the order of lines is the order of events. A first line that begins with a name instead of an id
/// that occurs again is a header: one whose last column is no number, or whose names carry `:token`. A header
/// that names a column `type` or `category` says where all columns are, in any order: `customer`, `item`, and
/// perhaps `rating`, `type`, `category`, `time`.
///
/// # Errors
/// The file cannot be read, a line has other columns than the first, or there is nothing to learn from.
pub fn read(path: &Path, limits: Limits) -> Result<Dataset, Error> {
    read_within(path, limits, Memory::default())
}

/// The same with so much of it in memory.
///
/// # Errors
/// As [`read`], or the disk is full.
pub fn read_within(path: &Path, limits: Limits, memory: Memory) -> Result<Dataset, Error> {
    let file = BufReader::new(File::open(path).map_err(Error::file(path))?);
    let mut builder = Builder::within(limits, memory);
    let (mut count, mut columns) = (0, Columns::default());
    for (number, line) in file.lines().enumerate() {
        let line = line.map_err(Error::file(path))?;
        let wrong = |reason: String| Error::Line { path: path.into(), line: number + 1, reason };
        if line.len() > LINE_BYTES {
            return Err(wrong(format!("it has {} bytes, at most {LINE_BYTES} are read", line.len())));
        }
        if line.trim().is_empty() {
            continue;
        }
        // Where columns have names the last field may be empty.
        let line = if columns.beyond_places() { line.trim_end_matches('\r') } else { line.trim_end() };
        let fields = split(line);
        if number == 0 {
            count = fields.len();
            columns = Columns::named(&fields);
            let last = fields.last().copied().unwrap_or_default();
            let header = last.parse::<f64>().is_err() && (count > 2 || line.contains(':') || line.contains("item"));
            if header && columns.beyond_places() {
                if columns.customer.is_none() || columns.item.is_none() {
                    return Err(wrong("its header must name a column \"customer\" and a column \"item\"".into()));
                }
                continue;
            }
            columns = Columns::by_place(count);
            if !(2..=4).contains(&count) {
                return Err(wrong(format!("it has {count} columns; want customer, item, (rating,) (time)")));
            }
            if header {
                continue;
            }
        }
        if fields.len() != count {
            return Err(wrong(format!("it has {} columns and the first line {count}", fields.len())));
        }
        let field = |place: Option<usize>| place.map(|place| fields[place]).filter(|text| !text.is_empty());
        let time = match columns.time.map(|place| fields[place]) {
            None => number as i64 * 1000,
            Some(text) => {
                let seconds: f64 = text.parse().map_err(|_| wrong(format!("time {text:?} is no number")))?;
                if !(seconds.is_finite() && seconds.abs() < 1e12) {
                    return Err(wrong(format!("time {text:?} is not in Unix seconds")));
                }
                (seconds * 1000.0) as i64
            }
        };
        builder.add_event(&Seen {
            customer: field(columns.customer).unwrap_or_default(),
            item: field(columns.item).ok_or_else(|| wrong("it names no item".into()))?,
            // A third of four columns that is no number is something else than a rating: a kind of event, perhaps.
            rating: field(columns.rating).and_then(|text| text.parse().ok()),
            kind: field(columns.kind),
            category: field(columns.category),
            time,
            partition: 0,
            offset: number as i64,
        })?;
    }
    builder.finish(&path.display().to_string())
}

fn split(line: &str) -> Vec<&str> {
    match () {
        () if line.contains('\t') => line.split('\t').map(str::trim).collect(),
        () if line.contains(',') => line.split(',').map(str::trim).collect(),
        () => line.split_whitespace().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Dataset, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path(), Limits { events: 100, items: 100 })
    }

    #[test]
    fn files_with_and_without_headers_and_times_are_read() {
        let plain = read_text("1 10\n1 11\n2 10\n").unwrap();
        assert_eq!((plain.customers.len(), plain.items.len(), plain.counts.used), (2, 2, 3));
        let movielens =
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t5\t200\n1\t11\t3\t100\n2\t10\t4\t5\n";
        let movielens = read_text(movielens).unwrap();
        assert_eq!(movielens.counts.used, 3);
        let first = &movielens.customers[0];
        assert_eq!((movielens.items.id(first.items[0] as usize), first.times[0]), (Some("11"), 100_000));
        assert_eq!(([first.rating(0), first.rating(1)], plain.customers[0].rating(0)), ([Some(3.0), Some(5.0)], None));
        let kinds = read_text("1 10 click 5\n2 11 3 6\n").unwrap();
        assert_eq!([0, 1].map(|customer: usize| kinds.customers[customer].rating(0)), [None, Some(3.0)]);
        let csv = read_text("customer,item,time\na,x,1\nb,y,2.5\n").unwrap();
        assert_eq!(csv.counts.used, 2);
    }

    #[test]
    fn a_header_that_names_types_or_categories_says_where_all_columns_are() {
        let data = read_text("time,type,user_id,category,item\n5,view,a,shoes,x\n6,buy,a,,y\n7,view,b,,x\n").unwrap();
        assert_eq!(data.side.types, ["view", "buy"]);
        assert_eq!(
            (&data.customers[0].types, &data.customers[0].times),
            (&vec![1, 2].into(), &vec![5_000, 6_000].into())
        );
        assert_eq!(data.side.categories, [None, Some("shoes".into()), None]);
        let refused = read_text("customer,type,time\na,view,1\n").unwrap_err().to_string();
        assert!(refused.contains("\"item\""), "{refused}");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let error = |text: &str| read_text(text).unwrap_err().to_string();
        assert!(error("1 10\n1 11 12\n").contains("line 2"), "{}", error("1 10\n1 11 12\n"));
        assert!(error("1\t10\t5\n2\t11\tsoon\n").contains("\"soon\""));
        assert!(error("just one column\n1 2 3 4 5\n").contains("5 columns"));
        assert!(error("").contains("no event"));
    }
}
