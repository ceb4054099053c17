//! A residual as a further member: trained to tell surrogates from ID rows, judged on kinds that it has not seen.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Judges, Scores, add};
use crate::compose::mean_std;
use crate::ebm::{HeatConfig, Negatives, Outcome, Trainer};
use crate::error::{Error, Result};
use crate::features::{Field, Pooling};
use crate::metrics;
use crate::observe::{Event, Observer};
use crate::recipe::Recipe;
use crate::scorers::{Fitted, Scorer, TrainingData};
use crate::select::Evidence;

/// Networks whose mean energy the residual is.
pub(super) const NETS: usize = 3;

/// Steps that a network is trained: some epochs over the ID rows, however many these are.
const STEPS: usize = 400;

/// The recipe, for these rows.
fn config(judges: &Judges, nets: usize, seed: u64) -> Result<HeatConfig> {
    let mut config = Recipe::resolve(&["ebm=heat_surrogate"], None)?.heat;
    let rows = judges.learnt.len();
    let both = judges.learnt.dim(Field::Features(Pooling::AvgStd)).is_some();
    config.pooling = if both { Pooling::AvgStd } else { Pooling::Avg };
    config.batch_size = config.batch_size.min(rows);
    config.n_epochs = STEPS.div_ceil(rows / config.batch_size).max(1);
    config.ebm.model.nets = nets;
    config.seed = seed;
    Ok(config)
}

/// Passes on all but the lines of epochs: what a residual is worth is told by what it gains.
struct WithoutEpochs<'a>(&'a mut dyn Observer);

impl Observer for WithoutEpochs<'_> {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Epoch(_) => {}
            Event::Begin { total, .. } => self.0.on(Event::Begin { task: "residual", total }),
            event => self.0.on(event),
        }
    }

    fn should_stop(&self) -> bool {
        self.0.should_stop()
    }

    fn stop_flag(&self) -> Option<Arc<AtomicBool>> {
        self.0.stop_flag()
    }
}

/// A residual of so many networks, with these kinds as what is not ID.
pub(super) fn train(
    judges: &Judges,
    kinds: &[usize],
    nets: usize,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Fitted<dyn Scorer>> {
    let config = config(judges, nets, seed)?;
    let data = TrainingData::new(&judges.learnt);
    let prior = config.fit_prior(&data, observer)?;
    let negatives = Negatives::new(kinds.iter().map(|k| judges.kinds[*k].clone()).collect())?;
    let mut trainer = Trainer::against(config, prior, &judges.learnt, negatives)?;
    if trainer.run(&mut WithoutEpochs(observer))? == Outcome::Stopped {
        return Err(Error::Stopped);
    }
    let seen = trainer.seen()?;
    Ok(Fitted::on(&data, trainer.into_heat())?.including(&seen).into())
}

/// What a residual gains on kinds that it was not trained with, as a member of this weight: one is
/// trained with each half of the kinds, and judged by the other.
pub(super) fn evidence(
    judges: &Judges,
    before: &Scores,
    weight: f64,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Evidence> {
    let mut halves: [Vec<usize>; 2] = Default::default();
    // From each group, so that neither half lacks what the other is of.
    for (i, kind) in judges.groups.iter().flatten().enumerate() {
        halves[i % 2].push(*kind);
    }
    let mut gains = vec![0.0; judges.kinds.len()];
    for (seen, unseen) in [(0, 1), (1, 0)] {
        let residual = train(judges, &halves[seen], 1, seed, observer)?;
        let own = judges.score(&*residual, observer)?;
        let (_, std) = mean_std(&own.id);
        if !(std.is_finite() && std > 0.0) {
            let problem = "all its energies of the ID rows are equal".to_owned();
            return Err(Error::Fit { what: "residual".into(), problem });
        }
        let id = add(&before.id, &own.id, weight / std);
        for kind in &halves[unseen] {
            let was = metrics::auroc(&before.id, &before.kinds[*kind])?;
            let with = add(&before.kinds[*kind], &own.kinds[*kind], weight / std);
            gains[*kind] = metrics::auroc(&id, &with)? - was;
        }
    }
    Ok(Evidence::of(gains))
}
