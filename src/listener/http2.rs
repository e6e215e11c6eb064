//! A connection that speaks HTTP/2, from its preface to its end.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_server::GracefulShutdownSignal;
use futures_util::future::LocalBoxFuture;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;

use super::Stream;

/// Requests that a connection may have at the same time.
const MAX_STREAMS: u32 = 100;
/// What a client may send of bodies before they are read, in octets: that of one request, and of a connection.
const WINDOW: u32 = (1 << 16) - 1;
/// The largest head of a request, in octets.
const MAX_HEAD: u32 = 48 << 10;
/// Requests that a client may take back before they were looked at; beyond it the connection ends.
const MAX_TAKEN_BACK: usize = 20;
/// Requests that a client may have us break off by its mistakes; beyond it the connection ends.
const MAX_BROKEN_OFF: usize = 64;
/// Requests that a client may take back while they are worked on, beyond those that it lets come to an answer.
const MAX_ABANDONED: u32 = 100;
/// The status of a call that the client took back, in the answer that nobody reads.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const CANCELLED: HeaderValue = HeaderValue::from_static("1");
/// Time for the answer to a ping, and for a connection to end that was asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// What answers the requests of a connection. Who holds a request's extensions keeps its connection from being closed as
/// one that is not used.
#[derive(Clone)]
pub struct Http2(Arc<Answer>);

type Answer = dyn Fn(Request<Incoming>, Option<IpAddr>) -> LocalBoxFuture<'static, Response<Body>>
    + Send
    + Sync;

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").finish_non_exhaustive()
    }
}

impl Http2 {
    /// Answers by a function, which is given a request and the address that it comes from.
    pub fn new(
        answer: impl Fn(Request<Incoming>, Option<IpAddr>) -> LocalBoxFuture<'static, Response<Body>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Arc::new(answer))
    }

    /// Serves a connection until it ends, is not used for `idle_timeout`, or the server stops.
    pub(super) async fn serve(
        &self,
        stream: Stream,
        peer: Option<SocketAddr>,
        idle_timeout: Duration,
        stopping: &GracefulShutdownSignal,
    ) {
        let usage = Rc::new(Usage::new());
        let service = service_fn(|mut request: Request<Incoming>| {
            let pending = Usage::begin(&usage);
            request.extensions_mut().insert(usage.hold.clone());
            let answer = (self.0)(request, peer.map(|peer| peer.ip()));
            async move {
                let response = answer.await;
                if response.headers().get(GRPC_STATUS) != Some(&CANCELLED) {
                    pending.answered();
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection =
            pin!(builder(idle_timeout).serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            // The connection's own errors are its client's; requests have been accounted for.
            _ = connection.as_mut() => return,
            // It makes work and wants no answers.
            () = usage.abused.notified() => return,
            () = usage.is_over(idle_timeout) => {}
            () = stopping.notified() => {}
        }
        // No further requests; those that have begun are answered, as long as the server waits for them.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = usage.is_over(PATIENCE) => {}
        }
    }
}

fn builder(idle_timeout: Duration) -> Builder<SameThread> {
    let mut builder = Builder::new(SameThread);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_pending_accept_reset_streams(MAX_TAKEN_BACK)
        .max_local_error_reset_streams(MAX_BROKEN_OFF)
        // A client that is not there any more is found out even while it has calls open.
        .keep_alive_interval(idle_timeout)
        .keep_alive_timeout(PATIENCE);
    builder
}

/// Runs what belongs to a connection where the connection is served.
#[derive(Clone, Copy)]
struct SameThread;

impl<F: Future + 'static> Executor<F> for SameThread {
    fn execute(&self, future: F) {
        actix_web::rt::spawn(async move {
            future.await;
        });
    }
}

/// What a connection is used for.
struct Usage {
    /// Requests whose answers have not begun.
    pending: Cell<u32>,
    /// When the last request began or was answered.
    last: Cell<Instant>,
    hold: Hold,
    answered: Cell<u32>,
    abandoned: Cell<u32>,
    abused: Notify,
}

/// Held by those whose answers go on.
#[derive(Clone)]
struct Hold(Arc<()>);

/// A request whose answer has not begun.
struct Pending {
    usage: Rc<Usage>,
    is_answered: bool,
}

impl Usage {
    fn new() -> Self {
        Self {
            pending: Cell::default(),
            last: Cell::new(Instant::now()),
            hold: Hold(Arc::default()),
            answered: Cell::default(),
            abandoned: Cell::default(),
            abused: Notify::new(),
        }
    }

    fn begin(self: &Rc<Self>) -> Pending {
        self.pending.set(self.pending.get() + 1);
        Pending {
            usage: Rc::clone(self),
            is_answered: false,
        }
    }

    fn is_used(&self) -> bool {
        self.pending.get() > 0 || Arc::strong_count(&self.hold.0) > 1
    }

    /// Ready once nothing has happened for some time.
    async fn is_over(&self, timeout: Duration) {
        loop {
            if self.is_used() {
                self.last.set(Instant::now());
            }
            let end = self.last.get() + timeout;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

impl Pending {
    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let usage = &self.usage;
        usage.pending.set(usage.pending.get() - 1);
        usage.last.set(Instant::now());
        let count = if self.is_answered {
            &usage.answered
        } else {
            &usage.abandoned
        };
        count.set(count.get().saturating_add(1));
        if usage.abandoned.get() > usage.answered.get().saturating_add(MAX_ABANDONED) {
            usage.abused.notify_one();
        }
    }
}
