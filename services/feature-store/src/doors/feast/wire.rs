//! The JSON of `POST /get-online-features`, as Feast's feature server reads and writes it.

use std::collections::BTreeMap;

use rapport_proto::feast::{
    serving::{
        FeatureList, FieldStatus, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
        get_online_features_request::Kind,
    },
    types::{RepeatedValue, Value, value::Val},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::plan::{Refusal, Wrong};

/// Fields that are not here are those of newer clients, and not heeded: so does Feast's server.
#[derive(Debug, Deserialize)]
struct Question {
    entities: BTreeMap<String, Vec<Json>>,
    #[serde(default)]
    feature_service: Option<String>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    full_feature_names: bool,
    #[serde(default)]
    include_feature_view_version_metadata: bool,
}

/// # Errors
/// The place in the body and what is wrong there.
pub(super) fn question(body: &[u8]) -> Result<GetOnlineFeaturesRequest, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let refused = |at: String, why: String| {
        Refusal::other(if matches!(at.as_str(), "." | "?") { "body".to_owned() } else { at }, why)
    };
    let question: Question = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| refused(e.path().to_string(), e.inner().to_string()))?;
    json.end().map_err(|e| refused(".".into(), e.to_string()))?;
    let mut entities = std::collections::HashMap::with_capacity(question.entities.len());
    for (key, column) in question.entities {
        let values = column.into_iter().enumerate().map(|(n, json)| match json {
            Json::String(text) => Ok(Value { val: Some(Val::StringVal(text)) }),
            Json::Bool(truth) => Ok(Value { val: Some(Val::BoolVal(truth)) }),
            Json::Null => Ok(Value { val: None }),
            json => match (json.as_i64(), json.as_f64()) {
                (Some(number), _) => Ok(Value { val: Some(Val::Int64Val(number)) }),
                (None, Some(number)) => Ok(Value { val: Some(Val::DoubleVal(number)) }),
                (None, None) => {
                    Err(Refusal::other(format!("entities.{key}[{n}]"), "must be text, a number or a truth"))
                }
            },
        });
        let val = values.collect::<Result<Vec<_>, _>>()?;
        entities.insert(key, RepeatedValue { val });
    }
    let kind = match question.feature_service {
        Some(name) if !name.is_empty() => Kind::FeatureService(name),
        _ => Kind::Features(FeatureList { val: question.features }),
    };
    Ok(GetOnlineFeaturesRequest {
        kind: Some(kind),
        entities,
        full_feature_names: question.full_feature_names,
        request_context: Default::default(),
        include_feature_view_version_metadata: question.include_feature_view_version_metadata,
    })
}

#[derive(Serialize)]
struct Answer {
    metadata: Metadata,
    results: Vec<Column>,
    status: bool,
}

#[derive(Serialize)]
struct Metadata {
    feature_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    feature_view_metadata: Vec<Json>,
}

#[derive(Serialize)]
struct Column {
    values: Vec<Json>,
    statuses: Vec<&'static str>,
    event_timestamps: Vec<String>,
}

/// The body of an answer.
///
/// # Errors
/// None in practice: everything in it can be JSON.
pub(super) fn answer(response: GetOnlineFeaturesResponse) -> Result<Vec<u8>, serde_json::Error> {
    let metadata = response.metadata.unwrap_or_default();
    let columns = response.results.into_iter().map(|column| Column {
        statuses: column.statuses().map(|status| FieldStatus::as_str_name(&status)).collect(),
        values: column.values.into_iter().map(plain).collect(),
        event_timestamps: column.event_timestamps.iter().map(ToString::to_string).collect(),
    });
    serde_json::to_vec(&Answer {
        metadata: Metadata {
            feature_names: metadata.feature_names.unwrap_or_default().val,
            feature_view_metadata: metadata
                .feature_view_metadata
                .iter()
                .map(|view| json!({"name": view.name}))
                .collect(),
        },
        results: columns.collect(),
        status: response.status,
    })
}

fn plain(value: Value) -> Json {
    match value.val {
        Some(Val::StringVal(text)) => Json::String(text),
        Some(Val::Int32Val(number)) => number.into(),
        Some(Val::Int64Val(number) | Val::UnixTimestampVal(number)) => number.into(),
        Some(Val::BoolVal(truth)) => truth.into(),
        Some(Val::StringListVal(list)) => list.val.into(),
        Some(Val::FloatVal(number)) => number_or_name(number.into()),
        Some(Val::DoubleVal(number)) => number_or_name(number),
        Some(Val::BytesVal(_) | Val::NullVal(_)) | None => Json::Null,
    }
}

/// JSON has no numbers for these: protobuf's JSON, and Feast's, names them.
fn number_or_name(number: f64) -> Json {
    match number {
        n if n.is_finite() => n.into(),
        n if n.is_nan() => "NaN".into(),
        n if n > 0.0 => "Infinity".into(),
        _ => "-Infinity".into(),
    }
}

/// The body of a refusal: JSON in a JSON string, from which Feast's client makes the exception of that class.
pub(super) fn refusal(class: &str, message: &str) -> Vec<u8> {
    let detail = json!({"module": "feast.errors", "class": class, "message": message}).to_string();
    Json::String(detail).to_string().into_bytes()
}

