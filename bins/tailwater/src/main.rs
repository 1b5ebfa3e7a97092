//! Tailwater: a fan-out gateway for Durable Streams in front of S2.
//!
//! What is decided here: which command, which settings, how to log, how to exit. Everything else is in the crates.
//!
//! - [`settings`]: flags, environment, file.
//! - [`foreign`]: what the environment says under other names than ours, about buckets and managed S2.
//! - [`log`]: what is logged.
//! - [`lines`]: an event of the log is one line, whatever it holds.
//! - [`memory`]: how much memory the process may have.
//! - [`config`]: settings to what is in force.
//! - [`descriptors`]: how many files may be open.
//! - [`secret`]: files that hold secrets.
//! - [`store`]: opening the store.
//! - [`serve`]: running until told to stop.
//! - [`trust`]: making and looking at projects and tokens.
//! - [`keys`]: other keys in the files of projects.
//! - [`issuers`]: where keys of issuers are fetched from.

mod config;
mod descriptors;
mod foreign;
mod issuers;
mod keys;
mod lines;
mod log;
mod memory;
mod secret;
mod serve;
mod settings;
mod store;
mod trust;

use std::{collections::BTreeMap, env, fmt::Display, fs, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Flavour, Log, Serve, StoreAlone},
    descriptors::Descriptors,
    foreign::Foreign,
    settings::{CONFIG_ENV, ENV_PREFIX, Layer, ServeSettings, Sources, StoreSettings},
    trust::{ProjectCommand, TokenCommand},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How the process exits when its command line or its configuration is wrong (`EX_USAGE` of sysexits).
const BAD_CONFIGURATION: u8 = 64;
/// After how many polls of tasks a thread looks what the sockets have, where tasks keep it busy. Tokio's own is 61: behind
/// so many readers of a long history an append would wait for milliseconds.
const EVENT_INTERVAL: u32 = 8;

/// A fan-out gateway for Durable Streams in front of S2.
///
/// Every setting can be given as a flag, as a variable of the environment (--data-dir is TAILWATER_DATA_DIR), or in one
/// TOML file (data-dir = "..."). A flag wins over the environment, which wins over the file. Keys of a bucket are read
/// from the variables of AWS, and from nowhere else.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Layered<ServeSettings>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve streams; what happens without a command, too
    Serve(Layered<ServeSettings>),
    /// Serve streams from memory, and log every request
    Dev(Layered<ServeSettings>),
    /// Run the embedded store alone, for other gateways to use
    Store(Layered<StoreSettings>),
    /// Make projects and look at them
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Make tokens and look into them
    #[command(subcommand)]
    Token(TokenCommand),
}

/// What was given, from everywhere.
struct Given<S> {
    settings: S,
    foreign: Foreign,
    /// Variables that look like settings and are none.
    unknown: Vec<String>,
}

/// Settings, and where further ones are.
#[derive(Debug, Args)]
struct Layered<S: Layer> {
    #[command(flatten)]
    settings: S,
    /// A TOML file with settings, named like the flags [env: TAILWATER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings that are in force, as such a file, and exit
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = !error.use_stderr();
            // Where it cannot be printed, nobody reads it.
            return if error.print().is_ok() && asked_for { ExitCode::SUCCESS } else { BAD_CONFIGURATION.into() };
        }
    };
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(layered) => run_gateway(layered, Flavour::Serve),
        Command::Dev(mut layered) => {
            // As if `--memory` stood there, so another store beside it is a contradiction.
            layered.settings.memory.get_or_insert(true);
            run_gateway(layered, Flavour::Dev)
        }
        Command::Store(layered) => run_store(layered),
        Command::Project(command) => tell(command.run()),
        Command::Token(command) => tell(command.run()),
    }
}

fn run_gateway(layered: Layered<ServeSettings>, flavour: Flavour) -> ExitCode {
    let print = layered.print_config;
    let Given { mut settings, foreign, unknown } = match layered.resolve() {
        Ok(given) => given,
        Err(error) => return misconfigured(&error),
    };
    let descriptors = Descriptors::raise();
    descriptors.fill_in(&mut settings);
    settings.choose_memory_budget(memory::of_this_process());
    let shown = settings.clone().in_force(flavour);
    let config = match Serve::decide(settings, &foreign, flavour) {
        Ok(config) => config,
        Err(error) => return misconfigured(&error),
    };
    if print {
        return print_config(&shown, &config.store.shown());
    }
    let log = config.log.clone();
    run(&log, &unknown, serve::gateway(config, descriptors))
}

fn run_store(layered: Layered<StoreSettings>) -> ExitCode {
    let print = layered.print_config;
    let Given { settings, foreign, unknown } = match layered.resolve() {
        Ok(given) => given,
        Err(error) => return misconfigured(&error),
    };
    let config = match StoreAlone::decide(settings, &foreign) {
        Ok(config) => config,
        Err(error) => return misconfigured(&error),
    };
    if print {
        return print_config(&config.in_force(), &config.data.shown());
    }
    let log = config.log.clone();
    run(&log, &unknown, serve::store_alone(config))
}

fn run(log: &Log, unknown: &[String], task: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    if let Err(error) = log::start(log) {
        return misconfigured(&format_args!("log: {error}"));
    }
    for variable in unknown {
        tracing::warn!(variable, "this variable names no setting");
    }
    let ended = tokio::runtime::Builder::new_multi_thread()
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(Box::pin(task)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&in_full(&error));
            ExitCode::FAILURE
        }
    }
}

/// How a command ends that only says something.
fn tell(said: anyhow::Result<()>) -> ExitCode {
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => misconfigured(&in_full(&error)),
    }
}

fn print_config(settings: &impl serde::Serialize, comments: &str) -> ExitCode {
    let printed = toml::to_string(settings).map_err(anyhow::Error::from);
    match printed.and_then(|text| Ok(std::io::stdout().write_all((text + comments).as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn misconfigured(error: &impl Display) -> ExitCode {
    complain(error);
    BAD_CONFIGURATION.into()
}

/// An error and its causes in one line. Some libraries repeat a cause in what it causes: it is said once.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        said if said.contains(&cause) => said.to_owned(),
        said => format!("{said}: {cause}"),
    })
}

fn complain(error: &impl Display) {
    // Where there is no stderr, there is nobody to complain to.
    writeln!(std::io::stderr(), "tailwater: {error}").ok();
}

impl<S: Layer> Layered<S> {
    /// Reads the environment and the file, and lays them under the flags.
    fn resolve(self) -> anyhow::Result<Given<S>> {
        let mut env: BTreeMap<String, String> = env::vars_os()
            .filter_map(|(variable, text)| Some((variable.into_string().ok()?, text.into_string().ok()?)))
            .collect();
        let foreign = Foreign::pick(&env);
        env.retain(|variable, _| variable.starts_with(ENV_PREFIX));
        let path = self.config.or_else(|| env.get(CONFIG_ENV).map(PathBuf::from));
        let file = match path {
            None => None,
            Some(path) => {
                let text = fs::read_to_string(&path)
                    .map_err(|error| anyhow::anyhow!("{} cannot be read: {error}", path.display()))?;
                Some((path, text))
            }
        };
        let (settings, unknown) = Sources { flags: self.settings, env, file }.resolve()?;
        Ok(Given { settings, foreign, unknown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("connection refused").context("request failed: connection refused");
        assert_eq!(in_full(&error.context("no store")), "no store: request failed: connection refused");
        assert_eq!(in_full(&anyhow::anyhow!("b").context("a")), "a: b");
    }
}
