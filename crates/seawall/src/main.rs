//! The `seawall` binary: command line, configuration, rendering and exit statuses over the engine.

mod access;
mod args;
mod commands;
mod config;
mod context;
mod exit;
mod heap;
mod job;
mod kit;
mod masking;
mod overview;
mod owner;
mod postgres;
mod render;
mod run;
mod trust;

use std::process::ExitCode;

fn main() -> ExitCode {
    heap::bound(seawall_engine::job::Budget::default().heaps);
    run::main()
}
