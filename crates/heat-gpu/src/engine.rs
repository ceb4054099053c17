//! The engine: what is brought to a device, and when.
//!
//! Weights are brought once an update, the prior once. A call brings its rows and the name of its noise,
//! runs a program, and takes back rows or a gradient. The loss itself, a few numbers a row, is computed
//! here, by the code of the processor's engine.

use std::sync::Arc;

use heat_ood::ebm::HeatConfig;
use heat_ood::ebm::engine::{Engine, LossBatch};
use heat_ood::ebm::loss::LossValues;
use heat_ood::ebm::mlp::Mlp;
use heat_ood::ebm::sampler::{ChainKey, Energy, Langevin};
use heat_ood::math::rng::Purpose;
use heat_ood::scorers::{Form, Prior};
use heat_ood::{Error, Result};

use crate::device::Device;
use crate::plan::{Chain, Drop, Net, Plan, Precision, Shape, Slot, key_words};

/// Chains and loss gradients on a device.
pub struct Gpu<D: Device> {
    device: D,
    precision: Precision,
    /// Held, so that no other can have its address.
    prior: Arc<dyn Prior>,
    shape: Shape,
    /// Which weights the device has.
    version: Option<u64>,
    programs: Vec<(Plan, D::Program)>,
    /// Brought back before it is added: kept from one step to the next.
    gradient: Vec<f32>,
}

/// Refuse what no device does, by name: nothing runs on the processor silently.
///
/// # Errors
/// If the settings or the prior are such.
pub fn check(config: &HeatConfig, prior: &dyn Prior, device: &str) -> Result<()> {
    if config.ebm.model.use_svgd {
        let problem = format!(
            "{device} runs Langevin chains only: leave `use_svgd` out, or train on the processor (--device cpu)"
        );
        return Err(Error::config("ebm.model.use_svgd", true, problem));
    }
    form_of(prior, device).map(drop)
}

fn form_of(prior: &dyn Prior, device: &str) -> Result<Form> {
    prior.form().ok_or_else(|| {
        let problem = format!(
            "{device} does not compute the prior `{}`, but `gmm`, `el` and none at all: take one of them, or \
             train on the processor (--device cpu)",
            prior.name()
        );
        Error::device(device, problem)
    })
}

