//! Bodies that are refused before they have come: who is still sending hears nothing on a connection that is
//! closed at once, and takes the refusal for an outage.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    http::header::EXPECT,
    middleware::Next,
    response::Response,
};
use futures::{Stream, StreamExt as _};

/// What is read and dropped of a body that nobody wants.
const DROPPED_BYTES: usize = 16 << 20;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Slot = Arc<Mutex<Option<BodyDataStream>>>;

/// A body that is put back when it is dropped before its end.
struct Lent {
    body: Option<BodyDataStream>,
    slot: Slot,
}

impl Stream for Lent {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(context);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.body = None;
        }
        polled
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

/// A layer for an HTTP door (`axum::middleware::from_fn`): what a handler leaves of a body is read, up to 16 MiB and for
/// 5 s, before its answer goes out. A caller that waits to be told whether to send (`Expect`) has sent nothing.
pub async fn read_to_the_end(request: Request, next: Next) -> Response {
    if request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let slot = Slot::default();
    let lend = |body: Body| Body::from_stream(Lent { body: Some(body.into_data_stream()), slot: Arc::clone(&slot) });
    let response = next.run(request.map(lend)).await;
    let left = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut left) = left {
        let read = async {
            let mut bytes = 0;
            while let Some(Ok(chunk)) = left.next().await {
                bytes += chunk.len();
                if bytes > DROPPED_BYTES {
                    break;
                }
            }
        };
        // Late or not, the answer goes out now.
        drop(tokio::time::timeout(PATIENCE, read).await);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
    };

    use axum::{Router, extract::DefaultBodyLimit, middleware::from_fn, routing::post};

    use super::*;

    /// Sends a body whole before it reads the answer, as many clients do.
    fn call(addr: SocketAddr, body: usize, limit: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "POST /{limit} HTTP/1.1\r\nhost: x\r\ncontent-length: {body}\r\nconnection: close\r\n\r\n")?;
        stream.write_all(&vec![b'x'; body])?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_sends_too_much_hears_the_refusal() {
        let router = Router::new()
            .route("/counted", post(async |body: Bytes| body.len().to_string()))
            .layer(DefaultBodyLimit::max(1 << 10))
            .layer(from_fn(read_to_the_end));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let answers = tokio::task::block_in_place(|| {
            [(900, "counted"), (12 << 20, "counted"), (12 << 20, "nowhere")].map(|(body, path)| call(addr, body, path))
        });
        let [taken, refused, nowhere] = answers.map(|answer| answer.expect("an answer is read"));
        assert!(taken.starts_with("HTTP/1.1 200") && taken.ends_with("900"), "{taken}");
        assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
        assert!(nowhere.starts_with("HTTP/1.1 404"), "{nowhere}");
        server.abort();
    }
}
