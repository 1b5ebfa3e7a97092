//! Listeners, and the end of the server.
//!
//! Who cannot be let in is told so, by a bounded number of refusals at once; beyond those, connections wait in the kernel's
//! queue. Where the process may open no more files, descriptors that were kept for that are given up for as long as it
//! takes to refuse the connections (`reserve`): so nobody waits for an answer that cannot come, nor for a
//! peer that does not read its own, and the loop does not spin.
//!
//! The end has two parts. First readiness says no; a moment later the live responses begin to end, spread over what is left
//! of the drain window, while everything else is served as ever. Then nothing more is accepted, idle connections close, requests that are being served
//! may finish for a moment, and what is left is cut off. So it takes the window and that moment at most.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tailwater_fanout::Shards;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::Limit,
    app::App,
    config::{GRACE, HURRIED_GRACE},
    connection::Host,
    delivery::{self, Luggage},
    drain::Drain,
    guard::Auth,
    location::LocalAddress,
    reserve::Reserve,
    routes::router_of,
    surface::{Listeners, Surface},
};

/// How long to wait before a listener that failed is tried again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A running server.
#[derive(Debug)]
pub struct Server {
    drain: Drain,
    /// Ends the accepting and, gracefully, the connections.
    close: CancellationToken,
    /// Cuts off what is left.
    cut: CancellationToken,
    tasks: TaskTracker,
    crew: Crew,
}

/// Ends the delivery shards with the server: what they hold holds them.
#[derive(Debug)]
struct Crew(Option<Arc<Shards<Luggage>>>);

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All requests were answered.
    Clean,
    /// Some were cut off.
    Cut,
}

/// One listener.
struct Acceptor {
    host: Arc<Host>,
    listener: TcpListener,
    /// What is given up where there are no more descriptors.
    reserve: Reserve,
    /// Whether the last attempt to accept failed, which is logged once and not each time.
    fails: bool,
}

impl Server {
    /// Serves `app` at these listeners. The one for operations speaks TLS where the others do.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(app: &App, listeners: impl Into<Listeners>) -> io::Result<Self> {
        let Listeners { public, operations } = listeners.into();
        let (shards, departures) = delivery::start(app)?.unzip();
        let shards = shards.map(Arc::new);
        let (close, cut, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let scheme = if app.config.tls.is_some() { "https" } else { "http" };
        if let Some(tls) = app.config.tls.clone() {
            let close = close.clone();
            tasks.spawn(async move {
                // Nothing is lost half way: a pair is read in one piece.
                tokio::select! {
                    () = close.cancelled() => {}
                    () = tls.watch() => {}
                }
            });
        }
        if let Auth::Required(guard) = &app.config.auth {
            let (guard, issuers, close) = (guard.clone(), guard.issuers().clone(), close.clone());
            if let Some(shards) = shards.clone() {
                // From now on: nobody is there yet.
                let (changes, close) = (guard.changes(), close.clone());
                tasks.spawn(async move {
                    // Whoever is there when it closes ends with it.
                    tokio::select! {
                        () = close.cancelled() => {}
                        () = delivery::review(changes, shards) => {}
                    }
                });
            }
            tasks.spawn(async move {
                // Nothing is lost half way: files are read in one piece, and the register from the store.
                tokio::select! {
                    () = close.cancelled() => {}
                    () = guard.keep_up() => {}
                }
                issuers.end().await;
            });
        }
        let public = public.into_iter().map(|listener| (app.config.surface, listener));
        let operations = operations.into_iter().map(|listener| (Surface::Operations, listener));
        for (surface, listener) in public.chain(operations) {
            let Ok(address) = listener.local_addr() else { continue };
            let host = Host {
                app: app.clone(),
                router: router_of(app.clone(), surface),
                surface,
                local: LocalAddress { address, scheme },
                close: close.clone(),
                cut: cut.clone(),
                tasks: tasks.clone(),
                shards: shards.clone(),
            };
            tasks.spawn(Acceptor::new(host, listener).run());
        }
        if let Some(departures) = departures {
            tasks.spawn(delivery::see_off(departures));
        }
        Ok(Self { drain: app.drain().clone(), close, cut, tasks, crew: Crew(shards) })
    }

