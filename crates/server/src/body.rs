//! Request bodies, bounded in size, time and number.
//!
//! A client that is refused in the middle of its body often never reads why: it writes on, meets a closed connection,
//! and reports that. So what is too large is taken in and thrown away, within bounds, before it is refused; but not
//! where the client asked first (`Expect: 100-continue`), because then it has not begun. The same goes for what is refused
//! whatever it holds. That is done for so many at once and no more: else whoever drips bodies in has a request for nothing.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use prometheus::IntGauge;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    admission::Limit,
    config::{Config, MAX_DECLINED_BODIES, WHOLE_BODY_TIMEOUT},
    connection::Cut,
    metrics::Metrics,
    share::{Shared, Usage, Using},
};

/// The unit in which memory for bodies is handed out.
const UNIT: usize = 1024;
/// How much of a body that is too large is thrown away before the refusal.
const MAX_DISCARD: usize = 64 * 1024 * 1024;
/// For how long it is thrown away.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// How much, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    max: usize,
    idle: Duration,
    budget: Arc<Semaphore>,
    /// How many units the budget has.
    units: usize,
    /// Bodies that are being thrown away.
    declined: Arc<Semaphore>,
    metrics: Metrics,
}

/// A body, and its share of the budget for as long as it lives.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _share: Share,
}

/// What a body holds of the budget, and of what its project uses of that.
#[derive(Debug)]
struct Share {
    permit: Option<OwnedSemaphorePermit>,
    using: Option<Using>,
    /// What all bodies hold together.
    held: IntGauge,
}

/// Why a body was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is larger than it may be.
    #[error("a body has at most {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// It is encoded.
    #[error("a body must not be encoded: send it without content-encoding")]
    Encoded,
    /// It stood still, or never ended.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// It broke off, or its framing is wrong.
    #[error("the body broke off")]
    Broken,
    /// All bodies together are as large as they may be.
    #[error("the gateway holds as many bytes of bodies as it may")]
    OverBudget,
    /// They are nearly that large, and its project has more of it than others.
    #[error("the gateway is nearly full, and what is left is for projects that have less of it")]
    OverFairShare,
}

impl Limits {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Self {
        let units = (config.body_budget / UNIT).min(Semaphore::MAX_PERMITS);
        let budget = Arc::new(Semaphore::new(units));
        let declined = Arc::new(Semaphore::new(MAX_DECLINED_BODIES));
        metrics.body_limit.set(bytes(units));
        Self { max: config.max_body, idle: config.body_timeout, budget, units, declined, metrics: metrics.clone() }
    }

    /// Takes a body in, for a project where tokens are asked for. It may be as large as any, and no larger than `most`.
    pub(crate) async fn receive_within(
        &self,
        most: usize,
        of: Option<&Arc<Usage>>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Received, BodyError> {
        self.receive_by(WHOLE_BODY_TIMEOUT, most, of, headers, body).await
    }

    /// The same, where it may take no longer than this in all.
    pub(crate) async fn receive_by(
        &self,
        whole: Duration,
        most: usize,
        of: Option<&Arc<Usage>>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Received, BodyError> {
        let max = self.max.min(most);
        if is_encoded(headers) {
            return Err(BodyError::Encoded);
        }
        if body.size_hint().lower() > max as u64 {
            self.decline(headers, body).await;
            return Err(BodyError::TooLarge { max });
        }
        let received = timeout(whole, self.collect(body, max, of)).await.unwrap_or(Err(BodyError::TimedOut));
        if let Err(BodyError::TimedOut) = received {
            self.metrics.cut(Cut::BodyTimeout);
        }
        received
    }

    /// Lets a body go by that is refused whatever it holds: nothing of it is kept, and its client gets to read why.
    pub(crate) async fn decline(&self, headers: &HeaderMap, body: Body) {
        if !headers.contains_key(header::EXPECT) {
            self.discard(body).await;
        }
    }

    /// Throws away what comes of a body; all of it at once where that is done for as many as may be.
    async fn discard(&self, body: Body) {
        if body.is_end_stream() {
            return;
        }
        match self.declined.try_acquire() {
            Ok(_place) => discard(body).await,
            Err(_) => self.metrics.cut(Cut::Declined),
        }
    }

    async fn collect(&self, mut body: Body, max: usize, of: Option<&Arc<Usage>>) -> Result<Received, BodyError> {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let using = of.map(|usage| usage.begin_with_none(Shared::Bodies));
        let mut share = Share { permit: None, using, held: self.metrics.body_bytes.clone() };
        loop {
            let frame = timeout(self.idle, body.frame()).await.map_err(|_| BodyError::TimedOut)?;
            let Some(frame) = frame else { break };
            // What is not data is trailers, which the protocol does not use.
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            let total = first.len() + rest.len() + data.len();
            if total > max {
                self.discard(body).await;
                return Err(BodyError::TooLarge { max });
            }
            if let Err(refused) = self.take(&mut share, total) {
                drop((share, first, rest));
                self.discard(body).await;
                return Err(refused);
            }
            if first.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&data);
            }
        }
        let bytes = if rest.is_empty() { first } else { joined(&first, &rest) };
        Ok(Received { bytes, _share: share })
    }

