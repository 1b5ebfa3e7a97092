//! A load tool for servers that fan streams out: SSE and long-poll readers, open-loop writers on a fixed schedule, storms,
//! stallers and replays, on one thread. Every reader checks every byte of every message and their sequence, so that a
//! figure of a run that lost or repeated something cannot be published by accident.
//!
//! - [`args`]: the command line and scenario files; [`report`]: what comes out.
//! - [`command`]: the loads. [`engine`]: the loop that all of them turn.
//! - [`reader`]: what the bytes of a reader's connection mean, made of [`http`], [`sse`], [`message`] and [`position`].
//! - [`adapter`]: the kinds of servers. [`floor`]: a server of our own that does the least that can be done.
//! - [`schedule`], [`figures`]: when messages are due, and what became of them. [`process`]: what the kernel says,
//!   and [`counters`]: what the server itself does.

mod adapter;
mod args;
mod command;
mod counters;
mod engine;
mod figures;
mod floor;
mod http;
mod message;
mod position;
mod process;
mod reader;
mod report;
mod schedule;
mod sse;

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    args::{Command, FloorArgs},
    floor::Floor,
    report::Report,
};

/// The exit code of a run in which a check failed.
const FAILED: u8 = 1;
/// The exit code when there was no run.
const IMPOSSIBLE: u8 = 2;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            // Without a place to complain, the exit code has to do.
            drop(writeln!(io::stderr(), "fanbench: {error:#}"));
            ExitCode::from(IMPOSSIBLE)
        }
    }
}

fn start() -> Result<ExitCode> {
    let arguments = args::read(std::env::args_os())?;
    match arguments.command {
        Command::Floor(floor) => serve(&floor),
        Command::Run(run) => finish(&command::run::run(&run)?, run.load.json.as_deref()),
        Command::Storm(storm) => finish(&command::storm::run(&storm)?, storm.load.json.as_deref()),
        Command::Replay(replay) => finish(&command::replay::run(&replay)?, replay.load.json.as_deref()),
        Command::Memory(memory) => finish(&command::memory::run(&memory)?, memory.load.json.as_deref()),
    }
}

fn serve(args: &FloorArgs) -> Result<ExitCode> {
    if let Some(core) = args.pin {
        process::pin(core)?;
    }
    let history = usize::try_from(args.history.as_u64()).context("the history does not fit in memory")?;
    let floor = Floor::bind(args.listen, history)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on {}", floor.address()?)?;
    stdout.flush()?;
    drop(stdout);
    floor.serve()?;
    Ok(ExitCode::SUCCESS)
}

fn finish(report: &Report, json: Option<&Path>) -> Result<ExitCode> {
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(report)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    write!(io::stdout(), "{report}")?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
