//! [`Upstream`] over S2's client library.
//!
//! Three clients, because HTTP/2 shares a flow-control window among the requests of a connection: one for read
//! sessions, one for unary reads and everything else, one for appends. What one kind leaves unread then cannot hold up
//! another. Within a connection the windows are such that all its requests together cannot fill it.
//!
//! A store that does not answer is left alone ([`Way`]), reads and appends apart: requests are refused at once then, and
//! read sessions wait. While there are read sessions, a [`Sentry`] makes sure that it is noticed.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use s2_sdk::{
    S2, S2Stream,
    error::{ErrorCode, RequestError},
    types::{
        AccountEndpoint, AppendInput, AppendRetryPolicy, BasinEndpoint, Http2Config, ListStreamsInput,
        ReadFrom as SdkFrom, ReadInput, ReadLimits, ReadSessionConfig, ReadStart, ReadStop, RetryConfig, S2Config,
        S2Endpoints, ValidationError,
    },
};
use tailwater_log::MAX_BATCH_RECORDS;
use tailwater_upstream::{
    Append, AppendAck, AppendError, Cause, Fate, Page, Position, ReadError, ReadFrom, ReadSession, StreamKey, Traffic,
    Upstream,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Secret,
    basins::{Basins, MAX_PROJECTS},
    metrics::{Meter, Operation},
    naming::{Place, Placement},
    sentry::{self, Sentry},
    session::{self, Reopen},
    translate::{self, TimedOut},
    way::{Pass, Spared, Way},
};

/// How long an append may take, unless told otherwise.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a unary read, a tail check or a page of a list may take, all its attempts together.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt of these may take, so that a lost answer leaves time for another.
const READ_ATTEMPT: Duration = Duration::from_secs(4);
/// How long the tail check may take that is sent only to see whether the store answers.
const SOUNDING: Duration = Duration::from_secs(2);
/// How long a read session may take to connect first, all its attempts together; later it tries again for as long as it
/// lives.
const FIRST_CONNECT: Duration = Duration::from_secs(10);
/// Attempts of one request, where repeating it is safe.
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");
/// Attempts of a read session to connect: a thousand of them must not each for itself look for a store that is away, so
/// when to try again is not the library's to say.
const SESSION_ATTEMPTS: NonZeroU32 = NonZeroU32::MIN;
/// How much of the time for an append one attempt to connect may take, so that all of [`ATTEMPTS`] fit and the answer
/// can be that nothing was appended.
const CONNECT_SHARE: u32 = 4;
/// Requests on one connection; the SDK opens another beyond.
const REQUESTS_PER_CONNECTION: usize = 90;
/// What one request may have in flight towards us, in bytes: a unary read's whole answer.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// What one connection may have in flight towards us, in bytes: more than all its requests together.
const CONNECTION_WINDOW: u32 = 192 * 1024 * 1024;
/// How long to wait before an append is sent again whose stream was said to be missing, at most.
const MISSING_PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
/// S2's longest page of a list.
const LIST_PAGE: usize = 1000;

const _: () = assert!(STREAM_WINDOW as usize * REQUESTS_PER_CONNECTION < CONNECTION_WINDOW as usize);

/// Where S2 is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// At one address: s2-lite, or a self-hosted S2. The path of the URL is ignored.
    Url(String),
    /// Managed S2.
    Cloud,
    /// At two addresses of one scheme, as managed S2 is.
    Domains {
        /// The URL for what concerns the account: which basins there are.
        account: String,
        /// The URL for what concerns a basin. Where its host starts with `{basin}.`, each basin has a sub-domain.
        basin: String,
    },
}

/// What an [`S2Upstream`] needs to know.
#[derive(Debug, Clone)]
pub struct S2UpstreamConfig {
    /// Where S2 is.
    pub endpoint: Endpoint,
    /// The access token.
    pub token: Secret,
    /// How projects are placed in S2.
    pub placement: Placement,
    /// How long an append may take; after that its fate is unknown.
    pub append_timeout: Duration,
    /// Write to basins whose records expire, too. State may then be lost; for accounts that allow nothing else.
    pub accept_finite_retention: bool,
    /// How many projects with a basin of their own there may be, at most 1,000: fewer where a basin costs.
    pub max_projects: usize,
    pub(crate) single_owner: bool,
}

