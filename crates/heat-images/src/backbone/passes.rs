//! Passes of a loaded network with its dropout.

use super::dropout::{Dims, Moments, Passes, Plan, dims, kept, mask};
use super::network::turned;
use super::runtime::Session;
use super::{Network, Pooled};
use heat_ood::{Error, Result};

impl Network {
    /// What `passes` passes with dropout make of `n` images, `[n, 3, height, width]`: the mean of their logits and of
    /// their probabilities, and the standard deviation of these.
    ///
    /// # Errors
    /// If the graph has no dropout before its logits, or drops what is of several images at once, or the runtime
    /// refuses the graph or the images.
    pub fn dropped(&mut self, images: &[f32], shape: [usize; 4], passes: u32) -> Result<Pooled> {
        let [n, channels, height, width] = shape;
        let mut loaded = match self.passes.take().filter(|known| known.size == [height, width]) {
            Some(loaded) => loaded,
            None => self.load_passes([height, width])?,
        };
        let together = self.batch().unwrap_or(n).max(1);
        let mut pooled = Pooled::default();
        for images in images.chunks(together * channels * height * width) {
            let rows = images.len() / (channels * height * width);
            pooled.append(self.dropped_together(
                &mut loaded,
                images,
                [rows, channels, height, width],
                passes,
            )?);
        }
        self.passes = Some(loaded);
        Ok(pooled)
    }

    fn dropped_together(
        &self,
        loaded: &mut Passes,
        images: &[f32],
        mut shape: [usize; 4],
        passes: u32,
    ) -> Result<Pooled> {
        let n = shape[0];
        let mut images = images.to_vec();
        let filled = Self::fill(self.batch(), n, &mut images);
        shape[0] = filled;
        if self.found.channels_last {
            images = turned(&images, shape);
        }
        let mut inputs =
            vec![(self.found.input.clone(), self.found.as_taken(shape).to_vec(), images)];
        let plan = &loaded.plan;
        if let (Some(trunk), Some(cut)) = (&mut loaded.trunk, &plan.cut) {
            let names = plan.inputs(cut);
            let mut made = trunk.run(&self.place, inputs, &names)?;
            let start = |(name, at): (String, &usize)| {
                let values = made.remove(&name).unwrap_or_default();
                (name, loaded.shapes[*at].of(filled), values)
            };
            inputs = names.into_iter().zip(&cut.starts).map(start).collect();
        }
        let outputs = [plan.logits.clone()];
        let mut moments = Moments::default();
        for pass in 0..passes {
            let masks = plan.dropouts.iter().zip(&loaded.shapes).enumerate().map(
                |(i, (dropout, shape))| {
                    let sides = shape.of(1);
                    let values = kept(pass, i, dropout.probability, sides.iter().product());
                    (mask(i), sides, values)
                },
            );
            let inputs = inputs.iter().cloned().chain(masks).collect();
            let mut logits = loaded
                .rest
                .run(&self.place, inputs, &outputs)?
                .remove(&plan.logits)
                .unwrap_or_default();
            logits.truncate(logits.len() / filled * n);
            moments.add(&logits, (logits.len() / n).max(1));
        }
        Ok(moments.finish())
    }

    /// Load the graph for images of that size, once it is known what it makes of them.
    fn load_passes(&self, size: [usize; 2]) -> Result<Passes> {
        let plan = Plan::of(&self.place, &self.graph, &self.found)?;
        let shapes = self.probed(&plan, size)?;
        let filled = self.batch().unwrap_or(1);
        let load = |model: &[u8], inputs: Vec<(String, Vec<usize>)>, outputs: &[String]| {
            if self.is_on_device() {
                self.fixed(model, &inputs, outputs)
            } else {
                Session::load(&self.place, &self.library, model)
            }
        };
        let image =
            (self.found.input.clone(), self.found.as_taken([filled, 3, size[0], size[1]]).to_vec());
        let mut inputs: Vec<_> =
            shapes.iter().enumerate().map(|(i, shape)| (mask(i), shape.of(1))).collect();
        let trunk = match &plan.cut {
            None => {
                inputs.push(image);
                None
            }
            Some(cut) => {
                let names = plan.inputs(cut);
                let model = plan.trunk(&self.place, &self.graph, cut)?;
                let trunk = load(&model, vec![image], &names)?;
                let shapes = cut.starts.iter().map(|at| shapes[*at].of(filled));
                inputs.extend(names.into_iter().zip(shapes));
                Some(trunk)
            }
        };
        let model = plan.rest(&self.place, &self.graph, &self.found)?;
        let rest = load(&model, inputs, std::slice::from_ref(&plan.logits))?;
        Ok(Passes { size, plan, shapes, trunk, rest })
    }

    /// Shapes of what is dropped, seen by running the graph on one image, and on two to see which side counts them.
    fn probed(&self, plan: &Plan, size: [usize; 2]) -> Result<Vec<Dims>> {
        let (model, outputs) = plan.probe(&self.graph);
        let mut session = Session::load(&self.place, &self.library, &model)?;
        let mut seen = |n: usize| -> Result<Vec<Vec<usize>>> {
            let shape = self.found.as_taken([n, 3, size[0], size[1]]).to_vec();
            let images = vec![0.0; shape.iter().product()];
            let mut made = session.run(
                &self.place,
                vec![(self.found.input.clone(), shape, images)],
                &outputs,
            )?;
            let sides = |values: Vec<f32>| values.into_iter().map(|v| v as usize).collect();
            Ok(outputs
                .iter()
                .map(|name| made.remove(name).map(sides).unwrap_or_default())
                .collect())
        };
        let fixed = self.found.batch();
        let few = seen(fixed.unwrap_or(1))?;
        let more = if fixed.is_none() { seen(2)? } else { few.clone() };
        let pairs = few.into_iter().zip(more).zip(&plan.dropouts);
        pairs
            .map(|((few, more), dropout)| {
                dims(&few, &more, fixed).ok_or_else(|| {
                    let problem = format!(
                        "what its dropout `{}` reads has no side that counts images: {few:?}, of two {more:?}",
                        dropout.name
                    );
                    Error::config("views", "dropout", problem)
                })
            })
            .collect()
    }
}
