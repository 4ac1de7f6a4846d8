//! Texts as vectors and texts as labels, by a model of the BERT family.
//!
//! [`Encoder`]: a folder is opened (`config`, `weights`), texts become token numbers in batches of
//! nearly equal length (`tokens`), the network makes a vector of each (`bert`). [`Classifier`]: on the
//! vectors a head is fitted (`head`, by `lbfgs`), and where that is not enough the network learns with
//! it (`fine_tune`). What was made is saved whole or not at all (`whole`) and says the same when it is
//! opened again.

mod bert;
mod classifier;
mod config;
mod encoder;
mod error;
mod examples;
mod fine_tune;
mod head;
mod lbfgs;
mod quality;
mod tokens;
mod watch;
mod weights;
mod whole;

pub use classifier::{Classifier, Frozen, FrozenFit, Made};
pub use encoder::Encoder;
pub use error::Error;
pub use examples::Example;
pub use fine_tune::{FineTune, FineTuned};
pub use quality::Quality;
pub use watch::{Progress, UNWATCHED, Watch};