/// Why an [`S2Upstream`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum S2UpstreamError {
    /// The endpoint's URL is none.
    #[error("{url:?} is no endpoint of s2")]
    Endpoint {
        /// The URL.
        url: String,
        /// What is wrong with it.
        #[source]
        rule: ValidationError,
    },
    /// The client could not be made: the token cannot be sent, or there are no CA certificates for an `https` endpoint.
    #[error("the s2 client could not be made")]
    Client(#[from] RequestError),
}

/// The store over S2's client library. A clone shares connections and counters.
#[derive(Clone)]
pub struct S2Upstream {
    inner: Arc<Inner>,
    /// Ends the watch over the store with the last clone.
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Inner {
    tails: S2,
    reads: S2,
    appends: S2,
    placement: Placement,
    basins: Basins,
    append_timeout: Duration,
    single_owner: bool,
    /// The ways of reads, read sessions among them, and of appends.
    reading: Way,
    appending: Way,
    sentry: Sentry,
    meter: Meter,
}

/// Which of the clients is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Tails,
    Reads,
    Appends,
}

impl S2UpstreamConfig {
    /// A configuration with defaults: appends may take 5 s, finite retention is refused.
    #[must_use]
    pub fn new(endpoint: Endpoint, token: Secret, placement: Placement) -> Self {
        Self {
            endpoint,
            token,
            placement,
            append_timeout: APPEND_TIMEOUT,
            accept_finite_retention: false,
            max_projects: MAX_PROJECTS,
            single_owner: false,
        }
    }

    fn client(&self, purpose: Purpose) -> Result<S2, S2UpstreamError> {
        let endpoints = self.endpoint.endpoints()?;
        let request_timeout = match purpose {
            Purpose::Tails | Purpose::Reads => READ_ATTEMPT,
            Purpose::Appends => self.append_timeout,
        };
        let attempts = match purpose {
            Purpose::Tails => SESSION_ATTEMPTS,
            Purpose::Reads | Purpose::Appends => ATTEMPTS,
        };
        let http2 = Http2Config::new()
            .with_max_concurrent_requests(REQUESTS_PER_CONNECTION)
            .and_then(|http2| http2.with_stream_receive_window(STREAM_WINDOW))
            .and_then(|http2| http2.with_connection_receive_window(CONNECTION_WINDOW))
            .expect("the windows are within what HTTP/2 allows");
        let retry =
            RetryConfig::new().with_max_attempts(attempts).with_append_retry_policy(AppendRetryPolicy::NoSideEffects);
        let config = S2Config::new(self.token.reveal())
            .with_endpoints(endpoints)
            .with_http2(http2)
            .with_retry(retry)
            .with_request_timeout(request_timeout)
            .with_connection_timeout(self.append_timeout / CONNECT_SHARE)
            // Without TLS there is nothing to verify, and loading CA roots would fail where there are none.
            .with_insecure_skip_cert_verification(self.endpoint.is_plain_text());
        Ok(S2::new(config)?)
    }
}

impl Endpoint {
    fn endpoints(&self) -> Result<S2Endpoints, S2UpstreamError> {
        let refused = |url: &str| {
            let url = url.to_owned();
            |rule| S2UpstreamError::Endpoint { url, rule }
        };
        match self {
            Self::Cloud => Ok(S2Endpoints::for_cloud()),
            Self::Url(url) => S2Endpoints::for_endpoint(url).map_err(refused(url)),
            Self::Domains { account, basin } => S2Endpoints::new(
                AccountEndpoint::new(account).map_err(refused(account))?,
                BasinEndpoint::new(basin).map_err(refused(basin))?,
            )
            .map_err(refused(basin)),
        }
    }

    fn is_plain_text(&self) -> bool {
        match self {
            Self::Cloud => false,
            // Both have one scheme, or are refused.
            Self::Url(url) | Self::Domains { account: url, .. } => {
                url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
            }
        }
    }
}

