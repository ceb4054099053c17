//! Tests of the command, in one program: linking twenty takes longer than running them.

#[path = "../common/mod.rs"]
mod common;

mod auto;
mod cli;
mod convert;
mod data;
mod decisions;
mod devices;
mod downloads;
mod extract;
mod files;
mod groups;
mod kill;
mod made;
mod merge;
mod messages;
mod report;
mod run;
mod score;
mod shell;
mod statistics;
mod sweep;
mod torch;
