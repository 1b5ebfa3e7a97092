//! libFuzzer around one target, which `TAILWATER_FUZZ_TARGET` names. One program for all: it is linked once, and what
//! other targets would reach is only never reached.

#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use tailwater_fuzz::{Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("TAILWATER_FUZZ_TARGET").expect("TAILWATER_FUZZ_TARGET names a target");
    target(&name).unwrap_or_else(|| panic!("no target is called {name}"))
});

fuzz_target!(|data: &[u8]| TARGET(data));
