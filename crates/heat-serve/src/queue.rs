//! Rows that wait to be scored, and the threads that score them.
//!
//! There is no timer: a batch is what has gathered while the one before was scored, so that a
//! request that comes alone waits for nobody. Rows of several requests to one model are scored
//! together; every row was checked before it came here, so that nobody's bad row reaches another's.
//! Large requests are cut into pieces, between which others pass.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heat_ood::calibrate::{Calibration, Ties};
use heat_ood::features::{FeatureSet, Field};
use heat_ood::{Error, Prediction, Silent};
use ndarray::Array2;
use serde_json::json;
use tokio::sync::oneshot;

use crate::budget::Charge;
use crate::images::{Live, Picture};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::refusal::{Kind, Refusal, Result};
use crate::scored::Scored;

/// What a piece of a large request may take while small ones come.
const PIECE: Duration = Duration::from_millis(2);

/// Most rows of a small request, which is never cut, and fewest of a batch: fewer at a time are scored
/// at less than the full rate.
const SMALL: usize = 64;

/// How long after a small request others are expected.
const EXPECTED: Duration = Duration::from_secs(1);

/// What a request's rows are made of.
pub enum Rows {
    /// Features: of each field, `[rows, D]`.
    Features(Vec<(Field, Vec<f32>)>),
    /// Images.
    Images(Vec<Picture>),
}

/// A request that waits.
pub struct Job {
    /// What scores it.
    pub model: Arc<Model>,
    /// What is scored.
    pub input: Rows,
    /// How many rows.
    pub rows: usize,
    /// Decides its verdicts, instead of the model's own.
    pub calibration: Option<Arc<Calibration>>,
    /// When an answer is of no use any more.
    pub deadline: Instant,
    /// Where the answer goes. Closed when nobody waits for it.
    pub reply: oneshot::Sender<Result<Scored>>,
    /// What it holds in memory, until it is dropped.
    pub _charge: Charge,
}

/// A job in the queue.
struct Waiting {
    job: Job,
    came: Instant,
    scored: Scored,
}

impl Waiting {
    fn done(&self) -> usize {
        self.scored.scores.len()
    }

    fn left(&self) -> usize {
        self.job.rows - self.done()
    }

    fn end(self, result: Result<Scored>) {
        // Nobody may wait any more.
        let _ = self.job.reply.send(result);
    }
}

/// Jobs of one model, in the order in which they came.
struct Lane {
    model: Arc<Model>,
    small: VecDeque<Waiting>,
    large: VecDeque<Waiting>,
    /// Whether small ones were scored last: a piece of a large one comes then.
    is_turn_of_large: bool,
}

impl Lane {
    fn push(&mut self, waiting: Waiting, small: usize) {
        match waiting.left() <= small {
            true => self.small.push_back(waiting),
            false => self.large.push_back(waiting),
        }
    }

    fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }
}

#[derive(Default)]
struct State {
    lanes: VecDeque<Lane>,
    rows: usize,
    closed: bool,
    /// Until when small requests are expected.
    hurried: Option<Instant>,
}

impl State {
    /// Into the lane of its model.
    fn put(&mut self, waiting: Waiting, most_in_batch: usize) {
        let model = &waiting.job.model;
        let at = self.lanes.iter().position(|lane| Arc::ptr_eq(&lane.model, model));
        let at = at.unwrap_or_else(|| {
            let (small, large) = Default::default();
            let model = Arc::clone(model);
            self.lanes.push_back(Lane { model, small, large, is_turn_of_large: false });
            self.lanes.len() - 1
        });
        self.lanes[at].push(waiting, SMALL.min(most_in_batch));
    }
}

/// A queue, and what bounds it.
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    most_rows: usize,
    most_in_batch: usize,
    wait: Duration,
    /// Rows that were scored in a second, lately.
    rate: AtomicU64,
    metrics: Arc<Metrics>,
    log: Log,
}

/// Jobs that are scored together, each with how many of its rows.
struct Batch {
    model: Arc<Model>,
    pieces: Vec<(Waiting, usize)>,
}

