//! A residual energy on a prior of your own: here the squared distance to the
//! training mean, in a detector file that opens again.
//! `cargo run --release --example custom_prior`

use std::sync::Arc;

use heat_ood::ebm::{HeatConfig, Proposal};
use heat_ood::features::{Batch, FeatureSet, Field, FieldSet, Pooling};
use heat_ood::scorers::{Prior, Scorer, Scratch, Section, register_prior};
use heat_ood::{Detector, Silent, TrainingData, metrics};

struct Distance {
    mean: Vec<f32>,
}

impl Scorer for Distance {
    fn name(&self) -> &'static str {
        "distance"
    }
    fn needs(&self, _: &FeatureSet) -> heat_ood::Result<FieldSet> {
        Ok(FieldSet::of(Field::Features(Pooling::Avg)))
    }
    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.energy(batch.get(Field::Features(Pooling::Avg)), out);
    }
    fn section(&self) -> Section {
        Section::new("distance", &self.mean)
    }
}

impl Prior for Distance {
    fn dim(&self) -> usize {
        self.mean.len()
    }
    fn energy(&self, z: &[f32], out: &mut [f32]) {
        for (o, row) in out.iter_mut().zip(z.chunks(self.dim())) {
            *o = row.iter().zip(&self.mean).map(|(v, m)| (v - m).powi(2)).sum();
        }
    }
    fn add_gradient(&self, z: &[f32], scale: f32, grad: &mut [f32], _: &mut Scratch) {
        for (i, g) in grad.iter_mut().enumerate() {
            *g += scale * 2.0 * (z[i] - self.mean[i % self.dim()]);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-cli/data/cifar10-densenet");
    let open = |name: &str| FeatureSet::open(format!("{directory}/{name}.safetensors"));
    let (train, test, ood) = (open("train")?, open("test")?, open("ood_mnist")?);
    let mut rows = vec![0.0; train.len() * 342];
    train.read(Field::Features(Pooling::Avg), 0..train.len(), &mut rows)?;
    let mean = |j: usize| rows.iter().skip(j).step_by(342).sum::<f32>() / train.len() as f32;
    let prior = Distance { mean: (0..342).map(mean).collect() };
    let mut config = HeatConfig { batch_size: 256, n_epochs: 3, ..HeatConfig::default() };
    (config.ebm.model.hidden_dim, config.ebm.model.steps) = (256, 5);
    (config.ebm.model.proposal_type, config.ebm.model.temperature_prior) = (Proposal::Data, 10.0);
    let alone = metrics::auroc(&prior.score(&test)?, &prior.score(&ood)?)?;
    let heat = Detector::new(config.train(prior, &TrainingData::new(&train), &mut Silent)?);
    // How it is read back, wherever the file is opened.
    register_prior("distance", |stored| Ok(Arc::new(Distance { mean: stored.config()? })))?;
    let file = std::env::temp_dir().join("heat_distance.safetensors");
    heat.save(&file)?;
    let heat = Detector::open(&file)?;
    let auroc = metrics::auroc(&heat.score(&test)?, &heat.score(&ood)?)?;
    println!("prior {alone:.4}, HEAT {auroc:.4}, from {}", file.display());
    Ok(())
}
