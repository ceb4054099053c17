//! What all requests share.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use serde_json::json;
use tokio::sync::watch;

use crate::budget::{Budget, Limits};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::phase::Phase;
use crate::refusal::{Kind, Refusal, Result};
use crate::served::{Models, Served};
use crate::settings::Settings;
use crate::tls::Tls;
use crate::tokens::{Scope, Tokens};

/// What all requests share.
pub struct Shared {
    /// How it was started.
    pub settings: Settings,
    /// What is served.
    pub models: Models,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Memory of requests.
    pub budget: Arc<Budget>,
    /// Where lines go.
    pub log: Log,
    /// What bounds bodies.
    pub body: Limits,
    /// When it began.
    pub began: Instant,
    /// Who may ask; nothing: anyone.
    pub tokens: ArcSwapOption<Tokens>,
    /// What is presented where TLS is spoken.
    pub tls: Option<Arc<Tls>>,
    /// How far it has come to its end.
    pub phase: watch::Sender<Phase>,
    /// Held while files are read again.
    pub reloading: Mutex<()>,
}

impl Shared {
    /// Whether it takes requests. Each model has scored its probe rows when it was loaded.
    pub fn is_ready(&self) -> bool {
        let loaded = || self.models.values().all(|served| served.current().is_ok());
        *self.phase.borrow() == Phase::Serving && loaded()
    }

    /// Whether it takes no more requests.
    pub fn is_ending(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    /// Whether who sent that `Authorization` may ask for what needs `scope`.
    ///
    /// # Errors
    /// If not.
    pub fn permit(&self, header: Option<&[u8]>, scope: Scope) -> Result<()> {
        match &*self.tokens.load() {
            Some(tokens) => tokens.check(header, scope),
            None => Ok(()),
        }
    }

    /// Whether a `Host` names this server's admin plane.
    pub fn is_own_host(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let known = self.settings.admin_hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
        known || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    }

    /// Read a model's file again; the version that is served then.
    ///
    /// # Errors
    /// If another file is being read, or this one cannot be served.
    pub fn reload(&self, served: &Served) -> Result<String> {
        let _one = match self.reloading.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let text = "a model is being loaded; try again after it";
                return Err(Refusal::new(Kind::Conflict, text));
            }
        };
        self.reload_now(served).map_err(|error| {
            // The administrator named the file: its path is no secret to them.
            Refusal::new(Kind::Invalid, format!("what was served before is served on: {error}"))
        })
    }

    fn reload_now(&self, served: &Served) -> heat_ood::Result<String> {
        match served.reload() {
            Ok(changed) => {
                let version = served.current().map(|m| m.version.clone()).unwrap_or_default();
                self.metrics.reloaded(if changed { "changed" } else { "same" });
                let fields = json!({"model": served.name, "version": version, "changed": changed});
                self.log.say("info", "a detector was read again", fields);
                Ok(version)
            }
            Err(error) => {
                self.metrics.reloaded("failed");
                let fields = json!({"model": served.name, "problem": error.to_string()});
                self.log.say(
                    "error",
                    "a detector was not read; the one before is served on",
                    fields,
                );
                Err(error)
            }
        }
    }

    /// Read everything again that may have changed: detectors, tokens, certificates.
    pub fn reload_all(&self) {
        let _one = self.reloading.lock();
        for served in self.models.values() {
            // Said in the log.
            let _ = self.reload_now(served);
        }
        if let Some(path) = &self.settings.tokens {
            match Tokens::open(path) {
                Ok(tokens) => {
                    self.tokens.store(Some(Arc::new(tokens)));
                    self.log.info("the tokens were read again");
                }
                Err(error) => self.log.warn(&format!("the tokens before stay: {error}")),
            }
        }
        match self.tls.as_ref().map(|tls| tls.reload()) {
            None => {}
            Some(Ok(())) => self.log.info("the certificates were read again"),
            Some(Err(error)) => self.log.warn(&format!("the certificates before stay: {error}")),
        }
    }
}
