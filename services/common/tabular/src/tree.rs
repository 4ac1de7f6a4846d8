use serde::{Deserialize, Serialize};

use crate::Error;
use crate::bins::{ABSENT, Binned};
use crate::config::DEEPEST;

/// A binary tree over binned columns; node 0 is the root and children come after their parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree {
    pub nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Node {
    Leaf {
        #[serde(with = "crate::exact::one")]
        value: f64,
        #[serde(with = "crate::exact::one")]
        cover: f64,
    },
    Split {
        column: usize,
        rule: Rule,
        left: usize,
        right: usize,
        #[serde(with = "crate::exact::one")]
        cover: f64,
    },
}

/// Which bins go left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Numbers of at most this bin; missing ones as said.
    AtMost { bin: u8, missing_left: bool },
    /// Categories whose bit is set.
    Among([u64; 4]),
}

impl Rule {
    pub fn goes_left(&self, bin: u8) -> bool {
        match self {
            Self::AtMost { missing_left, .. } if bin == ABSENT => *missing_left,
            Self::AtMost { bin: most, .. } => bin <= *most,
            Self::Among(set) => set[usize::from(bin >> 6)] >> (bin & 63) & 1 == 1,
        }
    }
}

impl Node {
    /// The weight of the training rows that came by.
    pub fn cover(&self) -> f64 {
        match self {
            Self::Leaf { cover, .. } | Self::Split { cover, .. } => *cover,
        }
    }
}

impl Tree {
    /// The value of the leaf that the row falls into.
    pub fn value(&self, data: &Binned, row: usize) -> f64 {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                Node::Leaf { value, .. } => return *value,
                Node::Split { column, rule, left, right, .. } => {
                    at = if rule.goes_left(data.bin(*column, row)) { *left } else { *right };
                }
            }
        }
    }

    /// The mean over the training rows, by cover.
    pub fn mean(&self) -> f64 {
        let Some(root) = self.nodes.first() else { return 0.0 };
        let part = |node: &Node| match node {
            Node::Leaf { value, cover } => value * cover / root.cover(),
            Node::Split { .. } => 0.0,
        };
        self.nodes.iter().map(part).sum()
    }

    /// Whether a stored tree is one that a fit over that many columns can have written. After this
    /// no walk leaves the tree, loops, divides by a cover of zero or recurses too deep.
    pub fn check(&self, columns: usize) -> Result<(), Error> {
        if self.nodes.is_empty() {
            return Err(Error::Corrupt("a tree without nodes"));
        }
        let mut depths: Vec<Option<usize>> = vec![None; self.nodes.len()];
        depths[0] = Some(0);
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(depth) = depths[index] else { return Err(Error::Corrupt("a node without a parent")) };
            if !(node.cover() > 0.0 && node.cover().is_finite()) || depth > DEEPEST {
                return Err(Error::Corrupt("a node with a cover or a depth that cannot be"));
            }
            match node {
                Node::Leaf { value, .. } if value.is_finite() => {}
                Node::Leaf { .. } => return Err(Error::Corrupt("a leaf without a finite value")),
                Node::Split { column, left, right, .. } => {
                    for &child in [left, right] {
                        match depths.get_mut(child) {
                            Some(unset @ None) if child > index && *column < columns => *unset = Some(depth + 1),
                            Some(_) | None => return Err(Error::Corrupt("a split that points nowhere")),
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_loops_or_points_outside_is_refused() {
        let leaf = Node::Leaf { value: 1.0, cover: 1.0 };
        let rule = Rule::AtMost { bin: 1, missing_left: true };
        let split = |column, left, right| Node::Split { column, rule, left, right, cover: 2.0 };
        let check = |nodes: Vec<Node>| Tree { nodes }.check(1);
        assert!(check(vec![split(0, 1, 2), leaf.clone(), leaf.clone()]).is_ok());
        assert!(check(vec![split(1, 1, 2), leaf.clone(), leaf.clone()]).is_err());
        assert!(check(vec![split(0, 0, 1), leaf.clone()]).is_err());
        assert!(check(vec![split(0, 1, 9), leaf.clone()]).is_err());
        assert!(check(vec![split(0, 1, 1), leaf]).is_err());
        assert!(check(vec![Node::Leaf { value: 1.0, cover: 0.0 }]).is_err());
        assert!(check(vec![]).is_err());
    }
}
