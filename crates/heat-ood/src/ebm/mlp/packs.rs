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
        if self.packs.now.get().is_none() {
            // Not within the lock: workers that wait for it could not help to pack.
            let sides = parallel::run(|| self.packed(Packed::set_parallel));
            // Another thread may have been first.
            let _ = self.packs.now.set(sides);
        }
    }

    /// On a worker of the pool, which may not wait for others there.
    pub(super) fn packs(&self) -> &Sides {
        self.packs.now.get_or_init(|| self.packed(Packed::set))
    }

    fn packed(&self, set: impl Fn(&mut Packed, View<'_>, usize, usize)) -> Sides {
        let spare = || {
            let mut spare = self.packs.spare.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *spare)
        };
        let Sides { mut forward, mut backward } = spare();
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

#[cfg(test)]
mod tests {
    use super::super::{Architecture, Workspace};
    use super::*;
    use crate::math::rng::{Purpose, Stream};

    fn energies(net: &Mlp) -> Vec<f32> {
        let mut z = vec![0.0; 9 * 5];
        Stream::new(1, Purpose::User, 0, 0).fill_normal(&mut z);
        let mut out = vec![0.0; 9];
        net.energy(&z, 5, 9, &mut Workspace::default(), &mut out);
        out
    }

    /// A network that takes over another's parameters computes what that one computes, packed before or not;
    /// and each state has a number of its own.
    #[test]
    fn nothing_old_is_used_after_an_update() {
        let shape = Architecture {
            input_dim: 5,
            hidden_dim: 12,
            n_hidden_layers: 2,
            tied: false,
            tapered: false,
        };
        let [mut a, b] = [1, 2].map(|seed| Mlp::new(shape, seed).unwrap());
        let before = energies(&a);
        assert_ne!(before, energies(&b));
        let version = a.version();
        assert!(version != b.version() && version == a.clone().version());
        let unpacked = a.clone();
        assert_eq!(energies(&unpacked), before);
        for pack in [true, false] {
            a.update(|p| p.copy_from_slice(b.parameters()));
            assert!(a.version() != version && a.version() != b.version());
            if pack {
                a.pack();
            }
            assert_eq!(energies(&a), energies(&b));
        }
        let mut normed = a.clone().with_spectral_norm(3);
        let version = normed.version();
        normed.power_iteration();
        assert_ne!(normed.version(), version);
        assert_eq!(energies(&normed), energies(&normed.baked()));
    }
}
