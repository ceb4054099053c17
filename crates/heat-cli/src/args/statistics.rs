//! What `heat eval` computes beyond the metrics.

use clap::Args;

/// Intervals, tests and groups.
#[derive(Args, Clone)]
pub struct StatisticsArgs {
    /// Confidence intervals of every metric [default LEVEL: 0.95]
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "0.95")]
    pub ci: Option<f64>,
    /// Paired tests of every scorer against this one [default: the best average AUROC]
    #[arg(long, value_name = "SCORER", num_args = 0..=1)]
    pub compare: Option<Option<String>>,
    /// Resamples of the rows, for --ci and --compare [default: 1000]
    #[arg(long, value_name = "N")]
    pub resamples: Option<usize>,
    /// Seed of the resampling [default: 0]
    #[arg(long, value_name = "SEED")]
    pub resample_seed: Option<u64>,
    /// Also average over near and far OOD sets, as OpenOOD v1.5 groups them for
    /// cifar10, cifar100, imagenet200 or imagenet
    #[arg(long, value_name = "BENCHMARK", conflicts_with_all = ["near", "far"])]
    pub groups: Option<String>,
    /// Your own near OOD sets, by name
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', requires = "far")]
    pub near: Vec<String>,
    /// Your own far OOD sets, by name
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', requires = "near")]
    pub far: Vec<String>,
}
