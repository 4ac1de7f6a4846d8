use std::{fs, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::{Reload, TlsArgs};

/// An authority of our own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
struct Identity {
    cert: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Identity { cert: params.signed_by(&key, &self.0).unwrap(), key }
    }

    fn server(&self) -> Identity {
        self.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self) -> Identity {
        self.issue("a client", ExtendedKeyUsagePurpose::ClientAuth)
    }
}

fn write(folder: &Path, identity: &Identity) {
    fs::write(folder.join("cert.pem"), identity.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), identity.key.serialize_pem()).unwrap();
}

fn args(folder: &Path, client_ca: Option<&Authority>) -> TlsArgs {
    let path = folder.join("ca.pem");
    let tls_client_ca = client_ca.map(|ca| {
        fs::write(&path, ca.0.pem()).unwrap();
        path
    });
    TlsArgs { tls_cert: Some(folder.join("cert.pem")), tls_key: Some(folder.join("key.pem")), tls_client_ca }
}

async fn listen(tls: &Tls) -> (Incoming, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (Incoming::new(listener, Some(tls.clone())), addr)
}

/// A client that trusts an authority, and shows a certificate if it has one.
fn connector(trusts: &Authority, shows: Option<&Identity>, protocol: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusts.0.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![CertificateDer::from(cert.der().to_vec())], key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

type Client = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects and exchanges a byte: a server that wants a certificate tells only after the handshake.
async fn connect(connector: &TlsConnector, addr: SocketAddr) -> io::Result<Client> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, TcpStream::connect(addr).await?).await?;
    stream.write_all(b"x").await?;
    stream.read_exact(&mut [0]).await?;
    Ok(stream)
}

/// Echoes on every connection that comes.
fn echo(mut incoming: Incoming) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = incoming.accept().await;
            connections.spawn(async move {
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    stream.write_all(&byte).await.unwrap();
                }
            });
        }
    })
}

fn serial_of(client: &Client) -> Vec<u8> {
    client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_new_certificate_is_used_without_dropping_the_connections_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let (old, new) = (authority.server(), authority.server());
    write(folder.path(), &old);
    let tls = Tls::load(&args(folder.path(), None)).unwrap().unwrap();
    let (incoming, addr) = listen(&tls).await;
    let server = echo(incoming);
    let connector = connector(&authority, None, "h2");
    let mut first = connect(&connector, addr).await.unwrap();
    assert_eq!(first.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(serial_of(&first), old.cert.der().to_vec());

    // Half of the new pair: the old one stays.
    fs::write(folder.path().join("cert.pem"), new.cert.pem()).unwrap();
    assert_eq!(tls.reload(), Reload::Failed);
    assert_eq!(serial_of(&connect(&connector, addr).await.unwrap()), old.cert.der().to_vec());
    write(folder.path(), &new);
    assert_eq!(tls.reload(), Reload::Reloaded);
    assert_eq!(tls.reload(), Reload::Unchanged);
    assert_eq!(serial_of(&connect(&connector, addr).await.unwrap()), new.cert.der().to_vec());
    first.write_all(b"y").await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"y", "the old connection goes on");
    server.abort();
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_are_let_in_when_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, of_clients) = (Authority::new("ours"), Authority::new("of clients"));
    write(folder.path(), &authority.server());
    let tls = Tls::load(&args(folder.path(), Some(&of_clients))).unwrap().unwrap();
    let (incoming, addr) = listen(&tls).await;
    let server = echo(incoming);
    assert!(connect(&connector(&authority, None, "h2"), addr).await.is_err(), "no certificate");
    let stranger = authority.client();
    assert!(connect(&connector(&authority, Some(&stranger), "h2"), addr).await.is_err(), "of another authority");
    let friend = of_clients.client();
    let welcome = connect(&connector(&authority, Some(&friend), "http/1.1"), addr).await.unwrap();
    assert_eq!(welcome.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    server.abort();
}

#[tokio::test]
async fn who_does_not_finish_its_handshake_is_dropped_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    write(folder.path(), &authority.server());
    let tls = Tls::load(&args(folder.path(), None)).unwrap().unwrap();
    let (mut incoming, addr) = listen(&tls).await;
    incoming.handshake_within = Duration::from_millis(300);
    let server = echo(incoming);
    let mut silent = TcpStream::connect(addr).await.unwrap();
    assert!(connect(&connector(&authority, None, "h2"), addr).await.is_ok());
    let ended = tokio::time::timeout(Duration::from_secs(10), silent.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "the silent connection is closed");
    let mut plain = TcpStream::connect(addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP is not served on a TLS port");
    server.abort();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let load = |args: &TlsArgs| Tls::load(args).unwrap_err().to_string();
    let args = args(folder.path(), None);
    assert!(load(&args).contains("cert.pem"), "{}", load(&args));
    let authority = Authority::new("ours");
    write(folder.path(), &authority.server());
    fs::write(folder.path().join("key.pem"), "nothing").unwrap();
    assert!(load(&args).contains("key.pem: is not the PEM file"), "{}", load(&args));
    fs::write(folder.path().join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(load(&args).contains("cannot be used together"), "{}", load(&args));
    assert!(load(&TlsArgs { tls_key: None, ..args }).contains("must both be given"));
    assert!(Tls::load(&TlsArgs::default()).unwrap().is_none());
}
