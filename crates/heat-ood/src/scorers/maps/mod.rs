//! Scorers of what is [kept of feature maps](crate::features::gram_rows) for them.

use crate::scorers::method::methods;

methods! {
    gram,
    rankfeat,
}
