//! The server: how it begins, what signals do, how it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use heat_ood::Error;
use heat_ood::calibrate::drift::DriftConfig;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};

use crate::budget::{Budget, Limits};
use crate::grpc;
use crate::http::{self, Listen};
use crate::images::Network;
use crate::kept::Keeper;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::model::{Model, check_name};
use crate::monitor::Monitor;
use crate::phase::Phase;
use crate::queue::{Queue, Workers};
use crate::refusal::Kind;
use crate::served::{Models, Served};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::tls::{Certificates, Tls};
use crate::tokens::Tokens;

/// Rows for which the drift test keeps its promise.
const HORIZON: u64 = 1_000_000;

/// Bytes of the heads of the admin plane.
const ADMIN_MEMORY: usize = 4 << 20;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// A server whose files are loaded.
pub struct Server {
    shared: Arc<Shared>,
    workers: Vec<Workers>,
    stop: Arc<Notify>,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The data plane.
    pub data: SocketAddr,
    /// gRPC, if it is spoken.
    pub grpc: Option<SocketAddr>,
    /// The admin plane, if there is one.
    pub admin: Option<SocketAddr>,
}

/// Asks a server for an end, as the signals do.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Notify>);

impl Stop {
    /// Ask for it.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All requests that it had taken were answered.
    Clean,
    /// Some were not in the time that there was.
    Cut,
}

fn check_settings(settings: &Settings) -> heat_ood::Result<()> {
    let refuse = |key: &str, value: String, problem: &str| Err(Error::config(key, value, problem));
    if settings.detectors.is_empty() {
        return refuse("detectors", "".into(), "name at least one detector file");
    }
    for (key, value) in [
        ("max-batch-rows", settings.max_batch_rows),
        ("max-request-rows", settings.max_request_rows),
        ("max-body", settings.max_body),
        ("queue-rows", settings.queue_rows),
        ("memory", settings.memory),
        ("max-connections", settings.max_connections),
        ("threads", settings.threads),
    ] {
        if value == 0 {
            return refuse(key, "0".into(), "must be at least 1");
        }
    }
    for (i, detector) in settings.detectors.iter().enumerate() {
        check_name(&detector.name)?;
        if settings.detectors[..i].iter().any(|other| other.name == detector.name) {
            let problem = "is the name of two detectors; give one as NAME=DETECTOR";
            return refuse("detectors", detector.name.clone(), problem);
        }
    }
    for network in &settings.backbones {
        if !settings.detectors.iter().any(|detector| detector.name == network.name) {
            let problem = "names no detector: it goes before one, as NAME=MODEL.onnx";
            return refuse("backbone", network.name.clone(), problem);
        }
    }
    if settings.tls_cert.is_some() != settings.tls_key.is_some() {
        return refuse("tls-cert", "".into(), "a certificate and its key go together");
    }
    if settings.tls_client_ca.is_some() && settings.tls_cert.is_none() {
        return refuse("tls-client-ca", "".into(), "needs `--tls-cert` and `--tls-key`");
    }
    for (key, value) in [
        ("request-timeout", settings.request_timeout),
        ("body-timeout", settings.body_timeout),
        ("header-timeout", settings.header_timeout),
        ("idle-timeout", settings.idle_timeout),
    ] {
        if value.is_zero() {
            return refuse(key, "0".into(), "must be longer");
        }
    }
    if !(0.0..1.0).contains(&settings.drift_effect) {
        let problem = "a fraction of anomalous rows lies in 0..1, e.g. 0.02";
        return refuse("drift-effect", settings.drift_effect.to_string(), problem);
    }
    if let Some(address) = exposed(settings)
        && settings.tokens.is_none()
        && !settings.insecure
    {
        let problem = "strangers could ask there: give `--tokens FILE` (`heat token` makes one), \
                       or insist by `--insecure`";
        return refuse("listen", address.to_string(), problem);
    }
    Ok(())
}

/// An address on which others than this machine may ask.
fn exposed(settings: &Settings) -> Option<SocketAddr> {
    let listeners = [Some(settings.listen), settings.grpc, settings.admin];
    listeners.into_iter().flatten().find(|address| !address.ip().is_loopback())
}

