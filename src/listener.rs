//! One port for everything: tells HTTP/1.1 from HTTP/2 and TLS from clear text by a connection's first bytes.
//!
//! actix accepts connections and spreads them over its workers. Each worker's service looks at the connection: what
//! speaks HTTP/1.1 goes on to actix-web, what speaks HTTP/2 to hyper, both in the same worker. So the limits of
//! connections, and the way to stop, are the same for both.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_server::{GracefulShutdownSignal, Server, ServerHandle};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_factory, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use futures_util::future::LocalBoxFuture;
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::parse_x509_certificate;

use crate::limits::ConnectionLimit;
use crate::metrics::Metrics;

mod http2;
mod pulse;
mod tls;

pub use http2::Http2;
pub use pulse::Pulse;
use tls::HTTP_2;
pub use tls::{Protocols, TlsCertificate, TlsError, TlsFiles};

/// Connections that wait to be accepted, above which the kernel lets clients try again.
const BACKLOG: i32 = 2048;
/// Time for the first bytes that tell the protocol, for a TLS handshake, and for a request's head.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a request on a connection that is not new, from the first octet of its head to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The first octets of an HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the first record of TLS is (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// What those are told who speak HTTP where TLS is spoken.
const TLS_REQUIRED: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 32\r\n\
    Connection: close\r\n\r\nthis port speaks TLS; use https\n";
/// An empty SETTINGS frame, then GOAWAY with error HTTP_1_1_REQUIRED (RFC 9113, sections 6.5, 6.8 and 7).
const HTTP_1_1_REQUIRED: &[u8] = &[
    0, 0, 0, 0x4, 0, 0, 0, 0, 0, //
    0, 0, 8, 0x7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xd,
];

/// Opens a listening socket. Port 0 takes a free one.
///
/// # Errors
/// When the address is in use or not ours.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How a listener serves.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// TLS for every connection; clear text without.
    pub tls: Option<Arc<ServerConfig>>,
    /// What answers over HTTP/2. Without it, those who speak it are told to use HTTP/1.1.
    pub http2: Option<Http2>,
    /// Threads that serve.
    pub workers: usize,
    /// The most connections at a time. Beyond it nothing is accepted until one ends: the kernel lets clients wait, and no
    /// descriptor is taken from the log.
    pub max_connections: usize,
    /// The most connections of one address.
    pub by_address: Arc<ConnectionLimit>,
    /// TLS handshakes are counted here.
    pub metrics: Option<Arc<Metrics>>,
    /// How long a connection is kept for its next request.
    pub idle_timeout: Duration,
    /// How long a stop waits for requests that have begun.
    pub shutdown_grace: Duration,
}

/// A server that runs once it is awaited, and the handle that stops it.
pub struct Listener {
    /// To be awaited.
    pub server: Server,
    /// To stop it.
    pub handle: ServerHandle,
    /// To find out whether its threads work.
    pub pulse: Pulse,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// Serves an actix-web application on a listening socket. Must be called inside an actix system.
///
/// # Errors
/// When the socket cannot be handed to the workers.
pub fn serve<F, I, S, B>(
    name: &str,
    socket: std::net::TcpListener,
    config: &ListenerConfig,
    application: F,
) -> io::Result<Listener>
where
    F: Fn() -> I + Clone + Send + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let builder = Server::build()
        .workers(config.workers)
        .max_concurrent_connections(config.max_connections.div_ceil(config.workers.max(1)))
        .disable_signals()
        .shutdown_timeout(config.shutdown_grace.as_secs());
    let stopping = builder.graceful_shutdown_signal();
    let pulse = Pulse::default();
    let beating = pulse.clone();
    let (config, idle_timeout) = (config.clone(), config.idle_timeout);
    let server = builder
        .listen(name, socket, move || {
            beating.add_this_thread();
            let application = application()
                .into_factory()
                .map_err(|error| error.into().error_response());
            let signal = stopping.clone();
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let signal = signal.clone();
                    async move { signal.notified().await }
                })
                .keep_alive(KeepAlive::Timeout(idle_timeout))
                .client_request_timeout(FIRST_BYTES_TIMEOUT)
                .on_connect_ext(|connection: &Connection, extensions| {
                    if let Some(certificate) = connection.client_certificate() {
                        extensions.insert(certificate);
                    }
                })
                .finish(map_config(application, |()| AppConfig::default()));
            let (config, stopping) = (Rc::new(config.clone()), stopping.clone());
            fn_factory(move || {
                let http = http.new_service(());
                let (config, stopping) = (Rc::clone(&config), stopping.clone());
                async move {
                    Ok::<_, ()>(Mux {
                        http: Rc::new(http.await?),
                        config,
                        stopping,
                    })
                }
            })
        })?
        .run();
    Ok(Listener {
        handle: server.handle(),
        server,
        pulse,
    })
}