impl Queue {
    /// With room for that many rows, of which so many are scored together.
    pub fn new(
        most_rows: usize,
        most_in_batch: usize,
        wait: Duration,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> Arc<Self> {
        let (state, wake) = Default::default();
        let rate = AtomicU64::new(0);
        Arc::new(Queue { state, wake, most_rows, most_in_batch, wait, rate, metrics, log })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Let a request wait. One that is alone always may.
    ///
    /// # Errors
    /// If too many rows wait, or the queue is closed.
    pub fn push(&self, job: Job) -> Result<()> {
        let mut state = self.state();
        if state.closed {
            return Err(Refusal::new(Kind::Unavailable, "the server is about to end"));
        }
        if state.rows > 0 && state.rows + job.rows > self.most_rows {
            let text = "too many rows wait to be scored; try again";
            return Err(Refusal::new(Kind::Busy, text));
        }
        state.rows += job.rows;
        self.metrics.waiting(job.rows as i64);
        let came = Instant::now();
        if job.rows <= SMALL {
            state.hurried = Some(came + EXPECTED);
        }
        let waiting = Waiting { job, came, scored: Scored::default() };
        state.put(waiting, self.most_in_batch);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Let nothing more in. What waits is still scored.
    pub fn close(&self) {
        self.state().closed = true;
        self.wake.notify_all();
    }

    /// Rows of the next batch.
    fn room(&self, state: &State, now: Instant) -> usize {
        let hurried = state.hurried.is_some_and(|until| now < until);
        if !hurried {
            return self.most_in_batch;
        }
        let rate = self.rate.load(Ordering::Relaxed) as f64;
        let rows = (rate * PIECE.as_secs_f64()) as usize;
        rows.max(SMALL).min(self.most_in_batch)
    }

    /// The next batch; `None` when the queue is closed and empty.
    fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        loop {
            while state.lanes.is_empty() {
                if state.closed {
                    return None;
                }
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if !self.wait.is_zero() && !state.closed {
                state = self.linger(state);
            }
            let room = self.room(&state, Instant::now());
            let Some(mut lane) = state.lanes.pop_front() else { continue };
            let batch = self.gather(&mut lane, room, &mut state);
            if !lane.is_empty() {
                state.lanes.push_back(lane);
                self.wake.notify_one();
            }
            if batch.pieces.is_empty() {
                continue;
            }
            return Some(batch);
        }
    }

    /// Wait for more rows, as long as the first ones may, for who asked for that.
    fn linger<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let began = Instant::now();
        while state.rows < self.most_in_batch && !state.closed {
            let Some(left) = self.wait.checked_sub(began.elapsed()) else { break };
            let waited = self.wake.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// Take up to `room` rows of a lane: small jobs whole and pieces of large ones in turns, so that a
    /// small one waits for one piece at most, and never within the batch of another. A batch has at
    /// least one job, whatever the room.
    fn gather(&self, lane: &mut Lane, room: usize, state: &mut State) -> Batch {
        let now = Instant::now();
        let mut pieces: Vec<(Waiting, usize)> = Vec::new();
        let (mut used, mut gone) = (0, 0);
        let mut useful = |waiting: Waiting| {
            if waiting.job.reply.is_closed() {
                gone += waiting.left();
                self.metrics.dropped_client();
            } else if now >= waiting.job.deadline {
                gone += waiting.left();
                waiting.end(Err(late()));
            } else {
                return Some(waiting);
            }
            None
        };
        let turn_of_large = std::mem::take(&mut lane.is_turn_of_large) && !lane.large.is_empty();
        while !turn_of_large && let Some(waiting) = lane.small.pop_front() {
            let rows = waiting.left();
            if used > 0 && used + rows > room {
                lane.small.push_front(waiting);
                break;
            }
            if let Some(waiting) = useful(waiting) {
                used += rows;
                pieces.push((waiting, rows));
            }
        }
        lane.is_turn_of_large = used > 0;
        while !lane.is_turn_of_large && used < room {
            let Some(waiting) = lane.large.pop_front() else { break };
            if let Some(waiting) = useful(waiting) {
                let rows = waiting.left().min(room - used);
                used += rows;
                pieces.push((waiting, rows));
            }
        }
        state.rows -= used + gone;
        self.metrics.waiting(-((used + gone) as i64));
        Batch { model: Arc::clone(&lane.model), pieces }
    }

    /// Put back what has more rows. It goes to the end: others come first now.
    fn put_back(&self, waiting: Waiting) {
        self.state().put(waiting, self.most_in_batch);
        self.wake.notify_one();
    }

    /// Rows of jobs that end before all of them are taken leave the count.
    fn forget(&self, rows: usize) {
        self.state().rows -= rows;
        self.metrics.waiting(-(rows as i64));
    }

    /// Score what comes until the queue is closed and empty.
    fn work(&self, mut live: Option<Live<'_>>) {
        while let Some(batch) = self.take() {
            self.score(batch, live.as_mut());
        }
    }

    fn score(&self, batch: Batch, mut live: Option<&mut Live<'_>>) {
        let Batch { model, pieces } = batch;
        let began = Instant::now();
        let mut pieces: Vec<Piece> = pieces
            .into_iter()
            .map(|(mut waiting, rows)| {
                let from = waiting.done();
                if from == 0 {
                    waiting.scored.waited = began - waiting.came;
                }
                Piece { waiting, range: from..from + rows }
            })
            .collect();
        let mut found = try_all(&model, &mut pieces, live.as_deref_mut());
        // One of them is at fault: each for itself.
        if pieces.len() > 1 && found.is_err() {
            let each = pieces.iter_mut().map(|piece| {
                let one = try_all(&model, std::slice::from_mut(piece), live.as_deref_mut());
                one?.pop().unwrap_or_else(|| Err(internal("no result")))
            });
            found = Ok(each.collect());
        }
        let found = found.unwrap_or_else(|failed| vec![Err(failed)]);
        let took = began.elapsed();
        self.measure(pieces.iter().map(|piece| piece.range.len()).sum(), took);
        for (Piece { mut waiting, range }, found) in pieces.into_iter().zip(found) {
            match found {
                Ok(found) => {
                    waiting.add(found, took);
                    if waiting.left() > 0 {
                        self.put_back(waiting);
                        continue;
                    }
                    let scored = std::mem::take(&mut waiting.scored);
                    self.metrics.scored(&model, &scored);
                    waiting.end(Ok(scored));
                }
                Err(failed) => {
                    self.forget(waiting.job.rows - range.end);
                    if failed.kind == Kind::Internal {
                        // What the client is not told.
                        let fields = json!({"model": model.name, "problem": failed.text});
                        self.log.say("error", "rows could not be scored", fields);
                    }
                    waiting.end(Err(told(failed)));
                }
            }
        }
    }

    fn measure(&self, rows: usize, took: Duration) {
        self.metrics.batch(rows, took);
        let now = rows as f64 / took.as_secs_f64().max(1e-9);
        let before = self.rate.load(Ordering::Relaxed) as f64;
        let rate = if before == 0.0 { now } else { 0.8 * before + 0.2 * now };
        self.rate.store(rate as u64, Ordering::Relaxed);
    }
}

/// Some rows of a job.
struct Piece {
    waiting: Waiting,
    range: Range<usize>,
}

impl Waiting {
    /// Take in what was found of the next rows.
    fn add(&mut self, found: Prediction, took: Duration) {
        let Prediction { scores, components, verdicts, classes, .. } = found;
        let verdicts = match &self.job.calibration {
            // Classes are there where it is by class, as the detector's own is.
            Some(other) => other.verdicts(&scores, classes.as_deref(), Ties::Conservative).ok(),
            None => verdicts,
        };
        let all = &mut self.scored;
        all.took += took;
        for verdict in verdicts.into_iter().flatten() {
            all.p_values.push(verdict.p_value);
            all.ood.push(verdict.ood);
        }
        all.scores.extend(scores);
        all.components.extend(components);
        all.classes.extend(classes.unwrap_or_default());
    }
}

/// Score all pieces together; each may have failed by itself. A panic of a scorer ends nothing
/// else.
fn try_all(
    model: &Model,
    pieces: &mut [Piece],
    live: Option<&mut Live<'_>>,
) -> Result<Vec<Result<Prediction>>> {
    let run = AssertUnwindSafe(|| match live {
        Some(live) => of_images(model, pieces, live),
        None => of_features(model, pieces),
    });
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        Err(internal(format!("the scorer panicked: {text}")))
    })
}

fn of_features(model: &Model, pieces: &mut [Piece]) -> Result<Vec<Result<Prediction>>> {
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.range.len()).collect();
    let rows = lengths.iter().sum();
    let mut set = FeatureSet::in_memory("the request");
    for (field, dim) in fields_of(pieces) {
        let values = match pieces {
            // All of one job, whose values are needed no more.
            [Piece { waiting, range }] if range.len() == waiting.job.rows => {
                std::mem::take(waiting.values(field))
            }
            _ => {
                let mut values = Vec::with_capacity(rows * dim);
                for piece in &mut *pieces {
                    let own = piece.range.start * dim..piece.range.end * dim;
                    values.extend_from_slice(&piece.waiting.values(field)[own]);
                }
                values
            }
        };
        let matrix =
            Array2::from_shape_vec((rows, dim), values).map_err(|e| internal(e.to_string()))?;
        set = set.field(field, matrix);
    }
    let first = pieces.first().map_or(0, |piece| piece.range.start);
    let set = set.build().map_err(|error| refusal(&error, first))?;
    let found = predict(model, &set, first)?;
    Ok(split(found, &lengths).into_iter().map(Ok).collect())
}

/// The fields that all jobs have, with their D.
fn fields_of(pieces: &[Piece]) -> Vec<(Field, usize)> {
    let of = |piece: &Piece| match &piece.waiting.job.input {
        Rows::Features(fields) => {
            let rows = piece.waiting.job.rows.max(1);
            fields.iter().map(|(f, values)| (*f, values.len() / rows)).collect()
        }
        Rows::Images(_) => Vec::new(),
    };
    let mut fields: Vec<(Field, usize)> = pieces.first().map(of).unwrap_or_default();
    for piece in pieces.iter().skip(1) {
        let other = of(piece);
        fields.retain(|field| other.contains(field));
    }
    fields
}

impl Waiting {
    fn values(&mut self, field: Field) -> &mut Vec<f32> {
        let Rows::Features(fields) = &mut self.job.input else {
            unreachable!("a queue of features has no images")
        };
        let found = fields.iter().position(|(f, _)| *f == field);
        &mut fields[found.unwrap_or_default()].1
    }
}

fn of_images(
    model: &Model,
    pieces: &mut [Piece],
    live: &mut Live<'_>,
) -> Result<Vec<Result<Prediction>>> {
    let pictures = pieces.iter().flat_map(|piece| match &piece.waiting.job.input {
        Rows::Images(all) => &all[piece.range.clone()],
        Rows::Features(_) => &[],
    });
    let part = live.rows(pictures)?;
    let lost = |from: usize, to: usize| {
        let within = part.unreadable.iter().filter(move |(i, _)| (from..to).contains(i));
        within.map(move |(i, reason)| (i - from, reason))
    };
    let mut begin = 0;
    let mut lengths = Vec::new();
    let mut problems = Vec::new();
    for piece in &*pieces {
        let end = begin + piece.range.len();
        problems.push(lost(begin, end).next().map(|(i, reason)| {
            Refusal::invalid(format!("image {}: {reason}", piece.range.start + i))
        }));
        lengths.push(piece.range.len() - lost(begin, end).count());
        begin = end;
    }
    let found = match &part.rows {
        Some(set) => predict(model, set, 0)?,
        None => Prediction::default(),
    };
    let each = split(found, &lengths).into_iter().zip(problems);
    Ok(each.map(|(found, problem)| problem.map_or(Ok(found), Err)).collect())
}

fn predict(model: &Model, set: &FeatureSet, first: usize) -> Result<Prediction> {
    let found = model.detector.predict(set, Ties::Conservative, &mut Silent);
    found.map_err(|error| refusal(&error, first))
}

/// What is said of an error in scoring rows from `first` on: no paths, nothing of the inside.
fn refusal(error: &Error, first: usize) -> Refusal {
    match error {
        Error::Score { row, value, .. } => Refusal::invalid(format!(
            "row {} has the score {value}: its values are too large to be scored",
            first + row
        )),
        Error::NotFinite { tensor, row, column, value, .. } => Refusal::invalid(format!(
            "the input `{tensor}`: row {}, column {column} is {value}, expected a finite number",
            first + row
        )),
        Error::Shape { tensor, expected, got, .. } => {
            Refusal::invalid(format!("the input `{tensor}` has shape {got}, expected {expected}"))
        }
        other => internal(other.to_string()),
    }
}

/// A fault of ours, in words for the log.
fn internal(text: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Internal, text)
}

