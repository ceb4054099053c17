//! Single-precision values that several own together.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::Array;

/// Single-precision values, in memory or where they lie in a mapped file. A
/// clone is the same values, not a copy of them.
#[derive(Clone)]
pub struct Floats(Arc<dyn AsRef<[f32]> + Send + Sync>);

impl Floats {
    /// The values that `owner` gives, always the same.
    pub(crate) fn new(owner: impl AsRef<[f32]> + Send + Sync + 'static) -> Self {
        Floats(Arc::new(owner))
    }

    /// The values of an array: where they lie if they lie there as in memory,
    /// else a copy.
    pub(crate) fn of(array: &Array) -> Self {
        let len = array.shape.iter().product();
        if array.as_f32(0, len).is_some() {
            return Floats::new(InPlace(array.clone(), len));
        }
        let mut copy = vec![0.0; len];
        array.read_f32(0, &mut copy);
        copy.into()
    }
}

/// An array for which `as_f32` has answered, and its length.
struct InPlace(Array, usize);

impl AsRef<[f32]> for InPlace {
    fn as_ref(&self) -> &[f32] {
        self.0.as_f32(0, self.1).unwrap_or_default()
    }
}

impl From<Vec<f32>> for Floats {
    fn from(values: Vec<f32>) -> Self {
        Floats::new(values)
    }
}

impl Deref for Floats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for Floats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

impl PartialEq for Floats {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}
