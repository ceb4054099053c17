//! What the engine asks of a device.

use heat_ood::Result;

use crate::plan::{Plan, Slot};

/// A device's memory, in named pieces, and what it does with it.
pub trait Device: Send {
    /// A plan, made ready to be carried out many times.
    type Program: Send;

    /// Its name for messages, as `cuda:0`.
    fn name(&self) -> String;

    /// Have at least so many elements of each slot; whether one has moved, so that programs made before
    /// are of no more use. What was in a slot that moved is lost.
    ///
    /// # Errors
    /// If there is not so much memory.
    fn reserve(&mut self, slots: &[(Slot, usize)]) -> Result<bool>;

    /// Copy numbers to the beginning of a slot that has been reserved.
    ///
    /// # Errors
    /// If the device fails.
    fn put(&mut self, slot: Slot, values: &[f32]) -> Result<()>;

    /// The same with whole numbers.
    ///
    /// # Errors
    /// If the device fails.
    fn put_words(&mut self, slot: Slot, values: &[u32]) -> Result<()>;

    /// Copy numbers back from the beginning of a slot, after everything before is done.
    ///
    /// # Errors
    /// If the device fails.
    fn take(&mut self, slot: Slot, out: &mut [f32]) -> Result<()>;

    /// Make a plan ready; its slots have been reserved.
    ///
    /// # Errors
    /// If the device fails.
    fn prepare(&mut self, plan: &Plan) -> Result<Self::Program>;

    /// Carry it out.
    ///
    /// # Errors
    /// If the device fails.
    fn run(&mut self, program: &Self::Program) -> Result<()>;
}
