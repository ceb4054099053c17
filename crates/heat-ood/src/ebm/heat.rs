//! The HEAT scorer: E(z) = E_nn(z)/T + E_prior(z)/T_prior.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::config::MAX_NETS;
use super::mlp::{Architecture, Mlp, Workspace};
use super::prior::IntoPrior;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet};
use crate::math::BLOCK_ROWS;
use crate::scorers::{Prior, Scorer, Scratch, Section, Stored, load_prior};

/// A trained residual energy with its prior.
pub struct Heat {
    pub(super) prior: Arc<dyn Prior>,
    /// E_nn is their mean.
    pub(super) nets: Vec<Mlp>,
    pub(super) temperature: f64,
    pub(super) temperature_prior: f64,
    pub(super) input_dim: usize,
}

impl Heat {
    /// Put a network on a prior; `input_dim` is D before the prior's steps.
    ///
    /// # Errors
    /// If the network's input is not what the prior's steps give, or theirs is
    /// not `input_dim`.
    pub fn new(
        prior: impl IntoPrior,
        net: Mlp,
        temperature: f64,
        temperature_prior: f64,
        input_dim: usize,
    ) -> Result<Self> {
        Self::of_nets(prior, vec![net], temperature, temperature_prior, input_dim)
    }

    /// The same with several networks of one shape, E_nn their mean.
    ///
    /// # Errors
    /// As [`Heat::new`], and if there are none, or they differ in shape.
    pub fn of_nets(
        prior: impl IntoPrior,
        nets: Vec<Mlp>,
        temperature: f64,
        temperature_prior: f64,
        input_dim: usize,
    ) -> Result<Self> {
        for (key, t) in [("temperature", temperature), ("temperature_prior", temperature_prior)] {
            // An infinite T_prior leaves the residual alone.
            if !(t > 0.0 && (t.is_finite() || key == "temperature_prior")) {
                return Err(Error::config(key, t, "must be a positive number"));
            }
        }
        let (prior, _) = prior.into_prior();
        let shape = nets.first().map(Mlp::architecture);
        let Some(shape) = shape.filter(|s| nets.iter().all(|net| net.architecture() == *s)) else {
            let problem = "give at least one network, and all of one shape";
            return Err(Error::config("ebm.model.nets", nets.len(), problem));
        };
        let (want, got) = (prior.dim(), shape.input_dim);
        if want != got {
            return Err(Error::Shape {
                place: "heat".into(),
                tensor: "mlp.0.weight".into(),
                expected: format!("[H, {want}], the prior's dimension"),
                got: format!("[H, {got}]"),
            });
        }
        let steps = prior.steps();
        let before = steps.pca.as_ref().map_or(want, |pca| pca.mean.len());
        if input_dim != before || steps.out_dim(input_dim) != want {
            let problem = format!("the prior reads features of dimension {before}");
            return Err(Error::config("input_dim", input_dim, problem));
        }
        nets.iter().for_each(Mlp::pack);
        Ok(Heat { prior, nets, temperature, temperature_prior, input_dim })
    }

    /// The prior.
    pub fn prior(&self) -> &Arc<dyn Prior> {
        &self.prior
    }

    /// The networks; E_nn is their mean.
    pub fn nets(&self) -> &[Mlp] {
        &self.nets
    }

    /// The first network, as a rule the only one.
    pub fn net(&self) -> &Mlp {
        &self.nets[0]
    }

    /// What a network's energy is divided by: T and, for the mean, the number of networks.
    fn share(&self) -> f64 {
        self.temperature * self.nets.len() as f64
    }

    fn field(&self) -> Field {
        Field::Features(self.prior.pooling())
    }

