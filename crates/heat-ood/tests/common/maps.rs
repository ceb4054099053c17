//! What is made of feature maps, for sets that have none: a row stands for a map of two cells, avg ± std.
//! And other views, for sets without: a row where each value is moved towards its deviation.

use heat_ood::features::{FeatureSet, Field, Pooling, gram_rows, mean_without_first};
use ndarray::Array2;

/// Scorers that read one or the other.
pub const OF_MAPS: [&str; 7] =
    ["gram", "rankfeat", "feature_squeezing", "adascale_a", "adascale_l", "odds", "mcd"];

/// The views that stand beside the others, each with how far it is moved.
pub const VIEWS: [(&str, f32); 7] = [
    ("bits5.avg", 0.2),
    ("median2.avg", -0.3),
    ("median3.avg", 1.0),
    ("nudged5.avg", 0.1),
    ("noise8x256.avg", -0.05),
    ("dropout30.spread", 0.3),
    ("dropout30.logits", 0.5),
];

/// The features of the view that is moved so far.
pub fn moved(avg: &[f32], std: &[f32], by: f32) -> Vec<f32> {
    avg.iter().zip(std).map(|(a, s)| a + by * s).collect()
}

/// `gram` and `rankfeat` of rows of 342 columns.
pub fn of_maps(avg: &[f32], std: &[f32]) -> [Vec<f32>; 2] {
    const D: usize = 342;
    let (mut gram, mut rankfeat) = (Vec::new(), Vec::new());
    for (avg, std) in avg.chunks_exact(D).zip(std.chunks_exact(D)) {
        let map: Vec<f32> = avg.iter().zip(std).flat_map(|(a, s)| [a + s, a - s]).collect();
        gram.extend(gram_rows(&map, D));
        rankfeat.extend(mean_without_first(&map, D).unwrap());
    }
    [gram, rankfeat]
}

/// What gradients are kept of, of a further layer and of weights, each as what stands for it: avg and std in some
/// combination.
pub const GRADIENTS: [(&str, f32); 2] = [("mid.nac", -0.5), ("graduncertainty", 2.0)];

/// A set of 342 columns with these beside its features and labels.
pub fn with_maps(set: &FeatureSet) -> FeatureSet {
    let n = set.len();
    let read = |pooling| {
        let mut values = vec![0.0; n * set.dim(Field::Features(pooling)).unwrap()];
        set.read_parallel(Field::Features(pooling), 0..n, &mut values).unwrap();
        values
    };
    let (avg, std) = (read(Pooling::Avg), read(Pooling::Std));
    let [gram, rankfeat] = of_maps(&avg, &std);
    let matrix = |values: Vec<f32>| Array2::from_shape_vec((n, values.len() / n), values).unwrap();
    let more = VIEWS.into_iter().chain(GRADIENTS);
    let more: Vec<_> =
        more.map(|(name, by)| (Field::named(name).unwrap(), moved(&avg, &std, by))).collect();
    let mut made = FeatureSet::in_memory(set.name()).avg(matrix(avg)).std(matrix(std));
    for (field, values) in more {
        made = made.field(field, matrix(values));
    }
    let made = made.field(Field::Gram, matrix(gram)).field(Field::Rankfeat, matrix(rankfeat));
    made.labels(set.labels(0..n, 10).unwrap()).build().unwrap()
}
