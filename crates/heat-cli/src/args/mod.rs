//! The command line's grammar.

mod auto;
mod decisions;
mod files;
mod formats;
mod images;
#[cfg(feature = "serve")]
mod serve;
mod statistics;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use heat_gpu::place::Place;
use heat_gpu::plan::Precision;
use heat_ood::printable;
use heat_ood::scorers::Group;

use crate::export::Format;

pub use auto::*;
pub use decisions::*;
pub use files::*;
pub use formats::*;
pub use images::*;
#[cfg(feature = "serve")]
pub use serve::*;
pub use statistics::*;

/// Where output goes; `-` is standard output.
fn output(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(PathBuf::from(if text == "-" { "/dev/stdout" } else { text }))
}

const MERGE_HELP: &str = "\
A fit of rows that are in parts, on one machine or on many:
  heat fit gmm --train part1 --head H --partial -o part1.stats     (and so for each part)
  heat merge part*.stats -o gmm.safetensors
The same parts in the same order give the same bits. vim, weiper, vra, pca=, react= and
shrinkage=ledoit_wolf take more than one round: `heat merge` then writes what
`heat fit … --partial --after FILE` takes, and says so.";

const SCORER_HELP: &str = "\
Scorers and their own settings:
  msp, max_logit, el, klm, cosine, norm, entropy, she
  odin                 temperature=1000
  temperature          temperature=<T> (else fitted)
  gen                  gamma=0.1 m=100
  react                react=<quantile>
  ash_p, ash_b, ash_s, scale, lts, dice
                       percentile=<p>
  vra                  low=<quantile> high=<quantile> clip=true
  gradnorm             temperature=1
  fdbd                 normalizer=distance|norm|none
  nci                  alpha=0.0001
  neco                 dim=<n> standardize=false max_logit=false
  pnml                 normalize=false
  gmm, ssd, maha, mds_pp, rmds, rmds_pp
                       diagonal=true kmeans=<n> shrinkage=none|ledoit_wolf|oas|<ratio>|held_out_classes
  vim, residual        principal_dim=<n>
  kpca                 kernel=cop|corp explained=<fraction>; corp: gamma= features=<n> seed=
  knn, nnguide         k=<n>
  mean                 reduce=max|logsumexp normalize_rows=true
  cadref               confidence=energy|msp|max_logit|gen decoupled=false
  cfood                alpha=0.1 k=0.01 seed=0
  relation             threshold=0.03 power=1
  weiper               repeats=100 distance= bins=100 lambda1= lambda2= smoothing= smoothing_perturbed=
Before each: react=<quantile> normalize=true|false pca=<n> whiten=true; pooling=avg|std|max where
  features are read. docs/methods.md has formulas and defaults";

const TRAIN_HELP: &str = "\
Recipes: ebm=heat_gmm_c10 (the default), heat_gmm_std_c10, heat_el_c10, heat_gmm_c100,
  heat_gmm_std_c100, heat_el_c100, heat_gmm_imagenet, heat_gmm_std_imagenet, heat_el_imagenet,
  heat_gmm_shrunk, heat_gmm_std_shrunk, quickstart_gmm, quickstart_gmm_std, quickstart_el;
  heat_surrogate, a residual alone, trained against the rows of ebm.model.negatives=DIR
Common keys: batch_size n_epochs seed pooling normalize accum_iter save_freq exp_name ebm.prior
  ebm.model.{steps,step_size_start,eps_start,hidden_dim,temperature_prior,proposal_type,precondition}
  ebm.loss.l2_coef ebm.optimizer.opt.lr; the run directory's recipe.toml lists all";

const COMPLETIONS_HELP: &str = "\
  heat completions bash > ~/.local/share/bash-completion/completions/heat
  heat completions zsh > ~/.zfunc/_heat
  heat completions fish > ~/.config/fish/completions/heat.fish";

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 an error of the data, of files or of the system; 2 arguments or settings that
  cannot be understood; 3 an alarm of `heat watch --fail`; 4 a file was cut short while it was
  read; 130 stopped by Ctrl-C or a termination signal";

