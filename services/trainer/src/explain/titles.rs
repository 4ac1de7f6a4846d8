//! Names of items for people.

use std::{collections::HashMap, path::Path};

use crate::Error;

/// What may stand between an item's id, its title and whatever comes after, the first that a line has.
const SEPARATORS: [&str; 4] = ["\t", "::", "|", ","];

/// Titles by item id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Titles(HashMap<String, String>);

impl Titles {
    /// Reads a file with a line for each item: its id, its title, and perhaps other columns. A byte that is
    /// no UTF-8 becomes a replacement character: old files of films are in Latin-1.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::file(path))?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Self {
        let title = |line: &str| {
            let separator = SEPARATORS.into_iter().find(|separator| line.contains(separator))?;
            let mut columns = line.trim_end().split(separator);
            Some((columns.next()?.to_owned(), columns.next()?.to_owned()))
        };
        Self(text.lines().filter_map(title).collect())
    }

    /// The title of an item, or its id where it has none.
    pub fn of<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.get(id).map_or(id, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_stand_in_the_second_column_and_an_item_without_one_is_called_by_its_id() {
        for text in ["1\tToy Story\t1995\n", "1::Toy Story::Animation|Comedy\n", "1|Toy Story|\n", "1,Toy Story"] {
            let titles = Titles::parse(text);
            assert_eq!((titles.of("1"), titles.of("2")), ("Toy Story", "2"));
        }
    }
}
