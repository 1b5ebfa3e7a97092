//! What is allotted to active streams: so many of them may be, and whoever else has a say says who is the next.

use tailwater_upstream::StreamKey;

use super::Gateway;
use crate::{metrics::Limit, ops::OpError};

/// For what a stream becomes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// For a request, which may be refused and come again.
    Request,
    /// For what has been let in already, and for what the gateway does by itself: readers that had the stream, references that
    /// are let go of, streams whose time has come. Nobody would come again for these.
    Owed,
}

/// How many streams are active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// How many there are.
    pub active: usize,
    /// How many there may be.
    pub most: usize,
}

/// What a stream holds for as long as it is active. To give it back is to drop it.
pub type Allotment = Box<dyn Send + Sync>;

/// Lets one more stream become active, where there is room for it; nothing, where the room that is left is for other projects
/// and it is for a request. It is asked before each stream that becomes active, whoever asked for that stream, and must not wait.
pub type Allot = Box<dyn Fn(&StreamKey, Crowd, Need) -> Option<Allotment> + Send + Sync>;

impl Gateway {
    /// Says who has a say in which streams become active, besides the limit for all. Whoever is named first stays.
    pub fn allot_by(&self, allot: Allot) {
        drop(self.inner.allot.set(allot));
    }

    /// Room for one more active stream; nothing to be held for it, where nobody else has a say.
    pub(super) fn allot(&self, key: &StreamKey, need: Need) -> Result<Option<Allotment>, OpError> {
        let crowd = Crowd { active: self.inner.streams.len(), most: self.inner.config.max_streams };
        if crowd.active >= crowd.most {
            self.inner.metrics.refused(Limit::Streams);
            return Err(OpError::TooManyStreams);
        }
        let Some(allot) = self.inner.allot.get() else { return Ok(None) };
        allot(key, crowd, need).map(Some).ok_or(OpError::OverFairShare)
    }
}
