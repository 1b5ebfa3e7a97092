//! Accepts connections for a router, and ends them in bounded time.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Connections at a time; beyond, they wait in the system's queue. Each carries 90 requests of an S2 client.
const MAX_CONNECTIONS: usize = 4096;
/// Requests at a time on one connection. S2's clients stay below 100.
const MAX_REQUESTS: u32 = 256;
/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what is under way may go on after the stop. Read sessions never end by themselves and are cut off then.
const DRAIN: Duration = Duration::from_millis(500);
/// How long to wait when the system has no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then ends within a bounded time and leaves no connection behind.
pub(super) async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The stop first: a flood of connections must not keep a shutdown waiting. Each branch is cancel safe.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (socket, slot) = accept(&listener, &slots) => {
                connections.spawn(connection(socket, app.clone(), graceful.watcher(), slot));
            }
        }
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::debug!(connections = connections.len(), "cutting connections off");
    }
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((socket, _)) => return (socket, slot),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, app: Router, watcher: Watcher, slot: OwnedSemaphorePermit) {
    // Small frames wait for nothing: with Nagle's algorithm they wait 40 ms for the other side's delayed ack.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_REQUESTS);
    let served = builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(app)).into_owned();
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%error, "a connection failed");
    }
    drop(slot);
}
