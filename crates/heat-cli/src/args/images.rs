//! Grammar of the commands that lead from images to features.

use std::path::PathBuf;

use heat_images::backbone::{Device, Precision};
use heat_ood::features::{Field, View};

use super::output;
use clap::{Args, Subcommand};

use crate::export::Format;

pub(super) const EXTRACT_HELP: &str = "\
Images: a directory (with a subdirectory per class, or none), .tar, .tar.gz, .zip; CIFAR-10/100
  (binary or pickles), SVHN (.mat), MNIST (IDX), Tiny-ImageNet, DTD as published; a .txt list
Presets: cifar10, cifar100 (32×32), imagenet (short side 256, crop 224); --resize, --crop, --filter,
  --mean, --std change or replace them
The same command, run again, continues a killed extraction.
--surrogates all writes DIR/id and a set of each kind of transformed images, for choosing among
  scorers without out-of-distribution data

  heat extract images/ --backbone model.onnx --preset imagenet -o features/train
  heat fit ssd --train features/train -o ssd.safetensors";

pub(super) const RUN_HELP: &str = "\
dataset=cifar10|cifar100|imagenet names the ID set, its OOD sets and preprocessing; the images are
  searched below --data (`heat data list` shows what there is). Other OOD sets:
  dataset.ood=[svhn,textures]; your own: DIR/pictures/NAME.toml with --recipes DIR
backbone=FILE (.onnx, or weights of a ResNet), or backbone=resnet34_c10 backbone.path=FILE
ebm=A,B,C trains each and also evaluates their composition
Existing features are reused; --resume continues a killed run.

  heat run dataset=cifar10 backbone=resnet34.pt ebm=heat_gmm_c10,heat_gmm_std_c10,heat_el_c10";

pub(super) const DATA_HELP: &str = "\
Nothing else in heat downloads anything. The same command, run again, continues an interrupted
download. docs/data.md lists what there is, terms and mirrors, and how to add your own sources

  heat data get svhn textures lsun
  heat data verify";

/// `heat extract`.
#[derive(Args)]
pub struct ExtractArgs {
    /// Directory, archive or list of images
    #[arg(value_name = "IMAGES")]
    pub images: PathBuf,
    /// Classifier: an .onnx file, or the weights of a ResNet (.pt, .pth, .ckpt, .th, .safetensors)
    #[arg(long, value_name = "FILE")]
    pub backbone: PathBuf,
    /// What that file does not say
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Directory for the feature set; the network's last layer lies in it as head.safetensors
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// The images, and what is done to them
    #[command(flatten)]
    pub given: ImageArgs,
    /// First move each image against the gradient of this detector's energy (ODIN): odin, msp,
    /// max_logit, el, gmm, ssd, maha, heat or a composition
    #[arg(long, value_name = "DETECTOR", requires = "epsilon")]
    pub perturb: Option<PathBuf>,
    /// By how much, in normalised pixel values
    #[arg(long, value_name = "E", requires = "perturb")]
    pub epsilon: Option<f64>,
    /// Move only the K values of each image with the largest gradient (I-ODIN: 1) [default: all]
    #[arg(long, value_name = "K", requires = "perturb")]
    pub perturb_values: Option<usize>,
    /// Find further layers, N of them, and take their features too: ends and middles of the last
    /// stages, named as stage3_mid [default of N: 3]
    #[arg(long, value_name = "auto[:N]", value_parser = found_taps)]
    pub taps: Option<usize>,
    /// Take the features of other views of each image too: mirror, for scorers with views=mean;
    /// bits5 (values of five bits) and median2 (the median of 2 × 2 pixels), for feature_squeezing;
    /// nudged5 (five hundredths of its values moved by a gradient), for adascale_a and adascale_l;
    /// noise8x256 (the mean of 256 passes with noise within 8 thousandths), for odds; dropout30 (30
    /// passes with the dropout that the graph still has), for mcd
    #[arg(long, value_name = "VIEW,…", value_delimiter = ',')]
    pub views: Vec<View>,
    /// What is made of the network's maps
    #[command(flatten)]
    pub maps: MapArgs,
    /// Images per shard
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub shard_rows: usize,
    /// Skip images that cannot be read, and list them
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Surrogates for out-of-distribution images
    #[command(flatten)]
    pub surrogates: SurrogateArgs,
}

