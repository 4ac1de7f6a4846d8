//! `inference.GRPCInferenceService`.

use std::time::Duration;

use rapport_events::{FieldError, Tenant};
use rapport_inference::{
    Error as InferenceError,
    raw::{RawInput, RawOutput, TensorInfo},
};
use rapport_proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    grpc_inference_service_server::GrpcInferenceService, model_infer_request::InferInputTensor,
    model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata,
};
use rapport_rpc::{deadline_of, status, tenant_of};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{EXTENSIONS, PLATFORM, Question, RawFault, RawModels, SERVER, VERSION, tensors};

/// What callers are told to wait when the model's queue is full.
const RETRY_AFTER: Duration = Duration::from_millis(100);

impl From<RawFault> for Status {
    fn from(fault: RawFault) -> Self {
        match fault {
            RawFault::Field(error) => status::from_field_error(&error),
            RawFault::NotFound(reason) => Self::not_found(reason),
            RawFault::Inference(InferenceError::DeadlineExceeded) => {
                Self::deadline_exceeded(InferenceError::DeadlineExceeded.to_string())
            }
            RawFault::Inference(error) if error.retryable() => status::retry_later(error.to_string(), RETRY_AFTER),
            RawFault::Inference(error) => Self::internal(error.to_string()),
        }
    }
}

