#!/usr/bin/env bash
# What bench/gpu/run.sh runs on a card, built without one: bench/gpu/build.sh OUT
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
cargo build --release -p heat-cli --features cuda
cargo build --release -p heat-gpu --features cuda --example steps
tests=$(cargo test --release -p heat-gpu --features cuda --test driver --no-run --message-format json |
    sed -n 's/.*"executable":"\([^"]*driver-[^"]*\)".*/\1/p' | tail -1)
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
cp "$tests" "$out/driver"
cp "$target/release/heat" "$target/release/examples/steps" "$out"
strip "$out"/*
ls -l "$out"
