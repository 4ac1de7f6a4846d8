//! Triton's own clients, unchanged, call the live model: they get what ONNX Runtime gives for the artifact.

use std::{fs, path::PathBuf, time::Duration};

use rapport_integration_tests::{
    harness::{Service, Stack, heavy, others::Client, stack::TENANT, wait::check, wait_until},
    offline,
};
use serde_json::{Value, json};

use crate::{
    doors::collect,
    models::{WALKS, only, served_by, train, version},
};

const MODEL: &str = "next-item";
const WITHIN: Duration = Duration::from_secs(60);

fn rows(scores: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(scores.clone()).unwrap_or_else(|error| panic!("{error}: {scores}"))
}

fn assert_same(ours: &Value, theirs: &Value) {
    let (ours, theirs) = (rows(ours), rows(theirs));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!((ours.len(), theirs.len()), (WALKS.items, WALKS.items));
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!((ours - theirs).abs() <= 1e-5, "{ours} instead of {theirs}");
        }
    }
}

fn model_file(stack: &Stack, version: &str) -> PathBuf {
    let folder = stack.registry_folder().join(TENANT).join(MODEL).join(version);
    let file = folder.join("model.onnx");
    assert!(file.is_file(), "{}: {:?}", folder.display(), fs::read_dir(&folder).map(Iterator::count));
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn tritons_own_clients_get_what_onnx_runtime_gives_for_the_live_model() {
    let _alone = heavy().await;
    let mut stack = Stack::new("raw-models");
    let ports = stack.ports(Service::Scorer);
    let http = format!("127.0.0.1:{}", ports.http);
    stack.set(Service::Scorer, "RAPPORT_RAW_MODELS", "true");
    stack.set(Service::Scorer, "RAPPORT_RAW_MODELS_ADDR", http.as_str());
    stack.start(&Service::ALL).await;
    let events = WALKS.events(0..60);
    let expected = events.len();
    for batch in events.chunks(1_000) {
        collect(&stack, batch.to_vec()).await;
    }
    wait_until("the walks in the offline log", WITHIN, async || {
        let found = offline::event_ids(&stack).len();
        check(found == expected, || format!("{found} of {expected}"))
    })
    .await;
    let trained = train(&stack, only("ridge")).await;
    served_by(&stack, version(&trained)).await;

    let file = model_file(&stack, version(&trained));
    let mut onnx = Client::start("test-venv", "onnx_python.py", &[&file.to_string_lossy()]);
    let takes = onnx.call("inputs", json!({})).unwrap();
    // Every input that the graph names: items in rows, and for the others times or a moment.
    let named = takes.as_array().unwrap().iter().map(|input| {
        let rows =
            if input["axes"] == 2 { json!([[0, 5, 6], [40, 41, 42]]) } else { json!([1_767_300_000, 1_767_300_000]) };
        (input["name"].as_str().unwrap().to_owned(), rows)
    });
    let inputs: Value = Value::Object(named.collect());
    let reference = onnx.call("scores", inputs.clone()).unwrap();

    let grpc = format!("127.0.0.1:{}", ports.grpc);
    for (protocol, address) in [("grpc", &grpc), ("http", &http)] {
        let mut triton = Client::start("conformance/venv", "triton_python.py", &[protocol, address]);
        assert_eq!(triton.call("live", json!({})), Ok(json!(true)));
        assert_eq!(triton.call("ready", json!({})), Ok(json!(true)));
        assert_eq!(triton.call("model_ready", json!({"model_name": MODEL})), Ok(json!(true)));
        assert_eq!(triton.call("model_ready", json!({"model_name": "other"})), Ok(json!(false)));
        assert_eq!(triton.call("server", json!({})).unwrap()["name"], "rapport-scorer");
        let model = triton.call("model", json!({"model_name": MODEL})).unwrap();
        assert_eq!(model["versions"], json!([version(&trained)]), "{protocol}: {model}");
        assert_eq!(model["inputs"].as_array().unwrap().len(), takes.as_array().unwrap().len(), "{model}");
        assert_eq!(model["outputs"][0]["name"], "scores");

        // Bytes, and over HTTP plain JSON too; the live version, by its name, and without.
        let asks = [json!({}), json!({"version": version(&trained)}), json!({"outputs": ["scores"], "binary": false})];
        for more in asks {
            let mut ask = json!({"model": MODEL, "inputs": inputs});
            ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = triton.call("infer", ask).unwrap_or_else(|refused| panic!("{protocol}: {refused:?}"));
            assert_eq!((answer["version"].as_str(), answer["id"].as_str()), (Some(version(&trained)), Some("7")));
            assert_same(&answer["scores"], &reference);
        }

        // What does not fit is refused with the tensor.
        let refused = |triton: &mut Client, ask: Value| triton.call("infer", ask).unwrap_err().1;
        let mut wrong = inputs.clone();
        wrong["items"] = json!([[0, 5, 6], [40, 41, 999]]);
        let said = refused(&mut triton, json!({"model": MODEL, "inputs": wrong}));
        assert!(said.contains("inputs.items: item index 999 is not in 0 to 120"), "{protocol}: {said}");
        let said = refused(&mut triton, json!({"model": MODEL, "inputs": {"things": [[1]]}}));
        assert!(said.contains("inputs.items: is missing"), "{protocol}: {said}");
        let said = refused(&mut triton, json!({"model": MODEL, "version": "v0", "inputs": inputs}));
        assert!(said.contains("model_version: \"v0\" is not loaded"), "{protocol}: {said}");
    }

    // A scorer that is not told to does not serve it.
    stack.stop(Service::Scorer);
    stack.set(Service::Scorer, "RAPPORT_RAW_MODELS", "false");
    stack.start(&[Service::Scorer]).await;
    let mut triton = Client::start("conformance/venv", "triton_python.py", &["grpc", &grpc]);
    let (status, _) = triton.call("server", json!({})).unwrap_err();
    assert!(status.contains("UNIMPLEMENTED"), "{status}");
}