const SWEEP_HELP: &str = "\
Lists: commas outside brackets and quotes separate values; the first key varies slowest:
  heat sweep ebm=heat_gmm_c10,heat_gmm_std_c10 ebm.model.steps=10,20 seed=0,1,2 --train F --out DIR
Files: one run directory per combination, as `heat train` writes it, with eval.json given --ood;
  sweep.toml (what was asked for), sweep.json (what was found)";

/// Out-of-distribution detection on the features of a trained classifier.
///
/// A score is an energy: higher = more out-of-distribution.
#[derive(Parser)]
#[command(name = "heat", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// Worker threads [default: $HEAT_NUM_THREADS, else one per available CPU]
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// What the content of files may take in memory: 4GiB, 512MiB, 4GB [default: half of the
    /// machine's or control group's]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub memory: Option<usize>,
    /// Read feature sets and detectors into memory, within --memory, instead of mapping them: for
    /// files that may be cut short meanwhile (network file systems, files being written)
    #[arg(long, global = true)]
    pub no_mmap: bool,
    /// Column of class labels in .csv files, by name or number from 1 [default: label, class or target]
    #[arg(long, global = true, value_name = "COLUMN")]
    pub label_column: Option<String>,
    /// No progress on standard error (warnings and errors remain)
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// A number of bytes: `512MiB`, `4GB`, `1000000`.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let (power, base) = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => (0, 1000),
        letter => {
            let place = "kmgt".find(letter).filter(|_| letter.len() == 1);
            let refused = || format!("`{}` is no unit: KiB, MB, GiB …", printable(&unit));
            let place = place.ok_or_else(refused)?;
            (place as i32 + 1, if unit.contains('i') { 1024 } else { 1000 })
        }
    };
    let number: f64 =
        digits.trim().parse().map_err(|_| "expected a size such as 4GiB".to_owned())?;
    let bytes = number * f64::powi(base.into(), power);
    if !(1.0..=1e18).contains(&bytes) {
        return Err("expected a size such as 4GiB".to_owned());
    }
    Ok(bytes as usize)
}

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// The whole chain on bundled real features: fit, train, compose, evaluate, report
    Quickstart(QuickstartArgs),
    /// Train a residual energy on a prior, from a recipe
    #[command(after_help = TRAIN_HELP)]
    Train(TrainArgs),
    /// Train every combination of lists of values, with a summary over seeds
    #[command(after_help = SWEEP_HELP)]
    Sweep(SweepArgs),
    /// Fit a scorer and write its detector file
    #[command(after_help = SCORER_HELP)]
    Fit(FitArgs),
    /// Make a detector of the statistics of many parts of a training set
    #[command(after_help = MERGE_HELP)]
    Merge(MergeArgs),
    /// Compose detectors into one
    Compose(ComposeArgs),
    /// Evaluate scorers and detectors on ID and OOD sets
    #[command(after_help = SCORER_HELP)]
    Eval(EvalArgs),
    /// Write an HTML report on training runs or results
    Report(ReportArgs),
    /// Make a calibrated detector of images or features, every choice taken by evidence
    #[command(after_help = auto::AUTO_HELP)]
    Auto(AutoArgs),
    /// Choose scorers, and the weights of a composition, without OOD data
    #[command(after_help = decisions::SELECT_HELP)]
    Select(SelectArgs),
    /// Calibrate a detector, so that it calls rows out-of-distribution with a guarantee
    #[command(after_help = decisions::CALIBRATE_HELP)]
    Calibrate(CalibrateArgs),
    /// Score features or images; calibrated detectors give p-values and verdicts
    #[command(after_help = decisions::SCORE_HELP)]
    Score(ScoreArgs),
    /// Raise an alarm when a stream of rows stops looking like the calibration set
    #[command(after_help = decisions::WATCH_HELP)]
    Watch(WatchArgs),
    /// Serve verdicts over HTTP: the Open Inference Protocol, metrics, drift, a page
    #[cfg(feature = "serve")]
    #[command(after_help = serve::SERVE_HELP)]
    Serve(Box<ServeArgs>),
    /// Make a token for clients of `heat serve`
    #[cfg(feature = "serve")]
    Token(TokenArgs),
    /// Not in this build
    #[cfg(not(feature = "serve"))]
    #[command(hide = true, aliases = ["token"], disable_help_flag = true)]
    Serve(NotBuilt),
    /// Write the network of a detector as a PyTorch checkpoint
    Export(ExportArgs),
    /// Combine the network of a PyTorch checkpoint with a prior fitted here
    #[command(after_help = TRAIN_HELP)]
    Import(ImportArgs),
    /// Show what a detector, checkpoint, feature set or head contains
    Info(InfoArgs),
    /// Extract a feature set from images with a classifier
    #[command(after_help = images::EXTRACT_HELP)]
    Extract(ExtractArgs),
    /// Inspect a classifier, or export it as ONNX
    #[command(subcommand)]
    Backbone(BackboneCommand),
    /// From images to results: extract what is missing, train, evaluate
    #[command(after_help = images::RUN_HELP)]
    Run(RunArgs),
    /// Show which ONNX Runtime is used, or how to get one
    Doctor,
    /// Convert a feature set to another format
    #[command(after_help = files::CONVERT_HELP)]
    Convert(ConvertArgs),
    /// List the scorers: formulas, settings, what each needs
    Scorers(ScorersArgs),
    /// Write a script that completes this command's words in a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Write the manual pages of all commands
    Man(ManArgs),
    /// Download and verify data sets and weights
    #[command(subcommand, after_help = images::DATA_HELP)]
    Data(DataCommand),
}

