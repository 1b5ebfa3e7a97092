//! What is fuzzed: the parsers that bytes of a client reach before a token is judged, those that judge it, and those of
//! bytes that come from elsewhere (the store, an issuer, a file).
//!
//! A target is a plain function of bytes, which panics where something does not hold. Each asserts more than that nothing
//! panics: what was read and is written down again reads the same, two ways to read agree, bounds are kept, and no error
//! shows a secret. libFuzzer runs them in `libfuzzer/`, a package apart, because that needs code that this workspace
//! forbids and instruments; the tests here replay the corpus that is committed, on a stable compiler and without it.
//!
//! | module | what it holds |
//! |---|---|
//! | `input` | bytes as lines, and as pieces |
//! | `trust` | the projects, keys and times that never change |
//! | `names` | paths, queries, patterns |
//! | `fields` | headers of requests |
//! | `bodies` | JSON bodies, and the events that are made of messages |
//! | `tokens` | tokens and their claims |
//! | `tickets` | tickets, as they come and as they are issued |
//! | `issuers` | sets of keys, and where they are fetched |
//! | `callers` | who asks: addresses behind proxies, origins, cookies |
//! | `edges` | what stands around requests: the version of a connection, whom a page calls the gateway, how it asks |
//! | `records` | logs of streams, and the register |
//! | `requests` | whole requests, through the router |
//! | `wire` | bytes of HTTP/1.1 before anything else sees them, and whom requests are for |

mod bodies;
mod callers;
mod edges;
mod fields;
mod input;
mod issuers;
mod names;
mod records;
mod requests;
mod tickets;
mod tokens;
mod trust;
mod wire;

/// A function that panics where something does not hold of these bytes.
pub type Target = fn(&[u8]);

/// All targets, by name. Each has a folder of the same name in `corpus/`.
pub const TARGETS: [(&str, Target); 29] = [
    ("claims", tokens::claims),
    ("client-address", callers::client_address),
    ("content-type", fields::content_type),
    ("cookie", callers::cookie),
    ("creation", fields::creation),
    ("document", issuers::document),
    ("etag", fields::etag),
    ("event-source", edges::event_source),
    ("framing", wire::framing),
    ("host", wire::host),
    ("json-body", bodies::json_body),
    ("jwks", issuers::jwks),
    ("jwks-url", issuers::jwks_url),
    ("log", records::log),
    ("log-entry", records::log_entry),
    ("offset", names::offset),
    ("origin", callers::origin),
    ("own-origin", edges::own_origin),
    ("path", names::path),
    ("pattern", names::pattern),
    ("preface", edges::preface),
    ("producer", fields::producer),
    ("query", names::query),
    ("register", records::register),
    ("request", requests::request),
    ("sse", bodies::sse),
    ("ticket", tickets::ticket),
    ("ticket-issued", tickets::ticket_issued),
    ("token", tokens::token),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(own, _)| *own == name).map(|(_, target)| *target)
}
