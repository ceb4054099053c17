//! HEAT: out-of-distribution detection on the features of a trained classifier.
//!
//! Lafon, Ramzi, Rambour and Thome, *Hybrid Energy Based Model in the Feature
//! Space for Out-of-Distribution Detection*, ICML 2023 (arXiv 2305.16966). A
//! prior energy is fitted to features of the training set, a small residual
//! energy is trained on it by contrastive divergence, and several corrected
//! energies are composed.
//!
//! **A score is an energy: higher = more out-of-distribution**, one `f32` per row.
//!
//! ```
//! use heat_ood::ebm::HeatConfig;
//! use heat_ood::features::FeatureSet;
//! use heat_ood::{Detector, Fit, Silent, TrainingData, metrics};
//!
//! # fn main() -> heat_ood::Result<()> {
//! # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-cli/data/cifar10-densenet");
//! let train = FeatureSet::open(format!("{directory}/train.safetensors"))?;
//! let mut config = HeatConfig { batch_size: 256, n_epochs: 1, ..HeatConfig::default() };
//! config.ebm.model.steps = 1;
//! # config.ebm.model.train_max_iter = Some(1);
//! let heat = Detector::new(config.fit(&TrainingData::new(&train), &mut Silent)?);
//! let id = heat.score(&FeatureSet::open(format!("{directory}/test.safetensors"))?)?;
//! let ood = heat.score(&FeatureSet::open(format!("{directory}/ood_mnist.safetensors"))?)?;
//! assert!(metrics::auroc(&id, &ood)? > 0.99);
//! # Ok(())
//! # }
//! ```
//!
//! Every scorer, HEAT and compositions are fitted in this one way ([`Fit`]):
//! settings, [`TrainingData`], an [`Observer`]. A detector remembers which rows
//! it has seen, and refuses to be calibrated on them.
//!
//! Matrices in the interface are those of `ndarray` 0.17, re-exported as
//! [`ndarray`].
//!
//! The library never prints (see [`Observer`]) and never panics on input.

#[cfg(target_endian = "big")]
compile_error!("the file formats are read and written on little-endian machines only");

pub mod auto;
pub mod calibrate;
pub mod compose;
mod detector;
pub mod ebm;
mod error;
pub mod evaluate;
pub mod features;
pub mod io;
pub mod math;
pub mod metrics;
mod observe;
mod printable;
mod probes;
mod provenance;
pub mod recipe;
pub mod run;
pub mod scorers;
pub mod select;
mod settings;
pub mod statistics;
pub mod torch;

pub use ndarray;

pub use detector::{Detector, Prediction, Proof};
pub use error::{Error, Result};
pub use observe::{EpochLog, Event, Observer, Silent, Warnings};
pub use printable::printable;
pub use probes::Probes;
pub use provenance::Provenance;
pub use scorers::{Fit, Fitted, TrainingData};