/// What is made of the network's maps besides poolings.
#[derive(Args)]
pub struct MapArgs {
    /// Make what these scorers read of the network's maps: gram (of each layer), rankfeat, nac (of
    /// further layers, by a gradient), graduncertainty (of all weights)
    #[arg(long = "for", requires = "backbone", value_name = "SCORER,…", value_delimiter = ',', value_parser = Field::OF_MAPS.map(Field::name))]
    scorers: Vec<String>,
}

impl MapArgs {
    /// As fields of a feature set.
    pub fn fields(&self) -> Vec<Field> {
        self.scorers.iter().filter_map(|name| Field::named(name)).collect()
    }
}

/// Surrogates of images.
#[derive(Args)]
#[command(next_help_heading = "Surrogates")]
pub struct SurrogateArgs {
    /// Transform the images into others that play out-of-distribution, and write a set of each kind and of
    /// the images themselves (id) into the directory: all, or some of jigsaw2, jigsaw4, jigsaw8, mixup, cutmix,
    /// blur, zoom, rotate, invert, noise, phase, pink, shapes, edges
    #[arg(long, value_name = "all|KIND,…", value_delimiter = ',', conflicts_with = "perturb")]
    pub surrogates: Vec<String>,
    /// Images of each kind
    #[arg(long, value_name = "N", default_value_t = 1500, requires = "surrogates")]
    pub surrogate_rows: usize,
    /// Seed of what is done to which image
    #[arg(long, value_name = "N", default_value_t = 0, requires = "surrogates")]
    pub seed: u64,
    /// Make none of images whose features are in this set (training, calibration, test); repeatable
    #[arg(long, value_name = "SET", requires = "surrogates")]
    pub exclude: Vec<PathBuf>,
    /// Show eight images of each kind in a PNG file
    #[arg(long, value_name = "FILE.png", requires = "surrogates")]
    pub preview: Option<PathBuf>,
}

/// `auto` or `auto:N`.
pub(super) fn found_taps(text: &str) -> Result<usize, String> {
    let number = match text.split_once(':') {
        None if text == "auto" => return Ok(3),
        Some(("auto", number)) => number.parse().ok(),
        _ => None,
    };
    number
        .filter(|n| (1..=64).contains(n))
        .ok_or_else(|| "expected auto, or auto:N with N from 1 to 64".into())
}

/// What images are, and how they reach the network.
#[derive(Args)]
pub struct ImageArgs {
    /// cifar10, cifar100, svhn, idx, tinyimagenet, textures, lsun, places, folder, list or numpy [default: told by the files]
    #[arg(long, requires = "backbone", value_name = "NAME")]
    pub format: Option<String>,
    /// train, val or test (textures: test1 …; a folder: the directory of that name; CIFAR-10-C: a
    /// severity from 1 to 5) [default: the one used for evaluation]
    #[arg(long, requires = "backbone", value_name = "SPLIT")]
    pub split: Option<String>,
    /// Directory or archive that the paths of a list are in [default: the list's directory]
    #[arg(long, requires = "backbone", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Preprocessing: cifar10, cifar100, imagenet, cifar10_imagenet, or DIR/transform/NAME.toml
    #[arg(long, requires = "backbone", value_name = "NAME")]
    pub preset: Option<String>,
    /// Directory with your own recipes, searched first
    #[arg(long, requires = "backbone", value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// Resize to N (short side) or HxW
    #[arg(long, requires = "backbone", value_name = "SIZE")]
    pub resize: Option<String>,
    /// Crop a central square of N
    #[arg(long, requires = "backbone", value_name = "N")]
    pub crop: Option<usize>,
    /// bilinear or bicubic
    #[arg(long, requires = "backbone", value_name = "NAME")]
    pub filter: Option<String>,
    /// Subtracted from each channel in [0, 1]
    #[arg(long, requires = "backbone", value_name = "R,G,B", value_delimiter = ',')]
    pub mean: Option<Vec<f32>>,
    /// Then divided by
    #[arg(long, requires = "backbone", value_name = "R,G,B", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// What the network is run on: cpu, cuda[:N], tensorrt[:N], migraphx, coreml, directml[:N] or
    /// openvino[:CPU|GPU|GPU.N]; needs an ONNX Runtime made for it
    #[arg(long, requires = "backbone", value_name = "NAME", default_value_t = Device::Cpu)]
    pub device: Device,
    /// f32, or tf32: products several times as fast, of ten bits (cuda, tensorrt)
    #[arg(long, requires = "backbone", value_name = "NAME", default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Images given to the network at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch_size: usize,
    /// Type of the features: f16, bf16, f32, f64
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub dtype: String,
}

