//! A training set that scorers are fitted on, and what was found about it.
//!
//! Fits that are sums are [`Statistic`]s. Those of many scorers are gathered
//! in one pass over the rows ([`FitContext::gather_possible`]), each under a key, so that
//! scorers which need the same one (the moments of `gmm`, `ssd` and `rmds`)
//! share it. A scorer fitted alone finds its own when it asks.
//!
//! Where the rows are in parts ([`Rounds`]), a statistic is what was merged of it, or is gathered from
//! the part at hand to be merged. A fit that asks for one which depends on others takes another round.

use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::sync::Arc;

use super::LogitsConfig;
use super::fit::TrainingData;
use super::input::{FeatureSettings, Input};
use super::logit_source::LogitSource;
use super::pieces::{Piece, Slot};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field, FieldSet, Head, Pooling, Preprocessing, Present, Sought};
use crate::io::check_moments;
use crate::math::blocks;
use crate::math::matmul::with_scratch;
use crate::math::moments::Moments;
use crate::math::quantile::{Histogram, LowBits};
use crate::observe::{Event, Observer};

/// A sum over the rows of a training set.
pub(crate) trait Statistic: Any + Send + Sync {
    /// Take in the rows of a block; blocks come in order.
    fn update(&mut self, block: &Block<'_>) -> Result<()>;

    /// Where it holds what it has found, always in this order.
    fn slots(&mut self) -> Vec<Slot<'_>>;
}

/// What statistics of parts of the rows are made of, by key.
pub(crate) type Gathered = BTreeMap<String, Vec<Piece>>;

/// Statistics of rows that are in parts.
pub(crate) struct Rounds<'a> {
    /// Merged, of all parts.
    pub known: &'a Gathered,
    /// Those of the part at hand; none where no rows are at hand.
    pub part: Option<Gathered>,
    /// How many rows there are in all, once that is known.
    pub rows: Option<usize>,
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
    rounds: Option<Rounds<'a>>,
    /// Asked for on the way, to be found in the next pass.
    waiting: Vec<StatisticRequest>,
    /// What fits read of the rows.
    read: Vec<Field>,
}

impl<'a> FitContext<'a> {
    pub fn new(data: &'a TrainingData, observer: &'a mut dyn Observer) -> Self {
        let (sources, logits, found) = Default::default();
        let (train, head) = (&data.features, data.head.as_ref());
        let (present, rounds, waiting, read) = Default::default();
        FitContext {
            data,
            train,
            head,
            observer,
            sources,
            logits,
            found,
            present,
            rounds,
            waiting,
            read,
        }
    }

    /// Of rows that are in parts.
    pub fn in_rounds(
        data: &'a TrainingData,
        rounds: Rounds<'a>,
        observer: &'a mut dyn Observer,
    ) -> Self {
        FitContext { rounds: Some(rounds), ..Self::new(data, observer) }
    }

    /// The statistics of the part at hand, and the fields that were read.
    pub fn into_part(self) -> (Gathered, Vec<Field>) {
        (self.rounds.and_then(|rounds| rounds.part).unwrap_or_default(), self.read)
    }

    /// Say that a fit reads a field, which a part of the rows must have.
    pub fn reads(&mut self, field: Field) {
        for field in FieldSet::of(field).stored().fields() {
            if self.train.dim(field).is_some() && !self.read.contains(&field) {
                self.read.push(field);
            }
        }
    }

    /// Number of training rows, in all parts. (While the first round is gathered, of the part: no
    /// statistic of that round depends on it.)
    pub fn rows(&self) -> usize {
        self.rounds.as_ref().and_then(|rounds| rounds.rows).unwrap_or(self.train.len())
    }

    /// Whether the rows are in parts.
    pub fn in_parts(&self) -> bool {
        self.rounds.is_some()
    }

