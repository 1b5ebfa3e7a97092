//! The Durable Streams protocol as pure functions.
//!
//! What a client sends is parsed here into types that cannot hold an invalid value, and what it is sent is encoded
//! here. Nothing here reads a clock, draws a random number, waits, or touches a socket: time and jitter are arguments.
//! Nothing here knows what a stream holds, so what depends on that (conflicts, producers, expiry) is not here either.
//!
//! What comes in:
//! - [`offset`]: the position tokens, and the two sentinels.
//! - [`query`]: the query of a read.
//! - [`path`]: which stream of which project a URL names.
//! - [`content_type`]: the media type of a stream, and how its messages travel.
//! - [`lifetime`]: `Stream-TTL` and `Stream-Expires-At`.
//! - [`visibility`]: who may see a stream.
//! - [`producer`]: idempotent producers, and `Stream-Seq`.
//! - [`fork`]: the headers that make a fork.
//! - [`closed`]: the spelling of `Stream-Closed`.
//! - [`json`]: from bodies to messages.
//! - [`bad_request`]: what is wrong with a request, by field.
//!
//! What goes out:
//! - [`sse`]: the bytes of Server-Sent Events.
//! - [`text`]: where a text can be cut without splitting a character.
//! - [`cursor`]: the cursors that let caches collapse requests without looping.
//! - [`etag`]: entity tags, and `If-None-Match`.
//! - [`cache`]: which answers may be kept, by whom, for how long.
//! - [`headers`]: the names of all headers.
//!
//! Invariants, each held by a property test:
//! - Offsets sort as text in the order of their positions; parsing undoes printing.
//! - No payload forges an SSE event; an SSE parser gives back what went in.
//! - JSON messages are slices of the body, byte for byte; no depth of nesting overflows the stack.
//! - No input panics; an error never repeats more than 64 escaped characters of what the client sent.

pub mod bad_request;
pub mod cache;
pub mod closed;
pub mod content_type;
pub mod cursor;
mod digits;
pub mod etag;
pub mod fork;
pub mod headers;
pub mod json;
pub mod lifetime;
pub mod offset;
pub mod path;
pub mod producer;
pub mod query;
pub mod sse;
pub mod text;
pub mod visibility;

pub use bad_request::BadRequest;
pub use cache::Answer;
pub use content_type::{ContentKind, ContentType};
pub use etag::ETag;
pub use fork::{ForkOffset, ForkRequest};
pub use lifetime::Lifetime;
pub use offset::{Offset, ReadOffset};
pub use path::{Addressing, ProjectId, StreamPath};
pub use producer::{Producer, ProducerId, StreamSeq};
pub use query::{ReadMode, ReadQuery};
pub use visibility::Visibility;
