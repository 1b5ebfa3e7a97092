//! Runs a gateway, or a store alone, until it is told to stop.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use anyhow::{Context as _, bail};
use prometheus::{Registry, process_collector::ProcessCollector};
use tailwater_auth::{MAX_TICKET_SECRETS, Operator, Projects, TicketSecrets};
use tailwater_fanout::{Gateway, Seed};
use tailwater_register::RegisterLog;
use tailwater_s2::Placement;
use tailwater_server::{Ambient, App, Auth, Guard, Listeners, Metrics, Parts, Server, Surface, Tls};
use tailwater_upstream::StreamKey;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Serve, StoreAlone, Trust},
    descriptors::Descriptors,
    secret, store,
};

/// How long what is under way in streams may take to settle, once nobody can ask any more.
const SETTLE: Duration = Duration::from_secs(10);

/// The same where somebody does not want to wait.
const HURRIED_SETTLE: Duration = Duration::from_millis(500);

/// How long the first reading of the register may take before it is said where the gateway listens.
const REGISTER_READ: Duration = Duration::from_secs(2);

/// How long answers may still go out once the store has ended by itself. Whatever waits for it waits in vain.
const AFTER_LOSS: Duration = Duration::from_secs(1);

/// How many connections the kernel holds until they are accepted, if `net.core.somaxconn` allows as many. Readers come back
/// by the thousand when a pod ends, and one that finds the queue full tries again after whole seconds.
const BACKLOG: u32 = 4096;

/// The two signals that end the process. Who sends a second one does not want to wait.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

/// How somebody who tries the gateway gets in.
enum Invitation {
    /// By asking.
    Open,
    /// With a token of a project that stands there.
    Project(String, PathBuf),
    /// With a project that is made first.
    Operator(PathBuf),
}

/// Runs a gateway.
pub(crate) async fn gateway(mut config: Serve, descriptors: Descriptors) -> anyhow::Result<()> {
    descriptors.log(config.server.max_connections);
    let mut stop = Stop::new()?;
    if let Some(files) = &config.tls {
        config.server.tls = Some(Tls::load(&files.certificate, &files.key)?);
    }
    let (mut invitation, mut guard) = (Invitation::Open, None);
    let registry = Registry::new();
    if let Some(trust) = &config.trust {
        let issuers = trust.outside.as_ref().map(|outside| outside.open(&registry)).transpose()?.unwrap_or_default();
        let trusted = match &trust.projects {
            Some(place) => Guard::load(place, trust.skew, issuers)?,
            None => Guard::without_files(trust.skew, issuers),
        };
        invitation = Invitation::of(trust, &trusted.projects());
        config.placement = placed(config.placement, &trusted.projects())?;
        config.server.operator = trust.operator.as_deref().map(operator).transpose()?;
        config.server.ticket_secrets =
            trust.ticket_secrets.as_deref().map(ticket_secrets).transpose()?.unwrap_or_default();
        config.server.audit = trust.audit.as_ref().map(|path| StreamKey::new(path.project.as_str(), &path.stream));
        guard = Some(trusted);
    }
    let (listeners, operations) = (bind(&config)?, bind_operations(&config)?);
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let meter = tailwater_s2::Metrics::register(&registry)?.into();
    let opening = Box::pin(store::open(&config.store, config.placement, meter));
    let Some(opened) = stop.unless_asked(opening).await.transpose()? else { return Ok(()) };

    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let gateway = Gateway::new(Seed {
        upstream: opened.upstream.clone(),
        config: config.fanout,
        metrics: tailwater_fanout::Metrics::register(&registry)?,
        tracker: tracker.clone(),
        shutdown: shutdown.clone(),
    });
    if let Some(guard) = guard {
        let register = RegisterLog::new(opened.upstream.clone(), tailwater_register::Metrics::register(&registry)?);
        config.server.auth = Auth::Required(guard.beside_register(register));
    }
    let metrics = Metrics::register(&registry)?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let auth = config.server.auth.clone();
    let app = App::new(Parts { gateway, config: config.server, registry, metrics, ambient: Ambient::default() });
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    let operations_at = operations.as_ref().map(TcpListener::local_addr).transpose()?;
    let server = Server::start(&app, Listeners { public: listeners, operations })
        .context("the delivery shards cannot be started")?;
    drop(app);
    judging(auth).await;
    announce(&addresses, operations_at, scheme, &invitation)?;

    let lost = tokio::select! {
        () = stop.asked() => None,
        lost = opened.ended() => Some(lost),
    };
    tracing::info!("stopping");
    let hurry = CancellationToken::new();
    let mut ended = pin!(server.shut_down(hurry.clone()));
    if let Some(lost) = lost {
        hurry.cancel();
        let ended = timeout(AFTER_LOSS, ended).await.ok();
        tracing::info!(?ended, "stopped");
        return Err(lost);
    }
    let ended = tokio::select! {
        ended = &mut ended => ended,
        () = stop.asked() => {
            tracing::info!("hurrying");
            hurry.cancel();
            ended.await
        }
    };
    shutdown.cancel();
    tracker.close();
    let settled = tokio::select! {
        settled = timeout(SETTLE, tracker.wait()) => settled.is_ok(),
        // Whoever hurried before has been heard, and what is under way has a moment all the same.
        () = stop.hurried(&hurry) => timeout(HURRIED_SETTLE, tracker.wait()).await.is_ok(),
    };
    tracing::info!(?ended, settled, "stopped");
    opened.close().await
}

