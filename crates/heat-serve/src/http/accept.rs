//! Connections: how many there may be, how long they may take to say what they want, how they end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::log::Log;
use crate::phase::Phase;
use crate::tls::Tls;

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
    /// Where it is said that something is wrong.
    pub log: Log,
}

/// Take connections until the server is draining, then wait for those that are open.
pub async fn accept(
    listener: TcpListener,
    router: Router,
    listen: Listen,
    mut phase: watch::Receiver<Phase>,
) {
    let mut open = JoinSet::new();
    loop {
        // What has ended is let go.
        while open.try_join_next().is_some() {}
        let draining = phase.wait_for(|phase| *phase == Phase::Draining);
        let next = async {
            let permit = Arc::clone(&listen.connections).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            _ = draining => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, listen, phase) = (router.clone(), listen.clone(), phase.clone());
                open.spawn(async move {
                    let _permit = permit;
                    connection(stream, router, listen, phase).await;
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
    router: Router,
    listen: Listen,
    phase: watch::Receiver<Phase>,
) {
    // Answers are small, and should not wait for others.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &listen.tls else {
        return serve(stream, router, listen, phase).await;
    };
    let shaking = TlsAcceptor::from(tls.current()).accept(stream);
    if let Ok(Ok(stream)) = timeout(listen.header_timeout, shaking).await {
        serve(stream, router, listen, phase).await;
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    listen: Listen,
    mut phase: watch::Receiver<Phase>,
) {
    let stage = Arc::new(Stage::default());
    let stream = Patient::new(stream, &listen, Arc::clone(&stage));
    let mut builder = Builder::new(TokioExecutor::new());
    // The time of a head is taken by `Patient`: hyper's begins with the silence before it, so that
    // it would end connections that clients keep.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(64 << 10)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(32 << 10)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .max_frame_size(64 << 10)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .keep_alive_interval(listen.idle)
        .keep_alive_timeout(listen.header_timeout);
    let service = TowerToHyperService::new(router.layer(from_fn_with_state(stage, follow)));
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        _ = phase.wait_for(|phase| *phase == Phase::Draining) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

/// Where a connection stands with its request.
#[derive(Default)]
struct Stage(AtomicU8);

/// A head is awaited, or has begun to come.
const HEAD: u8 = 0;
/// A request is being answered.
const REQUEST: u8 = 1;
/// Its answer is being sent.
const ANSWER: u8 = 2;
/// Nothing has come since.
const IDLE: u8 = 3;

impl Stage {
    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }
}

async fn follow(State(stage): State<Arc<Stage>>, request: Request, next: Next) -> Response {
    stage.set(REQUEST);
    let answer = next.run(request).await;
    stage.set(ANSWER);
    answer
}

/// A stream whose other side must send its heads in time, take what it is sent, and not be silent
/// for ever.
struct Patient<S> {
    stream: S,
    stage: Arc<Stage>,
    /// HTTP/2, whose heads are not told apart here: silence alone ends it.
    is_http2: Option<bool>,
    head: Duration,
    idle: Duration,
    /// When it will have been waited for too long.
    reading: Pin<Box<Sleep>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, listen: &Listen, stage: Arc<Stage>) -> Self {
        let (head, idle) = (listen.header_timeout, listen.idle);
        let reading = Box::pin(sleep(head));
        Patient { stream, stage, is_http2: None, head, idle, reading, writing: None }
    }

    /// Whether what is written has been waited for too long.
    fn waited(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let idle = self.idle;
        let sleeping = self.writing.get_or_insert_with(|| Box::pin(sleep(idle)));
        sleeping.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Bytes have come.
    fn came(&mut self, bytes: &[u8]) {
        let is_http2 = *self.is_http2.get_or_insert_with(|| bytes.starts_with(b"PRI"));
        match self.stage.get() {
            IDLE if !is_http2 => {
                self.stage.set(HEAD);
                self.reading.as_mut().reset(Instant::now() + self.head);
            }
            // The whole head must come within its time, not the next byte of it.
            HEAD if !is_http2 => {}
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
            // A body has its own time, and an answer is not hurried by the client's silence.
            Poll::Pending if [REQUEST, ANSWER].contains(&self.stage.get()) => Poll::Pending,
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

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.waited(context).map(|done| done.map(|_| ())),
            ready => {
                if self.stage.get() == ANSWER {
                    self.stage.set(IDLE);
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
