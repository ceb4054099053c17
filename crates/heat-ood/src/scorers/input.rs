//! What scorers of features have in common: which pooled features they read,
//! the steps before their formula, and the pass over the training set.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Stored;
use crate::error::{Error, Result};
use crate::features::{
    Batch, FeatureSet, Field, FieldSet, Head, MAX_DIM, Pooling, Preprocessing, PreprocessingConfig,
};
use crate::io::{Tensor, TensorFile};
use crate::math::blocks;
use crate::math::matmul::with_scratch;
use crate::math::moments::Moments;
use crate::math::parallel::{Pieces, SlicesMut, run_all};
use crate::observe::{Event, Observer};

/// Declare the settings of a scorer: its own, then the common steps, all on
/// one level (which serde's `flatten` does not allow beside unknown keys that
/// are errors). [`feature_settings!`] and `logits_settings!` are what is used.
macro_rules! settings_with_steps {
    (
        $(#[$doc:meta])*
        $name:ident, pooling = {$($pooling:ident)?}, react = $react:expr,
        normalize = $normalize:literal, skip = $skip:literal;
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            $(
                /// Which pooled features.
                pub $pooling: $crate::features::Pooling,
            )?
            /// Clip at this quantile of all training coordinates first (ReAct).
            #[serde(skip_serializing_if = "Option::is_none")]
            pub react: Option<f64>,
            /// Divide each row by its L2 norm.
            #[serde(skip_serializing_if = $skip)]
            pub normalize: bool,
            /// Project on this many principal components.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub pca: Option<usize>,
            /// Whiten the components.
            #[serde(skip_serializing_if = $skip)]
            pub whiten: bool,
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    $($field: $default,)*
                    $($pooling: $crate::features::Pooling::Avg,)?
                    react: $react,
                    normalize: $normalize,
                    pca: None,
                    whiten: false,
                }
            }
        }

        impl $crate::scorers::input::FeatureSettings for $name {
            fn pooling(&self) -> $crate::features::Pooling {
                $crate::scorers::input::settings_with_steps!(@pooling self $($pooling)?)
            }

            fn steps(&self) -> $crate::features::PreprocessingConfig {
                $crate::features::PreprocessingConfig {
                    react: self.react,
                    normalize: self.normalize,
                    pca: self.pca,
                    whiten: self.whiten,
                }
            }
        }
    };
    (@pooling $self:ident) => { $crate::features::Pooling::Avg };
    (@pooling $self:ident $pooling:ident) => { $self.$pooling };
}
pub(crate) use settings_with_steps;

