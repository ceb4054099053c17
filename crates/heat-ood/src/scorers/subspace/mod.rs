//! Scorers of the principal subspace and what lies outside it.

mod principal;

use crate::scorers::method::methods;

methods! {
    vim,
    residual,
    neco,
    kpca,
}