/// What a client is told: of our faults nothing of the inside.
fn told(failed: Refusal) -> Refusal {
    match failed.kind {
        Kind::Internal => internal("scoring failed; the server's log says more"),
        _ => failed,
    }
}

/// That the time is over.
pub fn late() -> Refusal {
    Refusal::new(Kind::Late, "the rows were not scored in the time that there was; try again")
}

/// Cut what was found of rows into parts of these lengths.
fn split(found: Prediction, lengths: &[usize]) -> Vec<Prediction> {
    if lengths.len() == 1 {
        return vec![found];
    }
    let rows = found.scores.len().max(1);
    let width = found.components.len() / rows;
    let mut from = 0;
    let part = |length: &usize| {
        let own = from..from + length;
        from = own.end;
        Prediction {
            scores: found.scores[own.clone()].to_vec(),
            components: found.components[own.start * width..own.end * width].to_vec(),
            verdicts: found.verdicts.as_ref().map(|v| v[own.clone()].to_vec()),
            classes: found.classes.as_ref().map(|c| c[own.clone()].to_vec()),
            ..Prediction::default()
        }
    };
    lengths.iter().map(part).collect()
}

/// Threads that score what comes into a queue.
pub struct Workers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Start so many, each with a network of its own where there is one.
    ///
    /// # Errors
    /// If the system starts none, or a network cannot be loaded.
    pub fn start(
        name: &str,
        queue: &Arc<Queue>,
        threads: usize,
        network: Option<&Arc<crate::images::Network>>,
    ) -> heat_ood::Result<Self> {
        let mut all = Vec::new();
        for i in 0..threads.max(1) {
            let (queue, network) = (Arc::clone(queue), network.cloned());
            let (ready, loaded) = channel();
            let work = move || match network.as_deref().map(Live::new).transpose() {
                Ok(live) => {
                    let _ = ready.send(Ok(()));
                    queue.work(live);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            };
            let thread = std::thread::Builder::new().name(format!("{name}-{i}")).spawn(work);
            let problem = |e: std::io::Error| Error::config("threads", threads, e.to_string());
            all.push(thread.map_err(problem)?);
            loaded.recv().unwrap_or(Err(Error::Stopped))?;
        }
        Ok(Workers { queue: Arc::clone(queue), threads: all })
    }

    /// Let nothing more in, and wait until all that waits is scored.
    pub fn finish(self) {
        self.queue.close();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use heat_ood::calibrate::drift::DriftConfig;
    use heat_ood::features::{Batch, FieldSet, Pooling};
    use heat_ood::scorers::{Scorer, Section};

    use super::*;
    use crate::budget::Budget;
    use crate::log::Form;
    use crate::monitor::Monitor;

    const AVG: Field = Field::Features(Pooling::Avg);

    /// Gives the first value, and panics at a negative one.
    struct Fragile;

    impl Scorer for Fragile {
        fn name(&self) -> &'static str {
            "fragile"
        }

        fn needs(&self, set: &FeatureSet) -> heat_ood::Result<FieldSet> {
            FieldSet::checked(set, AVG, 2)
        }

        fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
            for (o, row) in out.iter_mut().zip(batch.get(AVG).chunks(2)) {
                assert!(row[0] >= 0.0, "a negative value");
                *o = row[0];
            }
        }

        fn section(&self) -> Section {
            Section::new("fragile", ())
        }
    }

    /// A panic of a scorer costs the request that caused it, and no other that was scored with it;
    /// the thread goes on.
    #[test]
    fn a_panic_ends_nothing_else() {
        let log = Log::start(Form::Json);
        let metrics = Metrics::new(Monitor::start(DriftConfig::default(), 0, log.clone(), None));
        let queue = Queue::new(1000, 100, Duration::ZERO, metrics, log);
        let model = Arc::new(Model::of_test(Arc::new(Fragile), vec![(AVG, 2)]));
        let budget = Budget::new(1 << 20);
        let ask = |value: f32| {
            let (reply, found) = oneshot::channel();
            let job = Job {
                model: Arc::clone(&model),
                input: Rows::Features(vec![(AVG, vec![value, 0.0])]),
                rows: 1,
                calibration: None,
                deadline: Instant::now() + Duration::from_secs(60),
                reply,
                _charge: budget.charge(),
            };
            queue.push(job).unwrap();
            found
        };
        // All of them wait before the thread begins: a batch.
        let values = [1.0, -1.0, 2.0, -2.0, 3.0];
        let mut waiting: Vec<_> = (0..60).map(|i| (values[i % 5], ask(values[i % 5]))).collect();
        let workers = Workers::start("score", &queue, 1, None).unwrap();
        // And some come one by one.
        waiting.extend((0..10).map(|i| (values[i % 5], ask(values[i % 5]))));
        for (value, found) in waiting {
            match found.blocking_recv().unwrap() {
                Ok(scored) => assert_eq!(scored.scores, [value]),
                Err(refused) => {
                    assert!(value < 0.0 && refused.kind == Kind::Internal);
                    assert!(!refused.text.contains("negative"), "{}", refused.text);
                }
            }
        }
        workers.finish();
    }
}
