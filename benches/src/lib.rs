//! The pure half of the measurements: what is made of times, and when to take the next one.
//!
//! - [`figures`]: quantiles of times, and the comparison of two ways to the same end.
//! - [`phases`]: pauses that spread attempts evenly over a period that the measured thing has.
//!
//! The measurements themselves are the bench targets of this package: they start the program, and look at it from
//! outside only. `benches/prove` runs them and writes down what they showed.

pub mod figures;
pub mod phases;
