//! The HTTP surface over the real gateway and a scripted store: requests in, responses out, no sockets but in
//! [`sockets`], [`ends`], [`heads`], [`limits`], [`overload`], [`quotas`], [`stallers`], [`http2`], [`floods`], [`smuggling`],
//! [`surfaces`], [`tls`], [`issuers`], [`attacked`] and [`replayed`].

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod admin;
mod attacked;
#[path = "../../../auth/tests/tokens/attacks.rs"]
mod attacks;
mod closure;
mod create;
mod ends;
mod errors;
mod fixture;
mod floods;
#[path = "../../../auth/tests/tokens/forge.rs"]
mod forge;
mod heads;
mod http2;
mod injection;
mod issuer;
mod issuers;
mod limits;
mod live;
mod meanwhile;
mod overload;
mod quotas;
mod reads;
mod register;
mod replayed;
mod rights;
mod secrets;
mod smuggling;
mod sockets;
mod spellings;
mod stallers;
mod surfaces;
mod tickets;
mod tls;
mod wire;
