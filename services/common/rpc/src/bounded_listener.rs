//! Connections of an HTTP door: so many at once, and none that says nothing for ever.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

use crate::{Incoming, incoming::Stream};

/// Accepts at most `connections` at once; the next ones wait in the system's queue.
pub struct BoundedListener {
    incoming: Incoming,
    free: Arc<Semaphore>,
    idle: Duration,
}

impl BoundedListener {
    pub fn new(incoming: Incoming, connections: usize, idle: Duration) -> Self {
        Self { incoming, free: Arc::new(Semaphore::new(connections)), idle }
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let (stream, peer) = self.incoming.accept().await;
        (Connection::new(stream, permit.ok(), self.idle), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.incoming.local_addr()
    }
}

/// A connection that fails with `TimedOut` when nothing has moved on it for the idle time.
pub struct Connection {
    stream: Stream,
    /// Always there: nobody closes the semaphore.
    _permit: Option<OwnedSemaphorePermit>,
    idle: Duration,
    last: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: Stream, permit: Option<OwnedSemaphorePermit>, idle: Duration) -> Self {
        Self { stream, _permit: permit, idle, last: Instant::now(), alarm: Box::pin(tokio::time::sleep(idle)) }
    }

    /// Notes that something moved, or fails when nothing has for too long. The alarm is set anew only
    /// when it rings: moving it on every read would cost more than the read.
    fn watch<T>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.last = Instant::now();
            return moved;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let due = self.last + self.idle;
            if due <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch(cx, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed_and_its_place_is_free_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut bounded = BoundedListener::new(Incoming::new(listener, None), 1, Duration::from_millis(50));
        let addr = bounded.local_addr().unwrap();
        let mut first = TcpStream::connect(addr).await.unwrap();
        let (mut connection, _) = bounded.accept().await;
        first.write_all(b"hi").await.unwrap();
        let mut buffer = [0; 2];
        connection.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hi");
        assert_eq!(connection.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::TimedOut);

        let _second = TcpStream::connect(addr).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(50), bounded.accept()).await;
        assert!(waits.is_err(), "the only place is taken");
        drop(connection);
        bounded.accept().await;
    }
}