    /// Makes the share of a body large enough for so many bytes in all. It depends on these alone: whoever cuts a body into
    /// crumbs takes no more of the budget than others.
    fn take(&self, share: &mut Share, total: usize) -> Result<(), BodyError> {
        let units = total.div_ceil(UNIT).saturating_sub(share.units());
        if units == 0 {
            return Ok(());
        }
        let more = u32::try_from(units).ok().and_then(|units| {
            // Nobody waits: what is held may be held for as long as its client likes.
            Arc::clone(&self.budget).try_acquire_many_owned(units).ok()
        });
        let Some(more) = more else {
            self.metrics.refused(Limit::BodyBytes);
            return Err(BodyError::OverBudget);
        };
        share.grow(more);
        let Some(using) = &mut share.using else { return Ok(()) };
        using.grow(units as u64);
        let used = self.units - self.budget.available_permits();
        if using.refused(used, self.units, &self.metrics) { Err(BodyError::OverFairShare) } else { Ok(()) }
    }
}

impl Share {
    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn grow(&mut self, more: OwnedSemaphorePermit) {
        self.held.add(bytes(more.num_permits()));
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.sub(bytes(self.units()));
    }
}

/// So many units, for a gauge.
fn bytes(units: usize) -> i64 {
    i64::try_from(units.saturating_mul(UNIT)).unwrap_or(i64::MAX)
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let identity = |value: &http::HeaderValue| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity");
    !headers.get_all(header::CONTENT_ENCODING).iter().all(identity)
}

fn joined(first: &[u8], rest: &[u8]) -> Bytes {
    let mut whole = Vec::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(first);
    whole.extend_from_slice(rest);
    whole.into()
}

