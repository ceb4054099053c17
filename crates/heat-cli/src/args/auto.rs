//! Grammar of `heat auto`.

use std::path::PathBuf;

use clap::Args;

use super::images::{MapArgs, found_taps};
use super::{ImageArgs, NetworkArgs, output};

pub(super) const AUTO_HELP: &str = "\
From images: extracts features (of further layers and of the mirrored images too), makes images that
play OOD, compares all scorers by them (with --for those of maps too), trains a residual, composes,
calibrates on ID images that nothing else has seen. What is added to the fixed committee must show
its worth first. --val: ID images outside the network's training; without, a fifth of IMAGES is held
out, which the network may have been trained on: more will be flagged than promised. Work lies in
DETECTOR.auto/; the same command, run again, continues.
From features (--train): what can be done without images; sets that play OOD with --surrogates.

  heat auto train/ --val val/ --backbone model.onnx --preset imagenet -o detector.safetensors
  heat auto --train train.safetensors --head head.safetensors --val val.safetensors -o d.safetensors";

/// What says nothing of features: given beside them it would do nothing. The names of types stand for all
/// their options.
const OF_IMAGES: [&str; 8] =
    ["images", "backbone", "ImageArgs", "NetworkArgs", "MapArgs", "taps", "surrogate_rows", "work"];

/// `heat auto`.
#[derive(Args)]
pub struct AutoArgs {
    /// Images that the network was trained for: directory, archive or list
    #[arg(value_name = "IMAGES", requires = "backbone")]
    pub images: Option<PathBuf>,
    /// Classifier: an .onnx file, or the weights of a ResNet (.pt, .pth, .ckpt, .th, .safetensors)
    #[arg(long, value_name = "FILE")]
    pub backbone: Option<PathBuf>,
    /// ID images outside training; with --train, ID features
    #[arg(long, value_name = "IMAGES|FEATURES")]
    pub val: Option<PathBuf>,
    /// What the network's file does not say
    #[command(flatten)]
    pub network: NetworkArgs,
    /// The images, and what is done to them
    #[command(flatten)]
    pub given: ImageArgs,
    /// Training features, in place of images
    #[arg(long, value_name = "FEATURES", conflicts_with_all = OF_IMAGES)]
    pub train: Option<PathBuf>,
    /// Labels of the training rows (.npy, .npz, .safetensors), where the features have none
    #[arg(long, value_name = "FILE", requires = "train")]
    pub labels: Option<PathBuf>,
    /// The classifier's last layer, where it does not lie beside the features
    #[arg(long, value_name = "FILE", requires = "train")]
    pub head: Option<PathBuf>,
    /// With --train: directory with a feature set a kind that plays OOD, and ID rows as `id`
    #[arg(long, value_name = "DIR", requires = "train")]
    pub surrogates: Option<PathBuf>,
    /// How many further layers to find, or none
    #[arg(long, value_name = "auto[:N]|none", default_value = "auto", value_parser = taps)]
    pub taps: Taps,
    /// What is made of the network's maps
    #[command(flatten)]
    pub maps: MapArgs,
    /// Do not try the mirrored images (half the time): left and right mean something
    #[arg(long)]
    pub no_mirror: bool,
    /// Do not try a residual
    #[arg(long)]
    pub no_residual: bool,
    /// Images of each kind that plays OOD
    #[arg(long, value_name = "N", default_value_t = 1500)]
    pub surrogate_rows: usize,
    /// Training rows by which scorers are compared, at most
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub rows: usize,
    /// Bound on the fraction of in-distribution rows that is flagged
    #[arg(long, default_value_t = 0.05, allow_hyphen_values = true)]
    pub alpha: f64,
    /// Seed of everything
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Directory for features and surrogates [default: DETECTOR.auto]
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Write the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Detector file to write
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: PathBuf,
}

/// How many layers are to be found.
#[derive(Clone, Copy)]
pub struct Taps(pub Option<usize>);

fn taps(text: &str) -> Result<Taps, String> {
    match text {
        "none" => Ok(Taps(None)),
        text => found_taps(text).map(|n| Taps(Some(n))),
    }
}
