//! Raw model calls, by the Open Inference Protocol v2: the models that are live, with the tensors of their
//! graphs, on the threads that answer everything else. gRPC ([`grpc`]) stands beside the recommender on its
//! port; HTTP ([`http`]) has a port of its own.

pub mod grpc;
pub mod http;
mod numbers;
mod tensors;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rapport_events::{FieldError, Tenant};
use rapport_inference::{
    Error as InferenceError,
    raw::{RawInput, RawOutput, Signature},
};
use rapport_runtime::Lifecycle;

use crate::models::{LiveModel, Models};

/// What the protocol calls this server.
pub const SERVER: &str = "rapport-scorer";
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// HTTP only: tensors as bytes behind the JSON.
pub const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];
/// What kind of files the models are.
pub const PLATFORM: &str = "onnxruntime_onnx";

/// Whether raw model calls are served, and where.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Raw model calls")]
pub struct RawArgs {
    /// Serve raw model calls (Open Inference Protocol v2, inference.GRPCInferenceService) on the gRPC port
    #[arg(long, env = "RAPPORT_RAW_MODELS")]
    pub raw_models: bool,

    /// Where they are served over HTTP (/v2/...), 127.0.0.1:7504 for example; not at all unless this is given
    #[arg(long, env = "RAPPORT_RAW_MODELS_ADDR")]
    pub raw_models_addr: Option<SocketAddr>,
}

