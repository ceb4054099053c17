//! Connections: how many there may be, how long they may take to say what they want, how they end.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::life::{Life, Overdue, Stage};
use crate::budget::Budget;
use crate::log::Log;
use crate::phase::Phase;
use crate::refusal::Refusal;
use crate::tls::Tls;

/// Connections beyond the limit that are taken to say so, and for questions of health.
const SPARE: usize = 32;

/// What bounds connections.
#[derive(Clone)]
pub struct Listen {
    /// How many may be open, of all listeners together.
    pub connections: Arc<Semaphore>,
    /// How long a head, or a handshake, may take to come.
    pub header_timeout: Duration,
    /// How long a connection may be silent between requests, and an answer not be taken.
    pub idle: Duration,
    /// TLS, if it is spoken.
    pub tls: Option<Arc<Tls>>,
    /// The memory of all requests.
    pub budget: Arc<Budget>,
    /// Where it is said that something is wrong.
    pub log: Log,
}

/// What is at the addresses of a listener.
#[derive(Clone)]
pub struct Routers {
    /// All there is.
    pub all: Router,
    /// What is there for a connection beyond the limit: health alone.
    pub full: Router,
    /// A refusal in the words of its protocol.
    pub refuse: Arc<dyn Fn(&Refusal) -> Response + Send + Sync>,
}