impl<D: Device> Gpu<D> {
    /// An engine for a residual on `prior`, whose chains compute with `precision`; loss gradients and the
    /// prior always in single precision.
    ///
    /// # Errors
    /// If the device has not enough memory for the prior, or does not compute it.
    pub fn new(mut device: D, prior: Arc<dyn Prior>, precision: Precision) -> Result<Self> {
        let form = form_of(&*prior, &device.name())?;
        let dim = prior.dim();
        let parts: Vec<(Slot, &[f32])> = match &form {
            Form::Flat => Vec::new(),
            Form::Mixture(mixture) => vec![
                (Slot::Centre, &mixture.centre),
                (Slot::Whiten, &mixture.whiten),
                (Slot::Directions, &mixture.white_means),
                (Slot::Offset, &mixture.offset),
                (Slot::Means, &mixture.means),
                (Slot::Colour, &mixture.colour),
            ],
            Form::Logits { weight, bias } => {
                vec![(Slot::Directions, weight), (Slot::Offset, bias)]
            }
        };
        let sizes: Vec<(Slot, usize)> = parts.iter().map(|(slot, v)| (*slot, v.len())).collect();
        device.reserve(&sizes)?;
        for (slot, values) in &parts {
            device.put(*slot, values)?;
        }
        let shape = Shape::of(&form, dim);
        Ok(Gpu {
            device,
            precision,
            prior,
            shape,
            version: None,
            programs: Vec::new(),
            gradient: Vec::new(),
        })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn reserve(&mut self, plan: &Plan) -> Result<()> {
        if self.device.reserve(&plan.slots)? {
            self.programs.clear();
            self.version = None;
        }
        Ok(())
    }

    /// Bring the weights, where they are others than the last.
    fn bring(&mut self, net: &Mlp) -> Result<()> {
        if self.version != Some(net.version()) {
            self.device.put(Slot::Parameters, net.applied())?;
            self.version = Some(net.version());
        }
        Ok(())
    }

    fn run(&mut self, plan: Plan) -> Result<()> {
        let known = self.programs.iter().position(|(known, _)| *known == plan);
        let at = match known {
            Some(at) => at,
            None => {
                let program = self.device.prepare(&plan)?;
                self.programs.push((plan, program));
                self.programs.len() - 1
            }
        };
        self.device.run(&self.programs[at].1)
    }
}

impl<D: Device> Engine for Gpu<D> {
    fn sample(
        &mut self,
        energy: &Energy<'_>,
        chain: &Langevin,
        key: ChainKey,
        z: &mut [f32],
    ) -> Result<()> {
        let name = self.device.name();
        if chain.svgd {
            return Err(Error::device(name, "runs Langevin chains only, not SVGD"));
        }
        if !std::ptr::addr_eq(&*self.prior, energy.prior) {
            return Err(Error::device(name, "has another prior than the one that is sampled"));
        }
        let net = Net::of(energy.net);
        let rows = z.len() / net.dim();
        let chain = Chain {
            langevin: chain,
            prior: &self.shape,
            projection: energy.projection,
            scale: (1.0 / energy.temperature) as f32,
            prior_scale: (1.0 / energy.temperature_prior) as f32,
            labelled: energy.labels.is_some(),
            precision: self.precision,
        };
        let plan = Plan::chain(&net, &chain, rows);
        if plan.ops.is_empty() {
            return Ok(());
        }
        self.reserve(&plan)?;
        self.bring(energy.net)?;
        self.device.put(Slot::Rows, z)?;
        // Where they are used: not without a mixture, nor where the prior is no part of the energy.
        let used = plan.slots.iter().any(|(slot, _)| *slot == Slot::Labels);
        if let (Some(labels), true) = (energy.labels, used) {
            let classes = self.shape.components;
            // A class that there is not would be read beyond the means.
            if let Some(label) = labels.iter().find(|l| **l as usize >= classes) {
                let problem = format!(
                    "a row has class {label}, but the prior's are 0..{classes}: check the labels"
                );
                return Err(Error::device(name, problem));
            }
            self.device.put_words(Slot::Labels, labels)?;
        }
        let words = key_words(key.seed, Purpose::Langevin as u64, key.step, key.block);
        self.device.put_words(Slot::Key, &words)?;
        self.run(plan)?;
        self.device.take(Slot::Rows, z)
    }

    fn loss_gradient(
        &mut self,
        net: &Mlp,
        batch: &LossBatch<'_>,
        grad: &mut [f32],
    ) -> Result<LossValues> {
        let shape = Net::of(net);
        let rows = batch.rows.len() / shape.dim();
        let drop = batch.dropout.map(|dropout| Drop {
            probability: dropout.probability as f32,
            scale: dropout.scale(),
        });
        // Single precision: an error of the gradient adds up over a run, one of a chain does not.
        let exact = Precision::F32;
        let forward = Plan::energies(&shape, rows, exact, drop);
        let backward = Plan::parameter_gradient(&shape, rows, exact, drop);
        self.reserve(&forward)?;
        self.reserve(&backward)?;
        self.bring(net)?;
        self.device.put(Slot::Rows, batch.rows)?;
        if let Some(dropout) = batch.dropout {
            let words = key_words(dropout.seed, Purpose::Dropout as u64, dropout.step, 0);
            self.device.put_words(Slot::Key, &words)?;
        }
        self.run(forward)?;
        let mut energies = vec![0.0; rows];
        self.device.take(Slot::Energies, &mut energies)?;
        let loss = batch.loss(&mut energies);
        self.device.put(Slot::Energies, &energies)?;
        self.run(backward)?;
        self.gradient.resize(grad.len(), 0.0);
        self.device.take(Slot::ParameterGradient, &mut self.gradient)?;
        grad.iter_mut().zip(&self.gradient).for_each(|(g, f)| *g += f);
        Ok(loss)
    }
}
