//! What a recipe says of side information.

use std::path::PathBuf;

use rapport_events::limits;
use serde::{Deserialize, Serialize};

/// What a network is told beside the order of items. Everything is off unless a recipe says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SideRecipe {
    /// The item's category is a part of its vector.
    #[serde(skip_serializing_if = "is_false")]
    pub category: bool,
    /// A file of vectors of items, of their titles for example: their projections are parts of the items'
    /// vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<PathBuf>,
    /// Each item of the past says which type of event took it.
    #[serde(skip_serializing_if = "is_false")]
    pub action: bool,
    /// Each item of the past says how long after the one before it, and how long before the next one or
    /// the question, it was taken.
    #[serde(skip_serializing_if = "is_false")]
    pub gaps: bool,
    /// The question says which type of event is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeRecipe>,
}

/// Which type of event is asked for when nobody says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OutcomeRecipe {
    /// The most frequent one; `false` is as if nothing had been said.
    Commonest(bool),
    Named(String),
}

impl SideRecipe {
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Which type is asked for, where the network is told.
    pub fn outcome(&self) -> Option<&OutcomeRecipe> {
        self.outcome.as_ref().filter(|outcome| **outcome != OutcomeRecipe::Commonest(false))
    }

    /// Whether the network looks at the types of events.
    pub fn looks_at_types(&self) -> bool {
        self.action || self.outcome().is_some()
    }

    /// # Errors
    /// The field that is wrong, for a person.
    pub fn check(&self) -> Result<(), String> {
        if self.text.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err("side.text: must name a file of vectors".into());
        }
        if let Some(OutcomeRecipe::Named(name)) = &self.outcome
            && (name.is_empty() || name.len() > limits::TYPE_BYTES)
        {
            return Err(format!(
                "side.outcome: must be true, false or an event type of 1 to {} bytes, is {name:?}",
                limits::TYPE_BYTES
            ));
        }
        Ok(())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::models::sequence::SequenceRecipe;

    #[test]
    fn a_recipe_without_side_information_is_written_as_before_and_what_is_wrong_is_named() {
        let quick = SequenceRecipe::quick();
        assert!(serde_json::to_value(&quick).unwrap().get("side").is_none());
        let given = json!({ "category": true, "outcome": "purchase" });
        let recipe = quick.with(&json!({ "side": given })).unwrap();
        assert_eq!(serde_json::to_value(&recipe).unwrap()["side"], given);
        assert!(recipe.side.looks_at_types() && !recipe.side.action);
        let off = quick.with(&json!({ "side": { "outcome": false } })).unwrap();
        assert!(!off.side.looks_at_types());
        let refused = |side: Value| quick.with(&json!({ "side": side })).unwrap_err();
        assert!(refused(json!({ "weather": true })).contains("weather"));
        assert!(refused(json!({ "text": "" })).contains("side.text"));
        assert!(refused(json!({ "outcome": "" })).contains("side.outcome"));
    }
}
