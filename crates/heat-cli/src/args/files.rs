//! Grammar of reading, converting and exchanging files.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{SubsetArgs, TrainSet, output};

pub const CONVERT_HELP: &str = "\
An existing OUT is kept unless --force is given. A killed conversion leaves nothing under the
name OUT.

  heat convert published/train -o train --head head.safetensors
  heat convert train -o train.npz --dtype f32 --fields avg,std";

/// `heat export`
#[derive(Args)]
pub struct ExportArgs {
    /// Detector or checkpoint of a residual energy
    pub detector: PathBuf,
    /// PyTorch file to write: {"model_state": {"mlp.0.weight": …}}
    #[arg(long, short, value_parser = output, value_name = "FILE.pt")]
    pub output: PathBuf,
}

/// `heat import`
#[derive(Args)]
pub struct ImportArgs {
    /// What `torch.save` wrote: a dict with `model_state` holding `mlp.*`
    #[arg(value_name = "FILE.pt")]
    pub network: PathBuf,
    /// The recipe it was trained with: ebm=heat_gmm_c10 ebm.model.hidden_dim=512
    #[arg(value_name = "GROUP=NAME | key.path=value")]
    pub settings: Vec<String>,
    /// The data to fit the prior on
    #[command(flatten)]
    pub data: TrainSet,
    /// What precedes `mlp.` in the names, if the file holds several networks
    #[arg(long)]
    pub prefix: Option<String>,
    /// Directory with your own recipes, searched first: DIR/ebm/NAME.toml
    #[arg(long, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// Detector file to write
    #[arg(long, short, value_parser = output, value_name = "FILE")]
    pub output: PathBuf,
}

/// `heat info`
#[derive(Args)]
pub struct InfoArgs {
    /// Any file or directory that this program reads or writes
    pub file: PathBuf,
    /// Feature dimension, for raw memmaps without labels
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// Let a detector prove that it scores here as it did where it was made, by its probe rows
    #[arg(long)]
    pub verify: bool,
}

/// `heat convert`
#[derive(Args)]
pub struct ConvertArgs {
    /// Features to read, in any format
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// What to write: a directory (shards), or a .safetensors, .npy, .npz or .csv file
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
    /// Format of OUT, if its name does not tell
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub to: Option<To>,
    /// f16, bf16, f32 or f64 [default: f16 in .safetensors, f32 in .npy, .npz and .csv, f64 in memmaps]
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<String>,
    /// Which of avg, std, max, logits, probs (and label) [default: all; avg for .npy]
    #[arg(long, alias = "field", value_name = "A,B,…", value_delimiter = ',')]
    pub fields: Option<Vec<String>>,
    /// Labels to add (.npy, .npz, .safetensors, .csv)
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// The classifier's last layer: for --logits, and D of raw memmaps
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Compute the logits of avg with the head
    #[arg(long)]
    pub logits: bool,
    /// Feature dimension, for raw memmaps without labels or head
    #[arg(long, value_name = "D")]
    pub dim: Option<usize>,
    /// Rows per shard [default: about 1 GiB worth]
    #[arg(long, value_name = "N")]
    pub shard_rows: Option<usize>,
    /// Replace OUT if it exists
    #[arg(long)]
    pub force: bool,
    /// Part of the rows
    #[command(flatten)]
    pub subset: SubsetArgs,
}

/// Formats of a feature set.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum To {
    /// A directory of .safetensors shards
    Shards,
    /// One .safetensors file
    Safetensors,
    /// One matrix; in a directory (a name without .npy), one file per field
    Npy,
    /// One .npz file
    Npz,
    /// A directory of the published feat.mmap, std.mmap, label.mmap
    Memmap,
    /// A table of text
    Csv,
}
