//! Many gateways on one store, as the processes that an operator would run, and faults as the kernel deals them:
//! SIGKILL, SIGSTOP, SIGTERM. Clients write down what they were told, and one oracle judges it.
//!
//! ```text
//!  writers ──┐   ┌─ round robin ─┐   ┌─► pod 0 ─┐
//!            ├──►│     nginx     ├───┼─► pod 1 ─┼──► store, in a directory
//!  readers ──┘   └─ hash of URI ─┘   └─► pod 2 ─┘
//!                                      ▲             ▲
//!                    a lane of faults for each, drawn from a seed
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `message` | messages that say who wrote them, and whose every byte can be checked |
//! | `history`, `oracle` | what clients were told, and what must hold of it; pure |
//! | `plan` | which fault comes when, from a seed; pure |
//! | `service`, `nginx`, `cluster` | the processes |
//! | `lanes` | faults, dealt to processes |
//! | `wire` | HTTP/1.1 for clients that lose their connections all the time |
//! | `writer`, `reader` | clients: plain writers and producers; events, `EventSource`, long-polls, catch-up |
//! | `crowd` | all clients of a scenario, and what they have seen |
//! | `ending` | faults are over: streams are closed, and every pod is asked for the whole of each |
//! | `kernel` | the CPU time of processes, and how many files may be open |
//! | `report`, `scenario` | what is shown, and the five scenarios that show it |
//!
//! # What is judged
//!
//! In the end each stream is closed and read from each pod, and all pods have to tell the same bytes: that is the
//! truth. Every message that was acknowledged stands in it once; nothing that was refused stands in it; what was
//! neither may stand in it once, whole. What a producer wrote stands in its order. A reader that began at the beginning
//! has seen the truth, no more and no less, over however many connections; it reads on from the last offset that it was
//! told, as clients do.
//!
//! # Invariants
//!
//! - Only processes that were started here are sent signals, each by its id, and none outlives the scenario.
//! - Every wait is bounded; what is not over in time is a finding.
//! - The seed decides the faults and what clients do; the machine decides how these meet. So a run is not repeatable to
//!   the letter, and the oracle needs no run to be like another.
//! - The oracle knows nothing of the product's but the rules for answers, and its own tests show it broken histories.

pub mod cluster;
pub mod crowd;
pub mod ending;
pub mod history;
pub mod kernel;
pub mod lanes;
pub mod message;
pub mod nginx;
pub mod oracle;
pub mod plan;
pub mod reader;
pub mod report;
pub mod scenario;
pub mod service;
pub mod wire;
pub mod writer;
