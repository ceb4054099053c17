//! Scorers of [other views](crate::features::View) of the images beside these.

use crate::scorers::method::methods;

methods! {
    feature_squeezing,
    adascale,
    odds,
    mcd,
}
