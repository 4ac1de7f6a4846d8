//! What an operator relies on, the same for every service.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use rapport_integration_tests::harness::{Service, Stack, clients::channel, stack::get, wait::check, wait_until};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// The drain budget that services have by default, and a little for two busy cores.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

async fn health(stack: &Stack, service: Service, name: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest { service: name.to_owned() };
    let answer = HealthClient::new(channel(&stack.grpc_uri(service))).check(request).await?;
    Ok(answer.into_inner().status())
}

/// gRPC health follows readiness, a moment later.
async fn becomes_serving(stack: &Stack, service: Service, name: &str) {
    wait_until(&format!("{name:?} to be serving"), Duration::from_secs(5), async || {
        let status = health(stack, service, name).await.map_err(|e| e.to_string())?;
        check(status == ServingStatus::Serving, || format!("{status:?}"))
    })
    .await;
}

async fn reflected_services(stack: &Stack, service: Service) -> Vec<String> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel(&stack.grpc_uri(service)))
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    match answer.message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => list.service.into_iter().map(|s| s.name).collect(),
        other => panic!("not a list of services: {other:?}"),
    }
}

/// Everything that one service promises to who runs it.
async fn keeps_its_promises_to_the_operator(service: Service) {
    let mut stack = Stack::new(&format!("ops-{}", service.name()));
    stack.start(&[service]).await;

    for path in ["/livez", "/readyz"] {
        let (status, body) = get(&stack.admin_url(service, path)).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
    }
    let (status, metrics) = get(&stack.admin_url(service, "/metrics")).unwrap();
    assert_eq!(status, 200);
    assert!(metrics.lines().any(|line| line.starts_with("# TYPE ")), "no Prometheus metrics:\n{metrics}");

    becomes_serving(&stack, service, "").await;
    let reflected = reflected_services(&stack, service).await;
    assert!(reflected.iter().any(|name| name == "grpc.health.v1.Health"), "{reflected:?}");
    let others = service.other_grpc_services();
    let own = |name: &String| {
        name.starts_with("grpc.") || service.grpc_service() == Some(name) || others.contains(&name.as_str())
    };
    assert!(reflected.iter().all(own), "it describes what it does not serve: {reflected:?}");
    if let Some(name) = service.grpc_service() {
        assert!(reflected.iter().any(|n| n == name), "{name} is not among {reflected:?}");
        becomes_serving(&stack, service, name).await;
    }
    for other in others {
        assert!(reflected.iter().any(|name| name == other), "{other} is not among {reflected:?}");
    }
    assert!(health(&stack, service, "no.such.Service").await.is_err(), "health of an unknown service is an error");

    let (status, took) = stack.stop(service);
    assert_eq!(status.code(), Some(0), "after SIGTERM it ended with {status}");
    assert!(took < DRAINED_WITHIN, "draining took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collector_is_healthy_describes_itself_and_drains_when_told() {
    keeps_its_promises_to_the_operator(Service::Collector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cleaner_is_healthy_describes_itself_and_drains_when_told() {
    keeps_its_promises_to_the_operator(Service::Cleaner).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feature_store_is_healthy_describes_itself_and_drains_when_told() {
    keeps_its_promises_to_the_operator(Service::FeatureStore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trainer_is_healthy_describes_itself_and_drains_when_told() {
    keeps_its_promises_to_the_operator(Service::Trainer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scorer_is_healthy_describes_itself_and_drains_when_told() {
    keeps_its_promises_to_the_operator(Service::Scorer).await;
}

#[test]
fn a_wrong_setting_ends_every_service_with_code_64_and_names_the_setting() {
    for service in Service::ALL {
        for (name, value) in [("RAPPORT_GRPC_ADDR", "nowhere"), ("RAPPORT_ADMIN_ADDR", "127.0.0.1:high")] {
            let output = Command::new(service.program()).env(name, value).stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(64), "{} with {name}={value}: {said}", service.name());
            assert!(said.contains(value), "{} does not show the wrong value {value}: {said}", service.name());
        }
    }
}

#[test]
fn every_service_explains_its_settings() {
    for service in Service::ALL {
        let output = Command::new(service.program()).arg("--help").stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}: {said}", service.name());
        for setting in ["RAPPORT_GRPC_ADDR", "RAPPORT_ADMIN_ADDR", "RAPPORT_KAFKA_BROKERS"] {
            assert!(said.contains(setting), "{} --help does not name {setting}", service.name());
        }
    }
}