    /// Refuse a fit that reads the rows themselves where they are in parts.
    ///
    /// # Errors
    /// If they are.
    pub fn require_rows(&self, what: &str) -> Result<()> {
        if self.rounds.is_none() {
            return Ok(());
        }
        let problem = "it reads the rows themselves, all of them, and not sums over them: fit it on one \
                       machine, on some of the rows";
        Err(Error::Fit { what: what.into(), problem: problem.into() })
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
        let present = Arc::new(match self.rounds {
            None => self.train.present(classes)?,
            Some(_) => self.present_in_parts(classes)?,
        });
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

    /// The classes that have rows in any part. While the parts are counted it is not known which
    /// do: then all.
    fn present_in_parts(&mut self, classes: usize) -> Result<Present> {
        let request = LabelCounts::request(classes);
        let known = self.rounds.as_ref().is_some_and(|r| r.known.contains_key(&request.key));
        let gathering = self.rounds.as_ref().is_some_and(|r| r.part.is_some());
        if gathering && !known {
            self.train.check_classes(classes)?;
            self.waiting.push(request);
            return Ok(Present::all(classes));
        }
        let found = self.find::<LabelCounts>(request)?;
        Ok(Present::of_counts(&found.counts))
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
        self.reads(Field::Features(settings.pooling()));
        let input = match self.rounds {
            None => Input::fit(settings, self.train)?,
            Some(_) => self.input_in_parts(settings)?,
        };
        let source = Source { key: key.clone(), input };
        self.sources.insert(key, source.clone());
        Ok(source)
    }

    /// The same where the rows are in parts: by statistics of them.
    fn input_in_parts(&mut self, settings: &impl FeatureSettings) -> Result<Input> {
        let pooling = settings.pooling();
        let input_dim = Input::columns(self.train, pooling)?;
        let found = &mut InParts { context: self, pooling, input_dim };
        Ok(Input::of(pooling, input_dim, settings.steps().fit_by(pooling, input_dim, found)?))
    }

    /// Where the logits of a scorer come from.
    pub fn logit_source(&mut self, scorer: &str, config: LogitsConfig) -> Result<LogitSource> {
        let (set, head) = (self.train, self.head);
        self.reads(Field::Logits);
        self.reads(Field::Probabilities);
        let input = &mut |config: &LogitsConfig| Ok(self.source(config)?.input);
        LogitSource::with_input(scorer, config, set, head, input)
    }

    /// The same, shared by those that have these steps.
    pub fn logits(&mut self, scorer: &str, config: &LogitsConfig) -> Result<Arc<LogitSource>> {
        let key = LogitSource::key_of(config);
        if let Some(found) = self.logits.get(&key) {
            return Ok(Arc::clone(found));
        }
        let source = Arc::new(self.logit_source(scorer, config.clone())?);
        self.logits.insert(key, Arc::clone(&source));
        Ok(source)
    }

    /// Find those that can be found, and what else is waited for, in one pass; who asks for another later
    /// gets its error.
    pub fn gather_possible(&mut self, requests: Vec<StatisticRequest>) {
        let mut requests = requests;
        requests.append(&mut self.waiting);
        requests.retain(|request| !self.is_known(&request.key));
        // An error here is told to who asks.
        if let Ok(found) = self.look(requests, &mut |_| Ok(())) {
            self.keep(found);
        }
    }

    /// Whether a statistic is found, was merged, or is gathered from this part.
    fn is_known(&self, key: &str) -> bool {
        let rounds = self.rounds.as_ref();
        let part = rounds.and_then(|r| r.part.as_ref()).is_some_and(|part| part.contains_key(key));
        let merged = rounds.is_some_and(|r| r.known.contains_key(key) || r.part.is_none());
        self.found.contains_key(key) || part || merged
    }

    /// Of all rows they are found; of a part they are there to be merged.
    fn keep(&mut self, found: Vec<StatisticRequest>) {
        match self.rounds.as_mut().and_then(|rounds| rounds.part.as_mut()) {
            None => self.found.extend(found.into_iter().map(|r| (r.key, Arc::from(r.statistic)))),
            Some(part) => part.extend(found.into_iter().map(|mut r| {
                let pieces = r.statistic.slots().into_iter().map(Slot::take).collect();
                (r.key, pieces)
            })),
        }
    }

    /// One pass over the rows. A request that fails is given up, unless `failed` ends the pass.
    fn look(
        &mut self,
        requests: Vec<StatisticRequest>,
        failed: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<Vec<StatisticRequest>> {
        let mut open: Vec<StatisticRequest> = Vec::new();
        for request in requests {
            let known = self.found.contains_key(&request.key);
            if !known && open.iter().all(|o| o.key != request.key) {
                open.push(request);
            }
        }
        if open.is_empty() {
            return Ok(open);
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
        Ok(open)
    }

    /// The statistic of a request, found now unless it is known.
    ///
    /// # Errors
    /// If a row cannot be read; [`Error::AnotherRound`] where rows are in parts and it has not
    /// been merged.
    pub fn find<S: Statistic>(&mut self, mut request: StatisticRequest) -> Result<Arc<S>> {
        let key = request.key.clone();
        if !self.found.contains_key(&key) {
            match self.rounds.as_ref().map(|rounds| rounds.known.get(&key)) {
                None => {
                    let found = self.look(vec![request], &mut Err)?;
                    self.keep(found);
                }
                Some(Some(pieces)) => {
                    let mut slots = request.statistic.slots();
                    let alike = slots.len() == pieces.len();
                    let put = slots.drain(..).zip(pieces).all(|(s, piece)| s.put(piece).is_some());
                    drop(slots);
                    if !alike || !put {
                        let problem = format!("they are of other features or classes (`{key}`)");
                        return Err(Error::Fit { what: "from these statistics".into(), problem });
                    }
                    self.found.insert(key.clone(), Arc::from(request.statistic));
                }
                Some(None) => {
                    if !self.is_known(&key) {
                        let found = self.look(vec![request], &mut Err)?;
                        self.keep(found);
                    }
                    return Err(Error::AnotherRound { what: key });
                }
            }
        }
        let found: Arc<dyn Any + Send + Sync> = self.found[&key].clone();
        Ok(found.downcast().expect("a key names one type of statistic"))
    }

    /// Reads stepped rows of a range, for scorers that hold rows: of the set, or of what was merged.
    ///
    /// # Errors
    /// As [`FitContext::find`].
    pub fn stepped_rows(&mut self, source: &Source) -> Result<StoredRows<'a>> {
        let input = source.input.clone();
        if self.rounds.is_none() {
            return Ok(StoredRows::Set(self.train, input));
        }
        let statistic = Box::new(SteppedRows { source: source.clone(), rows: Arc::default() });
        let request = StatisticRequest { key: format!("rows {}", source.key), statistic };
        let found = self.find::<SteppedRows>(request)?;
        if self.rows().checked_mul(source.dim) != Some(found.rows.len()) {
            let problem = "other rows were kept than were counted: they are damaged".to_owned();
            return Err(Error::Fit { what: "from these statistics".into(), problem });
        }
        Ok(StoredRows::Merged(found))
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
        self.require_rows(task)?;
        source.input.each_block(self.train, task, self.observer, f)
    }
}

/// Stepped rows of the training set.
pub(crate) enum StoredRows<'a> {
    Set(&'a FeatureSet, Input),
    Merged(Arc<SteppedRows>),
}

impl StoredRows<'_> {
    /// Those of a range, `[n, dim]`, on the current thread.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<f32>> {
        match self {
            StoredRows::Set(set, input) => input.read(set, range),
            StoredRows::Merged(merged) => {
                let dim = merged.source.dim;
                Ok(merged.rows[range.start * dim..range.end * dim].to_vec())
            }
        }
    }
}