impl Server {
    /// Load everything.
    ///
    /// # Errors
    /// If a setting cannot be understood, or a file not be served.
    pub fn open(settings: Settings) -> heat_ood::Result<Self> {
        check_settings(&settings)?;
        let log = Log::start(settings.log);
        let tokens = settings.tokens.as_deref().map(Tokens::open).transpose()?;
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => {
                let client_authority = settings.tls_client_ca.clone();
                let (certificate, key) = (certificate.clone(), key.clone());
                Some(Arc::new(Tls::open(Certificates { certificate, key, client_authority })?))
            }
            _ => None,
        };
        if tls.is_none() && exposed(&settings).is_some() {
            log.warn(
                "without --tls-cert and --tls-key, tokens and features can be read on the way",
            );
        }
        let min_admixture = settings.drift_effect;
        let drift = DriftConfig { horizon: HORIZON, min_admixture, ..DriftConfig::default() };
        let keep = |directory: &PathBuf| Keeper::open(directory, log.clone());
        let keeper = settings.monitor_state.as_ref().map(keep).transpose()?;
        let monitor = Monitor::start(drift, settings.recent, log.clone(), keeper);
        let metrics = Metrics::new(monitor);
        let queue = || {
            let Settings { queue_rows, max_batch_rows, batch_wait, .. } = settings;
            Queue::new(queue_rows, max_batch_rows, batch_wait, Arc::clone(&metrics), log.clone())
        };
        let features = queue();
        let mut workers = vec![Workers::start("score", &features, settings.threads, None)?];
        let mut models = Models::new();
        for file in &settings.detectors {
            let model = Model::open(&file.name, &file.path)?;
            metrics.monitor().watch(&model);
            let before = settings.backbones.iter().find(|network| network.name == file.name);
            let network = before.map(|network| {
                let opened = Network::open(&network.path, &model.detector, settings.max_pixels)?;
                let (opened, own) = (Arc::new(opened), queue());
                workers.push(Workers::start("image", &own, 1, Some(&opened))?);
                Ok::<_, Error>((opened, own))
            });
            let served =
                Served::new(model, file.path.clone(), network.transpose()?, Arc::clone(&features));
            models.insert(file.name.clone(), Arc::new(served));
        }
        let body = Limits { bytes: settings.max_body, time: settings.body_timeout };
        let shared = Shared {
            models,
            metrics,
            budget: Budget::new(settings.memory),
            log,
            body,
            began: Instant::now(),
            tokens: ArcSwapOption::from_pointee(tokens),
            tls,
            phase: watch::Sender::new(Phase::Serving),
            reloading: Mutex::new(()),
            settings,
        };
        Ok(Server { shared: Arc::new(shared), workers, stop: Arc::default() })
    }

    /// What asks it for an end once it runs.
    pub fn stop(&self) -> Stop {
        Stop(Arc::clone(&self.stop))
    }

    /// What is served, a line each.
    pub fn describe(&self) -> Vec<String> {
        let one = |served: &Arc<Served>| {
            let model = served.current().ok()?;
            let reads = model.inputs.iter().map(|(f, dim)| format!("{} [N, {dim}]", f.name()));
            let reads = reads.collect::<Vec<_>>().join(", ");
            let images = if served.network.is_some() { ", images" } else { "" };
            let verdicts = match model.detector.calibration() {
                Some(calibration) => calibration.words(),
                None => "not calibrated: scores without verdicts".into(),
            };
            let (name, version) = (&model.name, &model.version);
            let scorer = model.detector.scorer().name();
            Some(format!("{name} {version}: {scorer}, reads {reads}{images}; {verdicts}"))
        };
        self.shared.models.values().filter_map(one).collect()
    }

    /// Serve until a signal asks for an end, and answer what was taken by then. `began` is told
    /// the addresses that are listened on.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub fn run(self, began: impl FnOnce(&Addresses)) -> heat_ood::Result<Ended> {
        let Server { shared, workers, stop } = self;
        let threads = shared.settings.threads.clamp(1, 2);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(shared.settings.threads.max(2) + 2)
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(|e| Error::config("threads", threads, e.to_string()))?;
        let ended = runtime.block_on(serve(&shared, &stop, began));
        // What nobody waits for any more is let go.
        runtime.shutdown_timeout(Duration::from_millis(200));
        if ended.is_ok() {
            for one in workers {
                one.finish();
            }
            shared.metrics.monitor().keep();
        }
        shared.log.flush();
        ended
    }
}

async fn listen(key: &str, address: SocketAddr) -> heat_ood::Result<TcpListener> {
    let failed = |e: std::io::Error| {
        Error::config(key, address, format!("cannot be listened on: {e}; choose another"))
    };
    TcpListener::bind(address).await.map_err(failed)
}

