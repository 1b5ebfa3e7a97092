//! What the HTTP surface counts. Label values come from enums; a registry is given.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tailwater_auth::quota::{Holder, Metered};
use tailwater_fanout::ShardMetrics;
use tailwater_upstream::Fault;

use crate::{admission::Limit, audit::Written, connection::Cut, problem::Counted, share::Shared};

/// Upper ends of the buckets of request durations, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 30.0];

/// The metrics; a cheap clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `tailwater_http_requests_total{route,method,status}`.
    requests: IntCounterVec,
    /// `tailwater_http_request_seconds{route}`: until the head of the response.
    seconds: HistogramVec,
    /// `tailwater_http_requests_in_flight`: requests without the head of a response yet.
    pub(crate) in_flight: IntGauge,
    /// `tailwater_http_problems_total{code,fault}`.
    problems: IntCounterVec,
    /// `tailwater_http_connections`: open connections.
    pub(crate) connections: IntGauge,
    /// `tailwater_operations_connections`: open connections to the listener for operations.
    pub(crate) operations_connections: IntGauge,
    /// `tailwater_connections_refused_total{limit}`.
    refused: IntCounterVec,
    /// `tailwater_connections_cut_total{reason}`.
    cut: IntCounterVec,
    /// `tailwater_quota_refused_total{metered,holder}`.
    over_quota: IntCounterVec,
    /// `tailwater_quota_principals`: principals that are remembered.
    pub(crate) quota_principals: IntGauge,
    /// `tailwater_share_refused_total{shared}`.
    over_share: IntCounterVec,
    /// `tailwater_http_sse_readers`: open responses of Server-Sent Events.
    pub(crate) sse_readers: IntGauge,
    /// `tailwater_http_sse_ends_total{reason}`.
    sse_ends: IntCounterVec,
    /// `tailwater_http_long_polls`: long-polls that wait.
    pub(crate) long_polls: IntGauge,
    /// `tailwater_http_body_bytes`: memory that bodies hold.
    pub(crate) body_bytes: IntGauge,
    /// `tailwater_http_body_limit_bytes`: how much they may hold.
    pub(crate) body_limit: IntGauge,
    /// `tailwater_http_received_bytes_total`: bytes of bodies taken in.
    pub(crate) received: IntCounter,
    /// `tailwater_http_sent_bytes_total`: bytes of streams handed to connections, encoded.
    pub(crate) sent: IntCounter,
    /// `tailwater_replays_gave_way_total`.
    pub(crate) gave_way: IntCounter,
    /// `tailwater_audit_entries_total{result}`.
    audit: IntCounterVec,
    /// What the delivery shards count.
    pub(crate) shards: ShardMetrics,
}

/// Where a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Stream,
    Admin,
    Ticket,
    Health,
    Ready,
    Metrics,
    Profile,
    Other,
}

/// Why a response of Server-Sent Events ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SseEnd {
    /// The stream is closed and all of it was sent.
    Closed,
    /// It lasted as long as it may.
    Rotated,
    /// The gateway is shutting down.
    Drained,
    /// The reader's position is gone.
    Reset,
    /// The stream was deleted or has expired.
    Gone,
    /// The stream failed.
    Failed,
    /// The reader went away, or its connection was closed.
    Left,
    /// The reader took nothing for too long.
    Stalled,
    /// The reader's token has expired.
    Expired,
    /// The reader's token was revoked, or its project was taken away.
    Revoked,
}

/// A gauge that is up by one for as long as this lives.
#[derive(Debug)]
pub(crate) struct Alive(IntGauge);