impl S2Upstream {
    /// Makes the clients; nothing is sent yet.
    ///
    /// # Errors
    /// When the endpoint or the token cannot be used.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: the connection pools need one.
    pub fn new(config: S2UpstreamConfig, meter: Meter) -> Result<Self, S2UpstreamError> {
        let appends = config.client(Purpose::Appends)?;
        let reads = config.client(Purpose::Reads)?;
        let inner = Inner {
            tails: config.client(Purpose::Tails)?,
            basins: Basins::new(reads.clone(), config.accept_finite_retention, config.max_projects.min(MAX_PROJECTS)),
            reads,
            appends,
            placement: config.placement,
            append_timeout: config.append_timeout,
            single_owner: config.single_owner,
            reading: Way::new(Traffic::Reads, Arc::clone(&meter)),
            appending: Way::new(Traffic::Appends, Arc::clone(&meter)),
            sentry: Sentry::new(),
            meter,
        };
        let inner = Arc::new(inner);
        let watch = tokio::spawn(Arc::clone(&inner).watch());
        Ok(Self { inner, _watch: Arc::new(AbortOnDropHandle::new(watch)) })
    }
}

impl Inner {
    async fn append(&self, place: &Place, input: AppendInput) -> Result<AppendAck, AppendError> {
        let within = self.append_timeout;
        let deadline = Instant::now() + within;
        let late = |fate| AppendError::Unavailable { fate, cause: TimedOut { within }.into() };

        timeout_at(deadline, self.basins.ensure(&place.basin))
            .await
            .unwrap_or_else(|_| Err(late(Fate::NotAppended)))?;
        let stream = stream(&self.appends, place);
        let sent = while_missing(|| stream.append(input.clone()), translate::is_missing_stream);
        match timeout_at(deadline, sent).await {
            Ok(Ok(ack)) => Ok(translate::ack(&ack)),
            Ok(Err(error)) => {
                if error.request_error().is_some_and(|e| translate::is_code(e, ErrorCode::BasinNotFound)) {
                    // Deleted by somebody since it was seen: the next attempt makes it anew.
                    self.basins.forget(&place.basin);
                    return Err(AppendError::Unavailable { fate: Fate::NotAppended, cause: error.into() });
                }
                Err(translate::append_error(error))
            }
            Err(_) => Err(late(Fate::Unknown)),
        }
    }

    async fn read(&self, place: &Place, from: ReadFrom, limit: usize) -> Result<Page, ReadError> {
        let stop = ReadStop::new().with_limits(ReadLimits::new().with_count(limit.clamp(1, MAX_BATCH_RECORDS)));
        let input = ReadInput::new().with_start(start(from)).with_stop(stop);
        match timely(READ_TIMEOUT, stream(&self.reads, place).read(input)).await? {
            Ok(batch) => Ok(Page { records: translate::records(batch.records) }),
            Err(error) => translate::read_error(error).map_or_else(|| Ok(Page::default()), Err),
        }
    }

    async fn check_tail(&self, place: &Place) -> Result<Position, ReadError> {
        match timely(READ_TIMEOUT, stream(&self.reads, place).check_tail()).await? {
            Ok(tail) => Ok(translate::position(tail)),
            Err(error) => Err(translate::read_error(error).unwrap_or(ReadError::NotFound)),
        }
    }

    /// One connection of a read session.
    async fn open_session(&self, place: &Place, seq: u64) -> Result<ReadSession, ReadError> {
        let input = ReadInput::new().with_start(start(ReadFrom::Seq(seq)));
        let session = timely(READ_ATTEMPT, stream(&self.tails, place).read_session(input, ReadSessionConfig::new()))
            .await?
            .map_err(translate::session_error)?;
        Ok(session::events(session, self.meter.session(), Arc::clone(&self.meter)))
    }

    /// Opens a read session as soon as the store can be asked for one.
    fn reopen(self: &Arc<Self>, key: StreamKey, place: Place) -> Reopen {
        let inner = Arc::clone(self);
        Box::new(move |seq| {
            let (inner, key, place) = (Arc::clone(&inner), key.clone(), place.clone());
            async move {
                let pass = inner.reading.admitted(&key).await;
                let opened = inner.open_session(&place, seq).await;
                inner.told(Operation::ReadSession, pass, opened)
            }
            .boxed()
        })
    }

    /// Waits until reads are sent again, and tries one when it is time for that.
    async fn look_for_it(&self, key: &StreamKey, place: &Place) {
        loop {
            let pass = self.reading.admitted(key).await;
            if !pass.is_probe() {
                return;
            }
            self.meter.tail_checked();
            let answer = self.check_tail(place).await;
            // Whatever came of it, the circuit knows.
            drop(self.told(Operation::CheckTail, pass, answer));
        }
    }

    /// Sees to it that a store which stands still is noticed, for as long as anything is followed.
    async fn watch(self: Arc<Self>) {
        loop {
            self.sentry.round(&self.reading, |stream, pass| self.sound_out(stream, pass)).await;
            sleep(sentry::INTERVAL).await;
        }
    }

