//! How the library tells its caller what it is doing: it never prints.

use crate::ebm::EpochLog;

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
}

/// Receives events; may ask for a stop.
pub trait Observer: Send {
    /// Called with each event, from the thread that drives the work.
    fn on(&mut self, event: Event<'_>);

    /// Whether training should save a checkpoint and return after this step.
    fn should_stop(&self) -> bool {
        false
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
