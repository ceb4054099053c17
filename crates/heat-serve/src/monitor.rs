//! What the rows that pass look like, per model: shares, histograms, drift.
//!
//! A thread of its own takes in what was scored; requests never wait for it. Drift is watched on
//! one row of each request, taken at random: rows that come together are often alike (frames of a
//! video), and then they are not the independent rows that the test needs.
//!
//! Where there is a directory for it, what is known is kept there over a restart: a file a model,
//! written by a second thread, for a disk that is slow or full.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use heat_ood::calibrate::CalibrationScores;
use heat_ood::calibrate::drift::{Alarm, Drift, DriftConfig, Test};
use heat_ood::io::TensorFile;
use heat_ood::{Error, printable};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kept::{Keeper, Kept};
use crate::log::{Log, seconds};
use crate::model::Model;
use crate::scored::Scored;

/// Requests that wait to be taken in.
const WAITING: usize = 4096;

/// How long they are gathered.
const GATHER: Duration = Duration::from_millis(20);

/// Minutes that are kept.
const MINUTES: usize = 15;

/// Hours that are kept.
const HOURS: usize = 48;

/// How long what was learnt may wait to be kept.
const KEEP: Duration = Duration::from_secs(30);

/// Bins of p-values.
const BINS: usize = 20;

/// Alarms that are kept.
const ALARMS: usize = 16;

/// Rows of the drift test below which nothing is said.
const FEW: u64 = 50;

/// Less evidence than that is told as that.
const LEAST: f64 = -99.0;

/// Longest id that is kept, in characters.
const ID: usize = 64;

/// What is told of a request: of its rows no more than is kept.
struct Request {
    model: Arc<Model>,
    id: Option<String>,
    counts: Counts,
    /// The score of one row, taken at random.
    watched: f32,
    /// The highest score, with its p-value.
    highest: (f32, Option<f64>),
    took: Duration,
}

enum Message {
    Request(Box<Request>),
    /// Something else has changed that is to be kept.
    Changed,
    /// Keep all, and answer when it is.
    Keep(SyncSender<()>),
}

/// Takes in what was scored.
pub struct Monitor {
    messages: SyncSender<Message>,
    /// Requests so far: which row of the next one is watched.
    told: AtomicU64,
    state: Arc<Mutex<State>>,
    traffic: Arc<Mutex<Traffic>>,
    keeper: Option<Arc<Keeper>>,
}

struct State {
    models: BTreeMap<String, Watched>,
    recent: usize,
    config: DriftConfig,
    log: Log,
}

/// What is known of the rows that one version of a model scored.
struct Watched {
    sha256: String,
    version: String,
    alpha: Option<f64>,
    calibration_rows: usize,
    drift: Option<Drift>,
    alarms: VecDeque<(SystemTime, Alarm)>,
    acknowledged: bool,
    minutes: Ring<MINUTES>,
    hours: Ring<HOURS>,
    recent: VecDeque<Recent>,
}

/// A request as the page shows it.
struct Recent {
    at: SystemTime,
    id: Option<String>,
    rows: u64,
    ood: u64,
    /// The highest score, with its p-value.
    highest: (f32, Option<f64>),
    took: Duration,
}

impl Recent {
    fn json(&self) -> Value {
        let (score, p_value) = self.highest;
        json!({
            "time": seconds(self.at), "id": self.id, "rows": self.rows, "score": score,
            "p_value": p_value, "ood": self.ood, "ms": self.took.as_micros() as f64 / 1e3,
        })
    }
}

/// What is kept of a model besides its test.
#[derive(Serialize, Deserialize)]
struct History {
    sha256: String,
    /// When, in seconds since 1970, and which.
    alarms: Vec<(f64, Alarm)>,
    acknowledged: bool,
    minutes: Ring<MINUTES>,
    hours: Ring<HOURS>,
}

/// The text of it in a file.
const HISTORY: &str = "state";

