//! A training run from a recipe, in a directory of its own: what stands around
//! the [`Trainer`].
//!
//! The directory holds `recipe.toml` (resolved), checkpoints, metrics and, in
//! the end, `detector.safetensors`. A run that was stopped or killed goes on
//! from its last checkpoint, bit for bit; other settings, other data or another
//! head are refused then.

use std::path::{Path, PathBuf};

use crate::detector::Detector;
use crate::ebm::{GradientHook, Outcome, RunDirectory, Trainer, checkpoint, engine::Engine};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field};
use crate::observe::{Event, Observer};
use crate::recipe::Recipe;
use crate::scorers::{Fitted, TrainingData};

/// A run that is ready to train.
pub struct TrainingRun {
    recipe: Recipe,
    data: TrainingData,
    directory: RunDirectory,
    trainer: Trainer,
}

impl TrainingRun {
    /// Begin a run in `directory`, or go on with the one there if `resume`.
    /// The recipe's subset of the data is taken, and its prior fitted.
    ///
    /// # Errors
    /// If the recipe and the data do not go together, the prior cannot be
    /// fitted, the directory already holds a run (unless `resume`), of other
    /// settings or data, or cannot be written.
    pub fn open(
        recipe: &Recipe,
        data: &TrainingData,
        directory: &Path,
        resume: bool,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        Self::open_on(recipe, data, directory, resume, observer, |_| Ok(None))
    }

    /// The same on the engine that `engine` makes for the run, where it makes one. It is asked before
    /// anything is written: what cannot be had leaves no directory behind.
    ///
    /// # Errors
    /// As [`TrainingRun::open`], and that of `engine`.
    pub fn open_on(
        recipe: &Recipe,
        data: &TrainingData,
        directory: &Path,
        resume: bool,
        observer: &mut dyn Observer,
        engine: impl FnOnce(&Trainer) -> Result<Option<Box<dyn Engine>>>,
    ) -> Result<Self> {
        let data = recipe.training_data(data)?;
        recipe.check(&data.features)?;
        let digest = digest(recipe, &data)?;
        let latest = if resume { RunDirectory::latest(directory)? } else { None };
        let mut trainer = match &latest {
            Some(path) => {
                observer.on(Event::Note(&format!("continuing from {}", path.display())));
                checkpoint::resume(path, &recipe.heat, &data.features, &digest)?
            }
            None => {
                let prior = recipe.heat.fit_prior(&data, observer)?;
                Trainer::new(recipe.heat.clone(), prior, &data.features)?
            }
        };
        if let Some(engine) = engine(&trainer)? {
            trainer = trainer.with_engine(engine);
        }
        let text = recipe.to_toml();
        let directory = match &latest {
            None if !resume => RunDirectory::create(directory, &text, &digest)?,
            found => {
                if found.is_none() {
                    let place = directory.display();
                    let note = format!("no checkpoint in {place} yet: starting anew");
                    observer.on(Event::Note(&note));
                }
                let trainer = found.as_ref().map(|_| &trainer);
                RunDirectory::open(directory, &text, &digest, trainer)?
            }
        };
        Ok(TrainingRun { recipe: recipe.clone(), data, directory, trainer })
    }

    /// Run on another engine.
    pub fn with_engine(mut self, engine: Box<dyn Engine>) -> Self {
        self.trainer = self.trainer.with_engine(engine);
        self
    }

    /// As [`Trainer::with_gradient_hook`].
    pub fn with_gradient_hook(mut self, hook: GradientHook) -> Self {
        self.trainer = self.trainer.with_gradient_hook(hook);
        self
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Train to the last epoch, or until the observer asks for a stop; both
    /// leave a checkpoint.
    ///
    /// # Errors
    /// As [`RunDirectory::train`].
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        self.directory.train(&mut self.trainer, observer)
    }

