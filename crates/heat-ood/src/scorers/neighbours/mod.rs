//! Scorers of the distances to training rows.

mod bank;
// Other processors always filter in single precision.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod bounds;
mod index;
mod search;

use crate::scorers::fit::Entry;
use crate::scorers::methods::methods;

methods! {
    knn,
    nnguide,
    cfood,
    relation,
}