    /// Asks for a stream's tail, for no other reason than to have an answer.
    async fn sound_out(&self, stream: sentry::Stream, pass: Pass<'_>) {
        self.meter.tail_checked();
        let answer = timely(SOUNDING, self.check_tail(&stream.place)).await.and_then(|answer| answer);
        // Whatever came of it, the circuit knows.
        drop(self.told(Operation::CheckTail, pass, answer));
    }

    async fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ReadError> {
        let name = |stream: &str| self.placement.stream(project, stream).map_err(refused);
        let basin = self.reads.basin(self.placement.basin_name(project).map_err(refused)?);
        let prefix = name(prefix)?;
        // S2 wants a place to start after only where there is one: what comes after the prefix's first name anyway.
        let mut after = if after.is_empty() { String::new() } else { name(after)? };
        let mut streams = Vec::new();
        while streams.len() < limit {
            let input = ListStreamsInput::new()
                .with_prefix(prefix.parse().map_err(refused)?)
                .with_start_after(after.parse().map_err(refused)?)
                .with_limit(LIST_PAGE.min(limit - streams.len()));
            let page = match timely(READ_TIMEOUT, basin.list_streams(input)).await? {
                Ok(page) => page,
                Err(e) if translate::is_code(&e, ErrorCode::BasinNotFound) => return Ok(Vec::new()),
                Err(e) => return Err(translate::request_error(e)),
            };
            let Some(last) = page.values.last() else { break };
            after = last.name.to_string();
            let alive = page.values.iter().filter(|info| info.deleted_at.is_none());
            streams.extend(alive.filter_map(|i| self.placement.stream_of(project, &i.name)).map(str::to_owned));
            if !page.has_more {
                break;
            }
        }
        Ok(streams)
    }

    async fn ready(&self, within: Duration) -> Result<(), ReadError> {
        let input = s2_sdk::types::ListBasinsInput::new().with_limit(1);
        match timely(within, self.reads.list_basins(input)).await? {
            Ok(_) => Ok(()),
            // A token for some basins only may not list them, but S2 answered.
            Err(e) if translate::is_code(&e, ErrorCode::PermissionDenied) => Ok(()),
            Err(e) => Err(translate::request_error(e)),
        }
    }

    fn place(&self, key: &StreamKey) -> Result<Place, ReadError> {
        self.placement.locate(key).map_err(refused)
    }

    fn counted<T>(&self, operation: Operation, result: Result<T, ReadError>) -> Result<T, ReadError> {
        result.inspect_err(|error| self.meter.read_failed(operation, error))
    }

    /// The right to ask the store for something that changes nothing.
    fn pass(&self, key: &StreamKey) -> Result<Pass<'_>, ReadError> {
        self.reading.pass(key).map_err(|Spared { retry_after }| ReadError::Busy { retry_after: Some(retry_after) })
    }

    /// Takes note of what became of it.
    fn told<T>(&self, operation: Operation, pass: Pass<'_>, answer: Result<T, ReadError>) -> Result<T, ReadError> {
        if pass.ended(!matches!(answer, Err(ReadError::Unavailable { .. }))) {
            self.appending.hint();
        }
        self.counted(operation, answer)
    }
}

#[async_trait]
impl Upstream for S2Upstream {
    async fn append(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        let inner = &self.inner;
        let (records, bytes) = (append.records.len(), append.metered_bytes());
        let place = inner.placement.locate(key).map_err(translate::refused);
        let asked = place.and_then(|place| Ok((place, translate::append_input(append)?)));
        let (place, input) = asked.inspect_err(|error| inner.meter.append_failed(error))?;
        let pass = match inner.appending.pass(key) {
            Ok(pass) => pass,
            Err(Spared { retry_after }) => return Err(AppendError::Busy { retry_after: Some(retry_after) }),
        };
        let result = inner.append(&place, input).await;
        if pass.ended(!matches!(result, Err(AppendError::Unavailable { .. }))) {
            inner.reading.hint();
        }
        match &result {
            Ok(_) => inner.meter.appended(records, bytes),
            Err(error) => inner.meter.append_failed(error),
        }
        result
    }

