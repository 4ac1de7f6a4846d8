//! Connections as they come, plain or TLS. A handshake does not hold up the ones behind it, and
//! none takes longer than its deadline.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::Tls;

/// After an error of the system (too many open files), before the next attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// A client on a slow line needs a second or two.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Handshakes at once; further connections wait in the system's queue. Each takes some tens of kilobytes.
const HANDSHAKES: usize = 512;

/// A listener that gives connections ready to be read.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    tls: Option<Tls>,
    handshakes: JoinSet<io::Result<(Stream, SocketAddr)>>,
    handshake_within: Duration,
}

impl Incoming {
    pub fn new(listener: TcpListener, tls: Option<Tls>) -> Self {
        Self { listener, tls, handshakes: JoinSet::new(), handshake_within: HANDSHAKE_WITHIN }
    }

    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. Cancelling loses none.
    pub async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            let room = self.handshakes.len() < HANDSHAKES;
            let came = tokio::select! {
                done = self.handshakes.join_next(), if !self.handshakes.is_empty() => match done {
                    Some(Ok(done)) => done.map(Some),
                    Some(Err(error)) => Err(io::Error::other(error)),
                    None => Ok(None),
                },
                accepted = self.listener.accept(), if room => accepted.and_then(|(stream, peer)| {
                    // Nagle's algorithm and delayed acknowledgements cost 40 ms a call.
                    stream.set_nodelay(true)?;
                    Ok(self.begin(stream, peer))
                }),
            };
            match came {
                Ok(Some(connection)) => return connection,
                Ok(None) => {}
                Err(error) if is_the_clients(&error) => tracing::debug!(%error, "a connection broke as it came"),
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// A plain connection is ready; one with TLS begins its handshake.
    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<(Stream, SocketAddr)> {
        let Some(tls) = &self.tls else { return Some((Stream::Plain(stream), peer)) };
        let (acceptor, within) = (tls.acceptor(), self.handshake_within);
        self.handshakes.spawn(async move {
            let outcome = match tokio::time::timeout(within, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => return Ok((Stream::Tls(Box::new(stream)), peer)),
                Ok(Err(error)) => {
                    tracing::debug!(%error, %peer, "a TLS handshake failed");
                    "failed"
                }
                Err(_) => "timeout",
            };
            metrics::counter!("rapport_tls_refused_total", "reason" => outcome).increment(1);
            Err(io::ErrorKind::ConnectionAborted.into())
        });
        None
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected)
}

/// A connection, plain or with TLS.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Stream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Self::Plain(stream) => stream.connect_info(),
            Self::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
