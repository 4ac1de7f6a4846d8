//! A model that is saved and loaded is the same model; anything else is refused.

mod data;

use data::{KINDS, customers, quick};
use rapport_tabular::{Classifier, Error, FORMAT_VERSION, Kind, Model};

#[test]
fn a_loaded_model_gives_the_same_probabilities_to_the_last_bit() {
    let (train, test) = (customers(1000, 1).unwrap(), customers(1000, 2).unwrap());
    for kind in KINDS {
        let model = Model::fit(&quick(kind), &train.table, &train.labels, None).unwrap();
        let loaded = Model::from_json(&model.to_json().unwrap()).unwrap();
        assert_eq!(loaded, model);
        assert_eq!(loaded.predict_proba(&test.table).unwrap(), model.predict_proba(&test.table).unwrap());
    }
}

#[test]
fn a_model_of_another_format_version_is_refused_before_its_fields_are_read() {
    let other = format!(r#"{{"format_version": {}, "model": {{"neural": []}}}}"#, FORMAT_VERSION + 1);
    assert!(matches!(Model::from_json(&other), Err(Error::FormatVersion { found: 2, supported: 1 })));
    assert!(matches!(Model::from_json(r#"{"model": {}}"#), Err(Error::Json(_))));
    assert!(matches!(Model::from_json("not json"), Err(Error::Json(_))));
}

#[test]
fn a_tampered_model_is_refused_instead_of_panicking_later() {
    let train = customers(300, 3).unwrap();
    let text = |kind| Model::fit(&quick(kind), &train.table, &train.labels, None).and_then(|model| model.to_json());
    let boosting = text(Kind::Boosting).unwrap();
    assert!(boosting.contains(r#""left":1,"#));
    assert!(matches!(Model::from_json(&boosting.replace(r#""left":1,"#, r#""left":0,"#)), Err(Error::Corrupt(_))));
    assert!(matches!(Model::from_json(&boosting.replace(r#""column":0,"#, r#""column":9,"#)), Err(Error::Corrupt(_))));
    let logistic = text(Kind::Logistic).unwrap();
    let shorter = logistic.replace(r#""coefficients":["#, r#""coefficients":["0.0","#);
    assert!(matches!(Model::from_json(&shorter), Err(Error::Corrupt(_))));
    assert!(matches!(Model::from_json(&logistic.replace("\"pro\"", "\"aaa\"")), Err(Error::Corrupt(_))));
    let network = text(Kind::Mlp).unwrap();
    let wider = network.replacen(r#""biases":["#, r#""biases":["0.0","#, 1);
    assert!(matches!(Model::from_json(&wider), Err(Error::Corrupt(_))));
    assert!(matches!(Model::from_json(&network.replace(r#""means":["#, r#""means":["0.0","#)), Err(Error::Corrupt(_))));
    assert!(Model::from_json(&network.replace("silu", "tanh")).is_err());
}
