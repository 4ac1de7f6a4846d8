/// What can be wrong with a declaration of views, or with stored bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The text is not YAML, or not of the shape of a view file; the message has line and column.
    #[error("views: {0}")]
    Yaml(String),
    /// A declaration that cannot be: where it stands (`views.purchases.spend.window`), and why.
    #[error("{at}: {reason}")]
    Declaration { at: String, reason: String },
    /// Stored bytes that this version did not write.
    #[error("the stored {what} is corrupt: {why}")]
    Corrupt { what: &'static str, why: &'static str },
}
