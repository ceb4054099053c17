//! Scorers of the classes' moments: means, covariances, lengths.

pub(in crate::scorers) mod kmeans;

use crate::scorers::method::methods;

methods! {
    gmm,
    ssd,
    rmds,
    mean,
    norm,
}
