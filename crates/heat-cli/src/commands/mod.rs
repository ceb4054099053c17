//! One file per subcommand, and what they share: `inputs`, `outputs`, `scorers`.

pub mod auto;
pub mod backbone;
pub mod calibrate;
pub mod compose;
pub mod convert;
pub mod data;
pub mod eval;
pub mod export_torch;
pub mod extract;
pub mod fit;
pub mod import_torch;
pub mod info;
mod inputs;
pub mod merge;
mod outputs;
pub mod quickstart;
pub mod report;
pub mod run;
pub mod score;
mod scorers;
pub mod scorers_list;
pub mod select;
#[cfg(feature = "serve")]
pub mod serve;
pub mod shell;
mod standard_input;
pub mod statistics;
pub mod sweep;
pub mod train;
pub mod watch;

pub use inputs::set_label_column;
use inputs::{
    Data, NamedDetector, TestSets, check_origin, detector_file, detectors, named, open,
    open_detector, open_options, say_agreement, split, unless_forced,
};
use outputs::{is_directory_name, refuse_overwriting, write_output, wrote};
