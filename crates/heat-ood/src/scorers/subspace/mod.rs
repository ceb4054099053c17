//! Scorers of the principal subspace and what lies outside it.

mod principal;

use crate::scorers::fit::Entry;
use crate::scorers::methods::methods;

methods! {
    vim,
    residual,
    neco,
    kpca,
}
