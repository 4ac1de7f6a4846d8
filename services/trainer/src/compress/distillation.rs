//! A smaller network that learns to answer as a larger model does.
//!
//! The teacher is asked once, wherever the training part of the data has a next item; the student then learns
//! from its answers and from what the customers did ([`crate::models::sequence::Lessons`]). The passes are
//! chosen on validation and the test part is never shown to it. A teacher whose weights have seen the test
//! part has the advantage there, so that a student is not accepted too easily; a little of what it saw may
//! reach the student through its answers.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error,
    export::Graph,
    models::{
        NextItem, Task, kind_of,
        sequence::{Lessons, SequenceFamily, SequenceRecipe, Teaching, encoders, select_taught},
        with_kind,
    },
    progress::Progress,
};

/// Who learns from the teacher, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distillation {
    /// The student's kind; the teacher's where it is a network, else `ligr`.
    pub kind: Option<String>,
    /// Divides the scores of both before they become probabilities. The scores of a blend are standard
    /// deviations and need less than 1.
    pub temperature: f64,
    /// Of the teacher's answers in the loss; what the customers did has the rest.
    pub teacher_weight: f64,
    /// How many of its best items the teacher tells at a place: as many as there are items is all.
    pub top: usize,
    /// Fields of the student's recipe. Without them it has half the width of a teacher that is a network, and
    /// half of its blocks.
    pub student: Map<String, Value>,
}

impl Default for Distillation {
    /// The temperature and the even shares are a first choice, not a measurement.
    fn default() -> Self {
        Self { kind: None, temperature: 1.0, teacher_weight: 0.5, top: 200, student: Map::new() }
    }
}

/// A trained student.
pub struct Student {
    /// Complete, with its kind and the passes that validation chose.
    pub recipe: Value,
    /// As the exporter writes it.
    pub model: Vec<u8>,
    pub seconds: f64,
}

impl Distillation {
    /// Reads a YAML file.
    ///
    /// # Errors
    /// The file cannot be read, or what field is wrong, for a person.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let given: Self = serde_yaml_ng::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        given.check().map_err(|reason| format!("{}: {reason}", path.display()))?;
        Ok(given)
    }

    fn check(&self) -> Result<(), String> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("temperature: must be above zero, is {}", self.temperature));
        }
        if !(0.0..=1.0).contains(&self.teacher_weight) {
            return Err(format!("teacher_weight: must lie between 0 and 1, is {}", self.teacher_weight));
        }
        if self.top == 0 {
            return Err("top: must be at least 1".into());
        }
        Ok(())
    }

    /// The student of a teacher that was trained by `teacher` (null for one that was brought).
    ///
    /// # Errors
    /// A kind that is no network, or a field that is wrong, for a person.
    pub fn student(&self, teacher: &Value) -> Result<(&'static SequenceFamily, SequenceRecipe), String> {
        let teacher = network(teacher);
        let name = match (&self.kind, &teacher) {
            (Some(kind), _) => kind,
            (None, Some((kind, _))) => kind.name,
            (None, None) => encoders::LIGR.name,
        };
        let kind = family(name)?;
        let whole = match teacher {
            Some((of, recipe)) if of.name == kind.name => (kind.defaults)().with(recipe)?,
            Some(_) | None => (kind.defaults)(),
        };
        // A smaller network needs other passes than those that were best for its teacher.
        let half = SequenceRecipe { epochs: (kind.defaults)().epochs, ..halved(whole) };
        let recipe = half.with(&Value::Object(self.student.clone())).map_err(|reason| format!("student: {reason}"))?;
        Ok((kind, recipe))
    }

    /// Trains the student. `task` has the data that the teacher answers about; its items are the teacher's.
    ///
    /// # Errors
    /// The teacher fails, the student cannot be trained, or the watch asked for the end.
    pub fn teach(
        &self,
        teacher: &mut dyn NextItem,
        (family, recipe): (&'static SequenceFamily, &SequenceRecipe),
        task: &Task<'_>,
    ) -> Result<Student, Error> {
        task.watch.report(Progress::note("distil", 0.0, "asking the teacher"));
        let pasts = task.split.training_pasts(task.data);
        let lessons = Lessons::ask(teacher, &pasts, task.data.width(), self.top, task.watch.stop)?;
        let teaching = Teaching { lessons, temperature: self.temperature, weight: self.teacher_weight };
        trained(family, recipe, task, Some(&teaching))
    }
}