async fn serve(
    shared: &Arc<Shared>,
    stop: &Notify,
    began: impl FnOnce(&Addresses),
) -> heat_ood::Result<Ended> {
    let settings = &shared.settings;
    let data = listen("listen", settings.listen).await?;
    let other = async |key, address: Option<SocketAddr>| match address {
        Some(address) => listen(key, address).await.map(Some),
        None => Ok(None),
    };
    let calls = other("grpc", settings.grpc).await?;
    let admin = other("admin", settings.admin).await?;
    let address = |listener: &TcpListener| listener.local_addr().ok();
    began(&Addresses {
        data: address(&data).unwrap_or(settings.listen),
        grpc: calls.as_ref().and_then(address),
        admin: admin.as_ref().and_then(address),
    });
    let phase = shared.phase.subscribe();
    let how = Listen {
        connections: Arc::new(Semaphore::new(settings.max_connections)),
        header_timeout: settings.header_timeout,
        idle: settings.idle_timeout,
        tls: shared.tls.clone(),
        budget: Arc::clone(&shared.budget),
        log: shared.log.clone(),
    };
    let mut planes = tokio::task::JoinSet::new();
    planes.spawn(http::accept(data, http::data(shared), how.clone(), phase.clone()));
    if let Some(calls) = calls {
        planes.spawn(http::accept(calls, grpc::routers(shared), how.clone(), phase.clone()));
    }
    if let Some(admin) = admin {
        // Connections and memory of clients keep no administrator out.
        let (connections, budget) = (Arc::new(Semaphore::new(64)), Budget::new(ADMIN_MEMORY));
        let how = Listen { connections, budget, ..how };
        planes.spawn(http::accept(admin, http::admin(shared), how, phase));
    }
    let watching = settings.watch.then(|| tokio::spawn(watch_files(Arc::clone(shared))));
    let mut signals = Signals::new()?;
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = stop.notified() => Signal::End,
        };
        match signal {
            Signal::Reload => {
                let own = Arc::clone(shared);
                // Said in the log what came of it.
                let _ = tokio::task::spawn_blocking(move || own.reload_all()).await;
            }
            Signal::End => break,
        }
    }
    if let Some(watching) = watching {
        watching.abort();
    }
    shared.log.info("ending: requests that were taken are answered");
    shared.phase.send_replace(Phase::Leaving);
    let delay = tokio::time::sleep(settings.drain_delay);
    tokio::select! {
        () = delay => {}
        () = signals.end() => return Ok(Ended::Cut),
    }
    shared.phase.send_replace(Phase::Draining);
    let all = async { while planes.join_next().await.is_some() {} };
    tokio::select! {
        ended = tokio::time::timeout(settings.drain, all) => {
            if ended.is_ok() {
                return Ok(Ended::Clean);
            }
            shared.log.warn("some connections did not end in the time that there was");
            Ok(Ended::Cut)
        }
        () = signals.end() => Ok(Ended::Cut),
    }
}

enum Signal {
    Reload,
    End,
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> heat_ood::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let on = |kind| signal(kind).map_err(|e| Error::config("signals", "", e.to_string()));
        Ok(Signals {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End,
            _ = self.interrupt.recv() => Signal::End,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    async fn end(&mut self) {
        while let Signal::Reload = self.next().await {}
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> heat_ood::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) -> Signal {
        let _ = tokio::signal::ctrl_c().await;
        Signal::End
    }

    async fn end(&mut self) {
        self.next().await;
    }
}

/// What a file is known by without reading it.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

/// Read detectors again whose files have changed, once they stand still.
async fn watch_files(shared: Arc<Shared>) {
    let mut known: Vec<_> = shared.models.values().map(|served| stamp(&served.path)).collect();
    let mut seen = known.clone();
    loop {
        tokio::time::sleep(LOOK).await;
        for (i, served) in shared.models.values().enumerate() {
            let now = stamp(&served.path);
            let still = now == seen[i];
            seen[i] = now;
            // Half copied: wait until it stands still. Gone: what is loaded is served on.
            if now.is_none() || now == known[i] || !still {
                continue;
            }
            let (own, one) = (Arc::clone(&shared), Arc::clone(served));
            let done = tokio::task::spawn_blocking(move || own.reload(&one)).await;
            // One that was refused because another is being read is tried again.
            let busy = matches!(&done, Ok(Err(refused)) if refused.kind == Kind::Conflict);
            if !busy {
                known[i] = now;
            }
        }
    }
}
