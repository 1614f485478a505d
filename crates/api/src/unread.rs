//! Drains unread request bodies after the answer.
//!
//! A connection can serve another request only after the previous body was read (RFC 9112, 9.3). An
//! answer that needs no body, such as 404, would otherwise close the connection without notice and
//! lose the client's next request.
//!
//! A client that keeps sending more than the limit may see a connection reset before the answer, as
//! with most servers.

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

/// Maximum of drained bytes.
const REST_BYTES_MAX: u64 = 64 << 10;
/// Maximum time of draining.
const REST_TIME_MAX: Duration = Duration::from_secs(1);

/// Drains a short rest of the body. Announces the end of the connection when the rest is longer.
pub(crate) async fn read_rest(request: Request, next: Next) -> Response {
    // A client with `Expect` learns from the answer that the body is not needed.
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

/// Whether the body ends within the limits.
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

/// A body that is returned when it was not read completely.
struct Lent {
    body: Body,
    /// `None` after the end of the body.
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
            // The receiver is gone when the client has disconnected.
            let _ = giver.send(mem::take(&mut self.body));
        }
    }
}