/// A command of a feature that this build lacks.
#[cfg(not(feature = "serve"))]
#[derive(Args)]
pub struct NotBuilt {
    /// Whatever it was given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub words: Vec<std::ffi::OsString>,
}

/// The training set and what goes with it.
#[derive(Args, Clone)]
pub struct TrainSet {
    /// Training features: .safetensors, .npy, .npz, .csv, a directory of .safetensors shards, of
    /// avg.npy …, or of the published feat.mmap …
    #[arg(long, value_name = "FEATURES")]
    pub train: PathBuf,
    /// Labels of the training rows (.npy, .npz, .safetensors), where the features have none
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// The classifier's last layer: weight (C × D), bias (C) (.safetensors, .npz)
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Feature dimension, for raw memmaps without labels or head
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
}

/// Which part of the training set is used.
#[derive(Args)]
pub struct SubsetArgs {
    /// Use this fraction of the training rows, the same in every class
    #[arg(long, value_name = "P")]
    pub subset_proportion: Option<f64>,
    /// Use N classes, chosen at random and relabelled; the head and the ID test set are restricted too
    #[arg(long, value_name = "N")]
    pub subset_labels: Option<usize>,
    /// Seed of these choices
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub subset_seed: u64,
}

/// `heat quickstart`
#[derive(Args)]
pub struct QuickstartArgs {
    /// Directory for results.json, report.html and the detectors
    #[arg(long, value_name = "DIR", default_value = "heat-quickstart")]
    pub out: PathBuf,
    /// Seed of the training runs
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: u64,
}

