//! Scorers of the logits, stored or computed by the head.

mod predictor;

pub use predictor::Predictor;

use crate::scorers::method::methods;

methods! {
    msp,
    max_logit,
    energy_logits,
    joint_energy,
    odin,
    klm,
    gen_entropy,
    entropy,
    temperature,
    openmax,
}
