//! Scorers of the distances to training rows.

mod bank;
mod index;
mod indexed;
mod near;

pub use near::rows_near;

use crate::scorers::method::methods;

methods! {
    knn,
    nnguide,
    cfood,
    relation,
    lid,
    dknn,
    trust,
    jtla,
}