    /// Ends within the drain window and a moment; a blink after `hurry` is cancelled, which is for last words.
    pub async fn shut_down(self, hurry: CancellationToken) -> Ended {
        self.drain.announce();
        tokio::select! {
            () = sleep(self.drain.notice()) => {}
            () = hurry.cancelled() => {}
        }
        self.drain.begin();
        self.crew.drain(self.drain.left_of_window());
        tokio::select! {
            () = self.drain.ended() => {}
            () = hurry.cancelled() => {
                self.drain.hurry();
                self.crew.drain(Duration::ZERO);
            }
        }
        // The last ones are on their way: a shard takes a moment to go through its readers.
        drop(timeout(HURRIED_GRACE, self.drain.left()).await);
        self.close.cancel();
        self.crew.stop();
        if let Some(shards) = self.crew.0.clone() {
            self.tasks.spawn_blocking(move || shards.join());
        }
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

impl Crew {
    fn drain(&self, window: Duration) {
        if let Some(shards) = &self.0 {
            shards.drain(window);
        }
    }

    fn stop(&self) {
        if let Some(shards) = &self.0 {
            shards.stop();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Acceptor {
    fn new(host: Host, listener: TcpListener) -> Self {
        Self { host: Arc::new(host), listener, reserve: Reserve::new(), fails: false }
    }

    async fn run(mut self) {
        let close = self.host.close.clone();
        loop {
            // Nothing that is accepted is lost: what is cancelled here has accepted nothing, or is refusing.
            tokio::select! {
                biased;
                () = close.cancelled() => return,
                () = self.accept() => {}
            }
        }
    }

    /// Accepts one connection, or fails to and waits until another attempt makes sense.
    async fn accept(&mut self) {
        self.host.admission().room().await;
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                self.fails = false;
                self.reserve.fill();
                self.receive(stream, peer);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(%error, local = %self.host.local.address, "connections cannot be accepted");
                }
                // Of what a connection has died of before it was accepted, the next one knows nothing.
                if is_want_of_descriptors(&error) {
                    self.refuse_next().await;
                } else if !is_of_the_connection(&error) {
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn receive(&self, stream: TcpStream, peer: SocketAddr) {
        let host = Arc::clone(&self.host);
        let admission = self.host.admission();
        match admission.admit(peer) {
            Ok(admitted) => {
                self.host.tasks.spawn(async move { host.serve(stream, peer, admitted).await });
            }
            Err(limit) => match admission.refusal() {
                Some(refusal) => {
                    self.host.tasks.spawn(async move {
                        let _refusal = refusal;
                        host.refuse(stream, peer, limit).await;
                    });
                }
                // One address can fill the refusals, and others must not wait behind it.
                None => host.app.metrics.refused(limit),
            },
        }
    }

    /// Begins to refuse the connection that waits longest, with a descriptor that was kept for it. Where all of these are
    /// given up, there may be another one in a while.
    async fn refuse_next(&self) {
        let Ok(lent) = timeout(ACCEPT_RETRY, self.reserve.lend()).await else { return };
        match timeout(ACCEPT_RETRY, self.listener.accept()).await {
            Ok(Ok((stream, peer))) => {
                let host = Arc::clone(&self.host);
                self.host.tasks.spawn(async move {
                    host.refuse(stream, peer, Limit::Descriptors).await;
                    drop(lent);
                });
            }
            // Something else was faster.
            Ok(Err(_)) => {
                drop(lent);
                sleep(ACCEPT_RETRY).await;
                self.reserve.fill();
            }
            // Nobody waits any more.
            Err(_) => {}
        }
    }
}

/// Whether the process (`EMFILE`) or the machine (`ENFILE`) has no more descriptors.
fn is_want_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Whether it is the connection that failed, and not the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}
