//! Weights packed for this processor's products: made when they are first needed, so that a network
//! whose chains run elsewhere is not packed at every step.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::Mlp;
use crate::math::matmul::{Packed, View};
use crate::math::parallel;

/// Wᵀ `[in, out]` and W `[out, in]` of each hidden linear map.
#[derive(Default)]
pub(super) struct Sides {
    pub(super) forward: Vec<Packed>,
    pub(super) backward: Vec<Packed>,
}

/// They, or the memory they had.
#[derive(Default)]
pub(super) struct Packs {
    now: OnceLock<Sides>,
    spare: Mutex<Sides>,
}

impl Clone for Packs {
    /// Packed anew: what is cloned is mostly changed next.
    fn clone(&self) -> Self {
        Packs::default()
    }
}

impl Packs {
    /// The weights are others now.
    pub(super) fn outdate(&mut self) {
        if let Some(sides) = self.now.take() {
            *self.spare.get_mut().unwrap_or_else(PoisonError::into_inner) = sides;
        }
    }
}

impl Mlp {
    /// Pack the weights for this processor on all threads, where they are not yet. What needs them and
    /// finds them unpacked does it on its own thread.
    pub fn pack(&self) {
        self.packs.now.get_or_init(|| parallel::run(|| self.packed(Packed::set_parallel)));
    }

    /// On a worker of the pool, which may not wait for others there.
    pub(super) fn packs(&self) -> &Sides {
        self.packs.now.get_or_init(|| self.packed(Packed::set))
    }

    fn packed(&self, set: impl Fn(&mut Packed, View<'_>, usize, usize)) -> Sides {
        let mut spare = self.packs.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let Sides { mut forward, mut backward } = std::mem::take(&mut *spare);
        let hidden = &self.linears[..self.linears.len() - 1];
        forward.resize_with(hidden.len(), Packed::default);
        backward.resize_with(hidden.len(), Packed::default);
        for (linear, (forward, backward)) in
            hidden.iter().zip(forward.iter_mut().zip(&mut backward))
        {
            let w = View::rows(&self.applied()[linear.weight()], linear.input);
            set(forward, w.t(), linear.input, linear.output);
            set(backward, w, linear.output, linear.input);
        }
        Sides { forward, backward }
    }
}
