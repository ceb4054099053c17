//! Scorers of the distances to training rows.

mod bank;
mod index;

use crate::scorers::method::methods;

methods! {
    knn,
    nnguide,
    cfood,
    relation,
}