async fn discard(mut body: Body) {
    let deadline = Instant::now() + DISCARD_TIMEOUT;
    let mut left = MAX_DISCARD;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http::HeaderValue;
    use tokio::{sync::oneshot, time::sleep};

    use super::*;

    fn limits(max: usize, budget: usize) -> Limits {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        Limits::new(&Config { max_body: max, body_budget: budget, ..Config::default() }, &metrics)
    }

    fn chunks(chunks: &[&'static [u8]]) -> Body {
        let frames: Vec<_> = chunks.iter().map(|chunk| Ok::<_, Infallible>(Bytes::from_static(chunk))).collect();
        Body::from_stream(stream::iter(frames))
    }

    async fn receive(limits: &Limits, body: Body) -> Result<Bytes, BodyError> {
        limits.receive_within(usize::MAX, None, &HeaderMap::new(), body).await.map(|received| received.bytes)
    }

    #[tokio::test]
    async fn a_body_is_taken_up_to_the_limit_however_it_is_cut() {
        let limits = limits(6, 1 << 20);
        let whole = Ok(Bytes::from_static(b"abcdef"));
        assert_eq!(receive(&limits, Body::from("abcdef")).await, whole);
        assert_eq!(receive(&limits, chunks(&[b"a", b"", b"bcd", b"ef"])).await, whole);
        assert_eq!(receive(&limits, chunks(&[])).await, Ok(Bytes::new()));
        let too_large = Err(BodyError::TooLarge { max: 6 });
        assert_eq!(receive(&limits, Body::from("abcdefg")).await, too_large);
        assert_eq!(receive(&limits, chunks(&[b"abc", b"def", b"g"])).await, too_large);
    }

    #[tokio::test]
    async fn a_body_is_no_larger_than_either_limit() {
        let limits = limits(6, 1 << 20);
        for (most, max) in [(3, 3), (6, 6), (9, 6)] {
            for body in [Body::from("abcdefg"), chunks(&[b"abc", b"def", b"g"])] {
                let error = limits.receive_within(most, None, &HeaderMap::new(), body).await.err();
                assert_eq!(error, Some(BodyError::TooLarge { max }));
            }
        }
        assert!(limits.receive_within(3, None, &HeaderMap::new(), Body::from("abc")).await.is_ok());
    }

    #[tokio::test]
    async fn an_encoded_body_is_refused_and_identity_is_none() {
        let limits = limits(6, 1 << 20);
        for (value, encoded) in [("gzip", true), ("Identity", false), ("", false), ("identity, br", true)] {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(value))]);
            let received = limits.receive_within(usize::MAX, None, &headers, Body::from("a")).await;
            assert_eq!(matches!(received, Err(BodyError::Encoded)), encoded, "{value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up() {
        let frames = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"a")) });
        let body = Body::from_stream(stream::StreamExt::chain(frames, stream::pending()));
        let began = Instant::now();
        assert_eq!(receive(&limits(6, 1 << 20), body).await, Err(BodyError::TimedOut));
        assert_eq!(began.elapsed(), Config::default().body_timeout);
    }

    #[tokio::test]
    async fn a_body_for_which_there_is_no_room_is_let_by_so_that_its_client_reads_why() {
        let limits = limits(8 * UNIT, 2 * UNIT);
        let (last, was_read) = oneshot::channel();
        let pieces = stream::iter((0..5).map(|_| Ok::<_, Infallible>(vec![0_u8; UNIT])));
        let end = stream::once(async move {
            last.send(()).unwrap();
            Ok(vec![0])
        });
        let body = Body::from_stream(pieces.chain(end));
        assert_eq!(receive(&limits, body).await, Err(BodyError::OverBudget));
        assert_eq!(was_read.await, Ok(()));
        assert_eq!(limits.budget.available_permits(), 2);
    }

    #[tokio::test]
    async fn all_bodies_together_stay_within_the_budget() {
        let limits = limits(2 * UNIT, 3 * UNIT);
        let body = || Body::from(vec![0_u8; 2 * UNIT]);
        let held = limits.receive_within(usize::MAX, None, &HeaderMap::new(), body()).await.unwrap();
        let gauges = || (limits.metrics.body_bytes.get(), limits.metrics.body_limit.get());
        assert_eq!(gauges(), (2048, 3072));
        assert_eq!(receive(&limits, body()).await, Err(BodyError::OverBudget));
        assert_eq!(gauges(), (2048, 3072), "what is refused holds nothing");
        drop(held);
        assert_eq!(gauges(), (0, 3072));
        assert!(receive(&limits, body()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_bodies_are_thrown_away_at_once_and_no_more() {
        let registry = prometheus::Registry::new();
        let limits = Limits::new(&Config::default(), &Metrics::register(&registry).unwrap());
        let dripping = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let took = async |body| {
            let began = Instant::now();
            limits.decline(&HeaderMap::new(), body).await;
            began.elapsed()
        };
        let all = futures_util::future::join_all((0..=MAX_DECLINED_BODIES).map(|_| took(dripping()))).await;
        assert_eq!(all.iter().filter(|took| **took == DISCARD_TIMEOUT).count(), MAX_DECLINED_BODIES);
        assert_eq!(all.last(), Some(&Duration::ZERO), "the last is not waited for");
        let metrics = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(metrics.contains("tailwater_connections_cut_total{reason=\"declined\"} 1"), "{metrics}");
        assert_eq!(took(dripping()).await, DISCARD_TIMEOUT, "there is room again");
    }

    #[tokio::test]
    async fn a_body_takes_of_the_budget_what_it_is_in_all_however_it_is_cut() {
        let limits = limits(8 * UNIT, 3 * UNIT);
        let crumbs = |bytes: usize| chunks(&vec![b"a".as_slice(); bytes]);
        for (bytes, units) in [(1, 1), (UNIT, 1), (UNIT + 1, 2), (3 * UNIT, 3)] {
            let held = limits.receive_within(usize::MAX, None, &HeaderMap::new(), crumbs(bytes)).await.unwrap();
            assert_eq!(held.bytes.len(), bytes);
            assert_eq!(limits.budget.available_permits(), 3 - units, "{bytes}");
        }
        assert_eq!(receive(&limits, crumbs(3 * UNIT + 1)).await, Err(BodyError::OverBudget));
        assert_eq!(limits.budget.available_permits(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_that_goes_on_and_on_is_given_up_soon() {
        let trickle = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(b"a")));
        let trickle = stream::StreamExt::then(trickle, async |crumb| {
            sleep(Duration::from_secs(1)).await;
            crumb
        });
        let (began, whole) = (Instant::now(), Duration::from_millis(9500));
        let body = Body::from_stream(trickle);
        let received = limits(1 << 20, 1 << 20).receive_by(whole, UNIT, None, &HeaderMap::new(), body).await;
        assert_eq!(received.err(), Some(BodyError::TimedOut));
        assert_eq!(began.elapsed(), whole);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_body() {
        let frames = [Ok(Bytes::from_static(b"a")), Err(std::io::Error::other("cut"))];
        let body = Body::from_stream(stream::iter(frames));
        assert_eq!(receive(&limits(6, 1 << 20), body).await, Err(BodyError::Broken));
    }
}
