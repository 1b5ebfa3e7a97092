//! Parts of the inside that benchmarks measure one by one. No interface: it changes with the parts.

pub use crate::{
    batch::{Batch, Message},
    feed::{Feed, Found, RingPool},
    frame::{Burst, Frame, News, Says, Stand},
    ring::Ring,
};