/// Declare the settings of a scorer of features.
macro_rules! feature_settings {
    (
        $(#[$doc:meta])*
        $name:ident, normalize = $normalize:literal;
        $($own:tt)*
    ) => {
        $crate::scorers::input::settings_with_steps! {
            $(#[$doc])*
            $name, pooling = {pooling}, react = None, normalize = $normalize,
            skip = "crate::scorers::input::never";
            $($own)*
        }
    };
}
pub(crate) use feature_settings;

/// That a setting is always written.
pub(crate) fn never(_: &bool) -> bool {
    false
}

/// What [`settings_with_steps!`] declares for every scorer.
pub(crate) trait FeatureSettings: DeserializeOwned {
    /// Which pooled features.
    fn pooling(&self) -> Pooling;

    /// The feature steps among the settings.
    fn steps(&self) -> PreprocessingConfig;
}

/// The features a fitted scorer reads.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub pooling: Pooling,
    pub steps: Preprocessing,
    /// Columns before the steps.
    pub input_dim: usize,
    /// Columns after them.
    pub dim: usize,
}

impl Input {
    pub fn fit(settings: &impl FeatureSettings, train: &FeatureSet) -> Result<Self> {
        let pooling = settings.pooling();
        let input_dim = Self::columns(train, pooling)?;
        Ok(Self::of(pooling, input_dim, settings.steps().fit(train, pooling)?))
    }

    /// Features of so many columns, and the steps that follow.
    pub fn of(pooling: Pooling, input_dim: usize, steps: Preprocessing) -> Self {
        Input { pooling, dim: steps.out_dim(input_dim), steps, input_dim }
    }

    /// Columns of the features.
    ///
    /// # Errors
    /// If there are none, or too many.
    pub fn columns(train: &FeatureSet, pooling: Pooling) -> Result<usize> {
        let columns = train.require(Field::Features(pooling))?;
        if columns > MAX_DIM {
            let problem = format!("features of {columns} columns, and {MAX_DIM} are the most");
            return Err(Error::format(train.name(), problem));
        }
        Ok(columns)
    }

    pub fn field(&self) -> Field {
        Field::Features(self.pooling)
    }

    /// The fields to read of `set`, which must have them in training's dimension.
    pub fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        FieldSet::checked(set, self.field(), self.input_dim)
    }

    /// Stepped features of a batch, `[n, dim]`.
    pub fn stepped<'a>(&self, batch: &'a Batch) -> Cow<'a, [f32]> {
        let rows = batch.get(self.field());
        if self.steps.is_identity() {
            return Cow::Borrowed(rows);
        }
        Cow::Owned(self.steps.apply(rows, self.input_dim))
    }

    /// The features of a batch, which must have them in training's dimension.
    pub fn checked<'a>(&self, batch: &'a Batch) -> Result<&'a [f32]> {
        let (field, dim) = (self.field(), self.input_dim);
        if batch.dim(field) == dim {
            return Ok(batch.get(field));
        }
        Err(Error::Shape {
            place: "the network".into(),
            tensor: field.name().into(),
            expected: format!("[N, {dim}], as in training"),
            got: format!("[N, {}]", batch.dim(field)),
        })
    }

    /// Stepped rows of a range, on the current thread.
    pub fn read(&self, set: &FeatureSet, range: Range<usize>) -> Result<Vec<f32>> {
        let mut rows = vec![0.0; range.len() * self.input_dim];
        set.read(self.field(), range, &mut rows)?;
        Ok(self.steps.apply(&rows, self.input_dim))
    }

    /// The same on all threads.
    pub fn rows<'a>(&self, set: &'a FeatureSet, range: Range<usize>) -> Result<Cow<'a, [f32]>> {
        if self.steps.is_identity() {
            return set.rows(self.field(), range);
        }
        const ROWS: usize = 256;
        let mut out = vec![0.0; range.len() * self.dim];
        let piece = |(i, out): (usize, &mut [f32])| {
            let start = range.start + i * ROWS;
            let range = start..start + out.len() / self.dim;
            if self.steps.pca.is_some() {
                out.copy_from_slice(&self.read(set, range)?);
                return Ok(());
            }
            set.read(self.field(), range, out)?;
            self.steps.clip_and_normalize(out, self.dim);
            Ok(())
        };
        run_all(out.par_chunks_mut(ROWS * self.dim).enumerate().map(piece))?;
        Ok(Cow::Owned(out))
    }

    /// Call `f` with the stepped rows of every block of the training set, in order.
    pub fn each_block(
        &self,
        train: &FeatureSet,
        task: &str,
        observer: &mut dyn Observer,
        mut f: impl FnMut(Range<usize>, &[f32]) -> Result<()>,
    ) -> Result<()> {
        observer.on(Event::Begin { task, total: train.len() as u64 });
        for range in blocks(train.len(), Moments::block_rows(self.input_dim)) {
            f(range.clone(), &self.rows(train, range.clone())?)?;
            observer.on(Event::Advance { done: range.end as u64, loss: None });
        }
        observer.on(Event::End);
        Ok(())
    }

    /// The head for stepped features. Principal components y of z give the
    /// logits of their reconstruction, z ≈ mean + Σ_j y_j c_j/‖c_j‖².
    pub fn head(&self, head: &Head) -> Result<Head> {
        if head.dim() != self.input_dim {
            return Err(Error::Shape {
                place: "head".into(),
                tensor: "weight".into(),
                expected: format!("[C, {}], the dimension of the features", self.input_dim),
                got: format!("[{}, {}]", head.classes(), head.dim()),
            });
        }
        let Some(pca) = &self.steps.pca else {
            return Ok(head.clone());
        };
        let dot =
            |w: &[f32], c: &[f64]| -> f64 { w.iter().zip(c).map(|(&w, c)| f64::from(w) * c).sum() };
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for (row, &b) in head.weight().chunks_exact(self.input_dim).zip(head.bias()) {
            for c in pca.components.chunks_exact(self.input_dim) {
                let square: f64 = c.iter().map(|v| v * v).sum();
                weight.push((dot(row, c) / square) as f32);
            }
            bias.push((f64::from(b) + dot(row, &pca.mean)) as f32);
        }
        Head::new(weight, bias)
    }

    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.steps.tensors(self.input_dim)
    }

    /// The settings of a stored scorer, with what it reads.
    pub fn load<S: FeatureSettings>(stored: &Stored<'_>) -> Result<(S, Self)> {
        #[derive(Deserialize)]
        #[serde(bound = "")]
        struct Config<S: FeatureSettings> {
            settings: S,
            input_dim: usize,
        }
        let Config::<S> { settings, input_dim } = stored.config()?;
        let input = Self::load_with(stored, &settings, input_dim)?;
        Ok((settings, input))
    }

    /// The same, where settings and columns are known.
    pub fn load_with(
        stored: &Stored<'_>,
        settings: &impl FeatureSettings,
        input_dim: usize,
    ) -> Result<Self> {
        let steps = Preprocessing::load(
            stored.file,
            &stored.prefix,
            &settings.steps(),
            settings.pooling(),
        )?;
        let dim = steps.out_dim(input_dim);
        let fits = steps.pca.as_ref().is_none_or(|p| p.mean.len() == input_dim);
        if dim == 0 || dim.max(input_dim) > MAX_DIM || !fits {
            return Err(contradiction(stored));
        }
        Ok(Input { pooling: settings.pooling(), steps, input_dim, dim })
    }
}

