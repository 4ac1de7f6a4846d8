//! MovieLens in RecBole's atomic files: tab-separated columns under a header of `name:type` cells.
//! Pure: text in, rows or an error with file and line out.

use std::collections::HashMap;

use rapport_events::{EventTime, check_id, limits};

/// One line of the `.inter` file.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    pub user: String,
    pub item: String,
    /// 1 to 5 in MovieLens; any finite number here.
    pub rating: f64,
    pub time: EventTime,
}

/// One line of the `.item` file.
#[derive(Debug, Clone, PartialEq)]
pub struct Movie {
    pub item: String,
    /// With the year: `Toy Story (1995)`.
    pub title: String,
    /// In the file's order.
    pub genres: Vec<String>,
}

/// What is wrong, and where.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{file}:{line}: {problem}")]
pub struct ParseError {
    pub file: String,
    pub line: usize,
    pub problem: String,
}

/// The header of an atomic file: where each column stands.
struct Columns<'a> {
    file: &'a str,
    places: HashMap<&'a str, usize>,
    count: usize,
}

/// A line cut into cells.
struct Row<'a, 'c> {
    columns: &'c Columns<'a>,
    cells: Vec<&'a str>,
    line: usize,
}

impl<'a> Columns<'a> {
    fn parse(file: &'a str, text: &'a str, needed: &[&str]) -> Result<Self, ParseError> {
        let fail = |problem| ParseError { file: file.to_owned(), line: 1, problem };
        let header = text.lines().next().map(|line| line.trim_start_matches('\u{feff}')).unwrap_or_default();
        if header.trim().is_empty() {
            return Err(fail("the header is missing".to_owned()));
        }
        let mut places = HashMap::new();
        let mut count = 0;
        for cell in header.split('\t') {
            let name = cell.split(':').next().unwrap_or_default().trim();
            if places.insert(name, count).is_some() {
                return Err(fail(format!("the column {name:?} stands twice in the header")));
            }
            count += 1;
        }
        match needed.iter().find(|name| !places.contains_key(*name)) {
            Some(name) => Err(fail(format!("the header has no column {name:?}"))),
            None => Ok(Self { file, places, count }),
        }
    }

    /// Every line under the header that is not empty.
    fn rows<'c>(&'c self, text: &'a str) -> impl Iterator<Item = Result<Row<'a, 'c>, ParseError>> {
        (1..).zip(text.lines()).skip(1).filter(|(_, line)| !line.trim().is_empty()).map(|(line, content)| {
            let cells: Vec<&str> = content.split('\t').map(str::trim).collect();
            if cells.len() == self.count {
                return Ok(Row { columns: self, cells, line });
            }
            let problem = format!("expected {} cells between tabs, found {}", self.count, cells.len());
            Err(ParseError { file: self.file.to_owned(), line, problem })
        })
    }
}

impl<'a> Row<'a, '_> {
    fn cell(&self, name: &str) -> &'a str {
        self.columns.places.get(name).and_then(|&place| self.cells.get(place)).copied().unwrap_or_default()
    }

    fn fail(&self, problem: String) -> ParseError {
        ParseError { file: self.columns.file.to_owned(), line: self.line, problem }
    }

    fn id(&self, name: &str) -> Result<String, ParseError> {
        let id = self.cell(name);
        if id.is_empty() {
            return Err(self.fail(format!("{name}: is empty")));
        }
        check_id(name, id, limits::ID_BYTES).map_err(|e| self.fail(e.to_string()))?;
        Ok(id.to_owned())
    }

    fn number(&self, name: &str) -> Result<f64, ParseError> {
        let cell = self.cell(name);
        match cell.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.fail(format!("{name}: {cell:?} is not a finite number"))),
        }
    }
}

/// The ratings of an `.inter` file, oldest first; ties by user and item, so that the order is the
/// same every time.
///
/// # Errors
/// The first line that is wrong, by file and number.
pub fn ratings(file: &str, text: &str) -> Result<Vec<Rating>, ParseError> {
    let columns = Columns::parse(file, text, &["user_id", "item_id", "rating", "timestamp"])?;
    let mut ratings = Vec::new();
    for row in columns.rows(text) {
        let row = row?;
        let time = unix_time(row.number("timestamp")?)
            .ok_or_else(|| row.fail("timestamp: lies outside the years 1 to 9999".to_owned()))?;
        ratings.push(Rating {
            user: row.id("user_id")?,
            item: row.id("item_id")?,
            rating: row.number("rating")?,
            time,
        });
    }
    ratings.sort_by(|a, b| (a.time, &a.user, &a.item).cmp(&(b.time, &b.user, &b.item)));
    Ok(ratings)
}

