//! A file of items: which category each is of.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use super::{Dataset, columns::Columns};
use crate::Error;

/// Longest line that is read; descriptions fit.
const LINE_BYTES: usize = 1 << 16;

/// Gives the items of `data` the categories of a file with a header that names a column `item` and a column
/// `category` (or `class`, or `genres`), separated by tabs or commas. Several categories of an item stand
/// between `|`, or between spaces where the header says `:token_seq`, as RecBole's files do. Items that are not
/// in the data are passed over.
///
/// # Errors
/// The file cannot be read, its header lacks a column, a line has fewer columns, or no item of the data has a
/// category.
pub fn categories(path: &Path, data: &mut Dataset) -> Result<(), Error> {
    let file = BufReader::new(File::open(path).map_err(Error::file(path))?);
    let mut header: Option<(char, bool, usize, usize)> = None;
    let (width, mut found) = (data.width(), 0_usize);
    for (number, line) in file.split(b'\n').enumerate() {
        let line = line.map_err(Error::file(path))?;
        let wrong = |reason: String| Error::Line { path: path.into(), line: number + 1, reason };
        if line.len() > LINE_BYTES {
            return Err(wrong(format!("it has {} bytes, at most {LINE_BYTES} are read", line.len())));
        }
        // Old files of films are in Latin-1; ids and categories are not what suffers.
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let Some((separator, by_spaces, item, category)) = header else {
            let separator = if line.contains('\t') { '\t' } else { ',' };
            let names: Vec<&str> = line.split(separator).collect();
            let columns = Columns::named(&names);
            let (Some(item), Some(category)) = (columns.item, columns.category) else {
                return Err(wrong("its header must name a column \"item\" and a column \"category\"".into()));
            };
            header = Some((separator, names[category].ends_with(":token_seq"), item, category));
            continue;
        };
        let fields: Vec<&str> = line.split(separator).collect();
        let Some(id) = fields.get(item) else {
            return Err(wrong(format!("it has {} columns; its item should be in column {}", fields.len(), item + 1)));
        };
        let named = fields.get(category).map(|category| category.trim()).filter(|category| !category.is_empty());
        if let (Some(index), Some(named)) = (data.items.index_of(id.trim()), named) {
            let several = named.split_whitespace().collect::<Vec<_>>().join("|");
            data.side.set_category(index, width, if by_spaces { &several } else { named });
            found += 1;
        }
    }
    match found {
        0 => Err(Error::Items(format!("{}: no item of the data has a category there", path.display()))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Builder, Limits};

    fn read(text: &str) -> Result<Vec<Option<String>>, String> {
        let mut builder = Builder::new(Limits { events: 10, items: 10 });
        for (at, (customer, item)) in [("a", "x"), ("b", "x"), ("a", "y")].into_iter().enumerate() {
            builder.add(customer, item, at as i64, 0, 0).unwrap();
        }
        let mut data = builder.finish("demo").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        categories(file.path(), &mut data).map_err(|error| error.to_string())?;
        Ok(data.side.categories.iter().map(|category| category.as_deref().map(str::to_owned)).collect())
    }

    #[test]
    fn items_get_the_categories_of_the_file() {
        let some = |name: &str| Some(name.to_owned());
        let films =
            "item_id:token\tmovie_title:token_seq\tclass:token_seq\ny\tTwelve Monkeys\tDrama Sci-Fi\nz\tM\tCrime\n";
        assert_eq!(read(films).unwrap(), [None, None, some("Drama|Sci-Fi")]);
        assert_eq!(read("category,item\nshoes and boots,x\n,y\n").unwrap(), [None, some("shoes and boots"), None]);
    }

    #[test]
    fn a_file_that_says_nothing_is_refused_with_the_reason() {
        assert!(read("x,shoes\n").unwrap_err().contains("header"));
        assert!(read("item,category\nelsewhere,shoes\n").unwrap_err().contains("no item of the data"));
        assert!(read("category,item\nshoes\n").unwrap_err().contains("column 2"));
    }
}