impl Wrong {
    /// The class in `feast.errors`.
    pub(super) const fn feasts_class(self) -> &'static str {
        match self {
            Self::NoSuchView => "FeatureViewNotFoundException",
            Self::NoSuchService => "FeatureServiceNotFoundException",
            Self::NoSuchEntity => "EntityNotFoundException",
            Self::NoSuchRequestValue => "RequestDataNotFoundInEntityRowsException",
            Self::Collision => "FeatureNameCollisionError",
            Self::Other => FEAST_ERROR,
        }
    }
}

/// What Feast's client makes of everything else.
pub(super) const FEAST_ERROR: &str = "FeastError";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::EventTime;
    use rapport_proto::feast::{
        serving::{GetOnlineFeaturesResponseMetadata, get_online_features_response::FeatureVector},
        types::StringList,
    };

    use super::*;

    #[test]
    fn the_body_that_feasts_package_sends_is_the_question_that_its_protobuf_client_asks() {
        // As feast 0.67 sends it (infra/online_stores/remote.py, get_online_features).
        let body = br#"{"entities": {"customer_id": ["ann", 196]}, "full_feature_names": true,
            "include_feature_view_version_metadata": false, "features": ["purchases:spend_7d"]}"#;
        let text = Value { val: Some(Val::StringVal("ann".into())) };
        let number = Value { val: Some(Val::Int64Val(196)) };
        let expected = GetOnlineFeaturesRequest {
            kind: Some(Kind::Features(FeatureList { val: vec!["purchases:spend_7d".into()] })),
            entities: [("customer_id".to_owned(), RepeatedValue { val: vec![text, number] })].into(),
            full_feature_names: true,
            ..Default::default()
        };
        assert_eq!(question(body).unwrap(), expected);
        let kinds = question(br#"{"entities": {"price": [1.5, true, null]}, "features": ["a:b"]}"#).unwrap();
        let values = [Some(Val::DoubleVal(1.5)), Some(Val::BoolVal(true)), None].map(|val| Value { val });
        assert_eq!(kinds.entities["price"].val, values);
        let service = question(br#"{"entities": {}, "feature_service": "item", "a_newer_field": [1]}"#).unwrap();
        assert_eq!(service.kind, Some(Kind::FeatureService("item".into())));
    }

    #[test]
    fn a_body_that_cannot_be_read_is_refused_with_the_place() {
        let refused = |body: &str| question(body.as_bytes()).unwrap_err().to_string();
        assert!(refused("{").starts_with("body: EOF"), "{}", refused("{"));
        assert!(refused("{}").contains("entities"));
        assert!(refused(r#"{"entities": {}, "features": ["a:b", 7]}"#).starts_with("features[1]: invalid type"));
        for value in ["{}", "[1]"] {
            let body = format!(r#"{{"entities": {{"customer_id": ["ann", {value}]}}, "features": ["a:b"]}}"#);
            assert_eq!(refused(&body), "entities.customer_id[1]: must be text, a number or a truth");
        }
        assert!(refused(r#"{"entities": {}} and more"#).starts_with("body: trailing"));
    }

    #[test]
    fn an_answer_has_the_shape_of_feasts_server() {
        let value = |val| Value { val: Some(val) };
        let column = |values: Vec<Value>, status: FieldStatus, ms| FeatureVector {
            statuses: vec![status.into(); values.len()],
            event_timestamps: vec![EventTime::from_ms(ms).to_proto(); values.len()],
            values,
        };
        let response = GetOnlineFeaturesResponse {
            metadata: Some(GetOnlineFeaturesResponseMetadata {
                feature_names: Some(FeatureList { val: vec!["customer_id".into(), "spend_7d".into()] }),
                feature_view_metadata: Vec::new(),
            }),
            results: vec![
                column(vec![value(Val::Int64Val(196)), value(Val::StringVal("ann".into()))], FieldStatus::Present, 0),
                column(vec![value(Val::DoubleVal(5.0)), Value { val: None }], FieldStatus::Present, 1_500),
            ],
            status: true,
        };
        let json: Json = serde_json::from_slice(&answer(response).unwrap()).unwrap();
        assert_eq!(
            json,
            json!({
                "metadata": {"feature_names": ["customer_id", "spend_7d"]},
                "results": [
                    {"values": [196, "ann"], "statuses": ["PRESENT", "PRESENT"],
                     "event_timestamps": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"]},
                    {"values": [5.0, null], "statuses": ["PRESENT", "PRESENT"],
                     "event_timestamps": ["1970-01-01T00:00:01.500Z", "1970-01-01T00:00:01.500Z"]},
                ],
                "status": true,
            })
        );
        assert_eq!(plain(value(Val::DoubleVal(f64::INFINITY))), json!("Infinity"));
        let list = StringList { val: vec!["b".into(), "a".into()] };
        assert_eq!(plain(value(Val::StringListVal(list))), json!(["b", "a"]));
    }

    #[test]
    fn a_refusal_is_the_string_that_feasts_client_makes_an_exception_of() {
        let outer: String = serde_json::from_slice(&refusal("FeastError", "features: is empty")).unwrap();
        let inner: Json = serde_json::from_str(&outer).unwrap();
        assert_eq!(inner, json!({"module": "feast.errors", "class": "FeastError", "message": "features: is empty"}));
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reader_panic(body: Vec<u8>) {
            question(&body).ok();
        }
    }
}