    /// E_nn/T and E_prior/T_prior of each row of a batch.
    fn parts(&self, batch: &Batch) -> (Vec<f64>, Vec<f64>) {
        let n = batch.rows();
        let z = self.prior.steps().apply(batch.get(self.field()), self.input_dim);
        let dim = self.prior.dim();
        let (mut nn, mut prior) = (vec![0.0; n], vec![0.0; n]);
        self.prior.energy(&z, &mut prior);
        let mut ws = Workspace::default();
        let mut energies = [0.0; BLOCK_ROWS];
        for (z, nn) in z.chunks(BLOCK_ROWS * dim).zip(nn.chunks_mut(BLOCK_ROWS)) {
            for net in &self.nets {
                net.energy(z, dim, nn.len(), &mut ws, &mut energies);
                nn.iter_mut().zip(energies).for_each(|(sum, e)| *sum += f64::from(e));
            }
            nn.iter_mut().for_each(|sum| *sum /= self.share());
        }
        let prior = prior.into_iter().map(|v| f64::from(v) / self.temperature_prior);
        (nn, prior.collect())
    }

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            architecture: Architecture,
            temperature: f64,
            /// Absent (JSON has no infinity) for a residual alone.
            temperature_prior: Option<f64>,
            input_dim: usize,
            nets: Option<usize>,
        }
        let c: Config = stored.config()?;
        let prior = load_prior(&stored.part("prior")?)?;
        let nets = c.nets.unwrap_or(1);
        if !(1..=MAX_NETS).contains(&nets) {
            let problem = format!("its number of networks, {nets}, is none of 1 to {MAX_NETS}");
            return Err(Error::format(stored.file.path(), problem));
        }
        let load = |i: usize| {
            let prefix = format!("{}{}", stored.prefix, place(i, nets));
            Mlp::load(c.architecture, stored.file, &prefix)
        };
        let nets = (0..nets).map(load).collect::<Result<_>>()?;
        let temperature_prior = c.temperature_prior.unwrap_or(f64::INFINITY);
        Heat::of_nets(prior, nets, c.temperature, temperature_prior, c.input_dim)
    }
}

/// Where the tensors of network `i` stand; one alone has no number.
fn place(i: usize, nets: usize) -> String {
    if nets == 1 { String::new() } else { format!("nets.{i}.") }
}

impl Scorer for Heat {
    fn name(&self) -> &'static str {
        "heat"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        FieldSet::checked(set, self.field(), self.input_dim)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.score_with_components(batch, out, &mut []);
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        let (field, dim) = (self.field(), self.prior.dim());
        if batch.dim(field) != self.input_dim {
            return Err(Error::Shape {
                place: "the network".into(),
                tensor: field.name().into(),
                expected: format!("[N, {}], as in training", self.input_dim),
                got: format!("[N, {}]", batch.dim(field)),
            });
        }
        let z = self.prior.steps().apply(batch.get(field), self.input_dim);
        let mut gradient = vec![0.0; z.len()];
        let mut of_net = vec![0.0; z.len().min(BLOCK_ROWS * dim)];
        let (mut ws, mut scratch) = (Workspace::default(), Scratch::default());
        let mut energies = [0.0; BLOCK_ROWS];
        for (z, g) in z.chunks(BLOCK_ROWS * dim).zip(gradient.chunks_mut(BLOCK_ROWS * dim)) {
            let n = z.len() / dim;
            for net in &self.nets {
                net.energy(z, dim, n, &mut ws, &mut energies[..n]);
                net.input_gradient(n, (1.0 / self.share()) as f32, &mut ws, &mut of_net);
                g.iter_mut().zip(&of_net).for_each(|(g, v)| *g += v);
            }
            self.prior.add_gradient(z, (1.0 / self.temperature_prior) as f32, g, &mut scratch);
        }
        let gradient: Vec<f64> = gradient.into_iter().map(f64::from).collect();
        let rows = batch.get(field);
        let gradient = self.prior.steps().gradient(rows, self.input_dim, &gradient);
        out.add(field, scale, &gradient);
        Ok(())
    }

    fn section(&self) -> Section {
        let mut config = json!({
            "architecture": self.net().architecture(),
            "temperature": self.temperature,
            "temperature_prior": self.temperature_prior,
            "input_dim": self.input_dim,
        });
        let nets = self.nets.len();
        if nets > 1 {
            config["nets"] = nets.into();
        }
        let mut section = Section::new("heat", config);
        for (i, net) in self.nets.iter().enumerate() {
            section = section.with(&place(i, nets), net.tensors());
        }
        section.with_part("prior", self.prior.section())
    }

    fn components(&self) -> &[Cow<'static, str>] {
        &[Cow::Borrowed("energy_nn"), Cow::Borrowed("energy_prior")]
    }

    fn score_with_components(&self, batch: &Batch, scores: &mut [f32], components: &mut [f32]) {
        let (nn, prior) = self.parts(batch);
        let mut components = components.chunks_exact_mut(2);
        for ((o, a), b) in scores.iter_mut().zip(nn).zip(prior) {
            *o = (a + b) as f32;
            if let Some(parts) = components.next() {
                parts.copy_from_slice(&[a as f32, b as f32]);
            }
        }
    }
}
