/// What can be wrong with data, parameters or a fit. None is worth a retry with the same input.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is nothing to work on.
    #[error("no {what}: give at least {needed}")]
    Empty { what: &'static str, needed: usize },
    /// Two lists that belong together are not of one length.
    #[error("{left} has {left_len} values but {right} has {right_len}: give one of each per customer")]
    Lengths { left: &'static str, left_len: usize, right: &'static str, right_len: usize },
    /// A number outside what the model can mean.
    #[error("{what} is {value}: it must be {rule}")]
    Value { what: &'static str, value: f64, rule: &'static str },
    /// Nobody bought on a second day, so nothing tells a slow buyer from one who left.
    #[error("none of the {customers} customers bought again: wait for repeat purchases before fitting")]
    NoRepeats { customers: usize },
    /// Every value is the same, so that a spread or a correlation means nothing.
    #[error("every {what} is {value}: the model needs values that differ")]
    Constant { what: &'static str, value: f64 },
    /// The optimiser stopped away from an optimum.
    #[error(
        "{model} did not converge in {iterations} iterations (slope {slope:.1e}): add an L2 penalty or more customers"
    )]
    NotConverged { model: &'static str, iterations: usize, slope: f64 },
    /// The likelihood is too flat to say how uncertain the parameters are.
    #[error("{model} has no standard errors, because its likelihood is flat: add an L2 penalty or more customers")]
    NoCovariance { model: &'static str },
    /// The hypergeometric series needs too many terms.
    #[error("the series for 2F1 at z = {z} is too long: shorten the horizon, which is far longer than the history")]
    Series { z: f64 },
    /// A hold-out window without a day in it.
    #[error("the window ends on day {end} but starts on day {start}: give an end after its start")]
    Window { start: i32, end: i32 },
}

/// `value`, once it is known to be finite and above zero.
pub(crate) fn positive(what: &'static str, value: f64) -> Result<f64, Error> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(Error::Value { what, value, rule: "finite and above zero" })
    }
}

/// `value`, once it is known to be finite and not below zero.
pub(crate) fn not_negative(what: &'static str, value: f64) -> Result<f64, Error> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(Error::Value { what, value, rule: "finite and not below zero" })
    }
}
