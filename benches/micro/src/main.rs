//! Does one operation a number of times, for callgrind to count: `benches/instructions` runs it.
//!
//! Only what runs inside of [`counted`] is to be counted (`--toggle-collect`): neither the start of the process, nor
//! what the operation is prepared from, nor the first calls, which find caches empty and the allocator's lists unmade.

use std::{env, io::Write as _, process::ExitCode};

use anyhow::Context as _;
use tailwater_micro::{Operation, operations};

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [list] if list == "--list" => {
            let mut out = std::io::stdout().lock();
            for operation in operations() {
                writeln!(out, "{} {}", operation.id(), operation.calls)?;
            }
        }
        [id] => {
            let operation = operations().find(|operation| operation.id() == *id);
            count(operation.with_context(|| format!("no operation is called {id}; --list names them"))?);
        }
        _ => {
            writeln!(std::io::stderr(), "usage: micro-operation --list | micro-operation GROUP/NAME")?;
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn count(operation: &Operation) {
    let mut run = (operation.prepare)();
    (0..operation.calls).for_each(|_| run());
    counted(&mut *run, operation.calls);
}

#[inline(never)]
fn counted(run: &mut dyn FnMut(), calls: u32) {
    for _ in 0..calls {
        run();
    }
}
