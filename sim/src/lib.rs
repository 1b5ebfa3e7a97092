//! A seeded simulation of many pods: the real log, actors and shards on the scripted store, in virtual time, with every
//! fault.
//!
//! A seed is drawn into a [`script`]: what each client does at which pod and when, and what goes wrong when. The
//! script is [played](play) on one thread with paused time, so that the same seed is the same run, to the byte of its
//! [`trace`]. What clients were told is written down as a [`history`], and judged against the log itself by
//! an [`oracle`], which is a pure function and is shown broken histories by its own tests.
//!
//! | module | what it holds |
//! |---|---|
//! | `script` | what a seed means: deeds and faults, each at its time, any of which can be left out |
//! | `world` | the store, the pods, and all that is written down |
//! | `link` | a pod's way to the store: time, faults, kills between two writes, the next version's envelope |
//! | `faults` | what waits to go wrong, and the count of what was met |
//! | `writers`, `readers` | clients: producers, plain and native writers; tasks, shard readers and long-polls |
//! | `desk` | a pod's delivery shard called by hand, and the sockets of its readers |
//! | `ending` | faults are over, and everything has to come to rest |
//! | `liveness` | scenes with a clock and a count, because starvation passes every check of safety |
//! | `truth` | a second, simple reading of the log |
//! | `history`, `oracle` | what clients were told, and what must hold of it |
//! | `shrink`, `hunt` | the shortest script that fails; many seeds |
//!
//! # What is real and what is not
//!
//! The gateway is the product's crate as it ships, from the registry down to the fold; only its random numbers and its
//! machine's clock are given to it. HTTP is not here: a client calls the gateway as the server would. Sockets are buffers,
//! and the loop around a shard is turned by whoever waits at it. A killed pod is one whose way to the store has ended and
//! whose clients are cut off; nothing of what it still does reaches anybody.
//!
//! # Invariants
//!
//! - One thread, paused time, all chance from the seed: a run depends on nothing else.
//! - Moments are counted in batches that had landed, not in time: "before" and "after" have no ties.
//! - The oracle knows no state of the product's. What it needs of the log it reads by itself.
//! - `mutants/` holds faults that this must find, as patches; a simulation that finds nothing proves nothing.

pub mod desk;
pub mod ending;
pub mod faults;
pub mod history;
pub mod hunt;
pub mod link;
pub mod liveness;
pub mod oracle;
pub mod play;
pub mod readers;
pub mod script;
pub mod shrink;
pub mod trace;
pub mod truth;
pub mod world;
pub mod writers;
