//! The same over HTTP: JSON, and tensors as bytes behind it where the caller wants that (the protocol's
//! extension `binary_tensor_data`, which Triton's clients use by default).

use std::{ops::Deref, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use rapport_events::{FieldError, Tenant};
use rapport_inference::{
    Error as InferenceError,
    raw::{RawInput, RawOutput, TensorInfo},
};
use rapport_rpc::TENANT_METADATA;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{EXTENSIONS, PLATFORM, Question, RawFault, RawModels, SERVER, VERSION, numbers::Numbers, tensors};
use crate::doors::http::observed;

/// The door's name in metrics.
pub const NAME: &str = "raw";
/// Where the JSON of a body ends, when bytes follow it.
const JSON_LENGTH: &str = "inference-header-content-length";
/// Largest body in bytes: every tensor of the bounds fits.
const BODY_BYTES: usize = 4 << 20;
/// Calls whose bodies may be in memory at once.
const AT_ONCE: usize = 32;

impl IntoResponse for RawFault {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Field(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Inference(InferenceError::DeadlineExceeded) => StatusCode::GATEWAY_TIMEOUT,
            Self::Inference(error) if error.retryable() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Inference(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}

/// The models, and the places for bodies.
struct Door {
    raw: RawModels,
    places: Arc<Semaphore>,
}

impl Deref for Door {
    type Target = RawModels;

    fn deref(&self) -> &RawModels {
        &self.raw
    }
}

/// Whose models are called: `x-rapport-tenant`, or the default tenant.
struct OfTenant(Tenant);

impl FromRequestParts<Arc<Door>> for OfTenant {
    type Rejection = RawFault;

    async fn from_request_parts(parts: &mut Parts, raw: &Arc<Door>) -> Result<Self, RawFault> {
        let Some(name) = parts.headers.get(TENANT_METADATA) else { return Ok(Self(raw.default_tenant.clone())) };
        let text = name.to_str().map_err(|_| FieldError::schema(TENANT_METADATA, "is not text"))?;
        Ok(Self(Tenant::parse(text)?))
    }
}

/// A place for a body: asked for before it is read.
struct Place(#[expect(dead_code, reason = "held, and given back when the call ends")] OwnedSemaphorePermit);

impl FromRequestParts<Arc<Door>> for Place {
    type Rejection = RawFault;

    async fn from_request_parts(_: &mut Parts, door: &Arc<Door>) -> Result<Self, RawFault> {
        let full = InferenceError::QueueFull { bound: AT_ONCE };
        Arc::clone(&door.places).try_acquire_owned().map(Self).map_err(|_| RawFault::Inference(full))
    }
}

#[derive(Debug, Deserialize)]
struct Request {
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<Wanted>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Map<String, Value>,
    data: Option<Numbers>,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct Output {
    name: String,
    datatype: &'static str,
    shape: Vec<i64>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    /// JSON has no infinities: they are null, and whole in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<f32>>,
}

/// Every path.
pub fn router(raw: RawModels) -> Router {
    let within = raw.timeout.saturating_mul(2);
    let routes: Vec<(&'static str, MethodRouter<Arc<Door>>)> = vec![
        ("/v2/health/live", get(live)),
        ("/v2/health/ready", get(ready)),
        ("/v2", get(server)),
        ("/v2/models/{model}", get(metadata)),
        ("/v2/models/{model}/versions/{version}", get(metadata)),
        ("/v2/models/{model}/ready", get(model_ready)),
        ("/v2/models/{model}/versions/{version}/ready", get(model_ready)),
        ("/v2/models/{model}/infer", post(infer)),
        ("/v2/models/{model}/versions/{version}/infer", post(infer)),
    ];
    let mut router = Router::new();
    for (path, methods) in routes {
        router = router.route(path, observed(NAME, path, within, methods));
    }
    let nothing = async || RawFault::NotFound("nothing is served at this path; docs/scorer.md lists them".into());
    router
        .fallback(nothing)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Arc::new(Door { raw, places: Arc::new(Semaphore::new(AT_ONCE)) }))
}

/// A model's name and, where the path has one, its version.
#[derive(Debug, Deserialize)]
struct Named {
    model: String,
    #[serde(default)]
    version: String,
}

type House = State<Arc<Door>>;

fn status(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn live(raw: House) -> Response {
    let live = raw.lifecycle.liveness().is_ok();
    (status(live), Json(json!({ "live": live }))).into_response()
}

async fn ready(raw: House) -> Response {
    let ready = raw.lifecycle.readiness().is_ok();
    (status(ready), Json(json!({ "ready": ready }))).into_response()
}

async fn server() -> Json<Value> {
    Json(json!({ "name": SERVER, "version": VERSION, "extensions": EXTENSIONS }))
}

async fn model_ready(
    raw: House,
    OfTenant(tenant): OfTenant,
    Path(Named { model, version }): Path<Named>,
) -> Result<Json<Value>, RawFault> {
    let found = raw.find(&tenant, &model, &version)?;
    Ok(Json(json!({ "name": found.name, "ready": true })))
}

async fn metadata(
    raw: House,
    OfTenant(tenant): OfTenant,
    Path(Named { model, version }): Path<Named>,
) -> Result<Json<Value>, RawFault> {
    let found = raw.find(&tenant, &model, &version)?;
    let told = |all: &[TensorInfo]| -> Vec<Value> {
        let one =
            |info: &TensorInfo| json!({ "name": info.name, "datatype": tensors::datatype(info), "shape": info.shape });
        all.iter().map(one).collect()
    };
    let signature = found.ranker.signature();
    Ok(Json(json!({
        "name": found.name,
        "versions": raw.versions(&tenant, &model),
        "platform": PLATFORM,
        "inputs": told(&signature.inputs),
        "outputs": told(&signature.outputs),
    })))
}

async fn infer(
    raw: House,
    OfTenant(tenant): OfTenant,
    _place: Place,
    Path(Named { model, version }): Path<Named>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, RawFault> {
    let (json, bytes) = parted(&headers, &body)?;
    let request: Request = serde_json::from_slice(json).map_err(|error| FieldError::decode("body", error))?;
    let binary = Binary::of(&request);
    let id = request.id.clone();
    let asked = question(model, version, request, bytes)?;
    let (model, outputs) = raw.infer(&tenant, asked, raw.timeout).await?;
    let (outputs, behind) = answered(outputs, &binary);
    let mut answer = json!({ "model_name": model.name, "model_version": model.version, "outputs": outputs });
    if let Some(id) = id {
        answer["id"] = Value::String(id);
    }
    if behind.is_empty() {
        return Ok(Json(answer).into_response());
    }
    let mut whole = answer.to_string().into_bytes();
    let length = whole.len();
    whole.extend(behind);
    let mut response = ([(header::CONTENT_TYPE, "application/octet-stream")], whole).into_response();
    response.headers_mut().insert(JSON_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// The JSON of a body, and the bytes behind it.
fn parted<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), FieldError> {
    let Some(length) = headers.get(JSON_LENGTH) else { return Ok((body, &[])) };
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    length.and_then(|length| body.split_at_checked(length)).ok_or_else(|| {
        FieldError::schema(JSON_LENGTH, format!("must be a number of bytes up to the body's {}", body.len()))
    })
}

/// Which outputs are wanted as bytes.
struct Binary {
    all: bool,
    some: Vec<(String, bool)>,
}

impl Binary {
    fn of(request: &Request) -> Self {
        let flag = |parameters: &Map<String, Value>, name: &str| parameters.get(name).and_then(Value::as_bool);
        let all = flag(&request.parameters, "binary_data_output").unwrap_or(false);
        let of = |wanted: &Wanted| Some((wanted.name.clone(), flag(&wanted.parameters, "binary_data")?));
        Self { all, some: request.outputs.iter().filter_map(of).collect() }
    }

    fn wants(&self, output: &str) -> bool {
        self.some.iter().find(|(name, _)| name == output).map_or(self.all, |(_, wants)| *wants)
    }
}

/// Reads a request. `bytes`: what stands behind it, taken by the inputs in their order.
fn question(model: String, version: String, request: Request, mut bytes: &[u8]) -> Result<Question, FieldError> {
    tensors::bounded("inputs", request.inputs.len())?;
    tensors::bounded("outputs", request.outputs.len())?;
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for (n, input) in request.inputs.into_iter().enumerate() {
        inputs.push(read(n, input, &mut bytes)?);
    }
    if !bytes.is_empty() {
        return Err(FieldError::schema("body", format!("{} bytes are left that no input takes", bytes.len())));
    }
    Ok(Question { model, version, inputs, outputs: request.outputs.into_iter().map(|wanted| wanted.name).collect() })
}

fn read(place: usize, input: Input, bytes: &mut &[u8]) -> Result<RawInput, FieldError> {
    let Input { name, datatype, shape, parameters, data } = input;
    let size = parameters.get("binary_data_size");
    let at = |field: &str| format!("inputs[{place}].{field}");
    let values = match (size, data) {
        (Some(_), Some(_)) => return Err(FieldError::schema(at("data"), "may not stand beside binary_data_size")),
        (None, None) => return Err(FieldError::schema(at("data"), "is missing")),
        (None, Some(Numbers { wrong: Some(wrong), .. })) => return Err(FieldError::schema(at("data"), wrong)),
        (None, Some(Numbers { values, .. })) => values,
        (Some(size), None) => {
            let field = at("parameters.binary_data_size");
            let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
            let (own, rest) = size.and_then(|size| bytes.split_at_checked(size)).ok_or_else(|| {
                FieldError::schema(&field, format!("must be a number up to the {} bytes that are left", bytes.len()))
            })?;
            *bytes = rest;
            tensors::from_bytes(&field, own)?
        }
    };
    tensors::input(place, name, &datatype, &shape, values)
}

/// The outputs, and the bytes of those that are wanted so.
fn answered(outputs: Vec<RawOutput>, binary: &Binary) -> (Vec<Output>, Vec<u8>) {
    let mut behind = Vec::new();
    let outputs = outputs.into_iter().map(|output| {
        let shape = tensors::axes(&output.shape);
        let (mut parameters, mut data) = (Map::new(), None);
        if binary.wants(&output.name) {
            let bytes = tensors::to_bytes(&output.values);
            parameters.insert("binary_data_size".into(), bytes.len().into());
            behind.extend(bytes);
        } else {
            data = Some(output.values);
        }
        Output { name: output.name, datatype: "FP32", shape, parameters, data }
    });
    (outputs.collect(), behind)
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, http};
    use tower::ServiceExt as _;

    use super::*;
    use crate::doors::raw::tests::models;

    async fn call(path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> (u16, HeaderMap, Vec<u8>) {
        let (raw, _) = models();
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::from(body.unwrap_or_default())).unwrap();
        let response = router(raw).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), parts.headers, to_bytes(body, 1 << 20).await.unwrap().to_vec())
    }

    async fn infer(body: Value) -> (u16, Value) {
        let (status, _, body) = call("/v2/models/next-item/infer", &[], Some(body.to_string().into_bytes())).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_model_tells_its_tensors_and_is_asked_by_them() {
        let (status, _, body) = call("/v2/models/next-item/versions/v2", &[], None).await;
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200);
        assert_eq!(told["versions"], json!(["v1", "v2"]));
        assert_eq!(told["inputs"], json!([{"name": "items", "datatype": "INT64", "shape": [-1, -1]}]));
        let input = json!({"name": "items", "datatype": "INT64", "shape": [2, 1], "data": [[1], [2]]});
        let (status, answer) = infer(json!({ "id": "x", "inputs": [input] })).await;
        assert_eq!((status, &answer["id"], &answer["model_version"]), (200, &json!("x"), &json!("v1")));
        assert_eq!(answer["outputs"][0]["data"], json!([0.0, 1.0, 0.5, 0.0, 2.0, 0.5]));
        assert_eq!(call("/v2/models/next-item/ready", &[], None).await.0, 200);
        assert_eq!(call("/v2/models/other/ready", &[], None).await.0, 404);
        assert_eq!(call("/v2/models/next-item/ready", &[("x-rapport-tenant", "bolt")], None).await.0, 404);
    }

    #[tokio::test]
    async fn bytes_behind_the_json_are_answered_with_bytes() {
        let input = json!({
            "name": "items", "datatype": "INT64", "shape": [1, 1], "parameters": {"binary_data_size": 8},
        });
        let mut body =
            json!({ "inputs": [input], "parameters": {"binary_data_output": true} }).to_string().into_bytes();
        let length = body.len().to_string();
        body.extend(2_i64.to_le_bytes());
        let headers = [(JSON_LENGTH, length.as_str())];
        let (status, headers, answer) = call("/v2/models/next-item/infer", &headers, Some(body)).await;
        let length: usize = headers[JSON_LENGTH].to_str().unwrap().parse().unwrap();
        let (json, bytes) = answer.split_at(length);
        let told: Value = serde_json::from_slice(json).unwrap();
        assert_eq!((status, &told["outputs"][0]["parameters"]), (200, &json!({"binary_data_size": 12})));
        assert_eq!(bytes, tensors::to_bytes(&[0.0, 2.0, 0.5]));
    }

    #[tokio::test]
    async fn a_refusal_names_the_field() {
        let error = async |input: Value| {
            let (status, answer) = infer(json!({ "inputs": [input] })).await;
            assert_eq!(status, 400);
            answer["error"].as_str().unwrap().to_owned()
        };
        let input = |data: Value| json!({"name": "items", "datatype": "INT64", "shape": [1, 1], "data": data});
        assert!(error(input(json!([1.5]))).await.starts_with("inputs[0].data: must hold whole numbers"));
        assert!(error(input(json!("a"))).await.starts_with("inputs[0].data: must hold whole numbers"));
        assert_eq!(error(input(json!([9]))).await, "inputs.items: item index 9 is not in 0 to 2");
        assert_eq!(
            error(json!({"name": "items", "datatype": "INT64", "shape": [1, 1]})).await,
            "inputs[0].data: is missing"
        );
        let (status, answer) = infer(json!({})).await;
        assert_eq!((status, answer["error"].as_str().unwrap().starts_with("body: missing field")), (400, true));
    }
}
