//! What a fork inherits: the chain of stretches that its `open` names.

use tailwater_protocol::Offset;

use crate::{
    mark::{Segment, StreamName},
    state::{Life, StreamState},
};

impl StreamState {
    /// All that stands in this stream before an offset which [`resolve`](Self::resolve) has accepted, as a fork of it
    /// spells it: `name` is this stream's. The last segment ends at the offset, even where it is empty, because the
    /// tail of a fork without messages of its own is the fork offset.
    #[must_use]
    pub fn inherited_before(&self, at: Offset, name: &StreamName) -> Vec<Segment> {
        let (chain, own_from): (&[Segment], u64) = match &self.life {
            Life::Native(_) => (&[], self.trimmed),
            Life::Opened(life) => (&life.chain, life.opened_at + 1),
        };
        let named = |segment: &Segment| Segment {
            source: Some(segment.source.clone().unwrap_or_else(|| name.clone())),
            ..segment.clone()
        };
        let mut inherited = Vec::with_capacity(chain.len() + 1);
        for segment in chain {
            if segment.birth == at.birth {
                inherited.push(Segment { to: at.seq.max(segment.from).min(segment.to), ..named(segment) });
                return inherited;
            }
            inherited.push(named(segment));
        }
        let own =
            Segment { birth: self.own_birth(), source: Some(name.clone()), from: own_from, to: at.seq.max(own_from) };
        inherited.push(own);
        inherited
    }
}
