//! The HTTP surface over the real gateway and a scripted store: requests in, responses out, no sockets but in
//! [`sockets`].

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod closure;
mod create;
mod errors;
mod fixture;
mod live;
mod reads;
mod sockets;
