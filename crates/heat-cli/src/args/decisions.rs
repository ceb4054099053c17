//! Grammar of what comes after scores: choosing, calibrating, judging, watching.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::TrainSet;

pub const SELECT_HELP: &str = "\
Pseudo-OOD: classes left out of the fit in turn, and outliers made of validation rows (mixed,
shuffled, noisy). Test sets are not looked at. With --tune-on, settings are chosen on OOD
validation sets by OpenOOD's protocol; alternatives are written knn(k=1|10|50).

  heat select --train train.safetensors --head head.safetensors -o chosen.safetensors
  heat select --scorers 'knn(k=1|10|50)' --train T --id-val V --tune-on tin=tin_val.safetensors";

pub const CALIBRATE_HELP: &str = "\
Without --delta the promise is marginal: of in-distribution rows at most ALPHA are flagged, on
average over calibration sets. With --delta it holds with probability 1 - DELTA for this set.
Fewest rows: 1/ALPHA - 1; with --delta 0.05 at ALPHA 0.05: 59 (clopper-pearson), 600 (dkw).

  heat calibrate heat.safetensors --id cal.safetensors --alpha 0.05 -o calibrated.safetensors
  heat score calibrated.safetensors new.safetensors";

pub const WATCH_HELP: &str = "\
Lines: a score; a JSON object or CSV with `score` (from `heat score`); or a row of features, as a
JSON array or comma-separated. Events are JSON lines: start, alarm, status, invalid, end.

  heat score d.safetensors day1.npy | heat watch d.safetensors
  producer | heat watch d.safetensors --horizon 100000 --every 1000";

/// `heat select`
#[derive(Args)]
pub struct SelectArgs {
    /// The data
    #[command(flatten)]
    pub data: TrainSet,
    /// Scorers to choose from, with alternatives: el,knn(k=10|50) [default: all, as they are]
    #[arg(long, value_name = "A,B(key=value|value),…")]
    pub scorers: Option<String>,
    /// Groups of classes, each left out once
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "tune_on")]
    pub folds: usize,
    /// Most training rows used, but at least ten of each class
    #[arg(long, value_name = "N", default_value_t = 20_000, conflicts_with = "tune_on")]
    pub rows: usize,
    /// Most members of the composition
    #[arg(long, value_name = "N", default_value_t = 6, conflicts_with = "tune_on")]
    pub members: usize,
    /// Seed of groups, rows and outliers
    #[arg(long, default_value_t = 0, conflicts_with = "tune_on")]
    pub seed: u64,
    /// Choose on OOD validation sets instead, as NAME=FEATURES
    #[arg(long, num_args = 1.., value_name = "NAME=FEATURES", requires = "id_val")]
    pub tune_on: Vec<String>,
    /// In-distribution validation features, for --tune-on
    #[arg(long, value_name = "FEATURES", requires = "tune_on")]
    pub id_val: Option<PathBuf>,
    /// Refused: test sets are not looked at
    #[arg(long, hide = true)]
    pub id: Option<String>,
    /// Refused: test sets are not looked at
    #[arg(long, hide = true, num_args = 1..)]
    pub ood: Vec<String>,
    /// How to write what was found
    #[arg(long, value_enum, default_value_t = Form::Table)]
    pub format: Form,
    /// Fit what was chosen on the whole training set and write this detector file
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// For people, or for programs.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// Everything
    Json,
}

/// `heat calibrate`
#[derive(Args)]
pub struct CalibrateArgs {
    /// Detector or checkpoint
    pub detector: PathBuf,
    /// In-distribution features that took no part in training
    #[arg(long, value_name = "FEATURES")]
    pub id: PathBuf,
    /// Bound on the share of in-distribution rows that are flagged
    #[arg(long, default_value_t = 0.05, allow_hyphen_values = true)]
    pub alpha: f64,
    /// Hold the bound with probability 1 - DELTA for this calibration set, not on average
    #[arg(long, allow_hyphen_values = true)]
    pub delta: Option<f64>,
    /// Which bound, with --delta: for the one threshold, or for all at once
    #[arg(long, value_enum, default_value_t = Bound::ClopperPearson, requires = "delta")]
    pub bound: Bound,
    /// Rank rows among those of their predicted class: the bound holds within each
    #[arg(long)]
    pub per_class: bool,
    /// The classifier's last layer, for --per-class where the features have no logits
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Calibrate even on rows that were in training: the bound then does not hold
    #[arg(long)]
    pub force: bool,
    /// Feature dimension, for raw memmaps without labels or head
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// Detector file to write
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

/// Bounds that hold with probability 1 − δ.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Bound {
    /// Exact, for the threshold at ALPHA
    ClopperPearson,
    /// Wider, for every threshold at once: ALPHA may be changed later
    Dkw,
}

/// `heat score`
#[derive(Args)]
pub struct ScoreArgs {
    /// Detector or checkpoint
    pub detector: PathBuf,
    /// Features to score
    pub features: PathBuf,
    /// Another bound on false alarms than the calibration's
    #[arg(long, allow_hyphen_values = true)]
    pub alpha: Option<f64>,
    /// Verdicts by Benjamini-Hochberg: of the rows called out-of-distribution at most this share
    /// is not, on average
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, conflicts_with = "alpha")]
    pub fdr: Option<f64>,
    /// How scores equal to calibration scores are ranked [default: conservative]
    #[arg(long, value_enum)]
    pub ties: Option<TiesRule>,
    /// Seed of randomized ties: another for every batch
    #[arg(long, value_name = "SEED", requires = "ties", required_if_eq("ties", "randomized"))]
    pub ties_seed: Option<u64>,
    /// Feature dimension, for raw memmaps without labels
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// .csv, .jsonl or .npy (scores only) [default: CSV on standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How ties are ranked.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum TiesRule {
    /// In the row's favour
    Conservative,
    /// At random: p-values of ordinary rows are exactly uniform
    Randomized,
}

/// `heat watch`
#[derive(Args)]
pub struct WatchArgs {
    /// Calibrated detector
    pub detector: PathBuf,
    /// Features to read as a stream [default: lines on standard input]
    pub source: Option<PathBuf>,
    /// Bound on the probability of a false alarm within the horizon
    #[arg(long, default_value_t = 0.01, allow_hyphen_values = true)]
    pub alpha: f64,
    /// Rows for which the CUSUM's bound holds; it begins anew after each
    #[arg(long, value_name = "ROWS", default_value_t = 10_000)]
    pub horizon: u64,
    /// Smallest share of odd rows worth an alarm
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, allow_hyphen_values = true)]
    pub min_admixture: f64,
    /// Which tests; both share the bound
    #[arg(long, value_enum, default_value_t = TestChoice::Both)]
    pub test: TestChoice,
    /// Count scores that are too low as well
    #[arg(long)]
    pub two_sided: bool,
    /// Seed of the broken ties
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A status event after every so many rows
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub every: Option<u64>,
    /// Tell invalid lines as events and go on, in place of ending with an error
    #[arg(long, conflicts_with = "source")]
    pub skip_invalid: bool,
    /// End at the first alarm, with exit code 3
    #[arg(long)]
    pub fail: bool,
    /// Feature dimension, for raw memmaps without labels
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
}

/// Tests of `heat watch`.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum TestChoice {
    /// Each with half of the bound
    Both,
    /// Evidence since the beginning
    Martingale,
    /// Evidence since the change
    Cusum,
}
