//! The command line: one scenario, and what it found. The exit code is 0 only where everything holds.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use tailwater_pods::{
    report::Findings,
    scenario::{Form, chaos, contend, outage, rolling, trust},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

/// Many gateways on one store as processes, with real faults, and an oracle over what clients saw.
///
/// Runs `tailwater` from beside this program, or what TAILWATER_BIN names, and `nginx` from the path, or NGINX_BIN.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
    /// Decides the faults, and what clients do
    #[arg(long, global = true, default_value_t = 42)]
    seed: u64,
    /// How much of everything
    #[arg(long, global = true, value_enum, default_value = "long")]
    form: Form,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Scenario {
    /// Gateways and the store are killed, paused, drained and restarted, under writers and readers of all kinds
    Chaos,
    /// Three gateways are restarted one after the other, under thousands of readers
    Rolling,
    /// Two gateways with 16 producers each contend for one stream
    Contend,
    /// The store is paused and killed, under many active streams
    Outage,
    /// Keys are rotated and tokens revoked at one of three gateways, until all of them know
    Trust,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(findings) => {
            // Without a place to print, the exit code has to do.
            drop(write!(io::stdout(), "{findings}"));
            if findings.hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            drop(writeln!(io::stderr(), "failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// However it ends, what was started is killed when the scenario is dropped.
fn run(arguments: &Arguments) -> anyhow::Result<Findings> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let Arguments { scenario, seed, form } = *arguments;
    runtime.block_on(async move {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let found = async {
            match scenario {
                Scenario::Chaos => Box::pin(chaos::run(form, seed)).await,
                Scenario::Rolling => Box::pin(rolling::run(form, seed)).await,
                Scenario::Contend => Box::pin(contend::run(form, seed)).await,
                Scenario::Outage => Box::pin(outage::run(form, seed)).await,
                Scenario::Trust => Box::pin(trust::run(form, seed)).await,
            }
        };
        tokio::select! {
            found = timeout(limit(form), found) => found.context("it takes too long")?,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

/// What no scenario takes.
fn limit(form: Form) -> Duration {
    match form {
        Form::Short => Duration::from_secs(300),
        Form::Long => Duration::from_secs(3_600),
    }
}
