//! Training rows in an index: what the scorers of nearest rows have in common.

use serde::Deserialize;
use serde_json::{Value, json};

use super::bank::{CENTRE_ROWS, Order, QUERIES, centre, gather, subtract};
use super::index::Neighbours;
use crate::error::{Error, Result};
use crate::features::Batch;
use crate::io::Tensor;
use crate::observe::Event;
use crate::scorers::Stored;
use crate::scorers::context::FitContext;
use crate::scorers::input::{FeatureSettings, Input, contradiction};

/// Stepped training rows, centred.
pub(super) struct Indexed {
    pub input: Input,
    pub centre: Vec<f32>,
    pub rows: Neighbours,
}

impl Indexed {
    /// All rows of a training set.
    ///
    /// # Errors
    /// If they cannot be read, or `k` of them are not there.
    pub fn fit(
        settings: &impl FeatureSettings,
        k: usize,
        context: &mut FitContext<'_>,
    ) -> Result<Self> {
        let n = context.rows();
        let source = context.source(settings)?;
        let stored = context.stepped_rows(&source)?;
        let input = source.input;
        if k == 0 || k > n {
            let problem = format!("the index holds {n} rows, so k must lie in 1..={n}");
            return Err(Error::config("k", k, problem));
        }
        let centre = centre(&stored.read(0..n.min(CENTRE_ROWS))?, input.dim);
        context.observer.on(Event::Begin { task: "index training rows", total: n as u64 });
        let rows = gather(n, input.dim, |range| {
            let mut rows = stored.read(range)?;
            subtract(&mut rows, &centre);
            Ok(rows)
        })?;
        let rows = Neighbours::new(rows, input.dim, Order::Distance);
        context.observer.on(Event::End);
        Ok(Indexed { input, centre, rows })
    }

    /// Call `f` with the squared distances and numbers of the k nearest rows of each row of a batch,
    /// nearest first.
    pub fn each_nearest(&self, batch: &Batch, k: usize, mut f: impl FnMut(usize, &[(f64, u32)])) {
        let mut rows = self.input.stepped(batch).into_owned();
        for (i, rows) in rows.chunks_mut(QUERIES * self.input.dim).enumerate() {
            subtract(rows, &self.centre);
            for (j, nearest) in self.rows.nearest(rows, k).iter().enumerate() {
                f(i * QUERIES + j, nearest);
            }
        }
    }

    /// What a detector's file says of it, besides the settings.
    pub fn config(&self, settings: &impl serde::Serialize, k: usize) -> Value {
        json!({
            "settings": settings,
            "k": k,
            "input_dim": self.input.input_dim,
            "dim": self.input.dim,
            "rows": self.rows.len(),
        })
    }

    /// Its tensors.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let dim = self.input.dim;
        let index = Tensor::f32([self.rows.len(), dim], self.rows.rows().clone());
        let centre = Tensor::f32([dim], self.centre.clone());
        let mut all = vec![("index".into(), index), ("centre".into(), centre)];
        all.extend(self.input.tensors());
        all
    }

    /// Read it back, with the settings and k.
    pub fn load<S: FeatureSettings>(stored: &Stored<'_>) -> Result<(S, usize, Self)> {
        #[derive(Deserialize)]
        struct Config {
            k: usize,
            dim: usize,
            rows: usize,
        }
        let (settings, input) = Input::load(stored)?;
        let c: Config = stored.config()?;
        if input.dim != c.dim || !(1..=c.rows).contains(&c.k) {
            return Err(contradiction(stored));
        }
        let rows = stored.file.floats(&stored.name("index"), &[c.rows, c.dim])?;
        let centre = stored.file.f32(&stored.name("centre"), &[c.dim])?;
        let rows = Neighbours::new(rows, c.dim, Order::Distance);
        Ok((settings, c.k, Indexed { input, centre, rows }))
    }
}
