//! What a network makes of images: numbers pooled over maps, by field.

use heat_ood::Result;
use heat_ood::features::{Batch, Field, Part, Pooling};

/// Pooled outputs of some images.
#[derive(Debug, Clone, Default)]
pub struct Pooled {
    /// `[n, D]`.
    pub avg: Vec<f32>,
    /// Standard deviation over the map with Bessel's correction, `[n, D]`;
    /// empty where the features are vectors.
    pub std: Vec<f32>,
    /// `[n, D]`; empty where the features are vectors.
    pub max: Vec<f32>,
    /// `[n, C]`; empty where there is no linear layer.
    pub logits: Vec<f32>,
    /// Gram matrices by their rows' sums, `[n, 10 · D]`; empty where they were not asked for.
    pub gram: Vec<f32>,
    /// Mean without the map's first singular component, `[n, D]`; empty where it was not asked for.
    pub rankfeat: Vec<f32>,
    /// [`Field::Graduncertainty`], `[n, weight tensors]`; empty where it was not asked for.
    pub graduncertainty: Vec<f32>,
    /// Mean of the probabilities of several passes, `[n, C]`; of the view `dropoutK` alone.
    pub probabilities: Vec<f32>,
    /// [`Field::Spread`], `[n, C]`; of the view `dropoutK` alone.
    pub spread: Vec<f32>,
    /// Of further layers.
    pub layers: Vec<PooledLayer>,
    /// Of other views of the images.
    pub views: Vec<(Part, Pooled)>,
}

/// Pooled outputs of a further layer.
#[derive(Debug, Clone)]
pub struct PooledLayer {
    /// Which.
    pub part: Part,
    /// `[n, D]`.
    pub avg: Vec<f32>,
    /// `[n, D]`; empty where there is none.
    pub std: Vec<f32>,
    /// `[n, 10 · D]`; empty where it was not asked for.
    pub gram: Vec<f32>,
    /// [`Field::Nac`], `[n, D]`; empty where it was not asked for.
    pub nac: Vec<f32>,
}

impl Pooled {
    /// As what scorers read.
    ///
    /// # Errors
    /// If a field is not of `rows` rows.
    pub fn batch(self, rows: usize) -> Result<Batch<'static>> {
        Batch::of(rows, self.fields())
    }

    fn fields(self) -> Vec<(Field, Vec<f32>)> {
        let [avg, std, max] = [Pooling::Avg, Pooling::Std, Pooling::Max].map(Field::Features);
        let mut all = vec![
            (avg, self.avg),
            (std, self.std),
            (max, self.max),
            (Field::Logits, self.logits),
            (Field::Gram, self.gram),
            (Field::Rankfeat, self.rankfeat),
            (Field::Graduncertainty, self.graduncertainty),
            (Field::Probabilities, self.probabilities),
            (Field::Spread, self.spread),
        ];
        for layer in self.layers {
            all.push((avg.within(layer.part), layer.avg));
            all.push((std.within(layer.part), layer.std));
            all.push((Field::Gram.within(layer.part), layer.gram));
            all.push((Field::Nac.within(layer.part), layer.nac));
        }
        for (view, pooled) in self.views {
            all.extend(pooled.fields().into_iter().map(|(f, values)| (f.within(view), values)));
        }
        all
    }

    /// All that it holds, but for views.
    fn values_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let Pooled {
            avg,
            std,
            max,
            logits,
            gram,
            rankfeat,
            graduncertainty,
            probabilities,
            spread,
            layers,
            views: _,
        } = self;
        let mut all =
            vec![avg, std, max, logits, gram, rankfeat, graduncertainty, probabilities, spread];
        all.extend(
            layers.iter_mut().flat_map(|l| [&mut l.avg, &mut l.std, &mut l.gram, &mut l.nac]),
        );
        all
    }

    /// Add the rows of other images.
    pub(super) fn append(&mut self, mut other: Pooled) {
        if self.layers.is_empty() {
            self.layers = std::mem::take(&mut other.layers);
        }
        for (values, more) in self.values_mut().into_iter().zip(other.values_mut()) {
            values.append(more);
        }
        if self.views.is_empty() {
            self.views = other.views;
        } else {
            let views = self.views.iter_mut().zip(other.views);
            views.for_each(|((_, pooled), (_, other))| pooled.append(other));
        }
    }

    /// The mean of what some passes, without views, give for the same images.
    pub(super) fn mean(passes: u32, mut pass: impl FnMut(u32) -> Result<Pooled>) -> Result<Pooled> {
        let mut mean = pass(0)?;
        if passes == 1 {
            return Ok(mean);
        }
        let wide = |values: &Vec<f32>| values.iter().map(|v| f64::from(*v)).collect();
        let mut sums: Vec<Vec<f64>> = mean.values_mut().iter().map(|v| wide(v)).collect();
        for i in 1..passes {
            for (sums, more) in sums.iter_mut().zip(pass(i)?.values_mut()) {
                sums.iter_mut().zip(more).for_each(|(sum, v)| *sum += f64::from(*v));
            }
        }
        for (values, sums) in mean.values_mut().into_iter().zip(sums) {
            let divided = sums.into_iter().map(|sum| (sum / f64::from(passes)) as f32);
            values.iter_mut().zip(divided).for_each(|(v, mean)| *v = mean);
        }
        Ok(mean)
    }
}
