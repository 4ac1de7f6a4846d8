//! A model's tensors by name.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tch::{Device, Kind, Tensor};

use crate::Error;

/// The tensors of one file, taken out one by one.
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    device: Device,
}

impl Weights {
    /// # Errors
    /// No file, or one that is not in the safetensors format.
    pub fn read(path: &Path, device: Device) -> Result<Self, Error> {
        fs::metadata(path).map_err(Error::file(path))?;
        let tensors = Tensor::read_safetensors(path)
            .map_err(|error| Error::Malformed { path: path.into(), reason: error.to_string() })?;
        let tensors = tensors.into_iter().map(|(name, tensor)| (canonical(&name), tensor)).collect();
        Ok(Self { path: path.into(), tensors, device })
    }

    /// The tensor as 32-bit numbers, ready for inference.
    ///
    /// # Errors
    /// There is none of this name, or it has another shape.
    pub fn take(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, Error> {
        let path = || self.path.clone();
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(Error::MissingTensor { path: path(), name: name.into() });
        };
        if tensor.size() != shape {
            return Err(Error::Shape { path: path(), name: name.into(), expected: shape.into(), found: tensor.size() });
        }
        Ok(tensor.f_to_kind(Kind::Float)?.f_to_device(self.device)?.f_contiguous()?)
    }
}

/// Checkpoints with a task's head put the encoder under `bert.`, and those that began in TensorFlow
/// call the scale and shift of a layer normalisation gamma and beta.
fn canonical(name: &str) -> String {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
}

/// Writes tensors as a safetensors file.
///
/// # Errors
/// The disk.
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    let on_cpu = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?)))
        .collect::<Result<Vec<_>, tch::TchError>>()?;
    Ok(Tensor::write_safetensors(&on_cpu, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_checkpoints_become_those_of_the_plain_encoder() {
        assert_eq!(canonical("bert.embeddings.LayerNorm.gamma"), "embeddings.LayerNorm.weight");
        assert_eq!(canonical("encoder.layer.0.output.dense.bias"), "encoder.layer.0.output.dense.bias");
    }
}
