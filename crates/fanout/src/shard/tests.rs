//! The shard by hand: scripted sockets, a clock that only the test moves, and clients that check every byte.

mod catch_up;
mod delivery;
mod parked;
mod partial;
mod poller;
mod property;
mod review;
mod script;
mod timers;
mod world;
