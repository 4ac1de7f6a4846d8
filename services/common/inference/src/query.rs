//! One session of the graph that makes a query of a history.

use std::path::Path;

use crate::{Asked, Error, graph::Graph};

/// The output: what the network makes of the history, `[batch, dim]`.
const OUTPUT: &str = "query";

/// The first part of a model that comes in two: its inner product with an item's vector is that item's score.
#[derive(Debug)]
pub struct QueryModel {
    graph: Graph,
    dim: usize,
}

impl QueryModel {
    /// Loads `query.onnx`, and what its constants refer to beside it; a call of [`Self::queries`] uses `threads`
    /// threads, the caller's included.
    ///
    /// # Errors
    /// The library is not initialised, the file is no model, or it has other inputs and outputs than the contract
    /// says.
    pub fn load(path: &Path, threads: usize) -> Result<Self, Error> {
        let graph = Graph::load(path, threads)?;
        let dim = graph.columns(OUTPUT, "dim")?;
        Ok(Self { graph, dim })
    }

    /// Components of a query.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many of the newest items the model looks at, where it says so; longer histories are cut.
    pub fn sequence_length(&self) -> Option<usize> {
        self.graph.sequence_length
    }

    /// A query for each history, `[histories, dim]`, as [`crate::NextItemModel::scores`] takes them; items are
    /// below `width`.
    ///
    /// # Errors
    /// An index that is not below `width`, times or types that are missing, or a failure of ONNX Runtime.
    pub fn queries(&mut self, histories: &[Asked], width: usize) -> Result<Vec<Vec<f32>>, Error> {
        self.graph.rows(histories, width, OUTPUT, self.dim)
    }
}
