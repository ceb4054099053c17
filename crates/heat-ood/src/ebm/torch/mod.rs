//! Networks exchanged with PyTorch: [`read`] takes the weights of a residual
//! energy out of a checkpoint of the published code, [`write()`] makes a file
//! that `torch.load(path, weights_only=True)` reads.
//!
//! *Read*: what `torch.save` wrote, as a zip archive or in the format before
//! PyTorch 1.6: a dict with `model_state` (or `state_dict`, `model`, or the
//! state dict itself) that holds `mlp.0.weight` …, whatever stands before
//! `mlp.` in the names (`module.`). Tensors of f16, bf16, f32 or f64, on any
//! device, also views. What else was pickled is passed over: nothing is
//! executed. Refused are pickles with mappings of unknown classes, with keys
//! other than text and integers, and unknown objects that hold tensors: the
//! error says how to re-save such a file.
//!
//! *Written*: `{"model_state": {"mlp.0.weight": …}}`, shared layers under
//! each of their names and stored once.

mod names;
mod write;

use std::path::Path;

use super::checkpoint;
use super::heat::Heat;
use super::mlp::{Architecture, Mlp, Place};
use crate::error::{Error, Result};
use crate::io::TensorFile;
use crate::scorers::{Outline, Stored};
use crate::torch::{self, Tensor};

pub use write::write;

/// How to read a checkpoint.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Whether hidden layers share their weights. `None`: they do if there
    /// are at least two, all equal to the bit. Without meaning for a tapered
    /// network.
    pub tied: Option<bool>,
    /// What stands before `mlp.` in the names, where a file has several
    /// networks: `ema.module.`.
    pub prefix: Option<String>,
}

/// The network of a PyTorch checkpoint, in single precision.
///
/// # Errors
/// If the file is truncated, not a checkpoint, or holds no network, several,
/// or one with tensors that are absent, superfluous, of another shape or type,
/// or not finite.
pub fn read(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Mlp> {
    let path = path.as_ref();
    let (tensors, length) = torch::read(path)?;
    let group = names::group(path, tensors, options)?;
    let (mut architecture, places) = names::architecture(path, &group)?;
    let source = Source { path, group, places, length };
    source.check_sizes(1)?;
    if !architecture.tapered {
        architecture.tied = source.tied(architecture, options.tied)?;
    }
    if !architecture.tied && options.tied != Some(false) {
        source.check_sizes(usize::MAX)?;
    }
    Mlp::filled(architecture, |name, _| source.values(name))
}

/// The tensors of a network within their file.
struct Source<'a> {
    path: &'a Path,
    group: names::Group,
    places: Vec<Place>,
    length: usize,
}

impl Source<'_> {
    /// That the tensors, of hidden layers only the first `hidden`, are in the
    /// file with all their values: an expanded view repeats a few.
    fn check_sizes(&self, hidden: usize) -> Result<()> {
        let last = self.places.len() - 1;
        let counted = |i: &usize| *i == 0 || *i == last || *i <= hidden;
        let names = (0..=last).filter(counted).flat_map(|i| names_of(&self.places[i]));
        let size = |name: String| self.group.get(&name).map_or(0, Tensor::byte_len);
        torch::check_size(self.path, names.map(size).fold(0, usize::saturating_add), self.length)
    }

    /// Whether the hidden layers are one, compared with what the caller says.
    fn tied(&self, architecture: Architecture, asked: Option<bool>) -> Result<bool> {
        let hidden = &self.places[1..=architecture.n_hidden_layers];
        if asked == Some(false) || (asked.is_none() && hidden.len() < 2) {
            return Ok(false);
        }
        let mut differs = None;
        for end in 0..2 {
            let name = |place: &Place| names_of(place)[end].clone();
            let Some(first) = hidden.first().map(|place| self.bytes(&name(place))).transpose()?
            else {
                break;
            };
            for place in &hidden[1..] {
                if self.bytes(&name(place))? != first {
                    differs = Some(name(place));
                }
            }
        }
        match differs {
            Some(name) if asked == Some(true) => Err(Error::format(
                self.path,
                format!(
                    "`{name}` differs from the first hidden layer: the network is not tied (`ebm.model.tied=false`)"
                ),
            )),
            differs => Ok(differs.is_none()),
        }
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.group.get(name).ok_or_else(|| {
            let place = self.path.display().to_string();
            Error::missing(place, format!("tensor `{name}`"), "save the whole network")
        })
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        torch::bytes(self.path, self.tensor(name)?)
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        torch::values(self.path, name, self.tensor(name)?)
    }
}

/// The tensors of a linear map.
fn names_of(place: &Place) -> [String; 2] {
    ["weight", "bias"].map(|end| format!("{}.{end}", place.name))
}

/// A network's shape in words.
pub fn describe(architecture: Architecture) -> String {
    let Architecture { input_dim, hidden_dim, n_hidden_layers, tied, tapered } = architecture;
    let kind = match (tapered, tied) {
        (true, _) => "tapered (reduce_width)",
        (_, true) => "tied",
        _ => "untied",
    };
    format!(
        "D = {input_dim}, hidden_dim = {hidden_dim}, n_hidden_layers = {n_hidden_layers}, {kind}"
    )
}

/// That a network read from `path` is the one that the settings describe.
///
/// # Errors
/// If it is not: the text has both.
pub fn expect(path: impl AsRef<Path>, net: &Mlp, expected: Architecture) -> Result<()> {
    let got = net.architecture();
    // One hidden layer, or none, shares with nobody.
    let alone = got.n_hidden_layers < 2 && !got.tapered;
    let same = if alone { Architecture { tied: expected.tied, ..got } } else { got };
    if same == expected {
        return Ok(());
    }
    let problem = format!(
        "{} holds another network ({}): give the recipe it was trained with, and features of the same backbone",
        path.as_ref().display(),
        describe(got)
    );
    Err(Error::config("ebm.model", format!("({})", describe(expected)), problem))
}

/// The network of an open detector or training checkpoint; of several, one that computes their mean.
///
/// # Errors
/// If the file is neither, or holds no residual energy.
pub fn network(file: &TensorFile) -> Result<Mlp> {
    let bad = |why: String| Error::format(file.path(), why);
    let format = file.metadata("format").unwrap_or_default();
    if format != "heat-detector" && format != checkpoint::FORMAT {
        return Err(bad("not a detector: make one with `heat train`".into()));
    }
    let outline: Outline = serde_json::from_str(file.metadata("scorer").unwrap_or_default())
        .map_err(|e| bad(format!("its outline is not readable: {e}")))?;
    let stored = Stored::new(file, "", &outline);
    if stored.kind() != "heat" {
        return Err(bad(format!(
            "holds a `{}`, which has no network of its own: give the detector of one residual energy",
            stored.kind()
        )));
    }
    match &Heat::load(&stored)?.nets[..] {
        [one] => Ok(one.clone()),
        several => Mlp::mean_of(several),
    }
}
