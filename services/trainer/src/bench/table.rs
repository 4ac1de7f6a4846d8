//! The figures as a table of Markdown.

use super::pytorch::Padding;
use crate::models::sequence::Taken;

/// A network, histories, and the runs of both programs in turn; none of PyTorch when it is not there.
pub struct Row {
    pub kind: &'static str,
    pub histories: &'static str,
    pub padding: Option<Padding>,
    pub ours: Vec<Taken>,
    pub theirs: Vec<Taken>,
}

impl Row {
    pub fn markdown(&self) -> String {
        let rate =
            |runs: &[Taken]| spread(runs.iter().map(Taken::rate)).map_or("-".into(), |s| format!("{:.0}", s.median));
        let ratios = self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours.rate() / theirs.rate());
        let ratio =
            spread(ratios).map_or("-".into(), |s| format!("{:.2} ({:.2}..{:.2})", s.median, s.least, s.greatest));
        let padding = self.padding.map_or("-".into(), |padding| padding.to_string());
        let (ours, theirs) = (rate(&self.ours), rate(&self.theirs));
        format!("| {} | {} | {padding} | {ours} | {theirs} | {ratio} |", self.kind, self.histories)
    }
}

pub fn markdown(rows: &[Row]) -> String {
    let head = "| network | histories | PyTorch pads to | events/s here | events/s PyTorch | ratio |\n|---|---|---|--:|--:|--:|";
    rows.iter().fold(head.to_owned(), |table, row| table + "\n" + &row.markdown())
}

struct Spread {
    least: f64,
    median: f64,
    greatest: f64,
}

/// `None` of nothing.
fn spread(figures: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let median = match figures.len() % 2 {
        0 => (figures.get(middle.wrapping_sub(1))? + figures.get(middle)?) / 2.0,
        _ => *figures.get(middle)?,
    };
    Some(Spread { least: *figures.first()?, median, greatest: *figures.last()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_medians_and_the_spread_of_the_pairs_ratios() {
        let taken = |targets| Taken { steps: 1, targets, seconds: 2.0 };
        let row = Row {
            kind: "ligr",
            histories: "short",
            padding: Some(Padding::Longest),
            ours: vec![taken(20), taken(60), taken(40)],
            theirs: vec![taken(20), taken(20), taken(20)],
        };
        assert_eq!(row.markdown(), "| ligr | short | longest | 20 | 10 | 2.00 (1.00..3.00) |");
        let alone = Row { padding: None, theirs: vec![], ours: vec![taken(20), taken(40)], ..row };
        assert_eq!(alone.markdown(), "| ligr | short | - | 15 | - | - |");
        assert!(spread(std::iter::empty()).is_none());
    }
}