impl Metrics {
    /// Metrics in a registry.
    ///
    /// # Errors
    /// Those of the registry, for metrics of these names that are there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        let seconds = HistogramVec::new(
            HistogramOpts::new("tailwater_http_request_seconds", "Time from a request to the head of its response.")
                .buckets(BUCKETS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            requests: counters(
                "tailwater_http_requests_total",
                "Requests answered, by route, method and class of status.",
                &["route", "method", "status"],
            )?,
            seconds,
            in_flight: gauge("tailwater_http_requests_in_flight", "Requests that wait for a response's head.")?,
            problems: counters(
                "tailwater_http_problems_total",
                "Error responses, by code and by whose fault it was.",
                &["code", "fault"],
            )?,
            connections: gauge("tailwater_http_connections", "Open connections.")?,
            operations_connections: gauge(
                "tailwater_operations_connections",
                "Open connections to the listener for operations.",
            )?,
            refused: counters(
                "tailwater_connections_refused_total",
                "Connections, and requests, that met a limit.",
                &["limit"],
            )?,
            cut: counters(
                "tailwater_connections_cut_total",
                "Connections, and streams of HTTP/2, that the gateway ended, by reason.",
                &["reason"],
            )?,
            over_quota: counters(
                "tailwater_quota_refused_total",
                "Requests that a quota had no room for, by what it is of and whose it is.",
                &["metered", "holder"],
            )?,
            quota_principals: gauge("tailwater_quota_principals", "Principals of which is known what they have used.")?,
            over_share: counters(
                "tailwater_share_refused_total",
                "Requests refused because their project had more than its share of what was nearly used up.",
                &["shared"],
            )?,
            sse_readers: gauge("tailwater_http_sse_readers", "Open responses of Server-Sent Events.")?,
            sse_ends: counters(
                "tailwater_http_sse_ends_total",
                "Responses of Server-Sent Events that ended, by reason.",
                &["reason"],
            )?,
            long_polls: gauge("tailwater_http_long_polls", "Long-polls that wait.")?,
            body_bytes: gauge("tailwater_http_body_bytes", "Bytes of memory that request bodies hold.")?,
            body_limit: gauge("tailwater_http_body_limit_bytes", "Bytes of memory that request bodies may hold.")?,
            received: counter("tailwater_http_received_bytes_total", "Bytes of request bodies.")?,
            sent: counter("tailwater_http_sent_bytes_total", "Bytes of streams sent, as encoded.")?,
            gave_way: counter(
                "tailwater_replays_gave_way_total",
                "Parts of replays and catch-up answers that waited because live deliveries needed all cores.",
            )?,
            audit: counters(
                "tailwater_audit_entries_total",
                "Entries of the audit log, by whether they were written.",
                &["result"],
            )?,
            shards: ShardMetrics::register(registry)?,
        })
    }

    pub(crate) fn answered(&self, route: Route, method: &Method, status: StatusCode, took: Duration) {
        self.requests.with_label_values(&[route.label(), method_label(method), status_label(status)]).inc();
        // A live request takes as long as it waits, which says nothing.
        if route != Route::Stream || method != Method::GET {
            self.seconds.with_label_values(&[route.label()]).observe(took.as_secs_f64());
        }
    }

    pub(crate) fn failed(&self, problem: Counted) {
        let fault = match problem.fault {
            Fault::Client => "client",
            Fault::Gateway => "gateway",
            Fault::Upstream => "upstream",
        };
        self.problems.with_label_values(&[problem.code, fault]).inc();
    }

    pub(crate) fn refused(&self, limit: Limit) {
        self.refused.with_label_values(&[limit.label()]).inc();
    }

    pub(crate) fn over_quota(&self, metered: Metered, holder: Holder) {
        let holder = match holder {
            Holder::Project => "project",
            Holder::Principal => "principal",
        };
        self.over_quota.with_label_values(&[metered.as_str(), holder]).inc();
    }

    pub(crate) fn over_share(&self, shared: Shared) {
        self.over_share.with_label_values(&[shared.label()]).inc();
    }

    pub(crate) fn cut(&self, reason: Cut) {
        self.cut.with_label_values(&[reason.label()]).inc();
    }

    pub(crate) fn sse_ended(&self, reason: SseEnd) {
        self.sse_ends.with_label_values(&[reason.label()]).inc();
    }

    pub(crate) fn audited(&self, result: Written) {
        self.audit.with_label_values(&[result.label()]).inc();
    }

    pub(crate) fn sent_bytes(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }
}

impl Route {
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/health" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            crate::tickets::PATH => Self::Ticket,
            "/debug/profile" => Self::Profile,
            path if path.starts_with(tailwater_protocol::path::STREAM_ROOT) => Self::Stream,
            path if path.starts_with(crate::admin::ROOT) => Self::Admin,
            _ => Self::Other,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Admin => "admin",
            Self::Ticket => "ticket",
            Self::Health => "health",
            Self::Ready => "ready",
            Self::Metrics => "metrics",
            Self::Profile => "profile",
            Self::Other => "other",
        }
    }
}

impl SseEnd {
    const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Rotated => "rotated",
            Self::Drained => "drained",
            Self::Reset => "reset",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Left => "left",
            Self::Stalled => "stalled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Alive {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A method by its name, if that is one: a request may call it anything.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "PUT" => "put",
        "POST" => "post",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "other",
    }
}

fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_method_and_class_of_status() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.answered(Route::of("/v1/stream/a"), &Method::PUT, StatusCode::CREATED, Duration::from_millis(3));
        metrics.answered(Route::of("/x"), &Method::PATCH, StatusCode::NOT_FOUND, Duration::ZERO);
        metrics.failed(Counted { code: "not_found", fault: Fault::Client });
        metrics.sse_ended(SseEnd::Left);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "tailwater_http_requests_total{method=\"put\",route=\"stream\",status=\"2xx\"} 1",
            "tailwater_http_requests_total{method=\"other\",route=\"other\",status=\"4xx\"} 1",
            "tailwater_http_problems_total{code=\"not_found\",fault=\"client\"} 1",
            "tailwater_http_sse_ends_total{reason=\"left\"} 1",
            "tailwater_http_request_seconds_count{route=\"stream\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn a_gauge_is_up_for_as_long_as_its_guard_lives() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let alive = Alive::new(&metrics.long_polls);
        assert_eq!(metrics.long_polls.get(), 1);
        drop(alive);
        assert_eq!(metrics.long_polls.get(), 0);
    }
}
