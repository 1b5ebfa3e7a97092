//! What the measurements share.
//!
//! - [`figures`]: quantiles of times, and the comparison of two ways to the same end.
//! - [`phases`]: pauses that spread attempts evenly over a period that the measured thing has.
//! - [`rounds`]: the median of one figure over several rounds.
//! - [`ledger`]: what several writers had acknowledged, and whether the streams hold exactly that.
//! - [`chunks`]: how many chunks the history of a stream is.
//! - [`programs`]: the programs as they are built, the cores that they run on, and the CPU that they have taken.
//! - [`connection`]: a client of the gateway.
//! - [`direct`]: the way past the gateway, by S2's client library.
//!
//! The measurements themselves are the bench targets of this package: they start the program, and look at it from
//! outside only; single operations of its inside have a package of their own, in `micro/`. `benches/prove` runs them and
//! writes down what they showed.

pub mod chunks;
pub mod connection;
pub mod direct;
pub mod figures;
pub mod ledger;
pub mod phases;
pub mod programs;
pub mod rounds;
