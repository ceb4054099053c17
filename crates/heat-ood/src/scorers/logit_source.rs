//! Logits for the scorers that read them: stored, or computed from `avg` and
//! the head after the feature steps.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Head, Pooling, PreprocessingConfig};
use crate::math::linalg::product_nn;
use crate::math::matmul::with_scratch;
use crate::math::parallel::{Pieces, SlicesMut};
use crate::math::{parallel, reduce};
use crate::scorers::input::{FeatureSettings, Input, contradiction, load_head, require_head};
use crate::scorers::{Section, Stored};

/// Declare the settings of a scorer of logits: its own, then the steps before
/// the head.
macro_rules! logits_settings {
    ($(#[$doc:meta])* $name:ident; $($own:tt)*) => {
        $crate::scorers::logit_source::logits_settings! {
            $(#[$doc])* $name, react = None; $($own)*
        }
    };
    ($(#[$doc:meta])* $name:ident, react = $react:expr; $($own:tt)*) => {
        $crate::scorers::input::settings_with_steps! {
            $(#[$doc])*
            $name, pooling = {}, react = $react, normalize = false,
            skip = "std::ops::Not::not";
            $($own)*
        }

        /// The steps before the head.
        impl From<&$name> for $crate::scorers::LogitsConfig {
            fn from(config: &$name) -> Self {
                $crate::scorers::LogitsConfig {
                    react: config.react,
                    normalize: config.normalize,
                    pca: config.pca,
                    whiten: config.whiten,
                }
            }
        }
    };
}
pub(super) use logits_settings;

logits_settings! {
    /// Settings shared by the scorers of logits: steps before the head, which
    /// is given the logits of the reconstruction from principal components
    /// (so that whitening them changes nothing).
    LogitsConfig;
}

/// Turn logits into ∂(−max softmax(logits/T))/∂logits, exact where the
/// largest is all but 1: −p_y(δ_jy − p_j)/T.
pub fn softmax_gradient(logits: &mut [f64], temperature: f64) {
    let top = reduce::argmax(logits) as usize;
    let largest = logits[top];
    logits.iter_mut().for_each(|l| *l = ((*l - largest) / temperature).exp());
    let total: f64 = logits.iter().sum();
    logits.iter_mut().for_each(|p| *p /= total);
    let p = logits[top];
    let others: f64 = logits.iter().enumerate().filter(|(i, _)| *i != top).map(|(_, p)| p).sum();
    logits.iter_mut().for_each(|l| *l *= p / temperature);
    logits[top] = -p * others / temperature;
}

/// Scorers that are the same for logits with one number added to a whole row,
/// so that logarithms of probabilities serve as well.
const OF_PROBABILITIES: [&str; 7] =
    ["msp", "odin", "klm", "gen", "entropy", "temperature", "feature_squeezing"];

/// What the largest logit decides is, called so in messages and in files, is one too.
const PREDICTOR: [&str; 2] = ["predicted class", "predictor"];

/// Scorers that compare the classes of a row.
const OF_SEVERAL: [&str; 13] = [
    "msp",
    "odin",
    "klm",
    "gen",
    "entropy",
    "temperature",
    "gradnorm",
    "fdbd",
    "pnml",
    "feature_squeezing",
    "odds",
    "dknn",
    "jtla",
];

/// Refuse a scorer that would be constant with one logit.
pub(crate) fn check_logit_count(scorer: &str, classes: usize) -> Result<()> {
    if classes > 1 || !OF_SEVERAL.contains(&scorer) {
        return Ok(());
    }
    let problem = "it compares the classes of a row, and here is one logit, so that every row would \
                   score the same: give two, 0 and that one, or take `el`, `max_logit` or a scorer of \
                   features";
    Err(Error::Fit { what: scorer.into(), problem: problem.into() })
}

/// Probabilities as logits, up to a number for each row. Those that are 0 have
/// been rounded to that: they count as the smallest normal number.
fn logarithms(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.max(f32::MIN_POSITIVE).ln()).collect()
}

/// Where the logits come from.
pub(crate) struct LogitSource {
    config: LogitsConfig,
    input: Option<Input>,
    /// The classifier's head, and the one for stepped features.
    head: Option<(Head, Head)>,
    classes: usize,
    /// Whether probabilities do as well.
    of_probabilities: bool,
}

const AVG: Field = Field::Features(Pooling::Avg);

impl LogitSource {
    /// Of a set that is at hand.
    pub fn fit(
        scorer: &str,
        config: LogitsConfig,
        set: &FeatureSet,
        head: Option<&Head>,
    ) -> Result<Self> {
        Self::with_input(scorer, config, set, head, &mut |config| Input::fit(config, set))
    }

    /// The same, told what `input` gives.
    pub fn with_input(
        scorer: &str,
        config: LogitsConfig,
        set: &FeatureSet,
        head: Option<&Head>,
        input: &mut dyn FnMut(&LogitsConfig) -> Result<Input>,
    ) -> Result<Self> {
        if let Some(head) = head {
            set.check_head(head)?;
        }
        let plain = config.steps() == PreprocessingConfig::default();
        let classes = match (head, set.dim(Field::Logits)) {
            (Some(head), _) => head.classes(),
            (None, Some(classes)) if plain => classes,
            (None, None) if plain && set.dim(Field::Probabilities).is_some() => {
                if !serves(scorer) {
                    return Err(of_probabilities(scorer));
                }
                set.require(Field::Probabilities)?
            }
            (None, None) if plain => {
                let remedy = "give the classifier's last layer (weight [C, D], bias [C])";
                return Err(Error::missing(set.name(), "`logits` and no head", remedy));
            }
            _ => require_head(scorer, head)?.classes(),
        };
        check_logit_count(scorer, classes)?;
        // Stored logits need no features, unless there are steps.
        let features = !plain || set.dim(AVG).is_some();
        let input = match head {
            Some(_) if features => Some(input(&config)?),
            _ => None,
        };
        Self::assemble(scorer, config, input, head.cloned(), classes)
    }

    fn assemble(
        scorer: &str,
        config: LogitsConfig,
        input: Option<Input>,
        head: Option<Head>,
        classes: usize,
    ) -> Result<Self> {
        let stepped = |head: Head| {
            let stepped = match &input {
                Some(input) => input.head(&head)?,
                None => head.clone(),
            };
            Ok::<_, Error>((head, stepped))
        };
        let of_probabilities = serves(scorer);
        Ok(LogitSource {
            head: head.map(stepped).transpose()?,
            config,
            input,
            classes,
            of_probabilities,
        })
    }

    /// Names the logits that these settings give.
    pub fn key_of(config: &LogitsConfig) -> String {
        json!(config.steps()).to_string()
    }

    /// As [`LogitSource::key_of`].
    pub fn key(&self) -> String {
        Self::key_of(&self.config)
    }

    /// Number of classes C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The head, when it reads plain features.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref().map(|(head, _)| head)
    }

    fn plain(&self) -> bool {
        self.config.steps() == PreprocessingConfig::default()
    }

    pub fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        let stored = self.plain() && set.dim(Field::Logits).is_some();
        let computed = self.head.is_some() && set.dim(AVG).is_some();
        let probabilities = set.dim(Field::Probabilities).is_some();
        if !stored && !computed && probabilities && self.plain() && self.of_probabilities {
            return FieldSet::checked(set, Field::Probabilities, self.classes);
        }
        match &self.head {
            Some((head, _)) if !stored => {
                set.require(AVG)?;
                set.check_head(head)?;
                Ok(FieldSet::of(AVG))
            }
            _ => FieldSet::checked(set, Field::Logits, self.classes),
        }
    }

    /// The logits of a batch, `[n, C]`.
    pub fn logits(&self, batch: &Batch) -> Vec<f32> {
        let stored = batch.get(Field::Logits);
        let probabilities = batch.get(Field::Probabilities);
        let computed = self.head.is_some() && !batch.get(AVG).is_empty();
        if stored.is_empty() && !probabilities.is_empty() && !computed {
            return logarithms(probabilities);
        }
        match &self.head {
            // Logits read for another scorer of a composition are without steps.
            Some((_, head)) if stored.is_empty() || !self.plain() => {
                let stepped = match &self.input {
                    Some(input) => input.stepped(batch),
                    None => Cow::Borrowed(batch.get(AVG)),
                };
                let mut logits = vec![0.0; batch.rows() * self.classes];
                with_scratch(|scratch| head.logits(&stepped, &mut logits, scratch));
                logits
            }
            _ => stored.to_vec(),
        }
    }

    /// The logits of some rows of a set, on all threads.
    pub fn logits_of(
        &self,
        set: &FeatureSet,
        needs: &FieldSet,
        range: Range<usize>,
    ) -> Result<Vec<f32>> {
        const ROWS: usize = 256;
        let mut out = vec![0.0; range.len() * self.classes];
        let piece = |(i, out): (usize, &mut [f32])| {
            let start = range.start + i * ROWS;
            let mut batch = Batch::default();
            set.batch(needs, start..start + out.len() / self.classes, &mut batch)?;
            out.copy_from_slice(&self.logits(&batch));
            Ok(())
        };
        parallel::run_all(out.par_chunks_mut(ROWS * self.classes).enumerate().map(piece))?;
        Ok(out)
    }

    /// Call `f` with the logits of each row.
    pub fn rows(&self, batch: &Batch, out: &mut [f32], f: impl Fn(&mut [f32]) -> f32) {
        let mut logits = self.logits(batch);
        for (o, row) in out.iter_mut().zip(logits.chunks_exact_mut(self.classes)) {
            *o = f(row);
        }
    }

    /// Add `scale`·gradient to the field that the logits come from; `f` turns
    /// the logits of a row into the score's gradient with respect to them.
    pub fn gradient(
        &self,
        batch: &Batch,
        scale: f64,
        out: &mut Batch,
        f: impl Fn(&mut [f64]),
    ) -> Result<()> {
        let mut logits: Vec<f64> = self.logits(batch).into_iter().map(f64::from).collect();
        if logits.len() != batch.rows() * self.classes {
            let remedy = "the network's last linear layer gives them";
            return Err(Error::missing("the network", "logits of that many classes", remedy));
        }
        logits.chunks_exact_mut(self.classes).for_each(f);
        match &self.head {
            Some((_, head)) if batch.get(Field::Logits).is_empty() || !self.plain() => {
                let weight: Vec<f64> = head.weight().iter().map(|&w| f64::from(w)).collect();
                let mut stepped = vec![0.0; batch.rows() * head.dim()];
                product_nn(&logits, &weight, &mut stepped, self.classes);
                let rows = batch.get(AVG);
                let gradient = match &self.input {
                    Some(input) => input.steps.gradient(rows, input.input_dim, &stepped),
                    None => stepped,
                };
                out.add(AVG, scale, &gradient);
            }
            _ => out.add(Field::Logits, scale, &logits),
        }
        Ok(())
    }

    pub fn section(&self, kind: &str) -> Section {
        let config = json!({
            "settings": self.config,
            "classes": self.classes,
            "head": self.head.is_some(),
        });
        let mut section = Section::new(kind, config);
        if let Some((head, _)) = &self.head {
            section = section.with("head.", head.tensors());
        }
        match &self.input {
            Some(input) => section.with("", input.tensors()),
            None => section,
        }
    }

    pub fn load(stored: &Stored<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            settings: LogitsConfig,
            classes: usize,
            head: bool,
        }
        let Config { settings, classes, head } = stored.config()?;
        let head = head.then(|| load_head(stored.file, &stored.name("head."))).transpose()?;
        if head.as_ref().is_some_and(|h| h.classes() != classes) || classes == 0 {
            return Err(contradiction(stored));
        }
        let input = match &head {
            Some(head) => Some(Input::load_with(stored, &settings, head.dim())?),
            None => None,
        };
        Self::assemble(stored.kind(), settings, input, head, classes)
    }
}

/// Whether probabilities serve that scorer.
fn serves(scorer: &str) -> bool {
    OF_PROBABILITIES.contains(&scorer) || PREDICTOR.contains(&scorer)
}

/// The refusal of scorers that ask for more than probabilities tell.
fn of_probabilities(scorer: &str) -> Error {
    let works = OF_PROBABILITIES.join(", ");
    let problem = format!(
        "it reads how large the logits are, and `probs` do not tell that; give `logits`, or take one \
         of {works}"
    );
    Error::Fit { what: scorer.into(), problem }
}
