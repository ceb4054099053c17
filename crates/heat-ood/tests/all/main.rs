//! Tests of the public interface, in one program: linking thirty takes longer than running them.
//! What counts allocations, limits memory or registers scorers for its whole process is a program
//! of its own.

#[path = "../common/mod.rs"]
mod common;

mod auto;
mod bad_input;
mod bad_options;
mod calibration;
mod choosing;
mod convert;
mod damage;
mod engine;
mod foreign;
mod format_versions;
mod golden_ebm;
mod golden_geometry_scorers;
mod golden_head_scorers;
mod golden_map_scorers;
mod golden_peer_scorers;
mod golden_scorers;
mod gradients;
mod langevin;
mod offsets;
mod options;
mod residual;
mod seen;
mod statistics;
mod structure;
mod torch;
mod training;
