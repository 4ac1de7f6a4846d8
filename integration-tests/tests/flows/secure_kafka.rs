//! A Kafka that asks who is there: TLS with client certificates, and a login. The collector and the
//! cleaner work on it with nothing but flags, and say what is wrong when they are not let in.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Broker, RedisServer, SecureListener, Service, Stack, wait::check, wait_until},
};
use rapport_proto::{collect::CollectBatchRequest, events::CleanEvent};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

const USER: &str = "rapport";
const PASSWORD: &str = "correct horse";

/// Files of an authority, of a broker and of a client, all PEM.
fn write_certificates(folder: &Path) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (name, usage) in
        [("broker", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{name}.key.pem")), key.serialize_pem()).unwrap();
        fs::write(folder.join(format!("{name}.cert.pem")), cert.pem()).unwrap();
        // Kafka's keystore: the key, then the chain.
        let both = format!("{}{}{}", key.serialize_pem(), cert.pem(), authority.pem());
        fs::write(folder.join(format!("{name}.pem")), both).unwrap();
    }
}

fn secure(stack: &mut Stack, service: Service, certificates: &Path, mechanism: &str, password: &str) {
    let path = |name: &str| certificates.join(name).display().to_string();
    for (name, value) in [
        ("BROKERS", stack.broker.secure_address()),
        ("SECURITY_PROTOCOL", "sasl_ssl".into()),
        ("CA", path("ca.pem")),
        ("CERT", path("client.cert.pem")),
        ("KEY", path("client.key.pem")),
        ("SASL_MECHANISM", mechanism.into()),
        ("SASL_USERNAME", USER.into()),
        ("SASL_PASSWORD", password.into()),
    ] {
        stack.set(service, &format!("RAPPORT_KAFKA_{name}"), value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_log_in_to_kafka_over_tls_and_say_so_when_they_are_not_let_in() {
    let certificates = tempfile::tempdir().unwrap();
    write_certificates(certificates.path());
    let listener = SecureListener {
        keystore: certificates.path().join("broker.pem"),
        truststore: certificates.path().join("ca.pem"),
        user: USER.into(),
        password: PASSWORD.into(),
    };
    let broker = Arc::new(Broker::start_secured("secure", &listener));
    let mut stack = Stack::on("secure", Arc::clone(&broker), RedisServer::shared());
    stack.make_topics().await;

    secure(&mut stack, Service::Collector, certificates.path(), "SCRAM-SHA-512", "a wrong one");
    stack.launch(Service::Collector);
    wait_until("the collector to say that it is not let in", Duration::from_secs(30), async || {
        let log = stack.process(Service::Collector).log();
        check(log.to_lowercase().contains("authentication failed"), || log)
    })
    .await;
    stack.kill(Service::Collector);

    secure(&mut stack, Service::Collector, certificates.path(), "SCRAM-SHA-512", PASSWORD);
    secure(&mut stack, Service::Cleaner, certificates.path(), "PLAIN", PASSWORD);
    stack.start(&[Service::Collector, Service::Cleaner]).await;
    let event = interaction("over-tls", "view", "ann", "i1", now_ms());
    stack.collector().collect_batch(CollectBatchRequest { events: vec![event] }).await.expect("the event is accepted");
    let mut clean = broker.reader(&stack.topics.clean);
    clean.find("the clean event", Duration::from_secs(30), |record| {
        record.decode::<CleanEvent>().event.is_some_and(|event| event.event_id == "over-tls")
    });
}
