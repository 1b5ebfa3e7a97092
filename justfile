# Recipes for daily work. `just` alone lists them. What no recipe checks is not a rule.

core := "--workspace --exclude tailwater --exclude tailwater-s2"

# Name the recipes.
default:
    @just --list

# Format, lints and tests of everything but the store and the program: minutes when cold, seconds after.
check:
    cargo fmt --all --check
    cargo clippy {{core}} --all-targets --locked -- -D warnings
    cargo test {{core}} --locked --quiet

# Everything that continuous integration tests, or only the stages that are named (`./test --stages`).
test *stages:
    ./test {{stages}}

# Formatting, clippy, documentation and, where it is installed, cargo-deny's look at what `tests/tests/tidy/supply.rs` looks at.
lint:
    ./test fmt clippy doc
    if cargo deny --version >/dev/null 2>&1; then ./test deny; fi

# Rewrite the sources as the formatter wants them.
fmt:
    cargo fmt --all

# Build the program as it ships, and run it; without arguments, on a store in memory.
run *args="serve --memory":
    cargo run --release --locked -- {{args}}

# The public protocol suite against the program as it ships: `just conformance directory 42`.
conformance store="memory" seed="random":
    cargo build --release --locked
    node tests/conformance/run.mjs --store {{store}} --seed {{seed}}

# Gateways, a store and nginx as processes under real faults: `just pods chaos --form short --seed 7`.
pods scenario="chaos" *args:
    cargo build --release --locked
    cargo run --release --locked -p tailwater-pods -- {{scenario}} {{args}}

# Measure everything, or one thing: `just bench micro ring`, `just bench instructions`, `just bench share --count 200`.
bench name="all" *args:
    @{{just_executable()}} _bench-{{name}} {{args}}

_bench-all: _bench-micro (_bench-instructions "--check") _bench-share _bench-fan _bench-upstream _bench-appends _bench-opens _bench-slowloris

# Single operations by the clock; an argument is a part of their names.
_bench-micro *args:
    cargo bench --locked -p tailwater-micro --bench micro -- {{args}}

# The same operations by their instructions, under valgrind.
_bench-instructions *args:
    benches/instructions {{args}}

# The program as it ships, from outside.
_bench-share *args:
    cargo build --release --locked
    cargo bench --locked -p tailwater-benches --bench share -- {{args}}

# Measure beside other servers and the floor, and write docs/benchmarks.md: `just compare --quick`, `just compare --scenario storm`.
compare *args:
    benches/compare {{args}}

# What the fan-out costs the store; FAN_READERS=500 and the like make it smaller.
_bench-fan:
    cargo build --release --locked -p tailwater -p tailwater-fanbench
    cargo bench --locked -p tailwater-benches --bench fan

# What S2's client library takes by itself; UPSTREAM_STREAMS=10 and the like make it smaller.
_bench-upstream:
    cargo build --release --locked
    cargo bench --locked -p tailwater-benches --bench upstream

# Appends a second beside S2's client library; APPENDS_WRITERS=16 and the like make it smaller.
_bench-appends:
    cargo build --release --locked
    cargo bench --locked -p tailwater-benches --bench appends

# What a token costs when a stream is opened.
_bench-opens:
    cargo build --release --locked
    cargo bench --locked -p tailwater-benches --bench opens

# What 5,000 slow clients do to 500 live readers; SLOWLORIS_SOCKETS=500 and the like make it smaller.
_bench-slowloris:
    cargo build --release --locked -p tailwater -p tailwater-fanbench
    cargo bench --locked -p tailwater-benches --bench slowloris

# Run the long form of a proof and write docs/proofs/NAME.md; without a name, list them.
prove *name:
    benches/prove {{name}}

# Many pods with every fault, in virtual time: `just sim`, `just sim hunt --seeds 100 --from 5000`, `just sim run --seed 7 --trace`.
sim *args="hunt --seeds 300":
    cargo build --profile sim --locked -p tailwater-sim
    "${CARGO_TARGET_DIR:-target}"/sim/tailwater-sim {{args}}

# Put faults into a copy of the tree, and see that the simulation catches each: `just mutants`, `just mutants join-off-by-one`.
mutants *names:
    sim/mutants/run {{names}}

# Fuzz a target with libFuzzer, or all: `just fuzz token --seconds 600`, `just fuzz all`; without a name, list them.
fuzz *args:
    fuzz/run {{args}}

# Which crates have known vulnerabilities or were withdrawn. Needs cargo-deny and a network.
advisories:
    cargo deny --workspace check advisories
