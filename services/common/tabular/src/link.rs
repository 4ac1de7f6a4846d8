/// 1 / (1 + e^-score), without overflow on either side.
pub fn sigmoid(score: f64) -> f64 {
    if score >= 0.0 {
        1.0 / (1.0 + (-score).exp())
    } else {
        let odds = score.exp();
        odds / (1.0 + odds)
    }
}

/// The log-odds of a probability in (0, 1).
pub fn logit(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

/// The logistic loss of a log-odds `score`: ln(1 + e^score) - label * score, without overflow.
pub fn log_loss(score: f64, label: bool) -> f64 {
    let softplus = score.max(0.0) + (-score.abs()).exp().ln_1p();
    if label { softplus - score } else { softplus }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_scores_stay_finite() {
        assert_eq!((sigmoid(-800.0), sigmoid(800.0)), (0.0, 1.0));
        assert_eq!(log_loss(800.0, true), 0.0);
        assert_eq!(log_loss(800.0, false), 800.0);
        assert!((sigmoid(logit(0.3)) - 0.3).abs() < 1e-15);
    }
}
