//! What is noted of who called: the address and user agent of browsers and phones, as far as their
//! tenant's policy lets it, and never those of servers that report for their customers.

use axum::{
    body::Body,
    http::{Request, header},
};
use rapport_collector::doors::{House, http};
use rapport_events::Tenant;
use rapport_policy::{Policies, Policy};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{cluster, events, house, letters, properties, send};

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0";

fn track(path: &str, agent: &str) -> Request<Body> {
    let body = r#"{"writeKey": "k", "type": "track", "event": "view", "userId": "ann"}"#;
    Request::post(path).header(header::USER_AGENT, agent).body(Body::from(body)).unwrap()
}

fn context(event: &rapport_proto::events::Event) -> Json {
    properties(event)["context"].clone()
}

#[tokio::test]
async fn a_browsers_user_agent_is_noted_and_a_servers_is_not() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    for (path, agent) in
        [("/v1/t", "analytics-kotlin/1.2"), ("/v1/track", BROWSER), ("/v1/track", "analytics-python/2.3")]
    {
        assert_eq!(send(&house, track(path, agent)).await.0, 200);
    }
    let events = events(&cluster, 3);
    assert_eq!(context(&events[0]), json!({"userAgent": "analytics-kotlin/1.2"}), "a short path is a phone's");
    assert_eq!(context(&events[1]), json!({"userAgent": BROWSER}));
    assert_eq!(context(&events[2]), Json::Null);
}

#[tokio::test]
async fn a_wrong_event_of_a_page_is_kept_although_it_was_told() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let request = Request::post("/v1/t").body(Body::from(r#"{"writeKey": "k", "event": "view"}"#)).unwrap();
    assert_eq!(send(&house, request).await.0, 400);
    let letter = &letters(&cluster, 1)[0];
    let original: Json = serde_json::from_slice(&letter.original_value).unwrap();
    assert_eq!(
        original,
        json!({"event": "view", "type": "track"}),
        "as one call that the cleaner reads, without the key"
    );
}

/// Sends over a real connection: the doors then know where it comes from.
async fn over_the_wire(house: &House, addr: std::net::SocketAddr, forwarded: &str) {
    let body = r#"{"writeKey": "k", "type": "track", "event": "view", "userId": "ann"}"#;
    let request = format!(
        "POST /v1/t HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {forwarded}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!house.lifecycle.draining());
}

/// Serves the doors on a free port.
async fn serve(house: &House) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(http::serve_on(house.clone(), listener, None));
    addr
}

async fn noted(flags: &[&str], policy: Option<&str>) -> Json {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), flags);
    if let Some(yaml) = policy {
        let policy = Policy::from_yaml("acme", yaml).unwrap();
        let policies: Policies = [(Tenant::parse("acme").unwrap(), policy.into())].into_iter().collect();
        house.policies.store(policies.into());
    }
    let addr = serve(&house).await;
    over_the_wire(&house, addr, "198.51.100.77").await;
    house.lifecycle.drain();
    context(&events(&cluster, 1)[0])["ip"].clone()
}

#[tokio::test]
async fn the_address_is_the_peers_or_what_a_trusted_proxy_says_and_is_cut_as_the_policy_says() {
    assert_eq!(noted(&[], None).await, json!("127.0.0.0"), "by default only the network");
    assert_eq!(noted(&["--trusted-proxies", "127.0.0.1"], None).await, json!("198.51.100.0"));
    let keep = "version: 1\ncollect: { client_ip: keep }\n";
    assert_eq!(noted(&["--trusted-proxies", "127.0.0.0/8,10.0.0.0/8"], Some(keep)).await, json!("198.51.100.77"));
    let drop = "version: 1\ncollect: { client_ip: drop }\n";
    assert_eq!(noted(&["--trusted-proxies", "127.0.0.1"], Some(drop)).await, Json::Null);
}