/// All stepped rows, one after the other.
pub(crate) struct SteppedRows {
    source: Source,
    rows: Arc<Vec<f32>>,
}

impl Statistic for SteppedRows {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        Arc::make_mut(&mut self.rows).extend_from_slice(&block.rows(&self.source)?);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Rows(self.source.dim, &mut self.rows)]
    }
}

/// How many rows each class has.
struct LabelCounts {
    counts: Vec<u64>,
}

impl LabelCounts {
    fn request(classes: usize) -> StatisticRequest {
        let statistic = Box::new(LabelCounts { counts: vec![0; classes] });
        StatisticRequest { key: "labels".into(), statistic }
    }
}

impl Statistic for LabelCounts {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        for label in block.train.labels(block.range.clone(), self.counts.len())? {
            self.counts[label as usize] += 1;
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Counts(&mut self.counts)]
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

impl By {
    /// The classes that are wanted, where all may have been gathered.
    pub fn classes(&self) -> Option<Vec<usize>> {
        match self {
            By::All => None,
            By::Label(present) => Some((0..present.count).map(|k| present.class(k)).collect()),
        }
    }
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

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Moments(&mut self.moments, self.by.classes())]
    }
}

/// A training set in parts, whose steps are fitted.
struct InParts<'c, 'a> {
    context: &'c mut FitContext<'a>,
    pooling: Pooling,
    input_dim: usize,
}

impl InParts<'_, '_> {
    /// The features after these steps.
    fn source(&self, steps: Preprocessing) -> Source {
        let key = format!("{} {:?} {}", self.pooling.name(), steps.react, steps.normalize);
        Source { key, input: Input::of(self.pooling, self.input_dim, steps) }
    }

    fn raw(&self) -> Source {
        self.source(Preprocessing { halves: self.pooling == Pooling::AvgStd, ..Default::default() })
    }
}

impl Sought for InParts<'_, '_> {
    fn quantile(&mut self, q: f64) -> Result<f64> {
        let source = self.raw();
        let key = format!("values {}", source.key);
        let statistic =
            Box::new(Values { source: source.clone(), histogram: Histogram::default() });
        let found = self.context.find::<Values>(StatisticRequest { key, statistic })?;
        if let Some(exact) = found.histogram.finish(q) {
            return Ok(exact);
        }
        let key = format!("low bits {q} {}", source.key);
        let statistic = Box::new(Low { source, bits: found.histogram.low_bits(q) });
        Ok(self.context.find::<Low>(StatisticRequest { key, statistic })?.bits.finish())
    }

    fn moments(&mut self, before: &Preprocessing) -> Result<Moments> {
        let source = self.source(before.clone());
        let request = ClassMoments::request("pca", &source, By::All)?;
        Ok(self.context.find::<ClassMoments>(request)?.moments.clone())
    }
}

/// All coordinates, by their topmost bits.
struct Values {
    source: Source,
    histogram: Histogram,
}

impl Statistic for Values {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        self.histogram.update(&block.rows(&self.source)?);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Quantile(&mut self.histogram)]
    }
}

/// Those near a quantile, by their lowest bits.
struct Low {
    source: Source,
    bits: LowBits,
}

impl Statistic for Low {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        self.bits.update(&block.rows(&self.source)?);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        self.bits.counts.iter_mut().map(|counts| Slot::Counts(counts)).collect()
    }
}
