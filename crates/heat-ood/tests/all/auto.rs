//! From features to a detector without a decision of the user's, on made-up classes whose structure is known.

use heat_ood::auto::{AutoConfig, AutoData};
use heat_ood::features::{FeatureSet, Field, Head, MIRROR, Part, Pooling};
use heat_ood::math::parallel;
use heat_ood::select::{Standardise, Surrogates, fit_committee};
use heat_ood::{Detector, Silent, TrainingData, metrics};
use ndarray::Array2;

const CLASSES: usize = 4;
const DIM: usize = 12;

/// Reproducible numbers, about normal.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..12 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            sum += (self.0 >> 40) as f32 / (1u64 << 24) as f32;
        }
        sum - 6.0
    }
}

/// Rows of classes whose means lie on the first axes; `shift` moves them along the others, `scale`
/// spreads them.
fn rows(n: usize, seed: u64, shift: f32, scale: f32) -> Array2<f32> {
    let mut noise = Noise(seed + 1);
    let value = |(i, j): (usize, usize), noise: &mut Noise| {
        let mean = if j == i % CLASSES { 4.0 } else { 0.0 };
        let moved = if j >= CLASSES { shift } else { 0.0 };
        // As after a ReLU.
        (3.0 + mean + moved + scale * 0.7 * noise.next()).max(0.0)
    };
    let mut out = Array2::zeros((n, DIM));
    for i in 0..n {
        for j in 0..DIM {
            out[[i, j]] = value((i, j), &mut noise);
        }
    }
    out
}

fn set(name: &str, n: usize, seed: u64, shift: f32, scale: f32, mirror: bool) -> FeatureSet {
    let mut set = FeatureSet::in_memory(name)
        .avg(rows(n, seed, shift, scale))
        .std(rows(n, seed + 1, shift, scale))
        .labels((0..n).map(|i| (i % CLASSES) as u8));
    if mirror {
        let part = Part::named(MIRROR).unwrap();
        for (pooling, seed) in [(Pooling::Avg, seed + 2), (Pooling::Std, seed + 3)] {
            let values = rows(n, seed, shift, scale);
            set = set.field(Field::Features(pooling).within(part), values);
        }
    }
    set.build().unwrap()
}

fn head() -> Head {
    let weight = (0..CLASSES * DIM).map(|i| if i / DIM == i % DIM { 1.0 } else { -0.05 }).collect();
    Head::new(weight, vec![0.0; CLASSES]).unwrap()
}

/// Six kinds: moved along axes that tell no class, or spread.
fn surrogates(mirror: bool) -> Surrogates {
    let kinds = [(0.5, 1.0), (0.8, 1.1), (0.0, 1.6), (-0.6, 1.0), (0.3, 1.3), (1.2, 0.9)];
    let of = |(i, (shift, scale)): (usize, &(f32, f32))| {
        let name = format!("kind{i}");
        let rows = set(&name, 120, 1000 + 10 * i as u64, *shift, *scale, mirror);
        (name, rows)
    };
    Surrogates {
        kinds: kinds.iter().enumerate().map(of).collect(),
        id: Some(set("id", 400, 500, 0.0, 1.0, mirror)),
    }
}

