//! The HTTP surface of the gateway: the Durable Streams protocol over [`tailwater_fanout::Gateway`].
//!
//! A request is parsed into types (`tailwater-protocol`), handed to the gateway, and what comes back is spelled as
//! HTTP. Nothing here knows a log, a store, or an actor; nothing here keeps state about a stream.
//!
//! | module | what it holds |
//! |---|---|
//! | [`app`] | what all handlers share |
//! | [`config`] | the settings |
//! | `routes` | which path and method goes where |
//! | [`surface`] | what is served at which listeners |
//! | `profile` | where the process spends its memory and its time |
//! | `request` | headers and paths, read into types |
//! | `body` | request bodies, bounded in size, time and number |
//! | `answer` | headers and bodies of responses |
//! | `create`, `append`, `read`, `long_poll`, `sse` | the operations |
//! | `feed` | what one reader of Server-Sent Events is sent, without I/O |
//! | `event_source` | what a plain `EventSource` gets instead of a refusal |
//! | `handover`, `delivery` | live responses on their way out of the HTTP library, and outside it |
//! | `location` | absolute URLs of streams |
//! | [`problem`] | errors to HTTP; the table of codes |
//! | [`guard`] | whether tokens are asked for, and the projects that are trusted, read from files |
//! | `credential` | who asks: a token, a ticket, or a cookie |
//! | [`issuers`] | keys of issuers: fetched by URL, and waited for |
//! | `permit` | what a request may do |
//! | `quota` | what projects, and principals of them, have used; what answers say of it |
//! | `share` | what projects use of what all share, and whose turn it is when that is nearly used up |
//! | `standing` | what a live answer stands on, and when that is over |
//! | `admin` | projects, as whoever administers them sees and changes them; tokens for them |
//! | `audit` | what was asked of the administration, as messages of a stream |
//! | `tickets` | tickets for a plain `EventSource`, for whoever has a token |
//! | `cors` | headers that every response has, and who of other origins may see it |
//! | `health` | liveness, readiness, metrics |
//! | [`metrics`] | what is counted |
//! | [`drain`] | the end of live responses when the process ends |
//! | [`listen`] | listeners and shutdown |
//! | `admission` | how many connections there may be, in all and from one client |
//! | [`client_address`] | whose connection or request it is |
//! | `connection` | serving one connection: which protocol, and how it ends |
//! | `framing`, `strict` | where requests of HTTP/1.1 begin and end, and nothing that could be read in two ways |
//! | `host` | whom a request is for |
//! | `http2` | the bounds of HTTP/2 |
//! | `refuse` | the answer to whoever cannot be let in |
//! | `reserve` | descriptors for whoever is told that there are no more |
//! | [`edges`] | what is laid open to be fuzzed |
//! | `rewind` | a connection of which the beginning was read already |
//! | `wire` | a response as bytes, outside the HTTP library |
//! | `turns` | large answers in parts, so that others have their turn |
//! | [`tls`] | TLS at the listeners |
//! | `stall` | connections that take nothing any more |
//!
//! # Invariants
//!
//! - Every response, errors included, has the security and CORS headers, and every error is a problem body with a code
//!   of the table.
//! - What a request may do is decided once, on the decoded name of its stream, before anything else is done for it; where
//!   that depends on the stream, on the very state that is answered from.
//! - What an error's cause says goes to the log, never to the client.
//! - What could be read as one request or as two is not read.
//! - A body, the number of bytes in all bodies, a wait, a connection's silence and the number of connections are bounded.
//! - A reader of Server-Sent Events is sent every message once and in order; a control event that says `upToDate` is
//!   true when it is written.
//! - Every accepted reader ends in exactly one counted way.

mod admin;
mod admission;
mod answer;
pub mod app;
mod append;
mod audit;
mod body;
pub mod client_address;
pub mod config;
mod connection;
mod cors;
mod create;
mod credential;
mod delivery;
pub mod drain;
pub mod edges;
mod event_source;
mod feed;
pub mod framing;
pub mod guard;
mod handover;
mod health;
pub mod host;
mod http2;
pub mod issuers;
pub mod listen;
mod location;
mod long_poll;
pub mod metrics;
mod permit;
pub mod problem;
mod profile;
mod quota;
mod read;
mod refuse;
mod request;
mod reserve;
mod rewind;
mod routes;
mod share;
mod sse;
mod stall;
mod standing;
mod strict;
pub mod surface;
mod tickets;
pub mod tls;
mod turns;
mod wire;

pub use app::{Ambient, App, Parts};
pub use client_address::{InvalidNetwork, TrustedProxies};
pub use config::{Config, PublicUrl};
pub use drain::Drain;
pub use guard::{Auth, Guard, GuardError};
pub use issuers::{Authorities, IssuerMetrics, Issuers, IssuersError, IssuersSeed, Reach, Resolver, Unlisted};
pub use listen::{Ended, Server};
pub use metrics::Metrics;
pub use problem::Problem;
pub use routes::{paths, paths_of, router, router_of};
pub use surface::{Listeners, Surface};
pub use tls::{Tls, TlsError};