    /// End the run: write `detector.safetensors`, and return its path and the
    /// detector.
    ///
    /// # Errors
    /// If epochs are left, or the file cannot be written.
    pub fn finish(self) -> Result<(PathBuf, Detector)> {
        if !self.trainer.is_finished() {
            let problem = format!(
                "epoch {} of {} is the last that is done: train on",
                self.trainer.state().epoch,
                self.recipe.heat.total_epochs()
            );
            return Err(Error::Fit { what: "heat".into(), problem });
        }
        let negatives = self.trainer.seen()?;
        let heat = Fitted::on(&self.data, self.trainer.into_heat())?;
        let mut detector = Detector::new(heat.including(&negatives));
        detector.record_recipe(self.recipe.to_toml(), Some(self.recipe.heat.seed));
        let path = self.directory.path().join("detector.safetensors");
        crate::io::refuse_link(&path)?;
        detector.save(&path)?;
        Ok((path, detector))
    }
}

/// What a checkpoint must agree with: the data, the head of a prior that
/// reads it, and given negatives.
fn digest(recipe: &Recipe, data: &TrainingData) -> Result<String> {
    let mut digest: Vec<String> =
        data.features.digests()?.into_iter().map(|(_, sha256)| sha256).collect();
    if let Some(head) = data.head.as_ref().filter(|_| recipe.heat.ebm.prior.reads_head()) {
        digest.push(head.digest());
    }
    if let Some(negatives) = recipe.heat.open_negatives()? {
        digest.push(negatives.digest()?);
    }
    Ok(digest.join(" "))
}

impl Recipe {
    /// The recipe of a run, and the run's directory: `directory`, or where the
    /// recipe says. A run to be resumed starts from its own recipe.
    ///
    /// # Errors
    /// As [`Recipe::resolve`], or if the run's recipe cannot be read.
    pub fn of_run<S: AsRef<str>>(
        arguments: &[S],
        recipes: Option<&Path>,
        directory: Option<&Path>,
        resume: bool,
    ) -> Result<(Self, PathBuf)> {
        let recipe = Self::resolve(arguments, recipes)?;
        let default = || Path::new(&recipe.log_dir).join(&recipe.exp_name);
        let directory = directory.map_or_else(default, Path::to_owned);
        let saved = directory.join("recipe.toml");
        if !resume || !saved.is_file() {
            return Ok((recipe, directory));
        }
        let text = crate::io::read_text(&saved)?;
        Ok((Self::resolve_onto(&text, arguments, recipes)?, directory))
    }

    /// The part of the data that the recipe asks for, with the number of
    /// classes where the part or the recipe's dataset tells it.
    ///
    /// # Errors
    /// If there is no such part.
    pub fn training_data(&self, data: &TrainingData) -> Result<TrainingData> {
        let subset = self.subset().fit(&data.features)?;
        let named = self.dataset.as_ref().map(|d| d.num_classes).filter(|&n| n > 0);
        Ok(TrainingData {
            features: subset.apply(&data.features)?,
            head: data.head.as_ref().map(|head| subset.apply_head(head)).transpose()?,
            classes: subset.classes.as_ref().map(Vec::len).or(named).or(data.classes),
        })
    }

    /// What can be said of the recipe and the training features before
    /// anything is fitted.
    ///
    /// # Errors
    /// If the features are not the named network's, lack the field that is
    /// read, or are fewer than a batch.
    pub fn check(&self, train: &FeatureSet) -> Result<()> {
        self.check_backbone(train)?;
        train.require(Field::Features(self.heat.pooling))?;
        self.heat.check_rows(train)
    }

    /// That the features are of the named backbone's dimension.
    ///
    /// # Errors
    /// If they are not.
    pub fn check_backbone(&self, train: &FeatureSet) -> Result<()> {
        let field = Field::Features(self.heat.pooling);
        if let (Some(backbone), Some(dim)) = (&self.backbone, train.dim(field))
            && ![0, dim].contains(&backbone.dim)
        {
            let problem = format!(
                "that network has D = {}, but {} has D = {dim}; leave the argument out for \
                 features of another network",
                backbone.dim,
                train.name()
            );
            return Err(Error::config("backbone", &backbone.name, problem));
        }
        Ok(())
    }
}