/// The models that can be called.
#[derive(Clone)]
pub struct RawModels {
    pub models: Arc<Models>,
    pub default_tenant: Tenant,
    /// No call takes longer.
    pub timeout: Duration,
    pub lifecycle: Lifecycle,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RawFault {
    #[error(transparent)]
    Field(#[from] FieldError),
    /// No such model, or version of it.
    #[error("{0}")]
    NotFound(String),
    #[error(transparent)]
    Inference(InferenceError),
}

impl From<InferenceError> for RawFault {
    fn from(error: InferenceError) -> Self {
        match error {
            InferenceError::Input { name, reason } => Self::Field(FieldError::schema(format!("inputs.{name}"), reason)),
            other => Self::Inference(other),
        }
    }
}

/// A checked question.
#[derive(Debug, Default)]
pub struct Question {
    pub model: String,
    /// Empty: the live one.
    pub version: String,
    pub inputs: Vec<RawInput>,
    /// Which outputs; empty: all.
    pub outputs: Vec<String>,
}

impl RawModels {
    /// A model by its name on the models topic, and a version that is live or on trial.
    ///
    /// # Errors
    /// It is not loaded; the reason says what is.
    pub fn find(&self, tenant: &Tenant, name: &str, version: &str) -> Result<Arc<LiveModel>, RawFault> {
        let loaded = self.loaded(tenant);
        let of_name: Vec<&Arc<LiveModel>> = loaded.iter().filter(|model| model.name == name).collect();
        let found = of_name.iter().find(|model| version.is_empty() || model.version == version);
        found.map(|model| Arc::clone(model)).ok_or_else(|| {
            let there = |named: Vec<&str>| if named.is_empty() { "none".to_owned() } else { named.join(", ") };
            let shown = |text: &str| text.chars().take(64).collect::<String>();
            RawFault::NotFound(if of_name.is_empty() {
                let names = loaded.iter().map(|model| model.name.as_str()).collect();
                format!("model_name: {:?} is not loaded for the tenant {tenant}; loaded: {}", shown(name), there(names))
            } else {
                let versions = of_name.iter().map(|model| model.version.as_str()).collect();
                format!("model_version: {:?} is not loaded; loaded: {}", shown(version), there(versions))
            })
        })
    }

    /// The live one first.
    fn loaded(&self, tenant: &Tenant) -> Vec<Arc<LiveModel>> {
        let standing = self.models.of(tenant);
        let challenger = standing.challenger.map(|challenger| challenger.model);
        standing.model.into_iter().chain(challenger).collect()
    }

    /// The versions of a model that can be called.
    pub fn versions(&self, tenant: &Tenant, name: &str) -> Vec<String> {
        let loaded = self.loaded(tenant).into_iter();
        loaded.filter(|model| model.name == name).map(|model| model.version.clone()).collect()
    }

    /// Runs a model and gives the outputs that are asked for, in their order.
    ///
    /// # Errors
    /// No such model, a tensor that does not fit, or no answer in time.
    pub async fn infer(
        &self,
        tenant: &Tenant,
        question: Question,
        patience: Duration,
    ) -> Result<(Arc<LiveModel>, Vec<RawOutput>), RawFault> {
        let model = self.find(tenant, &question.model, &question.version)?;
        let signature = model.ranker.signature();
        for (n, name) in question.outputs.iter().enumerate() {
            known_output(signature, n, name)?;
        }
        let deadline = Instant::now() + patience.min(self.timeout);
        let mut outputs = model.ranker.raw(question.inputs, deadline).await?;
        if !question.outputs.is_empty() {
            outputs.retain(|output| question.outputs.contains(&output.name));
            outputs.sort_by_key(|output| question.outputs.iter().position(|name| *name == output.name));
        }
        Ok((model, outputs))
    }
}

fn known_output(signature: &Signature, place: usize, name: &str) -> Result<(), FieldError> {
    if signature.outputs.iter().any(|output| output.name == name) {
        return Ok(());
    }
    let there: Vec<&str> = signature.outputs.iter().map(|output| output.name.as_str()).collect();
    let shown: String = name.chars().take(64).collect();
    Err(FieldError::schema(
        format!("outputs[{place}].name"),
        format!("{shown:?} is not given; {} is", there.join(", ")),
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::models::{Challenger, Standing};

    pub fn models() -> (RawModels, Tenant) {
        let tenant = Tenant::parse("acme").unwrap();
        let model = |version: &str| {
            let mut model = LiveModel::for_tests(&["a", "b"], |row| vec![0.0, row[0] as f32, 0.5]);
            model.version = version.into();
            Arc::new(model)
        };
        let models = Models::default();
        let challenger = Some(Challenger { model: model("v2"), share: 0.0 });
        models.set(&tenant, Standing { model: Some(model("v1")), challenger, ..Standing::default() });
        let raw = RawModels {
            models: Arc::new(models),
            default_tenant: tenant.clone(),
            timeout: Duration::from_secs(1),
            lifecycle: Lifecycle::new(),
        };
        (raw, tenant)
    }

    #[test]
    fn a_model_is_found_by_its_name_and_a_version_that_is_live_or_on_trial() {
        let (raw, acme) = models();
        let version = |version: &str| raw.find(&acme, "next-item", version).map(|model| model.version.clone());
        assert_eq!(version("").unwrap(), "v1");
        assert_eq!(version("v2").unwrap(), "v2");
        assert_eq!(raw.versions(&acme, "next-item"), ["v1", "v2"]);
        let refused = |found: Result<_, RawFault>| found.map(|_: String| ()).unwrap_err().to_string();
        assert_eq!(refused(version("v3")), "model_version: \"v3\" is not loaded; loaded: v1, v2");
        let bolt = Tenant::parse("bolt").unwrap();
        let other = raw.find(&bolt, "next-item", "").map(|model| model.version.clone());
        assert!(refused(other).ends_with("for the tenant bolt; loaded: none"), "no tenant calls another's model");
    }

    #[tokio::test]
    async fn an_output_that_the_graph_does_not_give_is_refused_by_its_place() {
        let (raw, acme) = models();
        let inputs = vec![RawInput { name: "items".into(), shape: vec![1, 1], values: vec![2] }];
        let ask = |outputs: &[&str]| Question {
            model: "next-item".into(),
            inputs: inputs.clone(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            ..Question::default()
        };
        let (_, outputs) = raw.infer(&acme, ask(&["scores"]), Duration::from_secs(1)).await.unwrap();
        assert_eq!(
            (outputs[0].shape.as_slice(), outputs[0].values.as_slice()),
            ([1, 3].as_slice(), [0.0, 2.0, 0.5].as_slice())
        );
        let error = raw.infer(&acme, ask(&["logits"]), Duration::from_secs(1)).await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), "outputs[0].name: \"logits\" is not given; scores is");
        let wrong = Question { inputs: vec![], ..ask(&[]) };
        let error = raw.infer(&acme, wrong, Duration::from_secs(1)).await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), "inputs.items: is missing; the model takes items");
    }
}
