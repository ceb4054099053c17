//! The images of a run, and the features made of them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use heat_images::backbone::{Backbone, BackboneOptions, ExtractConfig, Perturbation};
use heat_images::{ImageDataset, open};
use heat_ood::Error;
use heat_ood::features::{FeatureSet, Subset};
use heat_ood::recipe::{BackboneRecipe, DatasetRecipe, ImagesRecipe, Recipe, transform};

use crate::args::RunArgs;
use crate::commands::backbone::describe;
use crate::commands::extract::{extract_into, say_agreement};
use crate::commands::{Data, TestSets};
use crate::progress::Progress;

/// The data directory where none is named: that of the published README.
const DATA: &str = "datasets";

/// Name of the directory of the ID set's training features.
const TRAIN: &str = "train";
/// Name of the directory of the ID set's test features.
const TEST: &str = "test";

/// A network, and the images it is to see.
pub struct Images {
    backbone: Backbone,
    config: ExtractConfig,
    /// `train`, `test`, then the OOD sets by name.
    sets: Vec<(String, Box<dyn ImageDataset>)>,
    /// Where their features go, one directory each.
    directory: PathBuf,
}

impl Images {
    /// Find all images and read the network's graph: what is missing is said
    /// before anything is computed.
    pub fn open(args: &RunArgs, recipe: &Recipe, progress: &mut Progress) -> Result<Self> {
        let absent = |key: &str, example: &str| {
            Error::needs("the command", format!("`{key}`"), format!("give `{example}`"))
        };
        let dataset = recipe.dataset.as_ref();
        let dataset = dataset.ok_or_else(|| absent("dataset", "dataset=cifar10"))?;
        let network = recipe.backbone.as_ref();
        let network = network.ok_or_else(|| absent("backbone", "backbone=FILE"))?;
        let recipes = args.recipes.as_deref();
        let root = args.data.clone().or_else(|| dataset.data_root.clone());
        let root = root.unwrap_or_else(|| DATA.into());
        let sets = sets(dataset, recipes, &root)?;
        let transform = match &recipe.transform {
            Some(transform) => transform.clone(),
            None => transform(&dataset.transform, recipes)?,
        };
        let path = weights(network, &root)?;
        let options = BackboneOptions {
            tap: network.tap.clone(),
            prefix: network.prefix.clone(),
            ..BackboneOptions::default()
        };
        let backbone = open_network(&path, network, options)?;
        let backbone = backbone.on(args.device.clone(), args.precision)?;
        describe(&backbone).iter().for_each(|line| progress.say(line));
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let all = args.features.clone();
        let all = all.unwrap_or_else(|| Path::new(&recipe.log_dir).join("features"));
        let config = ExtractConfig {
            transform,
            batch_size: backbone.found().batch().unwrap_or(args.network_batch),
            shard_rows: args.shard_rows,
            skip_unreadable: args.skip_unreadable,
            ..ExtractConfig::default()
        };
        let directory = all.join(format!("{}-{name}", dataset.ID_NAME));
        Ok(Images { backbone, config, sets, directory })
    }

    /// Make the features that are not there.
    pub fn extract(&self, progress: &mut Progress) -> Result<()> {
        for (name, set) in &self.sets {
            self.extract_one(name, &**set, &self.directory, &self.config, progress)?;
        }
        Ok(())
    }

    fn extract_one(
        &self,
        name: &str,
        set: &dyn ImageDataset,
        directory: &Path,
        config: &ExtractConfig,
        progress: &mut Progress,
    ) -> Result<()> {
        let agreement = extract_into(set, &self.backbone, &directory.join(name), config, progress)?;
        // Other sets have classes of their own.
        if let Some(agreement) = agreement.filter(|_| [TRAIN, TEST].contains(&name)) {
            say_agreement(&agreement, progress);
        }
        Ok(())
    }