impl RawModels {
    fn tenant(&self, metadata: &MetadataMap) -> Result<Tenant, Status> {
        tenant_of(metadata, &self.default_tenant)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for RawModels {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: self.lifecycle.liveness().is_ok() }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.lifecycle.readiness().is_ok() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let tenant = self.tenant(request.metadata())?;
        let ModelReadyRequest { name, version } = request.into_inner();
        Ok(Response::new(ModelReadyResponse { ready: self.find(&tenant, &name, &version).is_ok() }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: SERVER.into(),
            version: VERSION.into(),
            extensions: EXTENSIONS.map(String::from).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let tenant = self.tenant(request.metadata())?;
        let ModelMetadataRequest { name, version } = request.into_inner();
        let model = self.find(&tenant, &name, &version)?;
        let signature = model.ranker.signature();
        let told = |all: &[TensorInfo]| {
            let one = |info: &TensorInfo| TensorMetadata {
                name: info.name.clone(),
                datatype: tensors::datatype(info).into(),
                shape: info.shape.clone(),
            };
            all.iter().map(one).collect()
        };
        Ok(Response::new(ModelMetadataResponse {
            versions: self.versions(&tenant, &name),
            name,
            platform: PLATFORM.into(),
            inputs: told(&signature.inputs),
            outputs: told(&signature.outputs),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let tenant = self.tenant(request.metadata())?;
        let patience = deadline_of(request.metadata()).unwrap_or(self.timeout);
        let request = request.into_inner();
        let id = request.id.clone();
        let raw = !request.raw_input_contents.is_empty();
        let asked = question(request).map_err(RawFault::from)?;
        let (model, outputs) = self.infer(&tenant, asked, patience).await?;
        let (outputs, raw_output_contents) = answered(outputs, raw);
        Ok(Response::new(ModelInferResponse {
            model_name: model.name.clone(),
            model_version: model.version.clone(),
            id,
            outputs,
            raw_output_contents,
            ..ModelInferResponse::default()
        }))
    }
}

/// Reads a request; its values stand with the tensors, or as bytes beside them.
fn question(request: ModelInferRequest) -> Result<Question, FieldError> {
    tensors::bounded("inputs", request.inputs.len())?;
    tensors::bounded("outputs", request.outputs.len())?;
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        let reason = format!("must be one for each of {} inputs, are {}", request.inputs.len(), raw.len());
        return Err(FieldError::schema("raw_input_contents", reason));
    }
    let inputs = request.inputs.into_iter().enumerate().map(|(n, input)| read(n, input, raw.get(n).map(Vec::as_slice)));
    Ok(Question {
        model: request.model_name,
        version: request.model_version,
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
    })
}

fn read(place: usize, tensor: InferInputTensor, raw: Option<&[u8]>) -> Result<RawInput, FieldError> {
    let InferInputTensor { name, datatype, shape, contents, .. } = tensor;
    let values = match (raw, contents) {
        (Some(_), Some(_)) => {
            let reason = "may not stand beside raw_input_contents";
            return Err(FieldError::schema(format!("inputs[{place}].contents"), reason));
        }
        (Some(bytes), None) => tensors::from_bytes(&format!("raw_input_contents[{place}]"), bytes)?,
        (None, contents) => contents.unwrap_or_default().int64_contents,
    };
    tensors::input(place, name, &datatype, &shape, values)
}

/// The answer in the form of the question: bytes for bytes.
fn answered(outputs: Vec<RawOutput>, raw: bool) -> (Vec<InferOutputTensor>, Vec<Vec<u8>>) {
    let mut bytes = Vec::new();
    let tensors = outputs.into_iter().map(|output| {
        let mut tensor = InferOutputTensor {
            name: output.name,
            datatype: "FP32".into(),
            shape: tensors::axes(&output.shape),
            ..InferOutputTensor::default()
        };
        if raw {
            bytes.push(tensors::to_bytes(&output.values));
        } else {
            tensor.contents =
                Some(InferTensorContents { fp32_contents: output.values, ..InferTensorContents::default() });
        }
        tensor
    });
    (tensors.collect(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::raw::tests::models;

    fn request(contents: Option<&[i64]>, raw: Option<&[i64]>) -> ModelInferRequest {
        let bytes = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let contents =
            contents.map(|values| InferTensorContents { int64_contents: values.to_vec(), ..Default::default() });
        ModelInferRequest {
            model_name: "next-item".into(),
            id: "7".into(),
            inputs: vec![InferInputTensor {
                name: "items".into(),
                datatype: "INT64".into(),
                shape: vec![2, 1],
                contents,
                ..Default::default()
            }],
            raw_input_contents: raw.map(bytes).into_iter().collect(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn typed_values_are_answered_typed_and_bytes_with_bytes() {
        let (raw, _) = models();
        let typed = raw.model_infer(Request::new(request(Some(&[1, 2]), None))).await.unwrap().into_inner();
        let expected = [0.0, 1.0, 0.5, 0.0, 2.0, 0.5];
        assert_eq!(
            (typed.id.as_str(), typed.model_version.as_str(), typed.outputs[0].shape.as_slice()),
            ("7", "v1", [2, 3].as_slice())
        );
        assert_eq!(typed.outputs[0].contents.as_ref().unwrap().fp32_contents, expected);
        assert!(typed.raw_output_contents.is_empty());
        let bytes = raw.model_infer(Request::new(request(None, Some(&[1, 2])))).await.unwrap().into_inner();
        assert_eq!(bytes.raw_output_contents, [tensors::to_bytes(&expected)]);
        assert_eq!(bytes.outputs[0].contents, None);
    }

    #[tokio::test]
    async fn a_refusal_names_the_field() {
        let (raw, _) = models();
        let refused = async |request: ModelInferRequest| raw.model_infer(Request::new(request)).await.unwrap_err();
        let both = refused(request(Some(&[1, 2]), Some(&[1, 2]))).await;
        assert_eq!(both.message(), "inputs[0].contents: may not stand beside raw_input_contents");
        let few = refused(request(Some(&[1]), None)).await;
        assert_eq!(few.message(), "inputs.items: has 1 values for the shape [2, 1]");
        let none = refused(ModelInferRequest { model_name: "other".into(), ..request(Some(&[1, 2]), None) }).await;
        assert_eq!(none.code(), tonic::Code::NotFound);
        let two = ModelInferRequest { raw_input_contents: vec![vec![]; 2], ..request(None, None) };
        assert_eq!(refused(two).await.message(), "raw_input_contents: must be one for each of 1 inputs, are 2");
    }
}
