//! How the library tells its caller what it is doing: it never prints.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

/// One epoch of training. Losses and network energies are means over the
/// epoch's batches; the prior's (and so the whole) energies over its last batch.
/// Generated rows are those of the loss: final and initial samples, with SVGD
/// and the noise-contrastive loss one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochLog {
    /// From 1.
    pub epoch: usize,
    /// Batches since the beginning of the run.
    pub step: u64,
    /// Learning rate.
    pub lr: f64,
    /// cd_loss + l2_loss.
    pub loss: f64,
    /// mean E_nn(real) − mean E_nn(generated).
    pub cd_loss: f64,
    /// Penalty of squared energies.
    pub l2_loss: f64,
    /// mean E_nn/T of real rows.
    pub energy_nn_real: f64,
    /// mean E_nn/T of generated rows.
    pub energy_nn_generated: f64,
    /// mean E_prior/T_prior of real rows; 0 where the prior is no part of the energy.
    pub energy_prior_real: f64,
    /// mean E_prior/T_prior of generated rows.
    pub energy_prior_generated: f64,
    /// mean E of real rows.
    pub energy_real: f64,
    /// mean E of generated rows.
    pub energy_generated: f64,
}

/// Something worth telling a person.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A long piece of work begins; `total` units of it.
    Begin {
        /// What is being done.
        task: &'a str,
        /// Number of units (rows, batches).
        total: u64,
    },
    /// `done` units of the current piece of work are finished.
    Advance {
        /// Units finished so far.
        done: u64,
        /// A figure worth showing beside the progress, if any.
        loss: Option<f32>,
    },
    /// The current piece of work is finished.
    End,
    /// An epoch of training is finished.
    Epoch(&'a EpochLog),
    /// Something unexpected that did not stop the work.
    Warning(&'a str),
    /// What is being done, where it is not what was asked for to the letter.
    Note(&'a str),
}

/// Receives events; may ask for a stop.
pub trait Observer: Send {
    /// Called with each event, from the thread that drives the work.
    fn on(&mut self, event: Event<'_>);

    /// Whether to end soon: training saves a checkpoint and returns after this step, extraction
    /// keeps what is finished, scoring ends with [`Error::Stopped`](crate::Error::Stopped).
    fn should_stop(&self) -> bool {
        false
    }

    /// A flag that is set, from whatever thread, when training should stop at once: chains may
    /// have a billion steps. It is seen between two Langevin steps; the step of training that is
    /// under way is then not taken, and is taken anew when the run goes on.
    fn stop_flag(&self) -> Option<Arc<AtomicBool>> {
        None
    }
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _: Event<'_>) {}
}

/// An observer that keeps the warnings and ignores the rest.
#[derive(Debug, Clone, Default)]
pub struct Warnings(pub Vec<String>);

impl Observer for Warnings {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Warning(text) = event {
            self.0.push(text.to_owned());
        }
    }
}