    /// The training features with the network's head.
    pub fn data(&self, progress: &Progress) -> Result<Data> {
        Data::from(&self.directory.join(TRAIN), None, None, None, progress)
    }

    /// Features of the ID test set and the OOD sets.
    pub fn test_sets(&self, subset: &Subset) -> Result<TestSets> {
        self.opened(&self.directory, subset)
    }

    /// The same of images that are perturbed first; made where they are not
    /// there.
    pub fn perturbed(
        &self,
        perturbation: Perturbation,
        subset: &Subset,
        progress: &mut Progress,
    ) -> Result<TestSets> {
        let by = perturbation.identity();
        let name = format!("{}-{}-{}", by.scorer, by.epsilon, &by.sha256[..8]);
        let directory = self.directory.join("perturbed").join(name);
        let config = ExtractConfig { perturb: Some(perturbation), ..self.config.clone() };
        for (name, set) in self.sets.iter().filter(|(name, _)| name != TRAIN) {
            self.extract_one(name, &**set, &directory, &config, progress)?;
        }
        self.opened(&directory, subset)
    }

    fn opened(&self, directory: &Path, subset: &Subset) -> Result<TestSets> {
        let open = |name: &str| FeatureSet::open(directory.join(name));
        let names =
            self.sets.iter().map(|(name, _)| name).filter(|n| ![TRAIN, TEST].contains(&&***n));
        let ood = names.map(|name| Ok((name.clone(), open(name)?))).collect::<Result<_>>()?;
        TestSets { id: open(TEST)?, ood }.part(subset)
    }
}

/// All sets of images of a benchmark; what is missing is said at once.
fn sets(
    dataset: &DatasetRecipe,
    recipes: Option<&Path>,
    root: &Path,
) -> Result<Vec<(String, Box<dyn ImageDataset>)>> {
    let id = &dataset.ID_NAME;
    let mut wanted = vec![(TRAIN, id.as_str(), true), (TEST, id.as_str(), false)];
    wanted.extend(dataset.ood.iter().map(|name| (name.as_str(), name.as_str(), false)));
    if let Some(name) = dataset.ood.iter().find(|name| [TRAIN, TEST].contains(&name.as_str())) {
        let problem = "that name is taken by the ID set; rename the OOD set";
        return Err(Error::config("dataset.ood", name, problem).into());
    }
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (name, set, train) in wanted {
        match ImagesRecipe::named(set, recipes)?.find(set, train, root) {
            Ok(place) => found.push((name, place)),
            Err(error) => missing.push(error.to_string()),
        }
    }
    if !missing.is_empty() {
        missing.push("leave OOD sets out with `dataset.ood=[…]`".into());
        anyhow::bail!(missing.join("\n"));
    }
    let opened = found
        .into_iter()
        .map(|(name, (path, options))| Ok((name.to_owned(), open(&path, &options)?)));
    opened.collect()
}

/// The network's file: as given, or below the data directory.
fn weights(network: &BackboneRecipe, root: &Path) -> Result<PathBuf> {
    let path = network.path.as_ref().ok_or_else(|| {
        let remedy = "give `backbone=FILE` or `backbone.path=FILE`";
        Error::missing("the backbone", "file", remedy)
    })?;
    let below = root.join(path);
    let found = [path, &below].into_iter().find(|p| p.is_file()).ok_or_else(|| {
        let place = format!("{} (or {})", path.display(), below.display());
        Error::missing(place, "network", "give its file with `backbone.path=FILE`")
    })?;
    Ok(found.clone())
}

/// Open it as what the recipe says: weights are checked against the name.
fn open_network(
    path: &Path,
    network: &BackboneRecipe,
    options: BackboneOptions,
) -> Result<Backbone> {
    let plain = Backbone::open(path, &options)?;
    if plain.architecture().is_none() || network.name.is_empty() {
        return Ok(plain);
    }
    let options = BackboneOptions { arch: Some(network.name.clone()), ..options };
    Ok(Backbone::open(path, &options)?)
}
