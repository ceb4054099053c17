//! Nearest-neighbour guidance (`nnguide`): −E(z)·mean of the k largest
//! E(x)·cos(z, x) over the training rows x, E the logsumexp of the logits.
//!
//! The index (`neighbours.rs`) holds E(x)·x/‖x‖. k = 10, as in the paper, whose bank
//! is a small fraction of a large training set: fit on a subset for that. Cost per
//! row O(N·D).
//!
//! Reference: Park et al., *Nearest Neighbor Guidance for Out-of-Distribution
//! Detection*, ICCV 2023.

use serde_json::json;

use super::bank::{Order, QUERIES, gather};
use super::index::Neighbours;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::io::Tensor;
use crate::math::reduce;
use crate::observe::Event;
use crate::scorers::context::FitContext;
use crate::scorers::input::{
    Input, contradiction, feature_settings, head_logits, load_head, require_head,
};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `nnguide`.
    NnguideConfig, normalize = false;
    /// How many neighbours guide.
    k: usize = 10,
}

offer! { NnguideConfig => Nnguide }

/// A fitted `nnguide` scorer.
pub struct Nnguide {
    config: NnguideConfig,
    input: Input,
    head: Head,
    bank: Neighbours,
}

/// logsumexp of the logits of each row.
fn energies(head: &Head, rows: &[f32]) -> Vec<f64> {
    reduce::logsumexp_rows(&head_logits(head, rows), head.classes())
}

impl Method for NnguideConfig {
    const NAME: &'static str = "nnguide";
    type Scorer = Nnguide;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Nnguide> {
        let n = context.rows();
        let head = require_head("nnguide", context.head)?;
        let source = context.source(self)?;
        let stored = context.stepped_rows(&source)?;
        let input = source.input;
        if self.k == 0 || self.k > n {
            let problem = format!("the bank holds {n} rows, so k must lie in 1..={n}");
            return Err(Error::config("k", self.k, problem));
        }
        let head = input.head(head)?;
        context.observer.on(Event::Begin { task: "bank training rows", total: n as u64 });
        let rows = gather(n, input.dim, |range| {
            let mut rows = stored.read(range)?;
            let energies = energies(&head, &rows);
            for (row, energy) in rows.chunks_exact_mut(input.dim).zip(energies) {
                reduce::normalize(row);
                row.iter_mut().for_each(|v| *v *= energy as f32);
            }
            Ok(rows)
        })?;
        let bank = Neighbours::new(rows, input.dim, Order::Product);
        context.observer.on(Event::End);
        Ok(Nnguide { config: self.clone(), input, head, bank })
    }

    fn load(stored: &Stored<'_>) -> Result<Nnguide> {
        let (config, input): (NnguideConfig, _) = Input::load(stored)?;
        let head = load_head(stored.file, &stored.name("head."))?;
        let name = stored.name("bank");
        let shape = stored.file.shape(&name)?.to_vec();
        let rows = stored.file.floats(&name, &shape)?;
        let fits = shape.len() == 2 && shape[1] == input.dim && head.dim() == input.dim;
        if !fits || !(1..=shape[0]).contains(&config.k) {
            return Err(contradiction(stored));
        }
        let bank = Neighbours::new(rows, input.dim, Order::Product);
        Ok(Nnguide { config, input, head, bank })
    }
}

impl Scorer for Nnguide {
    fn name(&self) -> &'static str {
        "nnguide"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let (dim, k) = (self.input.dim, self.config.k);
        let mut rows = self.input.stepped(batch).into_owned();
        let energies = energies(&self.head, &rows);
        rows.chunks_exact_mut(dim).for_each(reduce::normalize);
        let blocks = rows.chunks(QUERIES * dim).zip(energies.chunks(QUERIES));
        for ((rows, energies), out) in blocks.zip(out.chunks_mut(QUERIES)) {
            let found = self.bank.nearest(rows, k);
            for ((o, energy), nearest) in out.iter_mut().zip(energies).zip(found) {
                let sum: f64 = nearest.iter().map(|(order, _)| order).sum();
                *o = (energy * sum / k as f64) as f32;
            }
        }
    }

    fn section(&self) -> Section {
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        let rows = Tensor::f32([self.bank.len(), self.input.dim], self.bank.rows().clone());
        Section::new("nnguide", config)
            .with("", vec![("bank".into(), rows)])
            .with("head.", self.head.tensors())
            .with("", self.input.tensors())
    }
}
