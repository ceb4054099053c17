//! What is made of feature maps while they are at hand, for the scorers that want more of them than
//! poolings. Maps leave the runtime for some images at a time, and are never stored.

use std::collections::HashMap;

use super::gradient::Wanted;
use super::graph::{Found, Tap};
use super::layer::Layer;
use super::network::Forward;
use super::outputs::added;
use super::{Backbone, Network, Pooled};
use heat_ood::features::{
    Batch, Field, Pooling, beyond_uniform, gram_rows, mean_without_first, signed_root,
};
use heat_ood::{Error, Result};

/// Pixels of the images whose maps are held at a time: eight of 224×224.
const PIXELS: usize = 8 * 224 * 224;

/// The fields that are made of the logits' gradient, and not of the maps themselves.
const BY_GRADIENT: [Field; 2] = [Field::Nac, Field::Graduncertainty];

impl Backbone {
    /// The same network, from whose maps these of [`Field::OF_MAPS`] are made too: `gram` of each layer,
    /// `rankfeat` of the last, `nac` of the further layers (scorers make that of the last themselves),
    /// `graduncertainty` of all weights.
    ///
    /// # Errors
    /// If `rankfeat` is one of them, and the network's features are not the mean of a map; if one that
    /// follows a gradient is, and there are no logits; if `nac` is, and there are no further layers.
    pub fn with_fields_of_maps(&self, fields: &[Field]) -> Result<Self> {
        let mut backbone = self.clone();
        let asked = |field: &Field| fields.contains(field);
        backbone.found.of_maps = Field::OF_MAPS.into_iter().filter(asked).collect();
        if backbone.found.of_maps.contains(&Field::Rankfeat) {
            let Tap::Map(_) = self.found.tap else {
                return Err(no_map("the network's features are a vector, with no map before it"));
            };
        }
        if asked(&Field::Nac) && self.found.layers().is_empty() {
            let problem = "it is made of further layers: name them, or let them be found (`--taps auto`). \
                           That of the last layer needs nothing beside features and head";
            return Err(Error::config("for", "nac", problem));
        }
        for field in BY_GRADIENT.into_iter().filter(asked) {
            let by_head = field == Field::Nac && self.found.names().logits.is_some();
            if self.found.plan.logits.is_none() && !by_head {
                let problem = "it is made of the logits' gradient, and the network has no logits";
                return Err(Error::config("for", field.name(), problem));
            }
        }
        Ok(backbone)
    }
}

fn no_map(why: &str) -> Error {
    Error::config(
        "for",
        "rankfeat",
        format!("it is made of the map that is pooled to `avg`: {why}"),
    )
}

impl Found {
    /// Which of [`Field::OF_MAPS`] are made.
    pub fn of_maps(&self) -> &[Field] {
        &self.of_maps
    }

    /// Whether maps leave the runtime.
    fn reads_maps(&self) -> bool {
        self.of_maps.iter().any(|field| !BY_GRADIENT.contains(field))
    }

    /// Whether gradients of the logits are followed.
    pub(super) fn follows_gradients(&self) -> bool {
        self.of_maps.iter().any(|field| BY_GRADIENT.contains(field))
    }

    /// The output with the last map as `[N, channels, cells …]`, where one is read.
    pub(super) fn map_output(&self) -> Option<String> {
        let map = matches!(self.tap, Tap::Map(_)) && self.reads_maps();
        map.then(|| added("values"))
    }

    /// The same of a further layer.
    pub(super) fn layer_output(&self, layer: &Layer) -> Option<String> {
        let map = layer.layout.is_some() && self.of_maps.contains(&Field::Gram);
        map.then(|| added(&format!("{}values", layer.prefix())))
    }
}

impl Network {
    /// How many of `n` images are sent through the network together.
    pub(super) fn together(&self, n: usize, [height, width]: [usize; 2]) -> usize {
        match self.forward {
            Forward::Fixed { images, .. } => self.found.batch().unwrap_or(images),
            Forward::Free(_) if !self.found.reads_maps() || self.found.batch().is_some() => n,
            Forward::Free(_) => (PIXELS / (height * width).max(1)).max(1),
        }
    }

