//! Grammar of what comes after scores: choosing, calibrating, judging, watching.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Form, ImageArgs, NetworkArgs, TrainSet, output};

pub const SELECT_HELP: &str = "\
What plays OOD: with --surrogates the sets of a directory, one a kind (DIR/KIND or
DIR/KIND.safetensors; DIR/id are ID rows): inputs made wrong on purpose and sent through the same
network. Without, what features alone allow: classes left out of the fit in turn, and outliers made
of validation rows (mixed, shuffled, noisy). Test sets are not looked at. A fixed committee is taken
unless what is found gains on kinds that it was not chosen by. With --tune-on, settings are chosen
on OOD validation sets by OpenOOD's protocol; alternatives are written knn(k=1|10|50).

  heat select --train train.safetensors --head head.safetensors -o chosen.safetensors
  heat select --train T --head H --surrogates surrogates/ -o chosen.safetensors
  heat select --scorers 'knn(k=1|10|50)' --train T --id-val V --tune-on tin=tin_val.safetensors";

pub const CALIBRATE_HELP: &str = "\
Without --delta the guarantee is marginal: at most a fraction ALPHA of in-distribution rows is
flagged, on average over calibration sets. With --delta it holds with probability 1 - DELTA for
this set. Rows needed: at least 1/ALPHA - 1; with --delta 0.05 at ALPHA 0.05 at least 59
(clopper-pearson) or 600 (dkw).

  heat calibrate heat.safetensors --id cal.safetensors --alpha 0.05 -o calibrated.safetensors
  heat score calibrated.safetensors new.safetensors";

pub const SCORE_HELP: &str = "\
Images go through the network as those that the detector was fitted on, unless told otherwise; the
network must be that one. An image that cannot be read has a row without a score; exit code 1.
Rows on standard input: CSV, JSON lines or .npy; one row at a time where they come slowly.

  heat score d.safetensors new.safetensors -o scores.csv
  heat score d.safetensors a.jpg images/ more.zip --backbone model.onnx
  producer | heat score d.safetensors -";

pub const WATCH_HELP: &str = "\
Lines: a score; a JSON object or CSV with `score` (from `heat score`); or a row of features, as a
JSON array or comma-separated. Events are JSON lines: start, row (--verdicts), alarm,
status, invalid, end.

  heat score d.safetensors day1.npy | heat watch d.safetensors
  producer | heat watch d.safetensors --horizon 100000 --every 1000";

/// `heat select`
#[derive(Args)]
pub struct SelectArgs {
    /// The data
    #[command(flatten)]
    pub data: TrainSet,
    /// Scorers to choose from, with alternatives: el,knn(k=10|50) [default: all, as they are, and
    /// the committee's]
    #[arg(long, value_name = "A,B(key=value|value),…")]
    pub scorers: Option<String>,
    /// Directory with a feature set a kind that plays OOD, and ID rows as `id`
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tune_on", "folds"])]
    pub surrogates: Option<PathBuf>,
    /// Groups of classes, each left out once
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "tune_on")]
    pub folds: usize,
    /// Training rows used at most, but at least ten of each class
    #[arg(long, value_name = "N", default_value_t = 20_000, conflicts_with = "tune_on")]
    pub rows: usize,
    /// Rows of each kind (and four times as many ID rows) that scorers are judged by, at most
    /// [default: all; where features and classes are many, what takes minutes]
    #[arg(long, value_name = "N", requires = "surrogates")]
    pub kind_rows: Option<usize>,
    /// Scorers that are given weights beside the committee's, at most
    #[arg(long, value_name = "N", default_value_t = 8, conflicts_with = "tune_on")]
    pub members: usize,
    /// Seed of groups, rows and outliers
    #[arg(long, default_value_t = 0, conflicts_with = "tune_on")]
    pub seed: u64,
    /// Choose on OOD validation sets instead, as NAME=FEATURES
    #[arg(long, num_args = 1.., value_name = "NAME=FEATURES", requires = "id_val")]
    pub tune_on: Vec<String>,
    /// In-distribution validation features, for --tune-on; with --surrogates in place of DIR/id
    /// [default there: a fifth of the training rows]
    #[arg(long, value_name = "FEATURES")]
    pub id_val: Option<PathBuf>,
    /// Refused: test sets are not looked at
    #[arg(long, hide = true)]
    pub id: Option<String>,
    /// Refused: test sets are not looked at
    #[arg(long, hide = true, num_args = 1..)]
    pub ood: Vec<String>,
    /// End with the error of a scorer that cannot be fitted or scored, instead of leaving it out
    #[arg(long)]
    pub strict: bool,
    /// Take validation features of another network or transform than the training features
    #[arg(long)]
    pub force: bool,
    /// How to write the findings
    #[arg(long, value_enum, default_value_t = Form::Table)]
    pub format: Form,
    /// Fit what was chosen on the whole training set and write this detector file
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `heat calibrate`
#[derive(Args)]
pub struct CalibrateArgs {
    /// Detector or checkpoint
    pub detector: PathBuf,
    /// In-distribution features that took no part in training
    #[arg(long, value_name = "FEATURES")]
    pub id: PathBuf,
    /// Bound on the fraction of in-distribution rows that is flagged
    #[arg(long, default_value_t = 0.05, allow_hyphen_values = true)]
    pub alpha: f64,
    /// Hold the bound with probability 1 - DELTA for this calibration set, not on average
    #[arg(long, allow_hyphen_values = true)]
    pub delta: Option<f64>,
    /// Which bound, with --delta: for the one threshold, or for all simultaneously
    #[arg(long, value_enum, default_value_t = Bound::ClopperPearson, requires = "delta")]
    pub bound: Bound,
    /// Rank rows among those of their predicted class: the bound holds within each
    #[arg(long)]
    pub per_class: bool,
    /// The classifier's last layer, for --per-class where the features have no logits
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Leave out the rows that were in training (duplicates, say): the bound holds
    #[arg(long)]
    pub drop_seen: bool,
    /// The training features again, for --drop-seen where they are more rows than a detector
    /// remembers (8,191)
    #[arg(long, num_args = 1.., value_name = "FEATURES", requires = "drop_seen")]
    pub train: Vec<PathBuf>,
    /// Calibrate even on training rows, or on features of another network or transform: the bound
    /// then does not hold
    #[arg(long, conflicts_with = "drop_seen")]
    pub force: bool,
    /// Feature dimension, for raw memmaps without labels or head
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// Detector file to write
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: PathBuf,
}

