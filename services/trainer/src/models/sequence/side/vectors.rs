//! A file of vectors of items.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use rapport_registry::ItemTable;

/// Longest line that is read: vectors of thousands of numbers fit.
const LINE_BYTES: usize = 1 << 20;
/// Numbers in a vector.
const WIDTH: usize = 4_096;

/// Vectors of a data set's items, row by row, `[items + 1, width]`. Zeros where the file has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    pub width: usize,
    pub values: Vec<f32>,
    /// Items of the data set that have one.
    pub found: usize,
}

/// Reads a file with a line for each item: its id, a tab, and its vector as a JSON array (or numbers
/// separated by spaces). Vectors are scaled to length 1. Items that are not in `items` are passed over.
///
/// # Errors
/// What is wrong with which line, for a person; or no item of the data has a vector.
pub fn read(path: &Path, items: &ItemTable) -> Result<Vectors, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = BufReader::new(File::open(path).map_err(failed)?);
    let mut vectors = Vectors { width: 0, values: Vec::new(), found: 0 };
    let mut known = vec![false; items.len() + 1];
    for (number, line) in file.lines().enumerate() {
        let line = line.map_err(failed)?;
        let wrong = |reason: String| format!("{}, line {}: {reason}", path.display(), number + 1);
        if line.len() > LINE_BYTES {
            return Err(wrong(format!("it has {} bytes, at most {LINE_BYTES} are read", line.len())));
        }
        if line.trim().is_empty() {
            continue;
        }
        let (id, numbers) =
            line.split_once('\t').ok_or_else(|| wrong("want an item id, a tab and its vector".into()))?;
        let vector = parsed(numbers).map_err(wrong)?;
        if vectors.width == 0 {
            vectors.width = vector.len();
            vectors.values = vec![0.0; vector.len() * (items.len() + 1)];
        }
        if vector.len() != vectors.width {
            return Err(wrong(format!("its vector has {} numbers and the first {}", vector.len(), vectors.width)));
        }
        let Some(index) = items.index_of(id.trim()).map(|index| index as usize) else { continue };
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if length > 0.0 {
            let row = &mut vectors.values[index * vectors.width..(index + 1) * vectors.width];
            row.iter_mut().zip(&vector).for_each(|(to, x)| *to = x / length);
            vectors.found += usize::from(!std::mem::replace(&mut known[index], true));
        }
    }
    if vectors.found == 0 {
        return Err(format!("{}: no item of the data has a vector there", path.display()));
    }
    Ok(vectors)
}

fn parsed(numbers: &str) -> Result<Vec<f32>, String> {
    let plain = numbers.trim().trim_start_matches('[').trim_end_matches(']');
    let numbers = plain.split([',', ' ']).filter(|part| !part.is_empty());
    let vector = numbers.map(|part| match part.parse::<f32>() {
        Ok(x) if x.is_finite() => Ok(x),
        Ok(_) | Err(_) => Err(format!("{part:?} is not a finite number")),
    });
    let vector = vector.collect::<Result<Vec<f32>, _>>()?;
    if vector.is_empty() || vector.len() > WIDTH {
        return Err(format!("its vector has {} numbers; it may have 1 to {WIDTH}", vector.len()));
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vectors, String> {
        let items = ItemTable::from_ids(["", "a", "b"].map(String::from).to_vec()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path(), &items)
    }

    #[test]
    fn vectors_are_scaled_and_stand_at_the_index_of_their_item() {
        let vectors = read_text("b\t[3, 4]\nelsewhere\t1 0\n").unwrap();
        assert_eq!((vectors.width, vectors.found), (2, 1));
        assert_eq!(vectors.values, [0.0, 0.0, 0.0, 0.0, 0.6, 0.8]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        for (text, word) in [
            ("a\t1 2\nb\t1\n", "line 2"),
            ("a\t1 x\n", "\"x\""),
            ("a\tNaN\n", "finite"),
            ("a 1 2\n", "a tab"),
            ("c\t1 2\n", "no item"),
            ("", "no item"),
        ] {
            let refused = read_text(text).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
