//! A training set that scorers are fitted on, and what was found about it.
//!
//! Fits that are sums are [`Statistic`]s. Those of many scorers are gathered
//! in one pass over the rows ([`FitContext::gather_possible`]), each under a key, so that
//! scorers which need the same one (the moments of `gmm`, `ssd` and `rmds`)
//! share it. A scorer fitted alone finds its own when it asks.

use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::sync::Arc;

use super::LogitsConfig;
use super::fit::TrainingData;
use super::input::{FeatureSettings, Input};
use super::logit_source::LogitSource;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head, Present};
use crate::io::check_moments;
use crate::math::blocks;
use crate::math::matmul::with_scratch;
use crate::math::moments::Moments;
use crate::observe::{Event, Observer};

/// A sum over the rows of a training set.
pub(crate) trait Statistic: Any + Send + Sync {
    /// Take in the rows of a block; blocks come in order.
    fn update(&mut self, block: &Block<'_>) -> Result<()>;
}

/// A statistic to be found, under the key by which scorers share it.
pub(crate) struct StatisticRequest {
    pub key: String,
    pub statistic: Box<dyn Statistic>,
}

/// Stepped features, with the key of their steps.
#[derive(Clone)]
pub(crate) struct Source {
    pub key: String,
    pub input: Input,
}

impl Deref for Source {
    type Target = Input;
    fn deref(&self) -> &Input {
        &self.input
    }
}

/// Some rows of the training set; what is made of them is made once.
pub(crate) struct Block<'a> {
    pub train: &'a FeatureSet,
    pub range: Range<usize>,
    made: RefCell<HashMap<String, Rows<'a>>>,
}

/// Rows made of a block, or the set's own.
type Rows<'a> = Rc<Cow<'a, [f32]>>;

impl<'a> Block<'a> {
    fn once(&self, key: String, make: impl FnOnce() -> Result<Cow<'a, [f32]>>) -> Result<Rows<'a>> {
        if let Some(found) = self.made.borrow().get(&key) {
            return Ok(Rc::clone(found));
        }
        let made = Rc::new(make()?);
        self.made.borrow_mut().insert(key, Rc::clone(&made));
        Ok(made)
    }

    /// Stepped rows, `[n, dim]`.
    pub fn rows(&self, source: &Source) -> Result<Rows<'a>> {
        self.once(source.key.clone(), || source.rows(self.train, self.range.clone()))
    }

    /// Logits that `head`, the classifier's for stepped features, gives the
    /// stepped rows, `[n, C]`.
    pub fn head_logits(&self, source: &Source, head: &Head) -> Result<Rows<'a>> {
        use crate::math::parallel::{Pieces, Slices, SlicesMut};
        let rows = self.rows(source)?;
        self.once(format!("head {}", source.key), || {
            let (rows, classes) = (&**rows, head.classes());
            let mut out = vec![0.0; self.range.len() * classes];
            let pieces = rows.par_chunks(256 * source.dim);
            let pieces = pieces.zip(out.par_chunks_mut(256 * classes));
            pieces.for_each(|(rows, out)| {
                with_scratch(|scratch| head.logits(rows, out, scratch));
            });
            Ok(Cow::Owned(out))
        })
    }

    /// Logits, `[n, C]`.
    pub fn logits(&self, source: &LogitSource) -> Result<Rows<'a>> {
        self.once(format!("logits {}", source.key()), || {
            let needs = source.needs(self.train)?;
            source.logits_of(self.train, &needs, self.range.clone()).map(Cow::Owned)
        })
    }
}

/// A training set, the classifier's head, and the statistics found so far.
pub(crate) struct FitContext<'a> {
    pub train: &'a FeatureSet,
    pub head: Option<&'a Head>,
    pub observer: &'a mut dyn Observer,
    data: &'a TrainingData,
    sources: HashMap<String, Source>,
    logits: HashMap<String, Arc<LogitSource>>,
    found: HashMap<String, Arc<dyn Statistic>>,
    present: Option<Arc<Present>>,
}

impl<'a> FitContext<'a> {
    pub fn new(data: &'a TrainingData, observer: &'a mut dyn Observer) -> Self {
        let (sources, logits, found) = Default::default();
        let (train, head) = (&data.features, data.head.as_ref());
        FitContext { data, train, head, observer, sources, logits, found, present: None }
    }

    /// Number of classes.
    ///
    /// # Errors
    /// If nothing tells.
    pub fn classes(&self) -> Result<usize> {
        self.data.count_classes()
    }

    /// The classes that have rows: what one class each is fitted for.
    ///
    /// # Errors
    /// If nothing tells, or a row has a label that is no class.
    pub fn present(&mut self) -> Result<Arc<Present>> {
        if let Some(found) = &self.present {
            return Ok(Arc::clone(found));
        }
        let classes = self.classes()?;
        let present = Arc::new(self.train.present(classes)?);
        let (absent, first) = present.absent(5);
        if absent > 0 {
            let more = if absent > first.len() { ", …" } else { "" };
            let first: Vec<String> = first.iter().map(usize::to_string).collect();
            self.observer.on(Event::Note(&format!(
                "{absent} of {classes} classes have no row in {} and take no part in the fit ({}{more})",
                self.train.name(),
                first.join(", ")
            )));
        }
        self.present = Some(Arc::clone(&present));
        Ok(present)
    }

