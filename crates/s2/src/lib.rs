//! The store: [`Upstream`](tailwater_upstream::Upstream) over S2's client library, and s2-lite inside the process.
//!
//! - `naming`: project ids and stream names to S2's basins and streams, and back. Pure.
//! - `upstream`: the trait's implementation; `basins` sees to it that a project's basin exists and is fit, `session`
//!   turns S2's read session into events and goes on when its connection is lost, `translate` holds every rule about S2's
//!   errors.
//! - `circuit`: when a store that does not answer is left alone. Pure. `way` is what requests ask for it, and wait at;
//!   `sentry` sees to it that a store which stands still is noticed while streams are followed.
//! - `metrics`: what the store is asked to do, counted.
//! - `embedded`: s2-lite on a loopback port, behind a token, with its data in memory, a directory or a bucket.
//! - `secret`: text that is not shown.
//!
//! Not here: batching, retries across appends, settling of unknown fates. The one thing tried again is what S2's
//! library knows to be without side effects. How long S2 wants to be left in peace (`retry-after-ms`) the library waits by
//! itself, and does not tell.
//!
//! Invariants: an error that says "nothing was appended" is made only from an answer that guarantees it; command
//! records are never filtered; nothing waits for ever, except a read session that was open once and reconnects.

mod basins;
mod circuit;
mod embedded;
mod metrics;
mod naming;
mod secret;
mod sentry;
mod session;
mod translate;
mod upstream;
mod way;

pub use basins::UnfitBasin;
pub use embedded::{
    BucketConfig, EmbeddedStore, EmbeddedStoreConfig, EmbeddedStoreError, Exposure, Storage, StoreEnd, StoreObserver,
};
pub use metrics::{Meter, Metrics};
pub use naming::{BasinPrefix, NamedBasins, NamingError, Placement, SharedBasin};
pub use secret::Secret;
pub use upstream::{Endpoint, S2Upstream, S2UpstreamConfig, S2UpstreamError};
