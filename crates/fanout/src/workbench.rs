//! Parts of the inside that benchmarks measure one by one, and that the simulation calls by hand. No interface: it changes
//! with the parts.

pub use crate::{
    batch::{Batch, Message},
    feed::{Feed, Found, RingPool},
    frame::{Burst, Frame, News, Says, Stand},
    ring::Ring,
    shard::{LineId, Shard, ShardBell, SlotId, TICK},
};
