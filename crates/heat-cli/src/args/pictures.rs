//! The commands that lead from pictures to features.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;

pub(super) const EXTRACT_HELP: &str = "\
Pictures: a folder (one folder a class, or none), .tar, .tar.gz, .zip; CIFAR-10/100 (binary or
  pickles), SVHN (.mat), MNIST (IDX), Tiny-ImageNet, DTD in their published forms; a .txt list
Presets: cifar10, cifar100 (32×32), imagenet (short side 256, crop 224); --resize, --crop, --filter,
  --mean, --std change or replace them
A killed extraction goes on where it was when the same command is run again.

  heat extract images/ --backbone model.onnx --preset imagenet -o features/train
  heat fit ssd --train features/train -o ssd.safetensors";

pub(super) const RUN_HELP: &str = "\
dataset=cifar10|cifar100|imagenet names the ID set, its OOD sets and preprocessing; their pictures are
  looked for below --data (`heat data list` says what there is). Other OOD sets:
  dataset.ood=[svhn,textures]; your own: DIR/pictures/NAME.toml with --recipes DIR
backbone=FILE (.onnx, or weights of a ResNet), or backbone=resnet34_c10 backbone.path=FILE
ebm=A,B,C trains each and also evaluates their composition
Features that are there are used again; a run that was killed goes on with --resume.

  heat run dataset=cifar10 backbone=resnet34.pt ebm=heat_gmm_c10,heat_gmm_std_c10,heat_el_c10";

pub(super) const DATA_HELP: &str = "\
Nothing else of heat downloads anything. A download that was ended goes on where it was when the
same command is run again. docs/data.md has what there is, its terms, mirrors, sources of your own

  heat data get svhn textures lsun
  heat data verify";

/// `heat extract`.
#[derive(Args)]
pub struct ExtractArgs {
    /// Folder, archive or list of pictures
    #[arg(value_name = "PICTURES")]
    pub pictures: PathBuf,
    /// Classifier: an .onnx file, or the weights of a ResNet (.pt, .pth, .ckpt, .th, .safetensors)
    #[arg(long, value_name = "FILE")]
    pub backbone: PathBuf,
    /// What is not in that file
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Folder for the feature set; the head goes beside it, into head.safetensors
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// cifar10, cifar100, svhn, idx, tinyimagenet, textures, lsun, places, folder or list [default: by the files]
    #[arg(long, value_name = "NAME")]
    pub format: Option<String>,
    /// train, val or test (textures: test1 …) [default: the one that is evaluated on]
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,
    /// Preprocessing: cifar10, cifar100, imagenet, cifar10_imagenet, or DIR/transform/NAME.toml
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Folder of your own recipes, searched first
    #[arg(long, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// Resize to N (short side) or HxW
    #[arg(long, value_name = "SIZE")]
    pub resize: Option<String>,
    /// Cut a square of N out of the middle
    #[arg(long, value_name = "N")]
    pub crop: Option<usize>,
    /// bilinear or bicubic
    #[arg(long, value_name = "NAME")]
    pub filter: Option<String>,
    /// Subtracted from each channel in [0, 1]
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub mean: Option<Vec<f32>>,
    /// Then divided by
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// Move each picture against the gradient of this detector's energy first (ODIN): odin, msp,
    /// max_logit, el, gmm, ssd, maha, heat or a composition
    #[arg(long, value_name = "DETECTOR", requires = "epsilon")]
    pub perturb: Option<PathBuf>,
    /// By so much, in normalised pixel values
    #[arg(long, value_name = "E", requires = "perturb")]
    pub epsilon: Option<f64>,
    /// Pictures given to the network at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch_size: usize,
    /// Pictures of a shard
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub shard_rows: usize,
    /// Type of the features: f16, bf16, f32, f64
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub dtype: String,
    /// Leave out pictures that cannot be read, and list them
    #[arg(long)]
    pub skip_unreadable: bool,
}

/// What a network's file does not say.
#[derive(Args)]
pub struct NetworkArgs {
    /// Tensor to take as features, where what is found is not what is wanted
    #[arg(long, value_name = "NAME")]
    pub tap: Option<String>,
    /// Architecture that weights must be of: resnet18, resnet34, resnet50, resnet20 …
    /// [default: told from them]
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// What stands before the names of the weights, where a file has several networks
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
}

/// `heat backbone`.
#[derive(Subcommand)]
pub enum BackboneCommand {
    /// Say what was found in the graph: input, features, last linear layer
    Inspect {
        /// An .onnx file, or the weights of a ResNet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What is not in that file
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Write a network with its pooled outputs as an .onnx file
    Export {
        /// The weights of a ResNet, or an .onnx file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What is not in that file
        #[command(flatten)]
        network: NetworkArgs,
        /// File to write
        #[arg(long, short, value_name = "FILE.onnx")]
        output: PathBuf,
    },
}

/// `heat run`.
#[derive(Args)]
pub struct RunArgs {
    /// Recipe groups and keys: dataset=cifar10 backbone=FILE ebm=heat_gmm_c10,heat_el_c10
    #[arg(value_name = "GROUP=NAME | key.path=value")]
    pub settings: Vec<String>,
    /// Folder of the pictures [default: dataset.data_root, else datasets]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of the extracted features [default: LOG_DIR/features]
    #[arg(long, value_name = "DIR")]
    pub features: Option<PathBuf>,
    /// Go on with runs that were interrupted, and keep those that are finished
    #[arg(long)]
    pub resume: bool,
    /// Scorers to compare with; epsilon=E perturbs the pictures: odin(epsilon=0.0014),ssd,gmm
    #[arg(long, value_name = "A,B(key=value),…", default_value = "msp,max_logit,el,knn,ssd")]
    pub scorers: String,
    /// β of the composition, where there are several ebms
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub beta: f64,
    /// Pictures given to the network at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub network_batch: usize,
    /// Pictures of a shard of features
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub shard_rows: usize,
    /// Leave out pictures that cannot be read, and list them
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Folder of your own recipes, searched first: DIR/pictures/NAME.toml, DIR/ebm/NAME.toml
    #[arg(long, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// How to write the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Where to write them, besides the run folder's results.json [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Where data sets are and come from.
#[derive(Args)]
pub struct DataPlace {
    /// Folder of the data sets
    #[arg(long, value_name = "DIR", default_value = "datasets")]
    pub data: PathBuf,
    /// Sources of your own (TOML), added to what is built in or put in its place
    #[arg(long, value_name = "FILE")]
    pub sources: Option<PathBuf>,
}

/// `heat data`.
#[derive(Subcommand)]
pub enum DataCommand {
    /// Say what there is and what is here; of NAMES, every file with its address and checksum
    List {
        /// Data sets [default: all, a line each]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// The folder
        #[command(flatten)]
        place: DataPlace,
    },
    /// Download data sets and check them against their published checksums
    Get(DataGetArgs),
    /// Check what is here against its checksums
    Verify {
        /// Data sets, all of whose files must be here [default: all files that are]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// The folder
        #[command(flatten)]
        place: DataPlace,
    },
}

/// `heat data get`.
#[derive(Args)]
pub struct DataGetArgs {
    /// Data sets: cifar10 svhn textures …; `heat data list` has all
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// The folder
    #[command(flatten)]
    pub place: DataPlace,
    /// Try URL/FILE first [default: $HEAT_MIRROR]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Tries after the first, with growing pauses, while a server gives nothing
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub retries: u32,
    /// How long a server may be silent
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
}
