//! Where training runs: as people name it, to an engine.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use heat_ood::ebm::HeatConfig;
use heat_ood::ebm::engine::Engine;
use heat_ood::scorers::Prior;
use heat_ood::{Error, Result};

use crate::engine::check;
use crate::plan::Precision;

/// Where training runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// On this processor, with the bits that all processors give.
    #[default]
    Cpu,
    /// On a card of NVIDIA's, by its number.
    Cuda(usize),
}

impl Place {
    /// The engine for a run; `None` for the processor, whose engine a run has as it is.
    ///
    /// # Errors
    /// If the settings or the prior are none for a card, there is no such card, or it has not enough
    /// memory.
    pub fn engine(
        self,
        config: &HeatConfig,
        prior: &Arc<dyn Prior>,
        precision: Precision,
    ) -> Result<Option<Box<dyn Engine>>> {
        match self {
            Place::Cpu => Ok(None),
            Place::Cuda(number) => {
                check(config, &**prior, &self.to_string())?;
                check_override(precision, std::env::var(OVERRIDE).ok().as_deref())?;
                open(number, prior, precision).map(Some)
            }
        }
    }
}

/// The variable by which NVIDIA's libraries compute everything in TF32, or nothing.
const OVERRIDE: &str = "NVIDIA_TF32_OVERRIDE";

/// Refuse what would not be computed as it is recorded.
fn check_override(precision: Precision, set: Option<&str>) -> Result<()> {
    let problem = match (set, precision) {
        (Some("1"), _) => "by which the prior, too, would be computed in TF32: unset it",
        (Some("0"), Precision::Tf32) => "by which there is no TF32: unset it, or take f32",
        _ => return Ok(()),
    };
    let value = set.unwrap_or_default();
    Err(Error::config(
        "precision",
        precision,
        format!("the environment has {OVERRIDE}={value}, {problem}"),
    ))
}

#[cfg(feature = "cuda")]
fn open(number: usize, prior: &Arc<dyn Prior>, precision: Precision) -> Result<Box<dyn Engine>> {
    let card = crate::driver::Card::open(number)?;
    Ok(Box::new(crate::engine::Gpu::new(card, prior.clone(), precision)?))
}

#[cfg(not(feature = "cuda"))]
fn open(number: usize, _: &Arc<dyn Prior>, _: Precision) -> Result<Box<dyn Engine>> {
    let problem = "this program was built without CUDA: build it with `cargo build --release --features cuda` \
                   (which needs no CUDA itself), or train on the processor (--device cpu)";
    Err(Error::device(Place::Cuda(number).to_string(), problem))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => f.write_str("cpu"),
            Place::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse().ok().filter(|n: &u16| n.to_string() == text);
        let place = match text.split_once(':') {
            None if text == "cpu" => Some(Place::Cpu),
            None if text == "cuda" => Some(Place::Cuda(0)),
            Some(("cuda", which)) => number(which).map(|n| Place::Cuda(n.into())),
            _ => None,
        };
        let problem =
            "training runs on cpu or cuda; of several cards on one by its number (cuda:1)";
        place.ok_or_else(|| Error::config("device", text, problem))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Precision::Tf32, Precision::F32].into_iter().find(|p| p.name() == text);
        known.ok_or_else(|| Error::config("precision", text, "must be tf32 or f32"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_would_change_is_refused() {
        for (precision, set, refused) in [
            (Precision::Tf32, None, false),
            (Precision::F32, Some("0"), false),
            (Precision::Tf32, Some("0"), true),
            (Precision::Tf32, Some("1"), true),
            (Precision::F32, Some("1"), true),
        ] {
            let said = check_override(precision, set).err().map(|e| e.to_string());
            assert_eq!(said.is_some(), refused, "{precision} {set:?}");
            assert!(said.is_none_or(|s| s.contains("unset it")));
        }
    }
}