#[test]
fn a_detector_with_evidence_for_every_member() {
    let train = TrainingData::new(&set("train", 600, 1, 0.0, 1.0, false)).with_head(&head());
    let (given, calibration) = (surrogates(true), set("val", 200, 700, 0.0, 1.0, true));
    let data =
        AutoData { train: &train, surrogates: Some(&given), calibration: Some(&calibration) };
    let made = AutoConfig::default().run(data, &mut Silent).unwrap();
    let report = &made.report;
    let selection = report.selection.as_ref().unwrap();
    assert!(selection.ranking.len() >= 40 && selection.kinds.len() == 6);
    let weights: f64 = report.composition.iter().map(|(_, w)| w).sum();
    assert!((weights - 1.0).abs() < 1e-9, "{:?}", report.composition);
    assert_eq!(report.calibrated_on, Some(200));
    // Rows are drawn alike for the image and its mirror here, so that averaging takes out noise.
    assert!(report.views.as_ref().unwrap().suffices);
    assert_eq!(report.residual.as_ref().unwrap().gains.len(), 6);
    let text = report.to_string();
    for word in ["compared", "members", "residual", "mirror     taken", "calibrated on 200"] {
        assert!(text.contains(word), "{text}");
    }
    // On rows that it has not seen, of a kind that none of the six is, it is better than the committee.
    let sets = [(0.0, 1.0), (0.6, 1.3)].map(|(shift, scale): (f32, f32)| {
        set("test", 300, 9000 + (10.0 * shift) as u64, shift, scale, true)
    });
    let auroc = |detector: &Detector| {
        let [id, ood] = sets.each_ref().map(|set| detector.score(set).unwrap());
        metrics::auroc(&id, &ood).unwrap()
    };
    let committee = fit_committee(Standardise::Fifth(0), &train, &mut Silent).unwrap();
    let [ours, theirs] = [auroc(&made.detector), auroc(&Detector::new(committee.scorer))];
    assert!(ours > theirs && theirs > 0.5, "{ours} {theirs}");
    // What was seen is known: surrogates as sets that settings were chosen on, ID rows as seen.
    let provenance = made.detector.provenance();
    assert!(provenance.was_tuned_on(&given.kinds[0].1).unwrap());
    assert!(provenance.contamination(given.id.as_ref().unwrap()).unwrap().is_some());
    assert!(provenance.contamination(&train.features).unwrap().is_some());
    // One file, which proves itself.
    let bytes = made.detector.to_bytes().unwrap();
    let back = Detector::from_bytes("auto", bytes.clone()).unwrap();
    back.verify().unwrap();
    // The same bytes on one thread.
    let again = parallel::with_threads(1, || AutoConfig::default().run(data, &mut Silent)).unwrap();
    assert!(again.unwrap().detector.to_bytes().unwrap() == bytes);
}

#[test]
fn what_is_missing_is_done_without() {
    let train = TrainingData::new(&set("train", 600, 1, 0.0, 1.0, false)).with_head(&head());
    let run = |surrogates: Option<&Surrogates>, calibration: Option<&FeatureSet>| {
        let data = AutoData { train: &train, surrogates, calibration };
        AutoConfig::default().run(data, &mut Silent).unwrap()
    };
    // Features alone.
    let alone = run(None, None);
    assert!(alone.report.residual.is_none() && alone.report.views.is_none());
    assert!(alone.report.selection.is_some() && alone.detector.calibration().is_none());
    assert!(alone.report.to_string().contains("not calibrated"));
    // No ID rows beside the kinds: half of those to calibrate on.
    let val = set("val", 400, 700, 0.0, 1.0, true);
    let kinds = Surrogates { id: None, ..surrogates(true) };
    let halved = run(Some(&kinds), Some(&val));
    assert_eq!(halved.report.calibrated_on, Some(200));
    assert!(halved.report.residual.is_some());
    // Three kinds are too few to judge a residual by.
    let few = Surrogates { kinds: kinds.kinds[..3].to_vec(), ..surrogates(true) };
    assert!(run(Some(&few), None).report.residual.is_none());
    // ID rows among the training rows leave the fits.
    let own = train.features.select((0..200).collect(), None).unwrap();
    let seen = run(Some(&Surrogates { id: Some(own), ..surrogates(false) }), None);
    assert!(seen.report.to_string().contains("200 training rows are among the ID rows"));
    assert!(seen.report.views.is_none(), "nothing has a mirrored view");
}

#[test]
fn rows_to_calibrate_on_are_in_nothing_else() {
    let train = TrainingData::new(&set("train", 600, 1, 0.0, 1.0, false)).with_head(&head());
    let given = surrogates(false);
    let id = given.id.clone().unwrap();
    let config = AutoConfig { residual: false, views: false, ..AutoConfig::default() };
    for rows in [&id, &train.features] {
        let data = AutoData { train: &train, surrogates: Some(&given), calibration: Some(rows) };
        let said = config.run(data, &mut Silent).err().unwrap().to_string();
        assert!(said.contains("took no part"), "{said}");
    }
}
