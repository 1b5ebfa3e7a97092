//! Sockets, connections, and their end.
//!
//! The end has two parts. First the live responses end, spread over the drain window, while everything else is served
//! as ever and readiness says no. Then nothing more is accepted, idle connections close, requests that are being served
//! may finish for a moment, and what is left is cut off. So it takes the window and that moment at most.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    config::{Config, GRACE, HURRIED_GRACE},
    drain::Drain,
    location::LocalAddress,
    metrics::Alive,
    routes::router,
    stall::Unstalled,
};

/// How long to wait before a listener that failed, for want of file descriptors as a rule, is tried again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How many requests an HTTP/2 connection may have open at once. All readers of a proxy may share one connection.
const MAX_HTTP2_STREAMS: u32 = 1000;
/// How often an HTTP/2 connection is asked whether it is still there.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub struct Server {
    drain: Drain,
    /// Ends the accepting and, gracefully, the connections.
    close: CancellationToken,
    /// Cuts off what is left.
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All requests were answered.
    Clean,
    /// Some were cut off.
    Cut,
}

/// What the tasks of a server share.
#[derive(Clone)]
struct Acceptor {
    app: App,
    builder: Arc<Builder<TokioExecutor>>,
    slots: Arc<Semaphore>,
    close: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Serves `app` at these listeners.
    #[must_use]
    pub fn start(app: &App, listeners: Vec<TcpListener>) -> Self {
        let (close, cut, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let acceptor = Acceptor {
            app: app.clone(),
            builder: Arc::new(builder(&app.config)),
            slots: Arc::new(Semaphore::new(app.config.max_connections.min(Semaphore::MAX_PERMITS))),
            close: close.clone(),
            cut: cut.clone(),
            tasks: tasks.clone(),
        };
        for listener in listeners {
            tasks.spawn(acceptor.clone().accept(listener));
        }
        Self { drain: app.drain().clone(), close, cut, tasks }
    }

    /// Ends within the drain window and a moment; a blink after `hurry` is cancelled, which is for last words.
    pub async fn shut_down(self, hurry: CancellationToken) -> Ended {
        self.drain.begin();
        tokio::select! {
            () = self.drain.ended() => {}
            () = hurry.cancelled() => self.drain.hurry(),
        }
        self.close.cancel();
        self.tasks.close();
        tokio::select! {
            finished = timeout(GRACE, self.tasks.wait()) => if finished.is_ok() { return Ended::Clean },
            () = async { hurry.cancelled().await; sleep(HURRIED_GRACE).await } => {}
        }
        self.cut.cancel();
        self.tasks.wait().await;
        Ended::Cut
    }
}

impl Acceptor {
    async fn accept(self, listener: TcpListener) {
        let Ok(local) = listener.local_addr() else { return };
        let router = router(self.app.clone()).layer(Extension(LocalAddress(local)));
        loop {
            // Full: the kernel's queue holds further connections until one has ended.
            let slot = tokio::select! {
                biased;
                () = self.close.cancelled() => return,
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
            };
            let accepted = tokio::select! {
                biased;
                () = self.close.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = self.clone().serve(stream, peer, router.clone());
                    self.tasks.spawn(async move {
                        let _slot = slot;
                        connection.await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, %local, "a connection was not accepted");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr, router: Router) {
        let _alive = Alive::new(&self.app.metrics.connections);
        // Events are small and must not wait for each other.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let io = TokioIo::new(Unstalled::new(stream, self.app.config.write_timeout));
        let connection = self.builder.serve_connection(io, TowerToHyperService::new(router));
        let mut connection = pin!(connection);
        let served = tokio::select! {
            biased;
            () = self.cut.cancelled() => return,
            served = connection.as_mut() => served,
            () = self.close.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    () = self.cut.cancelled() => return,
                    served = connection => served,
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(error, %peer, "a connection ended");
        }
    }
}

fn builder(config: &Config) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(config.write_timeout);
    builder
}