/// `heat train`
#[derive(Args)]
pub struct TrainArgs {
    /// Recipe groups and keys: ebm=heat_gmm_c10 batch_size=1024 ebm.model.steps=20
    #[arg(value_name = "GROUP=NAME | key.path=value")]
    pub settings: Vec<String>,
    /// Training features, as for `heat fit`; a run that is resumed remembers them
    #[arg(long, value_name = "FEATURES", required_unless_present = "resume")]
    pub train: Option<PathBuf>,
    /// Labels of the training rows (.npy, .npz, .safetensors), where the features have none
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// The classifier's last layer: weight (C × D), bias (C) (.safetensors, .npz)
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Feature dimension, for raw memmaps without labels or head
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// Run directory [default: LOG_DIR/EXP_NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the run in that directory from its last checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Directory with your own recipes, searched first: DIR/ebm/NAME.toml
    #[arg(long, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// What trains: cpu, or cuda[:N], a card of NVIDIA's (experimental; priors gmm, el or none)
    #[arg(long, value_name = "NAME", default_value_t = Place::Cpu)]
    pub device: Place,
    /// On a card, of the network's products in chains: tf32 (fast), or f32; all else is always f32
    /// [default: tf32]
    #[arg(long, value_name = "NAME")]
    pub precision: Option<Precision>,
    /// Standard input is the tie to the parent: a byte on it asks for a stop, its end ends the run
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// `heat sweep`
#[derive(Args)]
pub struct SweepArgs {
    /// Recipe groups and keys, each with one value or a list: ebm.model.steps=10,20,40 seed=0,1,2
    #[arg(value_name = "GROUP=NAME | key=value | key=a,b,c")]
    pub settings: Vec<String>,
    /// The data
    #[command(flatten)]
    pub data: TrainSet,
    /// In-distribution test features
    #[arg(long, value_name = "FEATURES", requires = "ood")]
    pub id: Option<PathBuf>,
    /// Evaluate every run on out-of-distribution features, as NAME=FEATURES
    #[arg(long, requires = "id", num_args = 1.., value_name = "NAME=FEATURES")]
    pub ood: Vec<String>,
    /// Directory of the sweep
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Runs at a time; they share the threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,
    /// Continue the sweep in that directory
    #[arg(long)]
    pub resume: bool,
    /// Directory with your own recipes, searched first: DIR/ebm/NAME.toml
    #[arg(long, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// Order of the rows of the summary
    #[arg(long, value_enum, default_value_t = Order::Grid)]
    pub sort: Order,
    /// How to write the summary
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Where to write it [default: standard output]
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Orders of a sweep's summary.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Order {
    /// As given
    Grid,
    /// Highest average AUROC first
    Auroc,
}

/// `heat fit`
#[derive(Args)]
pub struct FitArgs {
    /// Its name: gmm, knn, vim …; or committee, several composed
    pub scorer: String,
    /// Its settings: k=50 normalize=true pooling=std
    #[arg(value_name = "key=value")]
    pub settings: Vec<String>,
    /// The data
    #[command(flatten)]
    pub data: TrainSet,
    /// Part of it
    #[command(flatten)]
    pub subset: SubsetArgs,
    /// In-distribution features that took no part in training, by which the members of the
    /// committee are standardised [default: a fifth of the training rows, after a fit on the others]
    #[arg(long, value_name = "FEATURES", visible_alias = "standardize")]
    pub standardise: Option<PathBuf>,
    /// The training set is one part of several: write its statistics, for `heat merge`
    #[arg(long, conflicts_with_all = ["standardise", "subset_proportion", "subset_labels"])]
    pub partial: bool,
    /// With --partial: the merged statistics of the round before, where `heat merge` asked for another
    #[arg(long, value_name = "FILE", requires = "partial")]
    pub after: Option<PathBuf>,
    /// With --partial: number of classes of all parts, where no head tells
    #[arg(long, value_name = "N", requires = "partial")]
    pub classes: Option<usize>,
    /// Detector file to write, or statistics
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: PathBuf,
}

/// `heat merge`
#[derive(Args)]
pub struct MergeArgs {
    /// Statistics of parts, by `heat fit --partial`, or merged before
    #[arg(required = true, num_args = 1.., value_name = "STATISTICS")]
    pub parts: Vec<PathBuf>,
    /// Write the merged statistics, not a detector: more parts are to come
    #[arg(long)]
    pub only: bool,
    /// Detector file to write; where another round is needed, the merged statistics
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: PathBuf,
}

/// `heat compose`
#[derive(Args)]
pub struct ComposeArgs {
    /// Detectors, as FILE or NAME=FILE
    #[arg(required = true, num_args = 1.., value_name = "DETECTOR")]
    pub detectors: Vec<String>,
    /// 0: sum; inf: max; -inf: min; else (1/β)·logsumexp(β·u)
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub beta: f64,
    /// What each detector's standardised score is multiplied by [default: 1 each]
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', allow_hyphen_values = true)]
    pub weights: Vec<f64>,
    /// Combine the p-values of calibrated detectors instead; calibrate the result anew
    #[arg(long, value_enum, value_name = "RULE",
          conflicts_with_all = ["beta", "weights", "train", "standardise", "dim"])]
    pub p_values: Option<PValueRule>,
    /// Training features, for the mean and standard deviation of each score
    #[arg(long, value_name = "FEATURES", required_unless_present_any = ["p_values", "standardise"])]
    pub train: Option<PathBuf>,
    /// In-distribution features that took no part in training, for the means and deviations
    /// instead: better, since trained rows look more ordinary than others to some detectors
    #[arg(long, value_name = "FEATURES", visible_alias = "standardize", conflicts_with = "train")]
    pub standardise: Option<PathBuf>,
    /// Find the weights: those that tell these rows best from the held-out ones (logistic regression).
    /// Several sets count alike; results on them can no longer be reported
    #[arg(long, value_name = "FEATURES", num_args = 1.., requires = "standardise",
          conflicts_with_all = ["weights", "p_values", "train"])]
    pub against: Vec<PathBuf>,
    /// Compose detectors of different networks or transforms, or standardise on training rows
    #[arg(long)]
    pub force: bool,
    /// Feature dimension, for raw memmaps without labels
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// Detector file to write
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: PathBuf,
}

