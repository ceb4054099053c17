//! Whether what was found in a graph is what it is taken for: seen by running
//! it once, on the first image, or on noise where there is none.
//!
//! Shapes may depend on the images' size, and a graph may pool otherwise than
//! its operators suggest. So the mean of the map is compared with what the
//! linear layer reads, and the layer's product with the logits.

use std::collections::HashMap;

use super::graph::Found;

/// Differences that rounding to halves or eight bits makes are smaller than
/// this part of the largest value, another map's are larger.
const TOLERANCE: f64 = 0.05;

/// What holds for images of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Why `avg` is alone, where a map was found and its `std` and `max` make
    /// no sense.
    pub alone: Option<String>,
    /// Why the linear layer that was found is no head of these features.
    pub headless: Option<String>,
}

/// What the outputs for one image, made with all that was added to the graph, show.
pub(super) fn of(found: &Found, made: &HashMap<String, Vec<f32>>) -> Checked {
    let names = found.names();
    let get = |name: &Option<String>| {
        name.as_ref().and_then(|n| made.get(n)).map_or(&[][..], Vec::as_slice)
    };
    let avg = get(&Some(names.avg));
    let alone = names.mean.is_some().then(|| {
        let cells = get(&names.cells).first().copied().unwrap_or(0.0);
        alone(avg, get(&names.mean), cells)
    });
    Checked { alone: alone.flatten(), headless: headless(found, avg, get(&names.logits)) }
}

fn alone(avg: &[f32], mean: &[f32], cells: f32) -> Option<String> {
    if cells <= 1.0 {
        return Some("the map before the pooling has one cell".into());
    }
    if avg.len() != mean.len() {
        return Some(format!(
            "the pooling leaves more than one cell: {} features of a map of {} channels",
            avg.len(),
            mean.len()
        ));
    }
    let same = close(avg.iter().zip(mean).map(|(a, b)| (f64::from(*a), f64::from(*b))));
    (!same).then(|| "the features are not the mean of that map".into())
}

fn headless(found: &Found, avg: &[f32], logits: &[f32]) -> Option<String> {
    let head = found.head.as_ref()?;
    if (avg.len(), logits.len()) != (head.dim(), head.classes()) {
        return Some(format!(
            "the linear layer maps {} values to {}, the network gives {} features and {} logits",
            head.dim(),
            head.classes(),
            avg.len(),
            logits.len()
        ));
    }
    let made = head.weight().chunks_exact(head.dim()).zip(head.bias()).map(|(row, bias)| {
        let products = row.iter().zip(avg).map(|(w, z)| f64::from(*w) * f64::from(*z));
        products.sum::<f64>() + f64::from(*bias)
    });
    let same = close(made.zip(logits.iter().map(|l| f64::from(*l))));
    (!same).then(|| "the linear layer does not give the network's logits".into())
}

/// Whether pairs agree, beside the largest. What is not finite is said elsewhere.
fn close(pairs: impl Iterator<Item = (f64, f64)>) -> bool {
    let (mut largest, mut difference) = (0.0f64, 0.0f64);
    for (a, b) in pairs {
        if !a.is_finite() || !b.is_finite() {
            return true;
        }
        largest = largest.max(a.abs()).max(b.abs());
        difference = difference.max((a - b).abs());
    }
    difference <= TOLERANCE * largest
}

/// Values in [−1, 1), the same everywhere.
pub(super) fn noise(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
