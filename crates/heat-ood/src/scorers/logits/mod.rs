//! Scorers of the logits, stored or computed by the head.

mod predictor;
pub(in crate::scorers) mod source;

pub use predictor::Predictor;
pub use source::LogitsConfig;

use crate::scorers::fit::Entry;
use crate::scorers::methods::methods;

methods! {
    msp,
    max_logit,
    energy_logits,
    odin,
    klm,
    react,
    gen_entropy,
    entropy,
    temperature,
}