/// How p-values are combined.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub enum PValueRule {
    /// Their product
    Fisher,
    /// Sum of normal quantiles
    Stouffer,
    /// Mean of Cauchy quantiles
    Cauchy,
    /// Smallest ratio to its rank
    Simes,
}

/// `heat eval`
#[derive(Args)]
pub struct EvalArgs {
    /// Training features: needed by --scorers and --combine
    #[arg(long, value_name = "FEATURES")]
    pub train: Option<PathBuf>,
    /// Labels of the training rows (.npy, .npz, .safetensors), where the features have none
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// The classifier's last layer: weight (C × D), bias (C)
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Feature dimension, for raw memmaps without labels or head
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// Part of the training set
    #[command(flatten)]
    pub subset: SubsetArgs,
    /// In-distribution test features
    #[arg(long, value_name = "FEATURES")]
    pub id: PathBuf,
    /// Out-of-distribution features, as NAME=FEATURES
    #[arg(long, required = true, num_args = 1.., value_name = "NAME=FEATURES")]
    pub ood: Vec<String>,
    /// Scorers to fit, with settings: el,knn(k=50),ssd(pooling=std); or groups of them: all,
    /// logits, features, head, maps (those of feature maps, which `all` has where the features do),
    /// views (those of images seen otherwise, likewise), unlabelled (those that need neither labels nor
    /// classifier), committee (those composed where nothing is known, and their composition)
    #[arg(long, value_name = "A,B(key=value),…")]
    pub scorers: Option<String>,
    /// Fitted detectors, as FILE or NAME=FILE
    #[arg(long, num_args = 1.., value_name = "DETECTOR")]
    pub detectors: Vec<String>,
    /// End with the error of a scorer that cannot be fitted or scored, instead of leaving it out
    #[arg(long)]
    pub strict: bool,
    /// Also evaluate the composition of these scorers and detectors, by name
    #[arg(long, value_name = "A,B,…")]
    pub combine: Vec<String>,
    /// Names of the compositions, in their order [default: combine(A,B,beta=…)]
    #[arg(long, value_name = "NAME", requires = "combine")]
    pub name: Vec<String>,
    /// β of the compositions
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true, requires = "combine")]
    pub beta: f64,
    /// Order of the scorers: `name`; `average`, `near`, `far` or an OOD set, by AUROC; or a
    /// metric, such as fpr95_id_positive, by its average [default: as given]
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Beyond the metrics
    #[command(flatten)]
    pub statistics: StatisticsArgs,
    /// Take features that come from another network or transform than was fitted on
    #[arg(long)]
    pub force: bool,
    /// How to write the results
    #[arg(long, value_enum, default_value_t = EvalFormat::Table)]
    pub format: EvalFormat,
    /// Where to write them [default: standard output]
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also write an HTML report with tables and figures
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