/// Take connections until the server is draining, then wait for those that are open.
pub async fn accept(
    listener: TcpListener,
    routers: Routers,
    listen: Listen,
    mut phase: watch::Receiver<Phase>,
) {
    let spare = Arc::new(Semaphore::new(SPARE));
    let mut open = JoinSet::new();
    loop {
        // What has ended is let go.
        while open.try_join_next().is_some() {}
        let draining = phase.wait_for(|phase| *phase == Phase::Draining);
        let next = async {
            let place = tokio::select! {
                biased;
                permit = Arc::clone(&listen.connections).acquire_owned() => (permit, false),
                permit = Arc::clone(&spare).acquire_owned() => (permit, true),
            };
            (listener.accept().await, place)
        };
        let (accepted, (mut permit, mut is_spare)) = tokio::select! {
            _ = draining => break,
            next = next => next,
        };
        // One may have become free since.
        if is_spare && let Ok(free) = Arc::clone(&listen.connections).try_acquire_owned() {
            (permit, is_spare) = (Ok(free), false);
        }
        match accepted {
            Ok((stream, _)) => {
                let (listen, phase) = (listen.clone(), phase.clone());
                let router = if is_spare { &routers.full } else { &routers.all }.clone();
                let (budget, refuse) = (Arc::clone(&listen.budget), Arc::clone(&routers.refuse));
                let answers = Answers { router, budget, refuse };
                open.spawn(async move {
                    let _permit = permit;
                    let most = listen.header_timeout;
                    let connection = connection(stream, answers, listen, phase);
                    match is_spare {
                        false => connection.await,
                        // Longer than a head takes it is not kept.
                        true => drop(timeout(most, connection).await),
                    }
                });
            }
            // The client has gone already.
            Err(error) if is_of_client(&error) => {}
            // No files, no memory: others end, and then there are some again.
            Err(error) => {
                listen.log.warn(&format!("no connection could be taken: {error}"));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    answers: Answers,
    listen: Listen,
    phase: watch::Receiver<Phase>,
) {
    // Answers are small, and should not wait for others.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &listen.tls else {
        return serve(stream, answers, listen, phase).await;
    };
    let shaking = TlsAcceptor::from(tls.current()).accept(stream);
    if let Ok(Ok(stream)) = timeout(listen.header_timeout, shaking).await {
        serve(stream, answers, listen, phase).await;
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answers: Answers,
    listen: Listen,
    mut phase: watch::Receiver<Phase>,
) {
    let life = Arc::new(Life::new(listen.idle));
    let stream = Patient::new(stream, &listen, Arc::clone(&life));
    let mut builder = Builder::new(TokioExecutor::new());
    // The time of a head is taken by `Patient`: hyper's begins with the silence before it, so that
    // it would end connections that clients keep.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(32 << 10)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(16 << 10)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .max_frame_size(64 << 10)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .keep_alive_interval(listen.idle)
        .keep_alive_timeout(listen.header_timeout);
    let router = answers.router.clone().layer(from_fn_with_state(Arc::clone(&life), follow));
    let service = service_fn(|request| answer(&answers, router.clone(), request));
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    // When a connection is let go whose client did not end it, and whether it ends anyway.
    let (mut let_go, mut is_ending) = (None, false);
    loop {
        let draining = async { drop(phase.wait_for(|phase| *phase == Phase::Draining).await) };
        let look = let_go.unwrap_or_else(|| life.next_look(Instant::now()));
        tokio::select! {
            _ = served.as_mut() => return,
            () = draining, if !is_ending => {
                is_ending = true;
                served.as_mut().graceful_shutdown();
            }
            () = sleep_until(look) => match life.overdue(Instant::now()) {
                None => let_go = None,
                Some(Overdue::Request) if let_go.is_none() => {
                    served.as_mut().graceful_shutdown();
                    let_go = Some(Instant::now() + listen.header_timeout);
                }
                // What it does not take is let go with it.
                Some(_) => return,
            },
        }
    }
}

/// What answers the requests of a connection.
struct Answers {
    router: Router,
    budget: Arc<Budget>,
    refuse: Arc<dyn Fn(&Refusal) -> Response + Send + Sync>,
}

/// Charge the head of a request before it waits for anything: hundreds may have come at once.
fn answer(
    answers: &Answers,
    router: Router,
    request: hyper::Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let mut charge = answers.budget.charge();
    let size = head_bytes(request.headers());
    let path = request.uri().path();
    let is_health = path.starts_with("/v2/health/") || path.starts_with("/grpc.health.");
    // Health is told whatever others hold.
    let charged = match charge.add(size) {
        Err(_) if is_health => Ok(()),
        charged => charged,
    };
    let answer = match charged {
        Ok(()) => Ok(TowerToHyperService::new(router).call(request)),
        Err(refused) => Err((answers.refuse)(&refused)),
    };
    async move {
        let _charge = charge;
        match answer {
            Ok(answer) => answer.await,
            Err(refusal) => Ok(refusal),
        }
    }
}

/// What the fields of a head hold while its request is answered: a few bytes on the wire can be one,
/// and there are two copies.
fn head_bytes(headers: &HeaderMap) -> usize {
    // An entry of the map, which grows by doubling, and its place in the index.
    const ENTRY: usize = 160;
    headers.iter().map(|(name, value)| 2 * (ENTRY + name.as_str().len() + value.len())).sum()
}

async fn follow(State(life): State<Arc<Life>>, request: Request, next: Next) -> Response {
    let open = life.begin();
    let answer = next.run(request).await;
    life.answers(answer, open)
}

/// A stream whose other side must send its heads in time, take what it is sent, and not be silent
/// for ever.
struct Patient<S> {
    stream: S,
    life: Arc<Life>,
    head: Duration,
    idle: Duration,
    /// When it will have been waited for too long.
    reading: Pin<Box<Sleep>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, listen: &Listen, life: Arc<Life>) -> Self {
        let (head, idle) = (listen.header_timeout, listen.idle);
        let reading = Box::pin(sleep(head));
        Patient { stream, life, head, idle, reading, writing: None }
    }

    /// Whether what is written has been waited for too long.
    fn waited(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let idle = self.idle;
        let sleeping = self.writing.get_or_insert_with(|| Box::pin(sleep(idle)));
        sleeping.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Bytes have come.
    fn came(&mut self, bytes: &[u8]) {
        self.life.spoke(bytes);
        match self.life.stage() {
            Stage::Idle => {
                self.life.set(Stage::Head);
                self.reading.as_mut().reset(Instant::now() + self.head);
            }
            // The whole head must come within its time, not the next byte of it.
            Stage::Head => {}
            _ => self.reading.as_mut().reset(Instant::now() + self.idle),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            // A body has its own time, and an answer is not hurried by the client's silence. Of
            // HTTP/2 the heads are not told apart here: what ends it is `Life`.
            Poll::Pending if !self.life.awaits_head() => Poll::Pending,
            Poll::Pending => match self.reading.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
            ready => {
                self.came(&buffer.filled()[before..]);
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.waited(context),
            ready => {
                self.writing = None;
                ready
            }
        }
    }

    // Else hyper would copy answers, and the copies would count nowhere.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, bytes) {
            Poll::Pending => self.waited(context),
            ready => {
                self.writing = None;
                ready
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.waited(context).map(|done| done.map(|_| ())),
            ready => {
                if self.life.stage() == Stage::Answer {
                    self.life.set(Stage::Idle);
                    let silent = Instant::now() + self.idle;
                    self.reading.as_mut().reset(silent);
                }
                ready
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending => self.waited(context).map(|done| done.map(|_| ())),
            ready => ready,
        }
    }
}
