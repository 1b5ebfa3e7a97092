//! The simulation's command line: one seed, or a hunt over many.
#![expect(clippy::print_stdout, reason = "what it finds is what it is for")]

use std::{process::ExitCode, time::Instant};

use clap::{Parser, Subcommand};
use tailwater_sim::{hunt::hunt, oracle::Rule, play::play, script::Script, shrink::shrink};

/// Many pods, every fault, nothing lost.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays one seed.
    Run {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// Prints all that happens.
        #[arg(long)]
        trace: bool,
        /// Prints the script.
        #[arg(long)]
        script: bool,
    },
    /// Plays many seeds, and stops at the first that fails, which is shrunk.
    Hunt {
        /// How many.
        #[arg(long)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Leaves a failing seed as long as it is.
        #[arg(long)]
        whole: bool,
        /// Fails where a fault, a deed or an outcome was never met.
        #[arg(long)]
        every_fault: bool,
    },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Run { seed, trace, script } => run(seed, trace, script),
        Command::Hunt { seeds, from, whole, every_fault } => hunt_all(from, seeds, whole, every_fault),
    }
}

fn run(seed: u64, trace: bool, prints_script: bool) -> ExitCode {
    let script = Script::of(seed);
    if prints_script {
        print!("{script}");
    }
    let played = play(&script);
    if trace {
        print!("{}", played.trace);
    }
    for breach in &played.breaches {
        println!("{breach}");
    }
    println!("seed {seed}: {} breaches", played.breaches.len());
    ExitCode::from(u8::from(!played.breaches.is_empty()))
}

fn hunt_all(from: u64, seeds: u64, whole: bool, every_fault: bool) -> ExitCode {
    let began = Instant::now();
    let hunted = hunt(from, seeds);
    if let Some((seed, played)) = &hunted.failed {
        for breach in played.breaches.iter().take(10) {
            println!("{breach}");
        }
        println!("seed {seed} fails: {}", played.breaches[0]);
        // One that never ends cannot be tried again and again.
        if !whole && played.breaches[0].rule != Rule::Spins {
            let (script, tries) = shrink(&Script::of(*seed), played.breaches[0].rule);
            println!("the shortest script of {tries}:\n{script}");
            let shortest = play(&script);
            print!("{}", shortest.trace);
            shortest.breaches.iter().take(10).for_each(|breach| println!("{breach}"));
        }
        println!("1 of {} seeds failed", hunted.seeds);
        return ExitCode::FAILURE;
    }
    print!("{hunted}");
    println!("{} seeds clean in {:.1} s", hunted.seeds, began.elapsed().as_secs_f64());
    let never = hunted.never_met();
    if every_fault && !never.is_empty() {
        println!("never met: {}", never.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
