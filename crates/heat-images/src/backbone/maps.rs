//! What is made of feature maps while they are at hand, for the scorers that want more of them than
//! poolings. Maps leave the runtime for some images at a time, and are never stored.

use std::collections::HashMap;

use super::graph::{Found, Tap};
use super::layer::Layer;
use super::network::Forward;
use super::outputs::added;
use super::{Backbone, Network, Pooled};
use heat_ood::features::{Field, gram_rows, mean_without_first};
use heat_ood::{Error, Result};

/// Pixels of the images whose maps are held at a time: eight of 224×224.
const PIXELS: usize = 8 * 224 * 224;

impl Backbone {
    /// The same network, from whose maps these of [`Field::OF_MAPS`] are made too: `gram` of each layer,
    /// `rankfeat` of the last.
    ///
    /// # Errors
    /// If `rankfeat` is one of them, and the network's features are not the mean of a map.
    pub fn with_fields_of_maps(&self, fields: &[Field]) -> Result<Self> {
        let mut backbone = self.clone();
        let asked = |field: &Field| fields.contains(field);
        backbone.found.of_maps = Field::OF_MAPS.into_iter().filter(asked).collect();
        if backbone.found.of_maps.contains(&Field::Rankfeat) {
            let Tap::Map(_) = self.found.tap else {
                return Err(no_map("the network's features are a vector, with no map before it"));
            };
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

    /// The output with the last map as `[N, channels, cells …]`, where one is read.
    pub(super) fn map_output(&self) -> Option<String> {
        let map = matches!(self.tap, Tap::Map(_)) && !self.of_maps.is_empty();
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
            Forward::Free(_) if self.found.of_maps.is_empty() || self.found.batch().is_some() => n,
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
        if self.found.of_maps.is_empty() {
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
}