/// Runs a store alone.
pub(crate) async fn store_alone(config: StoreAlone) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let exposure = store::exposure(config.listen, config.token_file.as_deref())?;
    let opening = Box::pin(store::start(&config.data, Some(exposure)));
    let Some(store) = stop.unless_asked(opening).await.transpose()? else { return Ok(()) };
    let address = store.exposed_addr().context("the store is not exposed")?;
    writeln!(io::stdout(), "listening on http://{address}")?;
    tokio::select! {
        () = stop.asked() => store.shutdown().await.context("the store was not closed properly"),
        end = store.closed() => Err(store::lost(end)),
    }
}

/// Where streams are, with the basins that projects name for themselves.
fn placed(placement: Placement, projects: &Projects) -> anyhow::Result<Placement> {
    let named = projects.iter().filter_map(|project| Some((project.id.as_str(), project.basin.as_ref()?.as_str())));
    Ok(placement.with_basins(named)?)
}

/// Who may administer all projects.
fn operator(file: &Path) -> anyhow::Result<Operator> {
    let credential = store::read_token(file)?;
    Operator::new(credential.reveal()).with_context(|| format!("the credential in {}", file.display()))
}

/// What signs tickets where projects cannot: the lines of a file, of which the first signs and all verify.
fn ticket_secrets(file: &Path) -> anyhow::Result<TicketSecrets> {
    let unread = || format!("the secrets for tickets in {} cannot be read", file.display());
    let text = secret::read(file).with_context(unread)?;
    let secrets: Vec<&[u8]> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::as_bytes).collect();
    if !(1..=MAX_TICKET_SECRETS).contains(&secrets.len()) {
        bail!("{} must have one to {MAX_TICKET_SECRETS} secrets for tickets, one a line", file.display());
    }
    TicketSecrets::new(secrets).with_context(|| format!("the secrets for tickets in {}", file.display()))
}