/// The service of one worker for one listener: decides what a connection speaks.
struct Mux<H> {
    http: Rc<H>,
    config: Rc<ListenerConfig>,
    stopping: GracefulShutdownSignal,
}

impl<H> Service<TcpStream> for Mux<H>
where
    H: Service<(Connection, Protocol, Option<SocketAddr>), Response = ()> + 'static,
    H::Error: fmt::Debug,
{
    type Response = ();
    type Error = ();
    type Future = LocalBoxFuture<'static, Result<(), ()>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        self.http.poll_ready(context).map_err(drop)
    }

    fn call(&self, io: TcpStream) -> Self::Future {
        let (http, config) = (Rc::clone(&self.http), Rc::clone(&self.config));
        let stopping = self.stopping.clone();
        Box::pin(async move {
            let peer = io.peer_addr().ok();
            // A connection that has no peer any more is at its end.
            let Some(_open) = peer.and_then(|peer| config.by_address.open(peer.ip())) else {
                tracing::debug!(
                    event = "connection_refused",
                    ?peer,
                    "connection closed: its address has as many as it may have"
                );
                return Ok(());
            };
            // Answers are small; waiting to fill a packet only delays them. A socket that refuses the option still works.
            let _ = io.set_nodelay(true);
            let opening = timeout(FIRST_BYTES_TIMEOUT, open(io, config.tls.clone()));
            let opened = tokio::select! {
                opened = opening => opened,
                () = stopping.notified() => return Ok(()),
            };
            if let (Some(metrics), true) = (&config.metrics, config.tls.is_some()) {
                metrics.tls_handshake(match &opened {
                    Ok(Ok(Opened::Http1(_) | Opened::Http2(_))) => "ok",
                    Ok(Ok(Opened::Closed) | Err(_)) => "failed",
                    Err(_) => "timeout",
                });
            }
            match opened {
                Ok(Ok(Opened::Http1(stream))) => {
                    let connection = Connection::new(stream, config.idle_timeout + REQUEST_TIMEOUT);
                    // The connection's own errors are its client's; requests have been accounted for.
                    let _ = http.call((connection, Protocol::Http1, peer)).await;
                }
                Ok(Ok(Opened::Http2(stream))) => match &config.http2 {
                    Some(http2) => {
                        http2
                            .serve(stream, peer, config.idle_timeout, &stopping)
                            .await
                    }
                    None => refuse_http2(stream).await,
                },
                Ok(Ok(Opened::Closed)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(event = "connection_failed", ?peer, %error, "connection closed before a request");
                }
                Err(_) => {
                    tracing::debug!(
                        event = "connection_idle",
                        ?peer,
                        "connection closed: no first bytes in time"
                    );
                }
            }
            Ok(())
        })
    }
}

/// What a connection speaks.
enum Opened {
    Http1(Stream),
    Http2(Stream),
    /// It has ended.
    Closed,
}

/// Reads as much of a connection as tells its protocol.
async fn open(io: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Opened> {
    let Some(tls) = tls else {
        return open_clear(io).await;
    };
    let mut first = [0];
    if io.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
        refuse_clear(io).await?;
        return Ok(Opened::Closed);
    }
    let stream = TlsAcceptor::from(tls).accept(io).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
    let stream = Stream::Tls(Box::new(stream));
    Ok(if is_http2 {
        Opened::Http2(stream)
    } else {
        Opened::Http1(stream)
    })
}

