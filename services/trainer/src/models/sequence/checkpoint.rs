//! Where a training stands after a pass: enough to go on as if nothing had happened.
//!
//! One safetensors file, written beside its name and renamed, so that a crash leaves the one before.
//! A pass draws its random numbers from the seed and its own number, so that they need no keeping.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tch::{Kind, Tensor};

use super::{Sequence, adamw::AdamW, recipe::SequenceRecipe, side::Facts};
use crate::{Error, models::Past};

/// Another layout gets another number, and is not read.
const FORMAT: u32 = 1;

/// Of one training: its recipe, its data and the number of items decide the file's name.
pub struct Checkpoints {
    path: PathBuf,
}

/// How far a training is, beside its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// Passes made.
    pub epoch: u32,
    pub best_epoch: u32,
    pub best_ndcg: f64,
    pub stale: u32,
    pub seconds: f64,
    pub learned: f64,
}

impl Checkpoints {
    /// # Errors
    /// The folder cannot be made.
    pub fn of(
        folder: &Path,
        kind: &str,
        recipe: &SequenceRecipe,
        histories: &[Past<'_>],
        facts: &Facts,
    ) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let mut hash = Sha256::new();
        let width = facts.width;
        hash.update(format!("{FORMAT} {kind} {width} {}", serde_json::to_string(recipe).unwrap_or_default()));
        if !recipe.side.is_off() {
            // Another file of vectors, other categories: other weights.
            hash.update(format!("{:?}", facts.sizes()));
        }
        for history in histories {
            hash.update((history.items.len() as u64).to_le_bytes());
            history.items.iter().for_each(|item| hash.update(item.to_le_bytes()));
            history.times.iter().for_each(|time| hash.update(time.to_le_bytes()));
            if recipe.side.looks_at_types() {
                history.types.iter().for_each(|kind| hash.update(kind.to_le_bytes()));
            }
        }
        let name = format!("{kind}-{}.safetensors", &hex::encode(hash.finalize())[..16]);
        Ok(Self { path: folder.join(name) })
    }

    /// Keeps where a training is. `models` are its own weights, their average and the best so far.
    ///
    /// # Errors
    /// The disk fails or is full; the checkpoint before stays.
    pub fn save(&self, way: &Way, models: [(&str, &Sequence); 3], optimizer: &AdamW) -> Result<(), Error> {
        let numbers = [
            f64::from(way.epoch),
            f64::from(way.best_epoch),
            way.best_ndcg,
            f64::from(way.stale),
            way.seconds,
            way.learned,
            optimizer.steps as f64,
        ];
        let mut tensors = vec![("way".to_owned(), Tensor::from_slice(&numbers))];
        for (name, model) in models {
            let mut of_model: Vec<_> = model.weights.variables().into_iter().collect();
            of_model.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            tensors
                .extend(of_model.into_iter().map(|(variable, tensor)| (format!("{name}.{variable}"), tensor.detach())));
        }
        tensors.extend(optimizer.state());
        let beside = self.path.with_extension("partial");
        Tensor::write_safetensors(&tensors, &beside)?;
        fs::File::open(&beside).and_then(|file| file.sync_all()).map_err(Error::file(&beside))?;
        fs::rename(&beside, &self.path).map_err(Error::file(&self.path))
    }

    /// Brings a training to where it was. `None` when there is no checkpoint; one that cannot be read
    /// is told of and not used.
    ///
    /// # Errors
    /// libtorch does not take the weights.
    pub fn restore(&self, models: [(&str, &Sequence); 3], optimizer: &mut AdamW) -> Result<Option<Way>, Error> {
        let tensors = match Tensor::read_safetensors(&self.path) {
            Ok(tensors) => tensors.into_iter().collect::<BTreeMap<String, Tensor>>(),
            Err(_) if !self.path.exists() => return Ok(None),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the checkpoint cannot be read; training begins anew");
                return Ok(None);
            }
        };
        let missing = |name: &str| Error::Checkpoint(format!("{} holds no {name}: remove it", self.path.display()));
        let way = tensors.get("way").filter(|way| way.numel() == 7).ok_or_else(|| missing("way"))?;
        let number = |index: i64| way.double_value(&[index]);
        let _no_grad = tch::no_grad_guard();
        for (name, model) in models {
            for (variable, mut tensor) in model.weights.variables() {
                let saved = format!("{name}.{variable}");
                let saved_tensor = tensors.get(&saved).ok_or_else(|| missing(&saved))?;
                tensor.f_copy_(&saved_tensor.to_kind(Kind::Float))?;
            }
        }
        optimizer.restore(&tensors, number(6) as u64)?;
        Ok(Some(Way {
            epoch: number(0) as u32,
            best_epoch: number(1) as u32,
            best_ndcg: number(2),
            stale: number(3) as u32,
            seconds: number(4),
            learned: number(5),
        }))
    }

    /// The training has ended: nothing is left to go on with.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(&self.path)(error)),
            _ => Ok(()),
        }
    }
}
