/// What can be wrong with a table, a configuration, a fit or a stored model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No row or no column: there is nothing to learn from or to score.
    #[error("the table has {rows} rows and {columns} columns: give at least one of each")]
    EmptyTable { rows: usize, columns: usize },
    /// A column of another length than the first one.
    #[error("column {column} has {found} values where the table has {expected} rows: give one value a row")]
    ColumnLength { column: String, found: usize, expected: usize },
    /// Two columns of one name.
    #[error("column {0} is declared twice: rename or drop one")]
    DuplicateColumn(String),
    /// An infinite number.
    #[error("column {column}, row {row} is infinite: replace it by a finite value, or by NaN for missing")]
    Infinite { column: String, row: usize },
    /// Numbers whose variance is beyond a double.
    #[error("the values of column {0} are too large to standardise: rescale the column")]
    TooLarge(String),
    /// A row index beyond the table.
    #[error("row {row} was asked for where the table has {rows} rows")]
    RowOutOfRange { row: usize, rows: usize },
    /// Labels or weights of another length than the table.
    #[error("there are {found} {what} for {rows} rows: give one a row")]
    Length { what: &'static str, found: usize, rows: usize },
    /// A weight below zero, infinite or NaN.
    #[error("the weight of row {row} is {value}: weights must be finite and not negative")]
    Weight { row: usize, value: f64 },
    /// Weights that are all zero, or whose sum overflows.
    #[error("the weights sum to {0}: scale them to a finite sum above 0")]
    TotalWeight(f64),
    /// All the rows with a weight above zero are of one class.
    #[error("every weighted row is labelled {0}: a classifier needs examples of both classes")]
    OneClass(bool),
    /// No column distinguishes any two rows.
    #[error("every column is constant over the weighted rows: there is nothing to learn from")]
    NoVariation,
    /// A configured value outside its range.
    #[error("{field} is {value}: it must be {must}")]
    Config { field: &'static str, value: String, must: &'static str },
    /// A table to score lacks a column of the training table.
    #[error("the table lacks column {0}, which the model was fitted on: add it")]
    MissingColumn(String),
    /// A column that was of the other kind in training.
    #[error("column {column} must be {expected}, as in the training table")]
    ColumnKind { column: String, expected: &'static str },
    /// The optimiser stopped before the gradient was small enough.
    #[error(
        "logistic regression has gradient norm {norm:e} after {iterations} iterations, above {tolerance:e}: \
         raise logistic.l2, logistic.max_iterations or logistic.tolerance"
    )]
    NotConverged { norm: f64, iterations: usize, tolerance: f64 },
    /// The weights of a network became infinite.
    #[error("the network's weights became infinite in pass {epoch}: lower mlp.learning_rate or mlp.weight_decay")]
    Diverged { epoch: usize },
    /// More weights than a network may have.
    #[error("the network would have {parameters} weights, {most} are allowed: lower mlp.hidden or mlp.max_categories")]
    TooManyWeights { parameters: usize, most: usize },
    /// The text is not CSV, or its rows differ in length.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// A column that the schema names is not in the header.
    #[error("the csv header lacks column {0}, which the schema names: correct the schema or the file")]
    UnknownColumn(String),
    /// A column with two roles.
    #[error("the schema gives column {0} two roles: keep one of label, id, drop and numeric")]
    TwoRoles(String),
    /// Text where a number should be.
    #[error("csv record {record}, column {column}: {text:?} is not a finite number: leave it empty where missing")]
    Number { record: usize, column: String, text: String },
    /// An empty label.
    #[error("csv record {record} has no label in column {column}: drop the record")]
    NoLabel { record: usize, column: String },
    /// A label that is neither the positive value nor the one other value seen before.
    #[error("csv record {record} has label {found:?} beside {positive:?} and {negative:?}: labels must be binary")]
    ThirdLabel { record: usize, found: String, positive: String, negative: String },
    /// A stored model of another format version.
    #[error("the stored model has format version {found}, this build reads {supported}: fit the model again")]
    FormatVersion { found: u32, supported: u32 },
    /// Text that is not a stored model.
    #[error("the text is not a stored model of this format: restore it or fit it again")]
    Json(#[from] serde_json::Error),
    /// A stored model that no fit can have written.
    #[error("the stored model is corrupt ({0}): restore it or fit it again")]
    Corrupt(&'static str),
}
