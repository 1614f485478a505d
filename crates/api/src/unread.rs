//! What is left of a request's body when its answer is made.
//!
//! A connection serves another request only after all of the one before has been read (RFC 9112,
//! 9.3). An answer for which nobody had to read the body, such as that a path does not exist, would
//! end the connection without a word, and with it the request that the client sends next.
//!
//! A client that goes on sending more than is read here may find its connection reset before it has
//! seen the answer, as with most servers.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

/// More is not read for the sake of a connection.
const REST_BYTES_MAX: u64 = 64 << 10;
/// Nor is a client waited for any longer that has yet to send it.
const REST_TIME_MAX: Duration = Duration::from_secs(1);

/// Reads a short rest of the body, and says that the connection ends where it is longer.
pub(crate) async fn read_rest(request: Request, next: Next) -> Response {
    // Who asks first whether to send the body is told so by the answer.
    let is_waiting = request.headers().contains_key(header::EXPECT);
    let (giver, mut taker) = oneshot::channel();
    let request = request.map(|body| Body::new(Lent { body, giver: Some(giver) }));
    let mut response = next.run(request).await;
    if let Ok(rest) = taker.try_recv()
        && (is_waiting || !is_short(rest).await)
    {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the body ended before it became too much or too slow.
async fn is_short(rest: Body) -> bool {
    if rest.size_hint().lower() > REST_BYTES_MAX {
        return false;
    }
    let mut pieces = rest.into_data_stream();
    let reading = async {
        let mut bytes_left = REST_BYTES_MAX;
        while let Some(piece) = pieces.next().await {
            let fits = piece.ok().and_then(|piece| bytes_left.checked_sub(piece.len() as u64));
            let Some(left) = fits else { return false };
            bytes_left = left;
        }
        true
    };
    tokio::time::timeout(REST_TIME_MAX, reading).await.unwrap_or(false)
}

/// A body that is given back where it was not read to its end.
struct Lent {
    body: Body,
    /// None at the end.
    giver: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.giver = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(giver) = self.giver.take()
            && !self.body.is_end_stream()
        {
            // Nobody waits for it where the client has gone.
            let _ = giver.send(mem::take(&mut self.body));
        }
    }
}