    async fn read(&self, key: &StreamKey, from: ReadFrom, limit: usize) -> Result<Page, ReadError> {
        let place = self.inner.place(key)?;
        let pass = self.inner.pass(key)?;
        self.inner.meter.read();
        let answer = self.inner.read(&place, from, limit).await;
        self.inner.told(Operation::Read, pass, answer)
    }

    async fn check_tail(&self, key: &StreamKey) -> Result<Position, ReadError> {
        let place = self.inner.place(key)?;
        let pass = self.inner.pass(key)?;
        self.inner.meter.tail_checked();
        let answer = self.inner.check_tail(&place).await;
        self.inner.told(Operation::CheckTail, pass, answer)
    }

    async fn read_session(&self, key: &StreamKey, seq: u64) -> Result<ReadSession, ReadError> {
        let place = self.inner.place(key)?;
        let post = self.inner.sentry.post(sentry::Stream { key: key.clone(), place: place.clone() });
        session::resuming(seq, FIRST_CONNECT, post, self.inner.reopen(key.clone(), place)).await
    }

    async fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ReadError> {
        let pass = self.inner.pass(&StreamKey::new(project, prefix))?;
        let answer = self.inner.list(project, prefix, after, limit).await;
        self.inner.told(Operation::List, pass, answer)
    }

    async fn ready(&self, within: Duration) -> Result<(), ReadError> {
        self.inner.counted(Operation::Ready, self.inner.ready(within).await)
    }

    async fn reachable(&self, key: &StreamKey) {
        if self.inner.reading.is_passable() {
            return;
        }
        let Ok(place) = self.inner.place(key) else { return };
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        // A task of its own: whoever waits here may not be attended to for long, such as a reader that takes nothing, and
        // nobody must wait for a probe of its.
        let looking = AbortOnDropHandle::new(tokio::spawn(async move { inner.look_for_it(&key, &place).await }));
        // It ends by itself; were it to panic, it would end as well.
        drop(looking.await);
    }

    fn is_suspended(&self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Reads => self.inner.reading.is_suspended(),
            Traffic::Appends => self.inner.appending.is_suspended(),
        }
    }

    fn single_owner(&self) -> bool {
        self.inner.single_owner
    }
}

fn stream(client: &S2, place: &Place) -> S2Stream {
    client.basin(place.basin.clone()).stream(place.stream.clone())
}

fn start(from: ReadFrom) -> ReadStart {
    ReadStart::new().with_from(match from {
        ReadFrom::Seq(seq) => SdkFrom::SeqNum(seq),
        ReadFrom::TailOffset(records) => SdkFrom::TailOffset(records),
    })
}

fn refused(cause: impl Into<Cause>) -> ReadError {
    ReadError::Refused { cause: cause.into() }
}

/// Sends what makes its stream where there is none, and again where the stream is said to be missing all the same: of
/// several that make one at once, s2-lite gives some the answer of before. Nothing was appended then.
async fn while_missing<T, E, F: Future<Output = Result<T, E>>>(
    send: impl Fn() -> F,
    is_missing: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for pause in MISSING_PAUSES {
        match send().await {
            Err(error) if is_missing(&error) => sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await,
            outcome => return outcome,
        }
    }
    send().await
}

async fn timely<F: Future>(within: Duration, operation: F) -> Result<F::Output, ReadError> {
    timeout(within, operation).await.map_err(|_| ReadError::Unavailable { cause: TimedOut { within }.into() })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What comes of an append to a stream that is said to be missing so many times, or of which something else is said;
    /// and how often it was sent.
    async fn sent(missing: usize, then: Result<(), &'static str>) -> (Result<(), &'static str>, usize) {
        let count = Cell::new(0);
        let send = || async {
            count.set(count.get() + 1);
            if count.get() <= missing { Err("missing") } else { then }
        };
        let outcome = while_missing(send, |error| *error == "missing").await;
        (outcome, count.get())
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_whose_stream_is_being_made_is_sent_again_a_few_times_and_no_other_is() {
        assert_eq!(sent(0, Ok(())).await, (Ok(()), 1));
        assert_eq!(sent(1, Ok(())).await, (Ok(()), 2));
        assert_eq!(sent(2, Ok(())).await, (Ok(()), 3));
        assert_eq!(sent(9, Ok(())).await, (Err("missing"), 3));
        assert_eq!(sent(0, Err("refused")).await, (Err("refused"), 1));
        assert_eq!(sent(1, Err("refused")).await, (Err("refused"), 2));
    }
}