/// `heat scorers`
#[derive(Args)]
pub struct ScorersArgs {
    /// Those of a group alone: all, logits, features, head, maps, unlabelled, committee
    #[arg(value_parser = named_group)]
    pub group: Option<NamedGroup>,
    /// How to write the list
    #[arg(long, value_enum, default_value_t = Form::Table)]
    pub format: Form,
}

/// A group of scorers by its name.
#[derive(Clone)]
pub struct NamedGroup(pub Group);

fn named_group(name: &str) -> Result<NamedGroup, String> {
    let names: Vec<&str> = Group::ALL.iter().map(|(name, _)| *name).collect();
    Group::named(name).map(NamedGroup).ok_or_else(|| format!("there are: {}", names.join(", ")))
}

/// `heat completions`
#[derive(Args)]
pub struct CompletionsArgs {
    /// Which shell's
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `heat man`
#[derive(Args)]
pub struct ManArgs {
    /// Directory for heat.1, heat-train.1 …
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// `heat report`
#[derive(Args)]
pub struct ReportArgs {
    /// Directories of `heat train` or `heat sweep`, or JSON files of `heat eval --format json`
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// HTML file to write
    #[arg(long, short, value_parser = output, value_name = "FILE.html", default_value = "report.html")]
    pub output: PathBuf,
    /// In-distribution test features: evaluate the runs' detectors
    #[arg(long, value_name = "FEATURES", requires = "ood")]
    pub id: Option<PathBuf>,
    /// Out-of-distribution features, as NAME=FEATURES
    #[arg(long, requires = "id", num_args = 1.., value_name = "NAME=FEATURES")]
    pub ood: Vec<String>,
    /// Training features: needed by --scorers, --combine, and runs of a subset of the classes
    #[arg(long, value_name = "FEATURES", requires = "id")]
    pub train: Option<PathBuf>,
    /// Labels of the training rows (.npy, .npz, .safetensors), where the features have none
    #[arg(long, value_name = "FILE", requires = "train")]
    pub labels: Option<PathBuf>,
    /// The classifier's last layer: weight (C × D), bias (C)
    #[arg(long, value_name = "FILE", requires = "train")]
    pub head: Option<PathBuf>,
    /// Feature dimension, for raw memmaps without labels or head
    #[arg(long, value_name = "D", requires = "id")]
    pub dim: Option<usize>,
    /// Scorers to fit, for comparison: el,knn(k=50),ssd(pooling=std)
    #[arg(long, value_name = "A,B(key=value),…", requires = "train")]
    pub scorers: Option<String>,
    /// Also evaluate the composition of these runs and scorers, by name
    #[arg(long, value_name = "A,B,…", requires = "train")]
    pub combine: Vec<String>,
    /// β of the compositions
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true, requires = "combine")]
    pub beta: f64,
    /// Intervals, tests and groups
    #[command(flatten)]
    pub statistics: StatisticsArgs,
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_with_and_without_units() {
        let sizes = ["4GB", "4GiB", "512MiB", "512mib", "1.5k", "100", "7 B", "2T"];
        let bytes = [4_000_000_000, 4 << 30, 512 << 20, 512 << 20, 1500, 100, 7, 2_000_000_000_000];
        for (text, bytes) in sizes.into_iter().zip(bytes) {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "GB", "4X", "4GiBs", "-1MB", "0", "1e30", "nan", "4 G i B"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