    /// The number of classes, if anything tells.
    pub fn known_classes(&self) -> Result<Option<usize>> {
        self.data.known_classes()
    }

    /// The features that these settings read, their steps fitted.
    pub fn source(&mut self, settings: &impl FeatureSettings) -> Result<Source> {
        let steps = settings.steps();
        let key = format!("{} {}", settings.pooling().name(), serde_json::json!(steps));
        if let Some(found) = self.sources.get(&key) {
            return Ok(found.clone());
        }
        let input = Input::fit(settings, self.train)?;
        let source = Source { key: key.clone(), input };
        self.sources.insert(key, source.clone());
        Ok(source)
    }

    /// Where the logits come from with these steps.
    pub fn logits(&mut self, scorer: &str, config: &LogitsConfig) -> Result<Arc<LogitSource>> {
        let key = LogitSource::key_of(config);
        if let Some(found) = self.logits.get(&key) {
            return Ok(Arc::clone(found));
        }
        let source = Arc::new(LogitSource::fit(scorer, config.clone(), self.train, self.head)?);
        self.logits.insert(key, Arc::clone(&source));
        Ok(source)
    }

    /// Find all of these that are not known yet, in one pass.
    ///
    /// # Errors
    /// If a row cannot be read.
    fn gather(&mut self, requests: Vec<StatisticRequest>) -> Result<()> {
        self.look(requests, &mut Err)
    }

    /// The same of those that can be found; who asks for another later gets its error.
    pub fn gather_possible(&mut self, requests: Vec<StatisticRequest>) {
        let ended = self.look(requests, &mut |_| Ok(()));
        debug_assert!(ended.is_ok(), "no error was passed on");
    }

    /// One pass over the rows. A request that fails is given up, unless `failed` ends the pass.
    fn look(
        &mut self,
        requests: Vec<StatisticRequest>,
        failed: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let mut open: Vec<StatisticRequest> = Vec::new();
        for request in requests {
            let known = self.found.contains_key(&request.key);
            if !known && open.iter().all(|o| o.key != request.key) {
                open.push(request);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let total = self.train.len() as u64;
        self.observer.on(Event::Begin { task: "fit", total });
        // All blocks are of one size, so that no result depends on what else is gathered.
        let own = self.train.fields().filter(|f| f.part().is_none());
        let dim = own.filter_map(|f| self.train.dim(f)).max();
        for range in blocks(self.train.len(), Moments::block_rows(dim.unwrap_or(1))) {
            let done = range.end as u64;
            let block = Block { train: self.train, range, made: RefCell::default() };
            let mut left = Vec::with_capacity(open.len());
            for mut request in open {
                match request.statistic.update(&block) {
                    Ok(()) => left.push(request),
                    Err(error) => failed(error)?,
                }
            }
            open = left;
            self.observer.on(Event::Advance { done, loss: None });
        }
        self.observer.on(Event::End);
        self.found.extend(open.into_iter().map(|r| (r.key, Arc::from(r.statistic))));
        Ok(())
    }

    /// The statistic of a request, found now unless it is known.
    ///
    /// # Errors
    /// As [`FitContext::gather`].
    pub fn find<S: Statistic>(&mut self, request: StatisticRequest) -> Result<Arc<S>> {
        let key = request.key.clone();
        self.gather(vec![request])?;
        let found: Arc<dyn Any + Send + Sync> = self.found[&key].clone();
        Ok(found.downcast().expect("a key names one type of statistic"))
    }

    /// Call `f` with every block of stepped rows, in order: for what needs
    /// other statistics first.
    ///
    /// # Errors
    /// As `f`, or if a row cannot be read.
    pub fn pass(
        &mut self,
        source: &Source,
        task: &str,
        f: impl FnMut(Range<usize>, &[f32]) -> Result<()>,
    ) -> Result<()> {
        source.input.each_block(self.train, task, self.observer, f)
    }
}

/// How rows are put together in [`ClassMoments`].
#[derive(Clone)]
pub(crate) enum By {
    /// All in one class.
    All,
    /// By label.
    Label(Arc<Present>),
}

/// Means of classes and the scatter matrix about them.
pub(crate) struct ClassMoments {
    source: Source,
    by: By,
    pub moments: Moments,
}

impl ClassMoments {
    /// What `scorer` asks for.
    ///
    /// # Errors
    /// If it takes more memory than is allowed.
    pub fn request(scorer: &str, source: &Source, by: By) -> Result<StatisticRequest> {
        let (classes, of) = match &by {
            By::All => (1, "all"),
            By::Label(present) => (present.count, "classes"),
        };
        check_moments(scorer, source.dim, classes)?;
        let moments = Moments::new(source.dim, classes);
        let key = format!("moments of {of} {}", source.key);
        let statistic = Box::new(ClassMoments { source: source.clone(), by, moments });
        Ok(StatisticRequest { key, statistic })
    }
}

impl Statistic for ClassMoments {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let labels = match &self.by {
            By::All => vec![0; block.range.len()],
            By::Label(present) => present.labels(block.train, block.range.clone())?,
        };
        self.moments.update(&block.rows(&self.source)?, &labels);
        Ok(())
    }
}