/// The movies of an `.item` file.
///
/// # Errors
/// The first line that is wrong, by file and number.
pub fn movies(file: &str, text: &str) -> Result<Vec<Movie>, ParseError> {
    let columns = Columns::parse(file, text, &["item_id", "movie_title", "release_year", "class"])?;
    columns
        .rows(text)
        .map(|row| {
            let row = row?;
            let (title, year) = (row.cell("movie_title"), row.cell("release_year"));
            // The data set has one movie whose year is the word "unkonwn".
            let has_year = !year.is_empty() && year.bytes().all(|byte| byte.is_ascii_digit());
            let title = if has_year { format!("{title} ({year})") } else { title.to_owned() };
            let genres = row.cell("class").split_whitespace().map(str::to_owned).collect();
            Ok(Movie { item: row.id("item_id")?, title, genres })
        })
        .collect()
}

/// Seconds since 1970, to the millisecond; `None` outside what protobuf can say.
fn unix_time(seconds: f64) -> Option<EventTime> {
    let ms = (seconds * 1000.0).round();
    if !(-1e15..=1e15).contains(&ms) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)] // a whole number far inside i64's range
    let time = EventTime::from_ms(ms as i64);
    EventTime::from_proto(&time.to_proto())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n";

    #[test]
    fn ratings_come_oldest_first_whatever_the_columns_order() {
        let text = format!("{HEADER}196\t242\t3\t881250949\n22\t377\t1\t878887116\n");
        let read = ratings("ml.inter", &text).unwrap();
        assert_eq!(read.iter().map(|r| r.user.as_str()).collect::<Vec<_>>(), ["22", "196"]);
        assert_eq!(read[1].time.to_string(), "1997-12-04T15:55:49Z");
        let swapped = "rating:float\ttimestamp:float\tuser_id:token\titem_id:token\n3\t881250949\t196\t242\n";
        assert_eq!(ratings("x", swapped).unwrap()[0], read[1]);
    }

    #[test]
    fn a_movie_has_its_year_and_genres() {
        let text = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n\
                    1\tToy Story\t1995\tAnimation Children's Comedy\n267\tunknown\tunkonwn\t\n";
        let read = movies("ml.item", text).unwrap();
        assert_eq!(read[0].title, "Toy Story (1995)");
        assert_eq!(read[0].genres, ["Animation", "Children's", "Comedy"]);
        assert_eq!((read[1].title.as_str(), read[1].genres.len()), ("unknown", 0));
    }

    #[test]
    fn an_error_names_the_file_the_line_and_the_cell() {
        let cases = [
            (format!("{HEADER}1\t2\t3\t4\n1\t2\tgood\t4\n"), "ml.inter:3: rating: \"good\" is not a finite number"),
            (format!("{HEADER}1\t2\t3\n"), "ml.inter:2: expected 4 cells between tabs, found 3"),
            (format!("{HEADER}1\t2\t3\t1e300\n"), "ml.inter:2: timestamp: lies outside the years 1 to 9999"),
            (format!("{HEADER}\t2\t3\t4\n"), "ml.inter:2: user_id: is empty"),
            (format!("{HEADER}1\t2\tNaN\t4\n"), "ml.inter:2: rating: \"NaN\" is not a finite number"),
            ("user\titem\n".to_owned(), "ml.inter:1: the header has no column \"user_id\""),
            (String::new(), "ml.inter:1: the header is missing"),
        ];
        for (text, message) in cases {
            assert_eq!(ratings("ml.inter", &text).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn no_content_panics(text: String) {
            for error in [ratings("f", &text).err(), movies("f", &text).err()].into_iter().flatten() {
                prop_assert!((1..=text.lines().count().max(1)).contains(&error.line), "{}", error);
            }
        }

        #[test]
        fn no_cell_under_a_good_header_panics(cells in proptest::collection::vec("[^\r\n]{0,12}", 0..12)) {
            let text = format!("{HEADER}{}", cells.join("\t"));
            if let Err(error) = ratings("f", &text) {
                prop_assert_eq!(error.line, 2);
            }
        }

        #[test]
        fn a_written_rating_reads_back(user in "[a-z0-9]{1,9}", item in 1u32..9999, stars in 1u8..=5, t in 0i64..4_000_000_000) {
            let text = format!("{HEADER}{user}\t{item}\t{stars}\t{t}\n");
            let read = ratings("f", &text).unwrap();
            prop_assert_eq!(&read[0], &Rating {
                user, item: item.to_string(), rating: f64::from(stars), time: EventTime::from_ms(t * 1000),
            });
        }
    }
}
