//! The parameters of a read.

use rapport_events::{FieldError, check_id, limits};

use super::fault::Fault;
use crate::serve::asks::{DEFAULT_LIMIT, MAX_LIMIT};

/// As they stand in the query, in their order.
pub type Parameters = Vec<(String, String)>;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ask {
    pub n: usize,
    pub offset: usize,
    pub category: String,
    /// A customer whose items are left out.
    pub user: String,
    /// The type of feedback that every item of the answer is written back as.
    pub write_back: Option<String>,
    /// After which item a page begins.
    pub cursor: String,
}

impl Ask {
    /// Reads the parameters; a category in the path comes before one in the query.
    ///
    /// # Errors
    /// One is wrong, or asks for what is not offered.
    pub fn read(parameters: Parameters, category: Option<String>) -> Result<Self, Fault> {
        let mut ask = Self { n: DEFAULT_LIMIT, category: category.unwrap_or_default(), ..Self::default() };
        for (name, value) in parameters {
            match name.as_str() {
                "n" if !value.is_empty() => ask.n = number("n", &value)?,
                "offset" if !value.is_empty() => ask.offset = number("offset", &value)?,
                "category" if !ask.category.is_empty() && !value.is_empty() && ask.category != value => {
                    return Err(Fault::NotOffered("one category at a time"));
                }
                "category" if !value.is_empty() => ask.category = value,
                "user-id" => ask.user = value,
                "write-back-type" => ask.write_back = Some(value).filter(|kind| !kind.is_empty()),
                "write-back-delay" if !is_nothing(&value) => {
                    return Err(Fault::NotOffered(
                        "write-back-delay: events cannot be dated ahead; write the feedback when it is due",
                    ));
                }
                "cursor" => ask.cursor = value,
                "q" if !value.is_empty() => return Err(Fault::NotOffered("there is no search of items")),
                // Gorse passes over parameters that it does not know.
                _ => {}
            }
        }
        if ask.n == 0 || ask.n + ask.offset > MAX_LIMIT {
            let (n, offset) = (ask.n, ask.offset);
            return Err(
                FieldError::size("n", format!("may be 1 to {MAX_LIMIT} with offset, is {n} after {offset}")).into()
            );
        }
        check_id("category", &ask.category, limits::ID_BYTES)?;
        check_id("cursor", &ask.cursor, limits::ID_BYTES)?;
        Ok(ask)
    }

    /// As the recommender counts: what is skipped, too.
    pub fn limit(&self) -> usize {
        self.n + self.offset
    }
}

fn number(field: &str, text: &str) -> Result<usize, FieldError> {
    let number = text.parse::<u32>().map_err(|_| {
        let shown: String = text.chars().take(20).collect();
        FieldError::schema(field, format!("must be a number from 0, is {shown:?}"))
    })?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX).min(1 << 20))
}

/// Whether a duration as Go writes it says none: "0h0m0s".
fn is_nothing(duration: &str) -> bool {
    !duration.contains(|c: char| matches!(c, '1'..='9'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<Ask, String> {
        let parameters = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ask::read(parameters, None).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_is_left_out_is_what_gorse_takes_for_it() {
        assert_eq!(read(&[]).unwrap(), Ask { n: 10, ..Ask::default() });
        let ask = read(&[("n", "3"), ("offset", "2"), ("category", "a"), ("write-back-type", "read"), ("x", "y")]);
        let write_back = Some("read".into());
        assert_eq!(ask.unwrap(), Ask { n: 3, offset: 2, category: "a".into(), write_back, ..Ask::default() });
        assert!(read(&[("write-back-delay", "0h0m0s")]).is_ok());
    }

    #[test]
    fn what_is_wrong_or_not_offered_is_named() {
        assert_eq!(read(&[("n", "501")]).unwrap_err(), "n: may be 1 to 500 with offset, is 501 after 0");
        assert!(read(&[("n", "10"), ("offset", "491")]).unwrap_err().starts_with("n: "));
        assert!(read(&[("n", "-1")]).unwrap_err().starts_with("n: must be a number"));
        assert!(read(&[("write-back-delay", "10m")]).unwrap_err().contains("write-back-delay"));
        assert!(read(&[("category", "a"), ("category", "b")]).unwrap_err().contains("one category"));
        assert!(read(&[("q", "x")]).unwrap_err().contains("no search"));
    }
}