/// Bounds that hold with probability 1 − δ.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Bound {
    /// Exact, for the threshold at ALPHA
    ClopperPearson,
    /// Wider, for all thresholds simultaneously: ALPHA may be changed later
    Dkw,
}

/// `heat score`
#[derive(Args)]
pub struct ScoreArgs {
    /// Detector or checkpoint
    pub detector: PathBuf,
    /// Features to score, or - for rows on standard input; with --backbone images: files,
    /// directories, archives
    #[arg(required = true, value_name = "FEATURES | IMAGES")]
    pub inputs: Vec<PathBuf>,
    /// Score images: the classifier that made the detector's features (.onnx, or the weights of a
    /// ResNet)
    #[arg(long, value_name = "FILE")]
    pub backbone: Option<PathBuf>,
    /// The images, and what is done to them
    #[command(flatten)]
    pub images: ImageArgs,
    /// Leave out the rows of images that cannot be read, and end well
    #[arg(long, requires = "backbone")]
    pub skip_unreadable: bool,
    /// What the network's file does not say
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What standard input is [default: told by its first bytes]
    #[arg(long, value_enum, conflicts_with = "backbone")]
    pub from: Option<StreamKind>,
    /// Bound on false alarms in place of the calibration's
    #[arg(long, allow_hyphen_values = true)]
    pub alpha: Option<f64>,
    /// Verdicts by Benjamini-Hochberg: on average at most this fraction of the rows called
    /// out-of-distribution is not
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, conflicts_with = "alpha")]
    pub fdr: Option<f64>,
    /// How to rank scores equal to calibration scores [default: conservative]
    #[arg(long, value_enum)]
    pub ties: Option<TiesRule>,
    /// Seed of randomized ties: use a new one for every batch
    #[arg(long, value_name = "SEED", requires = "ties", required_if_eq("ties", "randomized"))]
    pub ties_seed: Option<u64>,
    /// Take features that come from another network or transform than the detector's
    #[arg(long)]
    pub force: bool,
    /// Feature dimension, for raw memmaps without labels
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// .csv, .jsonl or .npy (scores only) [default: CSV on standard output]
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What rows on standard input are written as.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum StreamKind {
    /// A table
    Csv,
    /// A JSON value a line: a row as an array, or an object of avg, std, max, logits, name
    Jsonl,
    /// An .npy matrix
    Npy,
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
    /// What a line of one number is, where the detector reads rows of one feature
    #[arg(long, value_enum, conflicts_with = "source")]
    pub lines: Option<LineForm>,
    /// Bound on the probability of a false alarm within the horizon
    #[arg(long, default_value_t = 0.01, allow_hyphen_values = true)]
    pub alpha: f64,
    /// Rows for which the CUSUM's bound holds; it then restarts
    #[arg(long, value_name = "ROWS", default_value_t = 10_000)]
    pub horizon: u64,
    /// Smallest fraction of anomalous rows worth an alarm
    #[arg(long, value_name = "FRACTION", default_value_t = 0.02, allow_hyphen_values = true)]
    pub min_admixture: f64,
    /// Which tests to run; both split the bound
    #[arg(long, value_enum, default_value_t = TestChoice::Both)]
    pub test: TestChoice,
    /// Also count scores that are too low
    #[arg(long)]
    pub two_sided: bool,
    /// Seed for breaking ties
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write a status event every so many rows
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub every: Option<u64>,
    /// Report invalid lines as events and continue, instead of ending with an error
    #[arg(long, conflicts_with = "source")]
    pub skip_invalid: bool,
    /// Write an event for each row: its score, p-value and verdict
    #[arg(long)]
    pub verdicts: bool,
    /// End at the first alarm, with exit code 3
    #[arg(long)]
    pub fail: bool,
    /// Take features that come from another network or transform than the detector's
    #[arg(long)]
    pub force: bool,
    /// Feature dimension, for raw memmaps without labels
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
}

/// What lines of one number are.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum LineForm {
    /// Scores
    Scores,
    /// Rows of one feature
    Features,
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