/// Counts of the latest `N` spans of time.
#[derive(Clone, Serialize, Deserialize)]
struct Ring<const N: usize> {
    span: u64,
    parts: VecDeque<(u64, Counts)>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Counts {
    requests: u64,
    rows: u64,
    ood: u64,
    bins: [u64; BINS],
}

impl Counts {
    /// Of one request.
    fn of(scored: &Scored) -> Self {
        let mut counts =
            Counts { requests: 1, rows: scored.scores.len() as u64, ..Self::default() };
        counts.ood = scored.ood.iter().filter(|ood| **ood).count() as u64;
        for p in &scored.p_values {
            counts.bins[((p * BINS as f64) as usize).min(BINS - 1)] += 1;
        }
        counts
    }

    fn add(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.rows += other.rows;
        self.ood += other.ood;
        self.bins.iter_mut().zip(other.bins).for_each(|(s, c)| *s += c);
    }
}

impl<const N: usize> Ring<N> {
    fn new(span: u64) -> Self {
        Ring { span, parts: VecDeque::new() }
    }

    /// Of a file, which may say anything.
    fn of(mut self, span: u64) -> Self {
        self.span = span;
        self.parts.make_contiguous().sort_by_key(|(part, _)| *part);
        while self.parts.len() > N {
            self.parts.pop_front();
        }
        self
    }

    fn at(&mut self, now: u64) -> &mut Counts {
        let part = now / self.span;
        // Where the clock went back: what was counted in times to come was counted until now.
        let mut later = Counts::default();
        while self.parts.back().is_some_and(|(last, _)| *last > part) {
            self.parts.pop_back().iter().for_each(|(_, counts)| later.add(counts));
        }
        if self.parts.back().is_none_or(|(last, _)| *last < part) {
            self.parts.push_back((part, Counts::default()));
        }
        self.drop_old(now);
        let last = self.parts.len() - 1;
        let counts = &mut self.parts[last].1;
        counts.add(&later);
        counts
    }

    fn drop_old(&mut self, now: u64) {
        let oldest = (now / self.span).saturating_sub(N as u64 - 1);
        while self.parts.len() > 1 && self.parts.front().is_some_and(|(part, _)| *part < oldest) {
            self.parts.pop_front();
        }
    }

    fn sum(&self, now: u64) -> Counts {
        let oldest = (now / self.span).saturating_sub(N as u64 - 1);
        let mut sum = Counts::default();
        for (_, counts) in self.parts.iter().filter(|(part, _)| *part >= oldest) {
            sum.add(counts);
        }
        sum
    }

