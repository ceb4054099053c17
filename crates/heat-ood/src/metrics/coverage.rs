//! How often the intervals hold the truth, on normal scores of known AUROC:
//! Φ(d/√2) for ID scores N(0, 1) and OOD scores N(d, 1).

use super::{BootstrapConfig, Delong, Intervals, OodScores, paired};
use crate::math::rng::{Purpose, Stream};
use crate::observe::Silent;

/// scipy 1.17.1: norm.cdf(d / 2 ** 0.5) for d = 1 and 1.5.
const TRUTH: [(f32, f64); 2] = [(1.0, 0.7602499389065233), (1.5, 0.8555778168267576)];

const REPEATS: u64 = 400;

fn normals(n: usize, mean: f32, repeat: u64, which: u64) -> Vec<f32> {
    let mut out = vec![0.0; n];
    Stream::new(11, Purpose::User, repeat, which).fill_normal(&mut out);
    out.iter_mut().for_each(|v| *v += mean);
    out
}

/// 95 % of 400 is 380, with a standard deviation of 4.4; four of these either way.
fn plausible(covered: usize, what: &str) {
    assert!((363..=397).contains(&covered), "{what}: {covered} of {REPEATS}");
}

#[test]
fn intervals_of_one_set_and_of_an_average_cover_the_truth() {
    let average = (TRUTH[0].1 + TRUTH[1].1) / 2.0;
    let config = BootstrapConfig { resamples: 300, seed: 5 };
    let mut covered = [[0; 2]; 2];
    for repeat in 0..REPEATS {
        let id = normals(100, 0.0, repeat, 0);
        let ood = [0, 1].map(|s| normals(80, TRUTH[s].0, repeat, 1 + s as u64));
        let sets = ood.each_ref().map(|ood| Delong::new(&id, ood).unwrap());
        let both = Delong::average(&sets).unwrap();
        let named = ood.each_ref().map(|o| OodScores { name: "normal", scores: vec![&o[..]] });
        let bootstrap = config.run(&[&id], &named, &mut Silent).unwrap();
        let columns = [(&sets[0], &[0][..], TRUTH[0].1), (&both, &[0, 1], average)];
        for (column, (delong, sets, truth)) in columns.into_iter().enumerate() {
            let [low, high] = delong.interval(0.95).unwrap();
            covered[0][column] += usize::from(low <= truth && truth <= high);
            let found = Intervals::percentile(&bootstrap.averages(0, sets), 0.95).unwrap();
            let hit = found.low.auroc <= truth && truth <= found.high.auroc;
            covered[1][column] += usize::from(hit);
        }
    }
    for (method, covered) in ["DeLong", "bootstrap"].into_iter().zip(covered) {
        plausible(covered[0], &format!("{method}, one set"));
        plausible(covered[1], &format!("{method}, average"));
    }
}

/// Two scorers that are equally good, and alike: what their tests reject at
/// 5 % is what the intervals above leave out.
#[test]
fn tests_reject_equal_scorers_as_often_as_they_say() {
    let config = BootstrapConfig { resamples: 300, seed: 6 };
    let mut kept = [0; 2];
    for repeat in 0..REPEATS {
        let row = |n: usize, mean: f32, which: u64| {
            let [common, a, b] = [0u64, 1, 2].map(|k| normals(n, mean, repeat, which + k));
            let mix = |own: Vec<f32>| -> Vec<f32> {
                common.iter().zip(own).map(|(c, o)| c + o).collect()
            };
            [mix(a), mix(b)]
        };
        let (id, ood) = (row(100, 0.0, 10), row(80, 0.5, 20));
        let [a, b] = [0, 1].map(|i| Delong::new(&id[i], &ood[i]).unwrap());
        kept[0] += usize::from(a.minus(&b).unwrap().p > 0.05);
        let set = [OodScores { name: "normal", scores: vec![&ood[0], &ood[1]] }];
        let bootstrap = config.run(&[&id[0], &id[1]], &set, &mut Silent).unwrap();
        let [a, b] = [0, 1].map(|i| bootstrap.averages(i, &[0]));
        kept[1] += usize::from(paired(&a, &b, 0.95).unwrap().1.auroc > 0.05);
    }
    plausible(kept[0], "DeLong");
    plausible(kept[1], "paired bootstrap");
}