async fn open_clear(mut io: TcpStream) -> io::Result<Opened> {
    let mut head = [0; PREFACE.len()];
    let mut end = 0;
    loop {
        let read = io.read(head.get_mut(end..).unwrap_or_default()).await?;
        if read == 0 {
            return Ok(Opened::Closed);
        }
        end += read;
        let seen = head.get(..end).unwrap_or_default();
        let is_http2 = seen == PREFACE;
        if is_http2 || !PREFACE.starts_with(seen) {
            let stream = Stream::Clear(Rewind {
                head,
                start: 0,
                end,
                io,
            });
            return Ok(if is_http2 {
                Opened::Http2(stream)
            } else {
                Opened::Http1(stream)
            });
        }
    }
}

/// Tells a client that TLS is spoken here. Whatever it sends is read: what is left unread takes the answer with it.
async fn refuse_clear(mut io: TcpStream) -> io::Result<()> {
    io.write_all(TLS_REQUIRED).await?;
    io.shutdown().await?;
    let mut octets = [0; 1024];
    while io.read(&mut octets).await? > 0 {}
    Ok(())
}

/// Tells a client that HTTP/2 is not spoken here.
async fn refuse_http2(mut stream: Stream) {
    // One that does not read it finds out by the end of the connection.
    let _ = stream.write_all(HTTP_1_1_REQUIRED).await;
    let _ = stream.shutdown().await;
}

/// A connection that speaks HTTP/1.1, and ends when nothing has been answered on it for too long.
///
/// actix limits the time of a connection's first head, and the pause between two requests; half a head after the first
/// request, or a client that stops reading, would hold the connection for ever.
struct Connection {
    stream: Stream,
    silence: Duration,
    answered: Instant,
    check: Pin<Box<Sleep>>,
}

/// The certificate that a client has shown, among the data of its connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    /// Its subject, such as `CN=ada`; where that is empty, its first name, such as `DNSName(ada.example.com)`.
    pub subject: String,
}

impl Connection {
    fn client_certificate(&self) -> Option<ClientCertificate> {
        let Stream::Tls(stream) = &self.stream else {
            return None;
        };
        let leaf = stream.get_ref().1.peer_certificates()?.first()?;
        let (_, leaf) = parse_x509_certificate(leaf).ok()?;
        let mut subject = leaf.subject().to_string();
        if subject.is_empty()
            && let Ok(Some(names)) = leaf.subject_alternative_name()
            && let Some(name) = names.value.general_names.first()
        {
            subject = name.to_string();
        }
        Some(ClientCertificate { subject })
    }

    fn new(stream: Stream, silence: Duration) -> Self {
        Self {
            stream,
            silence,
            answered: Instant::now(),
            check: Box::pin(sleep(silence)),
        }
    }

    /// Fails once the silence has lasted too long; until then, `context` is woken to look again.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.check.as_mut().poll(context).is_ready() {
            let end = self.answered + self.silence;
            if end <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.check.as_mut().reset(end);
        }
        Poll::Pending
    }

    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.answered = Instant::now();
        }
        written
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Pending => this.poll_silence(context),
            read @ Poll::Ready(_) => read,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.note(written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What a connection's octets come through.
enum Stream {
    Clear(Rewind),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket whose first bytes were read already; it gives them out again before it reads on.
struct Rewind {
    head: [u8; PREFACE.len()],
    start: usize,
    end: usize,
    io: TcpStream,
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(clear) => {
                let kept = clear.head.get(clear.start..clear.end).unwrap_or_default();
                if kept.is_empty() {
                    return Pin::new(&mut clear.io).poll_read(context, buffer);
                }
                let taken = kept.len().min(buffer.remaining());
                buffer.put_slice(kept.get(..taken).unwrap_or_default());
                clear.start += taken;
                Poll::Ready(Ok(()))
            }
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(clear) => Pin::new(&mut clear.io).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(clear) => Pin::new(&mut clear.io).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(clear) => Pin::new(&mut clear.io).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(clear) => Pin::new(&mut clear.io).poll_write_vectored(context, parts),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Clear(clear) => clear.io.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
