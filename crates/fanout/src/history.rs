//! Older ranges, read from the store in bounded pages.
//!
//! What is visible in a stretch of a log needs no state but where the stretch ends, so a page is read without the actor.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_log::{Entry, Misplaced, Place, Span, StreamState};
use tailwater_protocol::{ContentKind, Offset};
use tailwater_upstream::{StreamKey, Upstream};

use crate::{
    actor::{breaks_json, stream_key},
    batch::LogRecord,
    logread::LogReader,
    metrics::Metrics,
    ops::OpError,
};

/// Reads the history of one stream.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) key: StreamKey,
    pub(crate) metrics: Metrics,
    pub(crate) page_bytes: usize,
}

/// A page of history.
#[derive(Debug)]
pub(crate) struct HistoryPage {
    /// The messages' bytes, each with its place.
    pub(crate) messages: Vec<(Bytes, Place)>,
    /// Where to go on; at the view's tail where all is read.
    pub(crate) place: Place,
}

/// What a hole at the start of a read means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    /// The reader asked for the earliest: it gets what is left.
    Skip,
    /// The reader named an offset: what it points to is gone.
    Refuse,
}

impl History {
    /// The messages from a place on, up to a page's bytes or the tail of the view. A page is never empty unless it ends
    /// at the tail.
    pub(crate) async fn page(
        &self,
        view: &StreamState,
        kind: ContentKind,
        mut place: Place,
        mut hole: Hole,
    ) -> Result<HistoryPage, OpError> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        while let Some(span) = view.span_at(place) {
            let records = self.read(&span).await?;
            let first = records.first().map_or(span.to, |read| read.record.seq);
            if first > span.from && hole == Hole::Refuse {
                let earliest = Offset { birth: span.birth, seq: first };
                return Err(Misplaced::Gone { earliest }.into());
            }
            hole = Hole::Skip;
            if records.is_empty() {
                place = view.after(place, span.to);
                continue;
            }
            for read in records {
                let at = Place { seq: read.record.seq, ..place };
                place = view.after(place, read.record.seq + 1);
                let entry = Entry::decode(&read.record).map_err(|_| OpError::Unreadable { seq: read.record.seq })?;
                if !entry.kind.is_visible() || breaks_json(kind, &read) {
                    continue;
                }
                let body = read.body();
                bytes += body.len();
                messages.push((body, at));
                if bytes >= self.page_bytes {
                    return Ok(HistoryPage { messages, place });
                }
            }
        }
        Ok(HistoryPage { messages, place })
    }

    async fn read(&self, span: &Span) -> Result<Vec<LogRecord>, OpError> {
        self.metrics.history_reads.inc();
        let key = span.source.as_ref().map_or_else(|| self.key.clone(), stream_key);
        LogReader::new(Arc::clone(&self.upstream), key).read(span.from, span.to).await
    }
}
