//! What a connection is doing: the requests that are being answered, the answers that its client has
//! not taken. Bytes alone are no sign of life: HTTP/2 has frames that ask for nothing.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

/// The slowest rate at which an answer may be taken, in bytes a second, after the time that any may
/// take.
const SLOWEST: u64 = 64 << 10;

/// Where a connection of HTTP/1 stands with its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// A head is awaited, or has begun to come.
    Head = 0,
    /// A request is being answered.
    Request = 1,
    /// Its answer is being sent.
    Answer = 2,
    /// Nothing has come since.
    Idle = 3,
}

/// What a client keeps a connection waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// An answer is not taken.
    Answer,
    /// Nothing is asked.
    Request,
}

/// What a connection is doing.
pub struct Life {
    stage: AtomicU8,
    idle: Duration,
    doing: Mutex<Doing>,
}

struct Doing {
    /// Requests that are being answered.
    requests: usize,
    /// Answers that are not taken, each with when it must be.
    answers: BTreeMap<u64, Instant>,
    /// How many there were.
    count: u64,
    /// When the last request or answer ended.
    since: Instant,
    is_http2: Option<bool>,
}

impl Life {
    /// Of a connection that has just been opened.
    pub fn new(idle: Duration) -> Self {
        let (answers, since) = (BTreeMap::new(), Instant::now());
        let doing = Doing { requests: 0, answers, count: 0, since, is_http2: None };
        Life { stage: AtomicU8::new(Stage::Head as u8), idle, doing: Mutex::new(doing) }
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it stands with its request.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Head,
            1 => Stage::Request,
            2 => Stage::Answer,
            _ => Stage::Idle,
        }
    }

    /// It stands there now.
    pub fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Bytes have come; the first say which protocol it is.
    pub fn spoke(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.doing().is_http2.get_or_insert_with(|| bytes.starts_with(b"PRI"));
        }
    }

    /// Whether the head of a request must come now.
    pub fn awaits_head(&self) -> bool {
        let is_http2 = self.doing().is_http2 == Some(true);
        !is_http2 && matches!(self.stage(), Stage::Head | Stage::Idle)
    }

    /// A request has begun.
    pub fn begin(self: &Arc<Self>) -> Open {
        self.set(Stage::Request);
        self.doing().requests += 1;
        Open(Arc::clone(self))
    }

    /// It is answered: what is sent counts until it is taken.
    pub fn answers(self: &Arc<Self>, answer: Response, open: Open) -> Response {
        self.set(Stage::Answer);
        let size = answer.body().size_hint().exact().unwrap_or(0);
        let mut doing = self.doing();
        let number = doing.count;
        doing.count += 1;
        let time = self.idle + Duration::from_secs(size / SLOWEST);
        doing.answers.insert(number, Instant::now() + time);
        drop(doing);
        let owed = Arc::new(Owed { life: Arc::clone(self), number });
        drop(open);
        answer.map(|body| Body::new(Sent { body, owed }))
    }

    /// When something may be overdue.
    pub fn next_look(&self, now: Instant) -> Instant {
        let doing = self.doing();
        let quiet = (doing.requests == 0 && doing.answers.is_empty()).then_some(doing.since);
        let quiet = quiet.map(|since| since + self.idle);
        let next = doing.answers.values().copied().chain(quiet).min();
        // Nothing that begins meanwhile is due before that.
        let latest = now + self.idle;
        next.map_or(latest, |next| next.min(latest)).max(now + Duration::from_millis(10))
    }

    /// What has been waited for too long.
    pub fn overdue(&self, now: Instant) -> Option<Overdue> {
        let doing = self.doing();
        if doing.answers.values().any(|until| *until <= now) {
            return Some(Overdue::Answer);
        }
        // Of HTTP/1 the head has a time of its own.
        let quiet = doing.requests == 0 && doing.answers.is_empty();
        let is_long = doing.since + self.idle <= now;
        (doing.is_http2 == Some(true) && quiet && is_long).then_some(Overdue::Request)
    }
}

/// A request that is being answered, until this is dropped.
pub struct Open(Arc<Life>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut doing = self.0.doing();
        doing.requests -= 1;
        doing.since = Instant::now();
    }
}

/// An answer that is not taken yet.
struct Owed {
    life: Arc<Life>,
    number: u64,
}

impl Drop for Owed {
    fn drop(&mut self) {
        let mut doing = self.life.doing();
        doing.answers.remove(&self.number);
        doing.since = Instant::now();
    }
}

/// Bytes that wait in a connection.
struct Waiting {
    bytes: Bytes,
    _owed: Arc<Owed>,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of an answer whose bytes count until the connection has sent them.
struct Sent {
    body: Body,
    owed: Arc<Owed>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let owed = &self.owed;
        let wait = |bytes| Bytes::from_owner(Waiting { bytes, _owed: Arc::clone(owed) });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(wait))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[test]
    fn a_client_that_asks_for_nothing() {
        let life = Arc::new(Life::new(IDLE));
        life.spoke(b"PRI * HTTP/2.0");
        life.spoke(b"a ping");
        let now = Instant::now();
        assert_eq!(life.overdue(now + IDLE / 2), None);
        assert_eq!(life.overdue(now + IDLE), Some(Overdue::Request));
        let open = life.begin();
        assert_eq!(life.overdue(now + 2 * IDLE), None);
        drop(open);
        assert!(life.next_look(now) >= now + IDLE / 2);
        assert_eq!(life.overdue(Instant::now() + IDLE), Some(Overdue::Request));
        // Of HTTP/1 the head has its own time.
        let life = Life::new(IDLE);
        life.spoke(b"GET / HTTP/1.1");
        assert!(life.overdue(now + 2 * IDLE).is_none() && life.awaits_head());
    }

    /// An answer counts until its last bytes are let go, wherever they wait.
    #[tokio::test]
    async fn a_client_that_takes_no_answer() {
        let life = Arc::new(Life::new(IDLE));
        let answer = |size: usize| Response::new(Body::from(vec![0u8; size]));
        let mut small = life.answers(answer(10), life.begin()).into_body();
        let large = life.answers(answer(10 * SLOWEST as usize), life.begin());
        let bytes = small.frame().await.unwrap().unwrap().into_data().unwrap();
        drop(small);
        let later = Instant::now() + IDLE;
        assert_eq!(life.overdue(later), Some(Overdue::Answer));
        drop(bytes);
        assert_eq!(life.overdue(later), None);
        assert_eq!(life.overdue(later + Duration::from_secs(10)), Some(Overdue::Answer));
        drop(large);
        assert_eq!(life.overdue(later + IDLE / 2), None);
    }
}
