/// The chance that a true row scores above a false one, ties counted half (Mann-Whitney).
pub fn auc(scores: &[f64], labels: &[bool]) -> f64 {
    let mut order: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut wins, mut falses) = (0.0, 0.0);
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let trues = tied.iter().filter(|(_, label)| *label).count() as f64;
        let others = tied.len() as f64 - trues;
        wins += trues * (falses + others / 2.0);
        falses += others;
    }
    wins / (falses * (labels.len() as f64 - falses))
}