/// What a network's file does not say.
#[derive(Args)]
pub struct NetworkArgs {
    /// Tensor to take as features, if the wrong one is found; as NAME=TENSOR, one to take beside
    /// them: its features are NAME.avg and NAME.std, for scorers with layer=NAME
    #[arg(long, value_name = "[NAME=]TENSOR")]
    pub tap: Vec<String>,
    /// The classifier's output, if the graph has several [default: by the labels' classes, its name,
    /// or as the last]
    #[arg(long, value_name = "NAME")]
    pub output_name: Option<String>,
    /// Architecture that weights must be of (resnet18, resnet50, resnet20 …), and what they do not
    /// tell: stem=cifar|cifar+pool|imagenet|stride2|stride2+pool, stride_in=conv1|conv2; apart by
    /// commas [default: inferred from them]
    #[arg(long, value_name = "NAME,key=value")]
    pub arch: Option<String>,
    /// Prefix of the names of the weights, if the file holds several networks
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
}

/// `heat backbone`.
#[derive(Subcommand)]
pub enum BackboneCommand {
    /// Show what was found in the graph: input, features, last linear layer
    Inspect {
        /// An .onnx file, or the weights of a ResNet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What that file does not say
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Write a network with its pooled outputs as an .onnx file
    Export {
        /// The weights of a ResNet, or an .onnx file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What that file does not say
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
    /// Directory of the images [default: dataset.data_root, else datasets]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Directory of the extracted features [default: LOG_DIR/features]
    #[arg(long, value_name = "DIR")]
    pub features: Option<PathBuf>,
    /// Continue interrupted runs, and keep finished ones
    #[arg(long)]
    pub resume: bool,
    /// Scorers to compare with; epsilon=E perturbs the images: odin(epsilon=0.0014),ssd,gmm
    #[arg(long, value_name = "A,B(key=value),…", default_value = "msp,max_logit,el,knn,ssd")]
    pub scorers: String,
    /// β of the composition, if there are several ebms
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub beta: f64,
    /// What the network is run on, as in `heat extract`
    #[arg(long, value_name = "NAME", default_value_t = Device::Cpu)]
    pub device: Device,
    /// f32, or tf32 (cuda, tensorrt)
    #[arg(long, value_name = "NAME", default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Images given to the network at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub network_batch: usize,
    /// Images per shard of features
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub shard_rows: usize,
    /// Skip images that cannot be read, and list them
    #[arg(long)]
    pub skip_unreadable: bool,
    /// End when a scorer fails, instead of leaving it out
    #[arg(long)]
    pub strict: bool,
    /// Directory with your own recipes, searched first: DIR/pictures/NAME.toml, DIR/ebm/NAME.toml
    #[arg(long, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// How to write the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Where to write them, besides the run directory's results.json [default: standard output]
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Where data sets are, and where they come from.
#[derive(Args)]
pub struct DataPlace {
    /// Directory of the data sets
    #[arg(long, value_name = "DIR", default_value = "datasets")]
    pub data: PathBuf,
    /// Your own sources (TOML), added to the built-in ones or replacing them by name
    #[arg(long, value_name = "FILE")]
    pub sources: Option<PathBuf>,
}

/// `heat data`.
#[derive(Subcommand)]
pub enum DataCommand {
    /// Show what there is and what is here; of NAMES, every file with its address and checksum
    List {
        /// Data sets [default: all, one line each]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// The directory
        #[command(flatten)]
        place: DataPlace,
    },
    /// Download data sets and check them against their published checksums
    Get(DataGetArgs),
    /// Check what is here against the checksums
    Verify {
        /// Data sets whose files must all be here [default: whatever is here]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// The directory
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
    /// The directory
    #[command(flatten)]
    pub place: DataPlace,
    /// Try URL/FILE first [default: $HEAT_MIRROR]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Retries, with growing pauses, while a server sends nothing
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub retries: u32,
    /// How long a server may stay silent
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// Most bytes of a file whose size is not known beforehand, and of what an archive unpacks to
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = super::size)]
    pub most: usize,
}
