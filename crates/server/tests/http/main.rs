//! The HTTP surface over the real gateway and a scripted store: requests in, responses out, no sockets but in
//! [`sockets`], [`ends`], [`limits`], [`overload`], [`quotas`], [`stallers`], [`http2`], [`smuggling`], [`surfaces`],
//! [`tls`] and [`issuers`].

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod admin;
mod closure;
mod create;
mod ends;
mod errors;
mod fixture;
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