    fn json(&self) -> Value {
        let part = |(part, c): &(u64, Counts)| {
            json!({"start": part * self.span, "requests": c.requests, "rows": c.rows,
                   "ood": c.ood, "p_values": c.bins})
        };
        self.parts.iter().map(part).collect()
    }
}

/// Figures for the metrics.
pub struct Figures {
    /// log₁₀ of the evidence for drift of each test.
    pub evidence: Vec<(&'static str, f64)>,
    /// Whether there was an alarm that nobody has acknowledged.
    pub drifting: bool,
    /// Fraction of rows that were called anomalous.
    pub flagged: f64,
}

/// Requests of the last quarter of an hour, second by second, and how long they took.
struct Traffic {
    began: Instant,
    seconds: VecDeque<(u64, u64, u64)>,
    refused: BTreeMap<&'static str, VecDeque<(u64, u64)>>,
    /// Times of the latest requests, in microseconds.
    times: VecDeque<u32>,
}

/// Times that percentiles are taken of.
const TIMES: usize = 4096;

/// Seconds of traffic that are kept.
const SECONDS: u64 = 900;

impl Traffic {
    fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn take(&mut self, rows: u64, took: Duration) {
        let now = self.now();
        match self.seconds.back_mut() {
            Some((at, requests, all)) if *at == now => {
                *requests += 1;
                *all += rows;
            }
            _ => self.seconds.push_back((now, 1, rows)),
        }
        while self.seconds.front().is_some_and(|(at, ..)| at + SECONDS < now) {
            self.seconds.pop_front();
        }
        if self.times.len() == TIMES {
            self.times.pop_front();
        }
        self.times.push_back(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    fn refuse(&mut self, reason: &'static str) {
        let now = self.now();
        let all = self.refused.entry(reason).or_default();
        match all.back_mut() {
            Some((at, n)) if *at == now => *n += 1,
            _ => all.push_back((now, 1)),
        }
        while all.front().is_some_and(|(at, _)| at + SECONDS < now) {
            all.pop_front();
        }
    }

    /// Requests and rows a second over the last ten, percentiles, refusals.
    fn json(&self) -> Value {
        let now = self.now();
        let span = 10.min(now.max(1));
        let lately = self.seconds.iter().filter(|(at, ..)| at + span >= now && *at < now.max(1));
        let (requests, rows) =
            lately.fold((0, 0), |(a, b), (_, requests, rows)| (a + requests, b + rows));
        let mut times: Vec<u32> = self.times.iter().copied().collect();
        times.sort_unstable();
        let at = |q: f64| {
            let i = (q * times.len() as f64).ceil() as usize;
            times.get(i.max(1) - 1).map(|micros| f64::from(*micros) / 1e3)
        };
        let refused: serde_json::Map<String, Value> = self
            .refused
            .iter()
            .map(|(reason, all)| {
                let recent = all.iter().filter(|(at, _)| at + SECONDS >= now);
                ((*reason).to_owned(), recent.map(|(_, n)| n).sum::<u64>().into())
            })
            .collect();
        json!({
            "requests_per_second": requests as f64 / span as f64,
            "rows_per_second": rows as f64 / span as f64,
            "milliseconds": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99)},
            "refused": refused,
        })
    }
}

impl Monitor {
    /// Start the thread that takes in. `recent` requests are there to be shown; `keeper` keeps what is
    /// known over a restart.
    pub fn start(
        config: DriftConfig,
        recent: usize,
        log: Log,
        keeper: Option<Keeper>,
    ) -> Arc<Self> {
        let (messages, waiting) = sync_channel(WAITING);
        let traffic = Traffic {
            began: Instant::now(),
            seconds: VecDeque::new(),
            refused: BTreeMap::new(),
            times: VecDeque::new(),
        };
        let state = State { models: BTreeMap::new(), recent, config, log };
        let state = Arc::new(Mutex::new(state));
        let traffic = Arc::new(Mutex::new(traffic));
        let keeper = keeper.map(Arc::new);
        let (told, shared, seen) = (AtomicU64::new(0), Arc::clone(&state), Arc::clone(&traffic));
        let own = keeper.clone();
        let work = move || take_in(&waiting, &shared, &seen, own.as_deref());
        // Without it what is told is counted as dropped.
        let _ = std::thread::Builder::new().name("monitor".into()).spawn(work);
        Arc::new(Monitor { messages, told, state, traffic, keeper })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Watch a model from now on, and go on where it was watched before a restart.
    pub fn watch(&self, model: &Model) {
        let mut state = self.state();
        let mut fresh = Watched::new(model, &state.config);
        if let Some(keeper) = &self.keeper
            && let Some(kept) = keeper.kept(&model.name)
        {
            let found = kept.and_then(|kept| fresh.resume(kept, model, &state.config));
            match found {
                Ok(rows) => {
                    let fields = json!({"model": model.name, "watched_rows": rows});
                    state.log.say("info", "drift is watched on from before the restart", fields);
                }
                Err(error) => {
                    let fields = json!({"model": model.name, "problem": error.to_string()});
                    state.log.say("warn", "drift is watched anew", fields);
                }
            }
        }
        state.models.insert(model.name.clone(), fresh);
    }

    /// Keep what is known, and wait until it is, or five seconds.
    pub fn keep(&self) {
        let (done, wait) = sync_channel(1);
        if self.keeper.is_some() && self.messages.send(Message::Keep(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(5));
        }
    }

    /// How often what is known could not be kept.
    pub fn not_kept(&self) -> u64 {
        self.keeper.as_ref().map_or(0, |keeper| keeper.failed())
    }

    fn changed(&self) {
        // Where there is no room, requests wait that change more.
        let _ = self.messages.try_send(Message::Changed);
    }

    /// Tell it of a request that took so long; whether it had room for it.
    pub fn tell(
        &self,
        model: &Arc<Model>,
        id: Option<&str>,
        scored: &Scored,
        took: Duration,
    ) -> bool {
        let scores = &scored.scores;
        // No secret, and no pattern: a hash of the number of requests.
        let told = self.told.fetch_add(1, Ordering::Relaxed);
        let hash = told.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let row = ((hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as usize;
        let Some(watched) = scores.get(row % scores.len().max(1)) else { return true };
        let higher = |a: usize, b: usize| if scores[b] > scores[a] { b } else { a };
        let highest = (1..scores.len()).fold(0, higher);
        let request = Request {
            model: Arc::clone(model),
            id: id.map(str::to_owned),
            counts: Counts::of(scored),
            watched: *watched,
            highest: (scores[highest], scored.p_values.get(highest).copied()),
            took,
        };
        self.messages.try_send(Message::Request(Box::new(request))).is_ok()
    }

    /// A request was refused.
    pub fn refused(&self, reason: &'static str) {
        lock(&self.traffic).refuse(reason);
    }

    /// Begin anew with the drift of a model; whether there is such a model.
    pub fn reset(&self, model: &Model) -> bool {
        let mut state = self.state();
        let fresh = Watched::new(model, &state.config);
        let Some(watched) = state.models.get_mut(&model.name) else { return false };
        watched.drift = fresh.drift;
        watched.alarms.clear();
        watched.acknowledged = false;
        drop(state);
        self.changed();
        true
    }

    /// Say that an alarm was seen; whether there was one.
    pub fn acknowledge(&self, model: &str) -> bool {
        let mut state = self.state();
        let found = state.models.get_mut(model).filter(|watched| !watched.alarms.is_empty());
        let found = found.map(|watched| watched.acknowledged = true).is_some();
        drop(state);
        self.changed();
        found
    }

    /// Figures of each model.
    pub fn figures(&self) -> Vec<(String, Figures)> {
        let now = log_seconds();
        let state = self.state();
        let of = |(name, watched): (&String, &Watched)| {
            let sum = watched.minutes.sum(now);
            let flagged = sum.ood as f64 / sum.rows.max(1) as f64;
            let evidence = watched.evidence().map(|(test, found, _)| (test, found)).collect();
            let drifting = !watched.alarms.is_empty() && !watched.acknowledged;
            (name.clone(), Figures { evidence, drifting, flagged })
        };
        state.models.iter().map(of).collect()
    }

    /// Requests and refusals lately.
    pub fn traffic(&self) -> Value {
        lock(&self.traffic).json()
    }

    /// All that is known of a model's rows.
    pub fn drift(&self, model: &str) -> Option<Value> {
        let now = log_seconds();
        self.state().models.get(model).map(|watched| watched.json(now))
    }

    /// The latest requests.
    pub fn recent(&self, model: &str) -> Option<Value> {
        let state = self.state();
        state
            .models
            .get(model)
            .map(|watched| watched.recent.iter().rev().map(Recent::json).collect())
    }
}

fn log_seconds() -> u64 {
    seconds(SystemTime::now()) as u64
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_in(
    messages: &Receiver<Message>,
    state: &Mutex<State>,
    traffic: &Mutex<Traffic>,
    keeper: Option<&Keeper>,
) {
    // Since when there is something to be kept.
    let mut unkept: Option<Instant> = None;
    loop {
        let found = match unkept {
            // Woken by what comes alone, where nothing is to be done.
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(since) => messages.recv_timeout(KEEP.saturating_sub(since.elapsed())),
        };
        let mut waiting = Vec::new();
        match found {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
            Ok(first) => {
                // To be woken for each costs more than what is done: what comes meanwhile is taken
                // together.
                std::thread::sleep(GATHER);
                for message in std::iter::once(first).chain(messages.try_iter().take(WAITING)) {
                    match message {
                        Message::Request(request) => {
                            // Each lock for one request: nobody waits for long.
                            lock(traffic).take(request.counts.rows, request.took);
                            lock(state).take(&request);
                        }
                        Message::Changed => {}
                        Message::Keep(done) => waiting.push(done),
                    }
                }
                unkept = unkept.or(keeper.map(|_| Instant::now()));
            }
        }
        let Some(keeper) = keeper else { continue };
        let due = unkept.is_some_and(|since| since.elapsed() >= KEEP);
        if due || !waiting.is_empty() {
            let all = lock(state).kept();
            match waiting.is_empty() {
                true => keeper.keep(all),
                false => keeper.keep_all(all, waiting),
            }
            unkept = None;
        }
    }
}

impl State {
    fn kept(&self) -> Vec<(String, Kept)> {
        let models = self.models.iter().filter(|(_, watched)| watched.drift.is_some());
        models.map(|(name, watched)| (name.clone(), watched.kept())).collect()
    }

    fn take(&mut self, request: &Request) {
        let model = &request.model;
        let other = |watched: &Watched| watched.sha256 != model.sha256;
        if self.models.get(&model.name).is_none_or(other) {
            // Of another version nothing is known.
            let fresh = Watched::new(model, &self.config);
            self.models.insert(model.name.clone(), fresh);
        }
        let Some(watched) = self.models.get_mut(&model.name) else { return };
        let alarms = watched.take(request, self.recent);
        for alarm in alarms {
            let fields = json!({
                "model": model.name, "version": model.version, "test": alarm.test,
                "row": alarm.row, "since": alarm.since, "evidence_log10": alarm.evidence,
                "admixture": alarm.admixture,
            });
            self.log.say("warn", "drift: the rows are not as those of calibration", fields);
        }
    }
}

impl Watched {
    fn new(model: &Model, config: &DriftConfig) -> Self {
        let calibration = model.detector.calibration();
        let scores = calibration.map(|c| c.scores().clone());
        let drift = |scores: &CalibrationScores| {
            Drift::new(config.clone(), scores).ok().map(Drift::in_bounded_memory)
        };
        Watched {
            sha256: model.sha256.clone(),
            version: model.version.clone(),
            alpha: calibration.map(|c| c.config().alpha),
            calibration_rows: scores.as_ref().map_or(0, CalibrationScores::len),
            drift: scores.as_ref().and_then(drift),
            alarms: VecDeque::new(),
            acknowledged: false,
            minutes: Ring::new(60),
            hours: Ring::new(3600),
            recent: VecDeque::new(),
        }
    }

    /// What is kept of it over a restart: all but the requests that the page shows, which have
    /// clients' names.
    fn kept(&self) -> Kept {
        let history = History {
            sha256: self.sha256.clone(),
            alarms: self.alarms.iter().map(|(at, alarm)| (seconds(*at), alarm.clone())).collect(),
            acknowledged: self.acknowledged,
            minutes: self.minutes.clone(),
            hours: self.hours.clone(),
        };
        let (tensors, text) = self.drift.as_ref().map(Drift::state).unwrap_or_default();
        Kept { tensors, texts: vec![text, (HISTORY, json!(history).to_string())] }
    }

    /// Go on from there; how many rows were watched.
    fn resume(
        &mut self,
        file: TensorFile,
        model: &Model,
        config: &DriftConfig,
    ) -> heat_ood::Result<u64> {
        let bad = |why: String| Error::format(file.path(), why);
        let text = file.metadata(HISTORY).unwrap_or_default();
        let history: History = serde_json::from_str(text)
            .map_err(|e| bad(format!("is no state of a monitor of this version: {e}")))?;
        if history.sha256 != self.sha256 {
            return Err(bad("is of another version of the detector".into()));
        }
        let Some(calibration) = model.detector.calibration() else { return Ok(0) };
        let drift = Drift::resume(config.clone(), calibration.scores(), &file)?;
        let rows = drift.rows();
        self.drift = Some(drift);
        let at = |seconds: f64| {
            let passed = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            SystemTime::UNIX_EPOCH.checked_add(passed).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let alarms = history.alarms.into_iter().map(|(seconds, alarm)| (at(seconds), alarm));
        self.alarms = alarms.take(ALARMS).collect();
        self.acknowledged = history.acknowledged;
        self.minutes = history.minutes.of(60);
        self.hours = history.hours.of(3600);
        Ok(rows)
    }

    fn take(&mut self, request: &Request, recent: usize) -> Vec<Alarm> {
        let now = SystemTime::now();
        let second = seconds(now) as u64;
        self.minutes.at(second).add(&request.counts);
        self.hours.at(second).add(&request.counts);
        self.recent.push_back(Recent {
            at: now,
            id: request.id.as_ref().map(|id| printable(id).chars().take(ID).collect()),
            rows: request.counts.rows,
            ood: request.counts.ood,
            highest: request.highest,
            took: request.took,
        });
        while self.recent.len() > recent {
            self.recent.pop_front();
        }
        let Some(drift) = &mut self.drift else { return Vec::new() };
        let Ok(seen) = drift.push(request.watched) else { return Vec::new() };
        for alarm in &seen.alarms {
            self.acknowledged = false;
            self.alarms.push_back((now, alarm.clone()));
            // The first says since when, the others that it lasts.
            if self.alarms.len() > ALARMS {
                self.alarms.remove(1);
            }
        }
        seen.alarms
    }

    /// Of each test log₁₀ of its evidence and of that which is an alarm.
    fn evidence(&self) -> impl Iterator<Item = (&'static str, f64, f64)> {
        let each = self.drift.iter().flat_map(Drift::evidence);
        each.map(|(test, found, threshold)| {
            let name = match test {
                Test::Martingale => "martingale",
                Test::Cusum => "cusum",
            };
            (name, found.max(LEAST), threshold)
        })
    }

    fn json(&self, now: u64) -> Value {
        let sum = self.minutes.sum(now);
        let rows = self.drift.as_ref().map_or(0, Drift::rows);
        let state = match (&self.drift, self.alarms.is_empty(), self.acknowledged) {
            (None, ..) => "not watched: the detector is not calibrated",
            (_, false, false) => "drifting",
            (_, false, true) => "drifting, acknowledged",
            _ if rows < FEW => "too few rows",
            _ => "steady",
        };
        let alarms: Vec<Value> = self
            .alarms
            .iter()
            .map(|(at, alarm)| {
                json!({"time": seconds(*at), "test": alarm.test, "row": alarm.row,
                       "since": alarm.since, "evidence_log10": alarm.evidence,
                       "threshold_log10": alarm.threshold, "admixture": alarm.admixture})
            })
            .collect();
        let evidence: Vec<Value> = self
            .evidence()
            .map(|(test, log10, threshold)| {
                json!({"test": test, "log10": log10, "threshold_log10": threshold})
            })
            .collect();
        let share = sum.ood as f64 / sum.rows.max(1) as f64;
        json!({
            "version": self.version, "state": state, "watched_rows": rows,
            "evidence": evidence, "alarms": alarms, "alpha": self.alpha,
            "flagged": share, "band": self.band(sum.rows),
            "rows": sum.rows, "p_values": sum.bins,
            "minutes": self.minutes.json(), "hours": self.hours.json(),
        })
    }

    /// Where the share of flagged rows lies nearly always while nothing changes: the threshold is
    /// a quantile of n calibration scores, so that the rate it keeps is itself random, with a Beta
    /// law, and m rows are counted. Three standard deviations.
    fn band(&self, rows: u64) -> Option<[f64; 2]> {
        let alpha = self.alpha.filter(|_| rows > 0)?;
        let (n, m) = (self.calibration_rows as f64, rows as f64);
        let deviation = (alpha * (1.0 - alpha) * (1.0 / (n + 2.0) + 1.0 / m)).sqrt();
        Some([(alpha - 3.0 * deviation).max(0.0), (alpha + 3.0 * deviation).min(1.0)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: three minutes are kept, and what a wrong clock counted is of now.
    #[test]
    fn spans_follow_the_clock() {
        let mut ring = Ring::<3>::new(60);
        for second in [0, 59, 60, 130, 190] {
            ring.at(second).rows += 1;
        }
        let parts = |ring: &Ring<3>| -> Vec<(u64, u64)> {
            ring.parts.iter().map(|(part, counts)| (*part, counts.rows)).collect()
        };
        assert_eq!(parts(&ring), [(1, 1), (2, 1), (3, 1)]);
        ring.at(1_000_000).rows += 5;
        assert_eq!(ring.sum(1_000_000).rows, 5);
        ring.at(200).rows += 1;
        assert_eq!(parts(&ring), [(3, 6)]);
        assert_eq!((ring.sum(200).rows, ring.sum(400).rows), (6, 0));
    }
}
