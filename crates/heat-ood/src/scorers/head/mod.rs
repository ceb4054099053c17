//! Scorers of the features together with the head's weights.

pub(in crate::scorers) mod with_head;

use crate::scorers::method::methods;

methods! {
    react,
    dice,
    cosine,
    shaping,
    vra,
    she,
    gradnorm,
    graduncertainty,
    nac,
    fdbd,
    nci,
    pnml,
    cadref,
    weiper,
}