/// The error of a detector whose parts do not fit each other.
pub(crate) fn contradiction(stored: &Stored<'_>) -> Error {
    let problem =
        format!("the dimensions or values of its `{}` contradict each other", stored.kind());
    Error::format(stored.file.path(), problem)
}

/// What a head gives stepped rows, `[n, C]`, on the current thread.
pub(crate) fn head_logits(head: &Head, rows: &[f32]) -> Vec<f32> {
    let mut logits = vec![0.0; rows.len() / head.dim() * head.classes()];
    with_scratch(|scratch| head.logits(rows, &mut logits, scratch));
    logits
}

/// Read `weight` and `bias` under `prefix`.
pub(crate) fn load_head(file: &TensorFile, prefix: &str) -> Result<Head> {
    let weight = format!("{prefix}weight");
    let shape = file.shape(&weight)?.to_vec();
    let bias = file.f32(&format!("{prefix}bias"), &shape[..1.min(shape.len())])?;
    Head::new(file.f32(&weight, &shape)?, bias)
}

/// The head, or an error that says who needs it.
pub(crate) fn require_head<'a>(scorer: &str, head: Option<&'a Head>) -> Result<&'a Head> {
    head.ok_or_else(|| {
        let who = format!("the scorer `{scorer}`");
        let remedy = "give the classifier's last layer (weight [C, D], bias [C])";
        Error::needs(who, "a head", remedy)
    })
}

/// A default of METHOD §3 that goes with the ID set, told by its number of
/// classes: CIFAR-10, CIFAR-100, ImageNet.
pub(crate) fn by_classes<T>(classes: usize, [cifar10, cifar100, imagenet]: [T; 3]) -> T {
    match classes {
        0..100 => cifar10,
        100..1000 => cifar100,
        _ => imagenet,
    }
}
