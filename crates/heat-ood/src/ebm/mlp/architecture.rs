//! Layers of the three kinds of network, and where their parameters lie.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bounds that keep a mistyped or damaged size from filling the memory.
const MAX_WIDTH: usize = 1 << 14;
const MAX_LAYERS: usize = 64;

/// Shape of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// D: features in.
    pub input_dim: usize,
    /// H: width of the first hidden layer.
    pub hidden_dim: usize,
    /// Hidden layers after the first (blocks, when tapered).
    pub n_hidden_layers: usize,
    /// Whether hidden layers share their weights.
    pub tied: bool,
    /// Whether the width halves with each block.
    pub tapered: bool,
}

/// A linear map where the published code applies it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::ebm) struct Place {
    /// What PyTorch calls it there.
    pub(in crate::ebm) name: String,
    /// What it is called where it is applied first: the same, unless shared.
    pub(in crate::ebm) first: String,
    /// `[out, in]`.
    pub(in crate::ebm) shape: [usize; 2],
}

/// One linear map: where its parameters lie and what PyTorch calls it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Linear {
    pub(super) name: String,
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) offset: usize,
}

impl Linear {
    pub(super) fn weight(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.input * self.output
    }

    pub(super) fn bias(&self) -> std::ops::Range<usize> {
        let start = self.weight().end;
        start..start + self.output
    }
}

impl Architecture {
    /// The distinct linear maps, and the order in which the hidden ones are applied.
    pub(super) fn plan(&self) -> Result<(Vec<Linear>, Vec<usize>)> {
        let (d, h, n) = (self.input_dim, self.hidden_dim, self.n_hidden_layers);
        if d == 0 || h == 0 {
            return Err(Error::config("ebm.model.hidden_dim", h, "must be at least 1"));
        }
        if d > MAX_WIDTH || h > MAX_WIDTH || n > MAX_LAYERS {
            let value = format!("{d} → {h}, {n} layers");
            let problem = format!("at most {MAX_WIDTH} wide and {MAX_LAYERS} layers deep");
            return Err(Error::config("ebm.model", value, problem));
        }
        if self.tapered && (n >= usize::BITS as usize || h >> n == 0) {
            let problem = format!("hidden_dim {h} cannot be halved {n} times");
            return Err(Error::config("ebm.model.n_hidden_layers", n, problem));
        }
        let mut linears: Vec<Linear> = Vec::new();
        let mut add = |name: String, input: usize, output: usize| {
            let offset = linears.last().map_or(0, |l| l.bias().end);
            linears.push(Linear { name, input, output, offset });
        };
        add("mlp.0".into(), d, h);
        let mut order = vec![0];
        let mut width = h;
        if self.tapered {
            for i in 0..n {
                for (j, out) in [(0, width), (2, width), (4, width / 2)] {
                    add(format!("mlp.{}.{j}", i + 2), width, out);
                    order.push(order.len());
                    width = out;
                }
            }
            add(format!("mlp.{}", n + 2), width, 1);
        } else {
            let distinct = if self.tied { n.min(1) } else { n };
            for i in 0..distinct {
                add(format!("mlp.{}", 2 * i + 2), h, h);
            }
            order.extend((0..n).map(|i| if self.tied { 1 } else { i + 1 }));
            add(format!("mlp.{}", 2 * n + 2), h, 1);
        }
        Ok((linears, order))
    }

    /// Every linear map in order of application. The published code's state
    /// dict names a shared one in each place.
    ///
    /// # Errors
    /// If the architecture is impossible.
    pub(in crate::ebm) fn places(&self) -> Result<Vec<Place>> {
        let (linears, order) = self.plan()?;
        let applied = order.into_iter().chain([linears.len() - 1]).enumerate();
        let place = |(i, index): (usize, usize)| {
            let linear = &linears[index];
            let first = linear.name.clone();
            let name =
                if self.tied && !self.tapered { format!("mlp.{}", 2 * i) } else { first.clone() };
            Place { name, first, shape: [linear.output, linear.input] }
        };
        Ok(applied.map(place).collect())
    }
}
