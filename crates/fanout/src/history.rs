//! Older ranges, in bounded pages, from chunks that all readers share.
//!
//! What is visible in a stretch of a log needs no state but where the stretch ends, so a page is read without the actor.
//!
//! | module | what it holds |
//! |---|---|
//! | `chunk` | what one read of a log brought, decoded once |
//! | `shelf` | which chunks are kept, and which are under way; synchronous |
//! | `cache` | the shelf with its reads: one at a time for each missing chunk |
//! | `window` | how much all who replay have in hand at once |

mod cache;
mod chunk;
mod shelf;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use bytes::Bytes;
use tailwater_log::{Misplaced, Place, StreamState};
use tailwater_protocol::{ContentKind, Offset};
use tailwater_upstream::StreamKey;

pub(crate) use self::{
    cache::HistoryCache,
    window::{Window, Windows},
};
use self::{chunk::Chunk, shelf::LogKey};
use crate::{actor::stream_key, ops::OpError};

/// The most messages of a page, so that one of very many small ones is bounded too.
const PAGE_MESSAGES: usize = 16_384;
/// What a message in a page costs beside its bytes.
const MESSAGE_OVERHEAD: usize = size_of::<(Bytes, Place)>();

/// Reads the history of one stream.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) cache: Arc<HistoryCache>,
    pub(crate) key: StreamKey,
    /// About how many bytes of messages a page holds: it ends with the message that passes them.
    pub(crate) page_bytes: usize,
}

/// A page of history.
#[derive(Debug)]
pub(crate) struct HistoryPage {
    /// The messages' bytes, each with its place.
    pub(crate) messages: Vec<(Bytes, Place)>,
    /// Where to go on; at the view's tail where all is read.
    pub(crate) place: Place,
    /// The bytes of the messages.
    bytes: usize,
}

/// What a hole at the start of a read means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    /// The reader asked for the earliest: it gets what is left.
    Skip,
    /// The reader named an offset: what it points to is gone.
    Refuse,
}

impl HistoryPage {
    /// What it takes, in bytes.
    fn cost(&self) -> usize {
        self.bytes + self.messages.len() * MESSAGE_OVERHEAD
    }
}

impl History {
    /// The messages from a place on, up to a page's bytes or the tail of the view. A page is never empty unless it ends
    /// at the tail. One that holds something ends before a hole, or before what cannot be read, and the next one says so.
    pub(crate) async fn page(
        &self,
        view: &StreamState,
        kind: ContentKind,
        place: Place,
        hole: Hole,
    ) -> Result<HistoryPage, OpError> {
        let mut page = HistoryPage { messages: Vec::new(), place, bytes: 0 };
        loop {
            // What is kept in memory is given without a wait, and others want to run too.
            tokio::task::consume_budget().await;
            match self.extend(&mut page, view, kind, hole).await {
                Ok(true) if page.messages.is_empty() || !self.is_full(&page) => {}
                Err(error) if page.messages.is_empty() => return Err(error),
                Ok(_) | Err(_) => return Ok(page),
            }
        }
    }

    /// A page that is within what a reader's window holds. It waits for the window, and keeps it open.
    pub(crate) async fn page_within(
        &self,
        window: &mut Window,
        (view, kind): (&StreamState, ContentKind),
        place: Place,
        hole: Hole,
    ) -> Result<HistoryPage, OpError> {
        let mut size = self.page_bytes;
        loop {
            window.open(size).await;
            let page = self.page(view, kind, place, hole).await.inspect_err(|_| window.close())?;
            // A single message may be larger than a window.
            if window.fits(page.cost()) {
                return Ok(page);
            }
            size = page.cost();
        }
    }

    /// Adds what one chunk holds from the page's place on; whether there may be more behind it.
    async fn extend(
        &self,
        page: &mut HistoryPage,
        view: &StreamState,
        kind: ContentKind,
        hole: Hole,
    ) -> Result<bool, OpError> {
        let Some(span) = view.span_at(page.place) else { return Ok(false) };
        let stream = span.source.as_ref().map_or_else(|| self.key.clone(), stream_key);
        let log = LogKey::new(stream, span.birth, kind);
        let chunk = self.cache.chunk_at(&log, span.from, span.to).await?;
        let first = chunk.as_deref().map_or(span.to, |chunk| chunk.first_from(span.from).min(span.to));
        if first > span.from {
            // Whoever was given something reads on where that ends: a hole there is one in what it asked for.
            if hole == Hole::Refuse || !page.messages.is_empty() {
                return Err(Misplaced::Gone { earliest: Offset { birth: span.birth, seq: first } }.into());
            }
            page.place = view.after(page.place, first);
            return Ok(true);
        }
        let Some(chunk) = chunk else { return Ok(false) };
        self.take(page, view, &chunk, span.to)
    }

    fn is_full(&self, page: &HistoryPage) -> bool {
        page.bytes >= self.page_bytes || page.messages.len() >= PAGE_MESSAGES
    }

    /// Adds the messages of a chunk that stand at or behind the page's place and before `to`.
    fn take(&self, page: &mut HistoryPage, view: &StreamState, chunk: &Chunk, to: u64) -> Result<bool, OpError> {
        let from = page.place;
        let readable_to = chunk.readable_from(from.seq).min(to);
        for (seq, body) in chunk.messages(from.seq, readable_to) {
            page.messages.push((body.clone(), Place { seq: *seq, ..from }));
            page.bytes += body.len();
            if self.is_full(page) {
                page.place = view.after(from, seq + 1);
                return Ok(true);
            }
        }
        if readable_to < to && readable_to < chunk.next {
            page.place = view.after(from, readable_to);
            return Err(OpError::Unreadable { seq: readable_to });
        }
        page.place = view.after(from, readable_to);
        Ok(true)
    }
}