    /// What is made of the maps of `n` images, among the outputs of the network.
    pub(super) fn of_maps(
        &self,
        made: &mut HashMap<String, Vec<f32>>,
        n: usize,
        alone: Option<&str>,
        pooled: &mut Pooled,
    ) -> Result<()> {
        if !self.found.reads_maps() {
            return Ok(());
        }
        let asked = |field| self.found.of_maps.contains(&field);
        let names = self.found.names();
        // Where the features are the mean of the map, they were taken from the outputs.
        let mean = names.mean.and_then(|name| made.get(&name)).map_or(pooled.avg.len(), Vec::len);
        let map = self.found.map_output().and_then(|name| made.remove(&name));
        let gram = |map: Option<&[f32]>, avg: &[f32], channels: usize| -> Vec<f32> {
            // A vector is a map of one cell.
            let (map, channels) = map.map_or((avg, avg.len() / n), |map| (map, channels));
            map.chunks_exact(map.len() / n).flat_map(|map| gram_rows(map, channels)).collect()
        };
        if asked(Field::Rankfeat) {
            if let Some(why) = alone {
                return Err(no_map(why));
            }
            let Some(map) = &map else { return Err(no_map("there is none")) };
            for map in map.chunks_exact(map.len() / n) {
                pooled.rankfeat.extend(mean_without_first(map, mean / n)?);
            }
        }
        if asked(Field::Gram) {
            pooled.gram = gram(map.as_deref(), &pooled.avg, mean / n);
            for (layer, pooled) in self.found.layers().iter().zip(&mut pooled.layers) {
                let map = self.found.layer_output(layer).and_then(|name| made.remove(&name));
                pooled.gram = gram(map.as_deref(), &pooled.avg, pooled.avg.len() / n);
            }
        }
        Ok(())
    }

    /// What is made of gradients of the logits, for images whose logits are there.
    pub(super) fn of_gradients(
        &mut self,
        images: &[f32],
        shape: [usize; 4],
        pooled: &mut Pooled,
    ) -> Result<()> {
        if !self.found.follows_gradients() {
            return Ok(());
        }
        let n = shape[0];
        let classes = (pooled.logits.len() / n.max(1)).max(1);
        let mut beyond: Vec<f64> = pooled.logits.iter().map(|l| f64::from(*l)).collect();
        beyond.chunks_exact_mut(classes).for_each(beyond_uniform);
        if self.found.of_maps.contains(&Field::Nac) {
            let tensors = self.found.layers().iter().map(|layer| layer.tensor.clone()).collect();
            let seeds = self.seeds(&beyond, n)?;
            let products = self.backward(images, shape, &seeds, &Wanted::Products(tensors))?;
            for (layer, products) in pooled.layers.iter_mut().zip(products) {
                if products.len() != layer.avg.len() {
                    let problem = format!(
                        "the gradient of layer `{}` has {} values, its mean {}",
                        layer.part.name(),
                        products.len(),
                        layer.avg.len()
                    );
                    return Err(Error::config("for", "nac", problem));
                }
                layer.nac = products.into_iter().map(signed_root).collect();
            }
        }
        if self.found.of_maps.contains(&Field::Graduncertainty) {
            let seeds = beyond.iter().map(|v| (v * classes as f64) as f32).collect();
            let seeds = Batch::of(n, [(Field::Logits, seeds)])?;
            let norms = self.backward(images, shape, &seeds, &Wanted::Weights)?;
            // Twice: of the squared norm, and of the norm.
            let kept = norms.into_iter().flatten().map(|v| signed_root(signed_root(v)));
            pooled.graduncertainty = kept.collect();
        }
        Ok(())
    }

    /// The gradient of the logits as seeds: where the graph itself has no logits, of what the head reads.
    fn seeds(&self, gradient: &[f64], n: usize) -> Result<Batch<'static>> {
        let seeds = gradient.iter().map(|v| *v as f32).collect();
        let (None, Some(head)) = (&self.found.plan.logits, &self.found.head) else {
            return Batch::of(n, [(Field::Logits, seeds)]);
        };
        let back = |seeds: &[f32]| {
            let mut sum = vec![0.0; head.dim()];
            for (seed, row) in seeds.iter().zip(head.weight().chunks_exact(head.dim())) {
                sum.iter_mut().zip(row).for_each(|(s, w)| *s += seed * w);
            }
            sum
        };
        let seeds = seeds.chunks_exact(head.classes()).flat_map(back).collect();
        Batch::of(n, [(Field::Features(Pooling::Avg), seeds)])
    }
}
