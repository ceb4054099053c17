//! Counts for Prometheus. Labels are of closed sets: a name that is not served is `unknown`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use serde_json::{Value, json};

use crate::model::Model;
use crate::monitor::Monitor;
use crate::refusal::Kind;
use crate::scored::Scored;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTest {
    model: String,
    test: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    model: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRows {
    model: String,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct For {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    sink: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct With {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Info {
    model: String,
    version: String,
    scorer: String,
}

/// All counts of the server.
pub struct Metrics {
    registry: Registry,
    requests: Family<OfRequest, Counter>,
    rows: Family<OfRows, Counter>,
    request_seconds: Histogram,
    queue_seconds: Histogram,
    score_seconds: Histogram,
    batch_rows: Histogram,
    queue_rows: Gauge<i64, AtomicI64>,
    memory: Gauge<i64, AtomicI64>,
    rejected: Family<For, Counter>,
    dropped: Family<To, Counter>,
    p_values: Family<OfModel, Histogram>,
    evidence: Family<OfTest, Gauge<f64, AtomicU64>>,
    drifting: Family<OfModel, Gauge>,
    flagged: Family<OfModel, Gauge<f64, AtomicU64>>,
    reloads: Family<With, Counter>,
    models: Family<Info, Gauge>,
    totals: Mutex<BTreeMap<String, Totals>>,
    monitor: Arc<Monitor>,
}

/// What one version of a model has done.
#[derive(Default)]
struct Totals {
    sha256: String,
    requests: u64,
    rows: u64,
    waited: Duration,
    took: Duration,
}

/// What is told of a request that was scored.
pub struct Told<'a> {
    /// The model.
    pub model: &'a Arc<Model>,
    /// The client's name for it.
    pub id: Option<&'a str>,
    /// What was found.
    pub scored: &'a Scored,
    /// From its head on.
    pub took: Duration,
}

/// From 50 µs to 10 s; the default of other programs begins above most of our answers.
fn seconds() -> Histogram {
    const STEPS: [f64; 17] = [
        50e-6, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0,
        2.5, 5.0, 10.0,
    ];
    Histogram::new(STEPS)
}

fn twentieths() -> Histogram {
    Histogram::new((1..=20).map(|i| f64::from(i) / 20.0))
}

impl Metrics {
    /// All at zero.
    pub fn new(monitor: Arc<Monitor>) -> Arc<Self> {
        let mut all = Metrics {
            registry: Registry::with_prefix("heat"),
            requests: Family::default(),
            rows: Family::default(),
            request_seconds: seconds(),
            queue_seconds: seconds(),
            score_seconds: seconds(),
            batch_rows: Histogram::new(exponential_buckets(1.0, 2.0, 15)),
            queue_rows: Gauge::default(),
            memory: Gauge::default(),
            rejected: Family::default(),
            dropped: Family::default(),
            p_values: Family::new_with_constructor(twentieths),
            evidence: Family::default(),
            drifting: Family::default(),
            flagged: Family::default(),
            reloads: Family::default(),
            models: Family::default(),
            totals: Mutex::default(),
            monitor,
        };
        let mut registry = std::mem::take(&mut all.registry);
        let r = &mut registry;
        *r = Registry::with_prefix("heat");
        r.register("requests", "Requests that were answered", all.requests.clone());
        r.register("rows", "Rows that were scored", all.rows.clone());
        let s = Unit::Seconds;
        let time = "Time of a request, from its head to its answer";
        r.register_with_unit("request", time, s.clone(), all.request_seconds.clone());
        let time = "Time that rows waited to be scored";
        r.register_with_unit("queue", time, s.clone(), all.queue_seconds.clone());
        r.register_with_unit("score", "Time of scoring a batch", s, all.score_seconds.clone());
        r.register("batch_rows", "Rows of a batch", all.batch_rows.clone());
        r.register("queue_rows", "Rows that wait to be scored", all.queue_rows.clone());
        let bytes = "Memory that requests hold";
        r.register_with_unit("memory", bytes, Unit::Bytes, all.memory.clone());
        r.register("rejected", "Requests that were refused", all.rejected.clone());
        r.register(
            "dropped",
            "What a slow reader, or one that has gone, did not get",
            all.dropped.clone(),
        );
        r.register("p_value", "Conformal p-values", all.p_values.clone());
        let drift = "Evidence that the rows are not as those of calibration, as log10";
        r.register("drift_evidence_log10", drift, all.evidence.clone());
        let alarm = "1 after an alarm of drift that nobody has acknowledged";
        r.register("drifting", alarm, all.drifting.clone());
        let flagged = "Fraction of the last quarter of an hour's rows that were called anomalous";
        r.register("flagged_ratio", flagged, all.flagged.clone());
        r.register("reload", "Detectors that were read again", all.reloads.clone());
        r.register("model_info", "What is served", all.models.clone());
        all.registry = registry;
        Arc::new(all)
    }

    /// The monitor that rows are also told to.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    /// A request was answered.
    pub fn answered(&self, model: &str, code: u16, took: Duration) {
        self.requests.get_or_create(&OfRequest { model: model.to_owned(), code }).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// A request was refused.
    pub fn refused(&self, kind: Kind) {
        let reason = match kind {
            Kind::Invalid => "invalid",
            Kind::Unauthenticated => "unauthenticated",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not_found",
            Kind::Method => "method",
            Kind::Slow => "slow",
            Kind::Conflict => "conflict",
            Kind::TooLarge => "too_large",
            Kind::Encoding => "encoding",
            Kind::Busy => "busy",
            Kind::Internal => "internal",
            Kind::Unavailable => "unavailable",
            Kind::Late => "late",
        };
        self.rejected.get_or_create(&For { reason }).inc();
        self.monitor.refused(reason);
    }

    /// More rows wait, or fewer.
    pub fn waiting(&self, rows: i64) {
        self.queue_rows.inc_by(rows);
    }

    /// Rows that wait.
    pub fn queue_rows(&self) -> i64 {
        self.queue_rows.get()
    }

    /// A client had gone before its rows were scored.
    pub fn dropped_client(&self) {
        self.dropped.get_or_create(&To { sink: "client" }).inc();
    }

    /// A batch was scored.
    pub fn batch(&self, rows: usize, took: Duration) {
        self.batch_rows.observe(rows as f64);
        self.score_seconds.observe(took.as_secs_f64());
    }

    /// A request's rows were scored.
    pub fn scored(&self, model: &Model, scored: &Scored) {
        self.queue_seconds.observe(scored.waited.as_secs_f64());
        let name = &model.name;
        let count = |verdict, rows: usize| {
            let labels = OfRows { model: name.clone(), verdict };
            self.rows.get_or_create(&labels).inc_by(rows as u64);
        };
        if scored.p_values.is_empty() {
            count("none", scored.scores.len());
            return;
        }
        let anomalous = scored.ood.iter().filter(|ood| **ood).count();
        count("ood", anomalous);
        count("id", scored.ood.len() - anomalous);
        let p_values = self.p_values.get_or_create(&OfModel { model: name.clone() });
        scored.p_values.iter().for_each(|p| p_values.observe(*p));
    }

    /// A request's rows are told to the monitor; what it cannot take is counted.
    pub fn told(&self, told: Told<'_>) {
        let Told { model, id, scored, took } = told;
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let own = totals.entry(model.name.clone()).or_default();
        if own.sha256 != model.sha256 {
            *own = Totals { sha256: model.sha256.clone(), ..Totals::default() };
        }
        own.requests += 1;
        own.rows += scored.scores.len() as u64;
        own.waited += scored.waited;
        own.took += scored.took;
        drop(totals);
        if !self.monitor.tell(model, id, scored, took) {
            self.dropped.get_or_create(&To { sink: "monitor" }).inc();
        }
    }

    /// What Triton's protocol says of a model's work. Its tools (perf_analyzer) end where a version there is
    /// no number, so it is the digits of the version as one, and where parts of the work are left out.
    pub fn statistics(&self, model: &Model) -> Value {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let none = Totals::default();
        let own = totals.get(&model.name).filter(|own| own.sha256 == model.sha256);
        let own = own.unwrap_or(&none);
        let times = |all: Duration| json!({"count": own.requests, "ns": all.as_nanos() as u64});
        let version = u64::from_str_radix(&model.version, 16).unwrap_or_default().to_string();
        json!({
            "name": model.name,
            "version": version,
            "inference_count": own.rows,
            "execution_count": own.requests,
            "inference_stats": {
                "success": times(own.waited + own.took),
                "queue": times(own.waited),
                "compute_input": times(Duration::ZERO),
                "compute_infer": times(own.took),
                "compute_output": times(Duration::ZERO),
            },
        })
    }

    /// A detector was read again.
    pub fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&With { result }).inc();
    }

    /// All, as text for Prometheus.
    pub fn text(&self, models: &[Arc<Model>], memory: usize, log_dropped: u64) -> String {
        self.memory.set(memory as i64);
        self.models.clear();
        for model in models {
            let labels = Info {
                model: model.name.clone(),
                version: model.version.clone(),
                scorer: model.detector.scorer().name().to_owned(),
            };
            self.models.get_or_create(&labels).set(1);
        }
        for (name, found) in self.monitor.figures() {
            for (test, evidence) in found.evidence {
                let labels = OfTest { model: name.clone(), test };
                self.evidence.get_or_create(&labels).set(evidence);
            }
            let labels = OfModel { model: name };
            self.drifting.get_or_create(&labels).set(found.drifting.into());
            self.flagged.get_or_create(&labels).set(found.flagged);
        }
        for (sink, dropped) in [("log", log_dropped), ("monitor_state", self.monitor.not_kept())] {
            let lost = self.dropped.get_or_create(&To { sink });
            lost.inc_by(dropped.saturating_sub(lost.get()));
        }
        let mut text = String::new();
        // Into memory: it cannot fail.
        let _ = encode(&mut text, &self.registry);
        let text = as_prometheus(&text);
        text + &process()
    }
}

/// The text format of Prometheus, of the one that OpenMetrics made of it: counters are described by
/// the names that their values have, and units and the end are not said.
fn as_prometheus(text: &str) -> String {
    let mut counters: Vec<&str> = Vec::new();
    for line in text.lines() {
        let name = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter"));
        counters.extend(name);
    }
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                let _ = writeln!(out, "# {kind} {name}_total {rest}");
            }
            _ => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    out
}

/// What the system says of this process, under the names that all programs use.
fn process() -> String {
    let mut out = String::new();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let _ = write!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name} {value}\n");
        }
    };
    let status = read("status").unwrap_or_default();
    let of = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    // Fields after the program's name, which is in brackets and may hold spaces.
    let stat = read("stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect())
        .unwrap_or_default();
    let ticks = 100.0;
    let spent = fields.get(10).zip(fields.get(11)).map(|(user, system)| (user + system) / ticks);
    gauge("process_cpu_seconds_total", "counter", "Processor time spent", spent);
    let resident = of("VmRSS:").map(|kib| kib * 1024.0);
    gauge("process_resident_memory_bytes", "gauge", "Memory in use", resident);
    let peak = of("VmHWM:").map(|kib| kib * 1024.0);
    gauge("process_peak_resident_memory_bytes", "gauge", "Most memory that was in use", peak);
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as f64);
    gauge("process_open_fds", "gauge", "Open files and connections", open);
    gauge("process_threads", "gauge", "Threads", of("Threads:"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_the_names_of_their_values() {
        let text = "# HELP a_seconds Time.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                    a_seconds_sum 1\n# HELP b Some b's.\n# TYPE b counter\nb_total{c=\"d\"} 2\n# EOF\n";
        let want = "# HELP a_seconds Time.\n# TYPE a_seconds histogram\na_seconds_sum 1\n\
                    # HELP b_total Some b's.\n# TYPE b_total counter\nb_total{c=\"d\"} 2\n";
        assert_eq!(as_prometheus(text), want);
    }
}
