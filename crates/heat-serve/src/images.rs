//! The network before a detector: images become its features here.

use std::path::Path;

use heat_images::backbone::{self, Backbone, BackboneOptions, ExtractConfig, LayersAsked, Part};
use heat_images::{Image, ImageDataset, TransformConfig, decode_within};
use heat_ood::features::{FloatType, Origin, View};
use heat_ood::{Detector, Error, Silent};

use crate::refusal::{Kind, Refusal, Result};

/// Images that the network is given at a time.
const BATCH: usize = 16;

/// An image of a request.
pub enum Picture {
    /// A file: JPEG, PNG, …
    File(Vec<u8>),
    /// Rows of RGB.
    Pixels(Image),
}

/// A network, and what is done to images before it.
pub struct Network {
    backbone: Backbone,
    config: ExtractConfig,
    max_pixels: u64,
}

impl Network {
    /// Open the network that made a detector's features.
    ///
    /// # Errors
    /// If it cannot be read, is another one, or the detector says not how its images were
    /// transformed.
    pub fn open(path: &Path, detector: &Detector, max_pixels: u64) -> heat_ood::Result<Self> {
        let provenance = detector.provenance();
        let origin = origin_of(detector)?;
        let transform: TransformConfig = serde_json::from_str(&origin.transform)
            .map_err(|e| Error::format(path, format!("the detector's transform: {e}")))?;
        let classes = Some(provenance.classes.len()).filter(|n| *n > 0);
        let options = BackboneOptions { classes, ..BackboneOptions::default() };
        let backbone = Backbone::open(path, &options)?;
        let read = detector.scorer().parts();
        let layers = origin.layers.iter();
        let layers = layers.filter(|(name, _)| read.iter().any(|p| p.name() == name.as_str()));
        let named = layers.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        let config = ExtractConfig {
            transform,
            batch_size: backbone.found().batch().unwrap_or(BATCH),
            shard_rows: BATCH.max(backbone.found().batch().unwrap_or(BATCH)),
            skip_unreadable: true,
            dtype: FloatType::F16,
            perturb: None,
            views: View::of(&read),
        };
        let grey = Picture::Pixels(grey());
        let first = Pictures { all: vec![&grey], max_pixels };
        let asked = LayersAsked { named, found: None };
        let backbone = backbone.with_layers_of(&asked, &first, &config.transform)?;
        let backbone = backbone.with_fields_of_maps(&detector.scorer().of_maps())?;
        let network = Network { backbone, config, max_pixels };
        network.check(detector)?;
        Ok(network)
    }

    /// Refuse a detector of another network or transform.
    ///
    /// # Errors
    /// If it is one.
    pub fn check(&self, detector: &Detector) -> heat_ood::Result<()> {
        let origin = self.backbone.origin(&self.config.transform);
        match origin_of(detector)?.difference(&origin) {
            None => Ok(()),
            Some(difference) => {
                let place = self.backbone.path().display().to_string();
                let problem = format!(
                    "gives features of {difference}, which the detector was fitted on: take that \
                     network and transform"
                );
                Err(Error::Foreign { place, problem })
            }
        }
    }
}

/// The network and transform whose features a detector was fitted on.
fn origin_of(detector: &Detector) -> heat_ood::Result<&Origin> {
    detector.provenance().origin.as_ref().ok_or_else(|| {
        let remedy = "fit it on features that `heat extract` made, which say it";
        Error::missing("the detector", "word of the network and transform", remedy)
    })
}

/// A mid-grey image, to see what the network gives.
fn grey() -> Image {
    Image { width: 224, height: 224, rgb: vec![128; 224 * 224 * 3] }
}

/// A network that is loaded.
pub struct Live<'a> {
    network: &'a Network,
    loaded: backbone::Live<'a>,
}

impl<'a> Live<'a> {
    /// Load it.
    ///
    /// # Errors
    /// If no ONNX Runtime is found, or it refuses the network.
    pub fn new(network: &'a Network) -> heat_ood::Result<Self> {
        let loaded = backbone::Live::new(&network.backbone, &network.config)?;
        Ok(Live { network, loaded })
    }

    /// The features of some images.
    ///
    /// # Errors
    /// If the network refuses them.
    pub fn rows<'p>(&mut self, pictures: impl Iterator<Item = &'p Picture>) -> Result<Part> {
        let max_pixels = self.network.max_pixels;
        let set = Pictures { all: pictures.collect(), max_pixels };
        let part = self.loaded.rows(&set, 0..set.all.len(), &mut Silent);
        match part {
            Ok(Some(part)) => Ok(part),
            Ok(None) => Err(Refusal::new(Kind::Internal, "the network was stopped")),
            Err(Error::Shape { tensor, expected, got, .. }) => Err(Refusal::invalid(format!(
                "the input `{tensor}` has shape {got}, expected {expected}"
            ))),
            Err(other) => Err(Refusal::new(Kind::Internal, other.to_string())),
        }
    }
}

/// Images in memory as a set.
struct Pictures<'a> {
    all: Vec<&'a Picture>,
    max_pixels: u64,
}

impl ImageDataset for Pictures<'_> {
    fn name(&self) -> &str {
        "the request"
    }

    fn len(&self) -> usize {
        self.all.len()
    }

    fn label(&self, _i: usize) -> Option<u32> {
        None
    }

    fn place(&self, i: usize) -> String {
        format!("image {i}")
    }

    fn image(&self, i: usize) -> heat_ood::Result<Image> {
        match self.all[i] {
            Picture::File(bytes) => decode_within("image", bytes, self.max_pixels),
            Picture::Pixels(image) => Ok(image.clone()),
        }
    }
}