fn bind(config: &Serve) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in &config.listen {
        let listener = listen(*address).with_context(|| format!("cannot listen on {address}"))?;
        if !address.ip().is_loopback() && config.trust.is_none() {
            tracing::warn!(%address, "whoever can reach this address can read and write every stream");
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The listener for operations, if there is to be one; where there is none and clients come from elsewhere, it is said what
/// that means.
fn bind_operations(config: &Serve) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.admin_listen else {
        if config.server.surface == Surface::Streams {
            tracing::info!("metrics and administration are nowhere: --admin-listen ADDR says where they are to be");
        }
        return Ok(None);
    };
    let listener = listen(address).with_context(|| format!("cannot listen on {address} for operations"))?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever can reach this address can read the metrics");
    }
    Ok(Some(listener))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As the standard library does: a restart must not wait for the connections of the run before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Waits until tokens can be judged, so that whoever is told of the gateway is not told to come again. A store that is away
/// is no reason to say nothing.
async fn judging(auth: Auth) {
    match auth {
        Auth::Required(guard) if !guard.is_read_within(REGISTER_READ).await => {
            tracing::warn!("the register was not read yet, and until it is nobody is judged");
        }
        Auth::Required(_) | Auth::Open => {}
    }
}

/// Tells where it listens, one line each that scripts can read, and how to try it.
fn announce(
    listeners: &[SocketAddr],
    operations: Option<SocketAddr>,
    scheme: &str,
    invitation: &Invitation,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for listener in listeners {
        writeln!(out, "listening on {scheme}://{listener}")?;
    }
    if let Some(listener) = operations {
        writeln!(out, "operations on {scheme}://{listener}")?;
    }
    if let Some(first) = listeners.first() {
        let origin = format!("{scheme}://{first}");
        writeln!(out, "\ntry it:")?;
        if let Invitation::Operator(file) = invitation {
            let new = "tailwater project new hello | tee hello.toml";
            let admin = format!("{scheme}://{}/v1/admin/projects", operations.unwrap_or(*first));
            let operator = format!("-H \"Authorization: Bearer $(cat '{}')\"", file.display());
            writeln!(out, "  {new} | curl {admin} {operator} --data-binary @-")?;
        }
        let root = format!("{origin}/v1/stream/");
        let project = match invitation {
            Invitation::Open => None,
            Invitation::Project(id, place) => Some((id.as_str(), place.display().to_string())),
            Invitation::Operator(_) => Some(("hello", "hello.toml".to_owned())),
        };
        let (url, token) = match project {
            None => (root + "hello", ""),
            Some((id, place)) => {
                let mint =
                    format!("tailwater token mint --projects '{place}' --project {id} --scope read --scope write");
                writeln!(out, "  TOKEN=$({mint})")?;
                (format!("{root}{id}/hello"), " -H \"Authorization: Bearer $TOKEN\"")
            }
        };
        writeln!(out, "  curl -X PUT {url}{token} -H 'Content-Type: text/plain' -d 'hello, '")?;
        writeln!(out, "  curl -X POST {url}{token} -H 'Content-Type: text/plain' -d 'world'")?;
        writeln!(out, "  curl {url}{token}")?;
        writeln!(out, "  curl -N '{url}?offset=-1&live=sse'{token}")?;
    }
    out.flush()?;
    Ok(())
}

impl Invitation {
    fn of(trust: &Trust, projects: &Projects) -> Self {
        let first = projects.iter().map(|project| project.id.to_string()).min();
        match (first, &trust.projects, &trust.operator) {
            (Some(id), Some(place), _) => Self::Project(id, place.clone()),
            (_, _, Some(file)) => Self::Operator(file.clone()),
            (_, _, None) => Self::Open,
        }
    }
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// What opening a store comes to, which may take long; `None` when the process is told to end before.
    async fn unless_asked<T>(&mut self, opening: impl Future<Output = T>) -> Option<T> {
        // Opening first: a store that is open has to be closed. Giving up half way is safe, as a crash would be.
        tokio::select! {
            biased;
            opened = opening => Some(opened),
            () = self.asked() => None,
        }
    }

    /// Waits for somebody who does not want to wait, unless there was one already.
    async fn hurried(&mut self, hurry: &CancellationToken) {
        if !hurry.is_cancelled() {
            self.asked().await;
        }
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn secrets_for_tickets_are_lines_of_a_file_which_no_error_repeats() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            fs::write(file.path(), text).unwrap();
            ticket_secrets(file.path()).map(|secrets| format!("{secrets:?}")).map_err(|error| format!("{error:#}"))
        };
        let secret = "hunter2".repeat(5);
        assert_eq!(read(&secret), Ok("TicketSecrets(1 of them)".to_owned()));
        assert_eq!(read(&format!("\n {secret}\r\n\n{secret}x\n")), Ok("TicketSecrets(2 of them)".to_owned()));
        for text in [String::new(), "\n".to_owned(), "hunter2".to_owned(), format!("{secret}\n").repeat(5)] {
            let fault = read(&text).unwrap_err();
            assert!(fault.contains("secrets for tickets") && !fault.contains("hunter2"), "{fault}");
        }
        assert!(ticket_secrets(Path::new("nowhere")).is_err());
    }
}