impl Student {
    /// The same network trained without a teacher: what distillation is measured against.
    ///
    /// # Errors
    /// It cannot be trained, or the watch asked for the end.
    pub fn alone(family: &'static SequenceFamily, recipe: &SequenceRecipe, task: &Task<'_>) -> Result<Self, Error> {
        trained(family, recipe, task, None)
    }
}

fn trained(
    family: &'static SequenceFamily,
    recipe: &SequenceRecipe,
    task: &Task<'_>,
    teaching: Option<&Teaching>,
) -> Result<Student, Error> {
    // The student without a teacher must not go on from anybody's checkpoint either.
    let task = Task { checkpoint: None, ..*task };
    let chosen = select_taught(family, recipe, &task, teaching)?;
    let mut graph = Graph::default();
    let scores = chosen.model.export(&mut graph)?;
    let model = graph.finish(&scores, family.name, task.data.width(), recipe.sequence_length);
    Ok(Student { recipe: with_kind(family.name, chosen.model.recipe()), model, seconds: chosen.seconds })
}

fn family(name: &str) -> Result<&'static SequenceFamily, String> {
    encoders::ALL.into_iter().find(|family| family.name == name).ok_or_else(|| {
        let known: Vec<&str> = encoders::ALL.iter().map(|family| family.name).collect();
        format!("kind: {name:?} is no network that can be taught; these are: {}", known.join(", "))
    })
}

/// The network that a recipe trains: itself, or a blend's first part that is one.
fn network(recipe: &Value) -> Option<(&'static SequenceFamily, &Value)> {
    match family(kind_of(recipe)?) {
        Ok(family) => Some((family, recipe)),
        Err(_) => recipe.get("parts")?.as_array()?.iter().find_map(network),
    }
}

/// Half the width, rounded so that the heads share it, and half of the blocks.
fn halved(whole: SequenceRecipe) -> SequenceRecipe {
    let dim = (whole.dim / 2 / whole.heads).max(1) * whole.heads;
    SequenceRecipe { dim, hidden: (whole.hidden / 2).max(1), blocks: whole.blocks.div_ceil(2), ..whole }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Distillation, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Distillation::read(file.path())
    }

    #[test]
    fn a_student_is_half_its_teacher_unless_it_is_told_otherwise() {
        let student = |teacher: Value, text: &str| {
            let (family, recipe) = read(text).unwrap().student(&teacher).unwrap();
            (family.name, recipe.dim, recipe.hidden, recipe.blocks, recipe.epochs, recipe.sequence_length)
        };
        let sasrec = json!({ "kind": "sasrec", "dim": 50, "heads": 2, "hidden": 60, "blocks": 3, "epochs": 7,
                             "sequence_length": 80, "loss": "cross_entropy" });
        let defaults = (encoders::SASREC.defaults)();
        assert_eq!(student(sasrec.clone(), "{}"), ("sasrec", 24, 30, 2, defaults.epochs, 80));
        assert_eq!(student(sasrec.clone(), "student: {dim: 16, epochs: 3}"), ("sasrec", 16, 30, 2, 3, 80));
        let blend = json!({ "kind": "blend", "weight": 0.5, "parts": [{ "kind": "ridge" }, sasrec] });
        assert_eq!(student(blend, "{}").0, "sasrec");
        let quick = SequenceRecipe::quick();
        for teacher in [json!({ "kind": "ridge" }), Value::Null] {
            let (kind, dim, ..) = student(teacher, "{}");
            assert_eq!((kind, dim), ("ligr", quick.dim / 2));
        }
        let another = student(json!({ "kind": "ligr", "dim": 8, "heads": 1, "loss": "bce" }), "kind: gru4rec");
        assert_eq!((another.0, another.1), ("gru4rec", (encoders::GRU4REC.defaults)().dim / 2));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("temperature: 0", "temperature"),
            ("teacher_weight: 1.5", "teacher_weight"),
            ("top: 0", "top"),
            ("warmth: 1", "warmth"),
        ] {
            assert!(read(text).unwrap_err().contains(word), "{text}");
        }
        let refused = |text| read(text).unwrap().student(&Value::Null).err().unwrap();
        assert!(refused("kind: ridge").contains("no network"));
        assert!(refused("student: {dim: -1}").contains("dim"));
        assert!(Distillation::read(Path::new("/nowhere.yaml")).unwrap_err().contains("nowhere"));
    }
}
