//! The names that are served, what is loaded of each, and what scores it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use heat_ood::Error;
use heat_ood::io::{free_memory, readable};

use crate::images::Network;
use crate::model::Model;
use crate::queue::Queue;
use crate::refusal::{Kind, Refusal, Result};

/// A name that is served: its file, what is loaded of it, and what scores it.
pub struct Served {
    /// What clients call it.
    pub name: String,
    /// The detector's file.
    pub path: PathBuf,
    /// What is loaded.
    current: ArcSwapOption<Model>,
    /// The network that makes features of images for it, and where images wait.
    pub network: Option<(Arc<Network>, Arc<Queue>)>,
    /// Where rows of features wait.
    pub queue: Arc<Queue>,
    /// How the last loading ended, and when.
    loaded: Mutex<Loaded>,
}

/// How a loading ended.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// When.
    pub at: SystemTime,
    /// What was wrong, if it failed; what was there before is served on.
    pub problem: Option<String>,
    /// Whether it was taken out of service by an administrator.
    pub unloaded: bool,
}

impl Served {
    /// One whose detector is loaded.
    pub fn new(
        model: Model,
        path: PathBuf,
        network: Option<(Arc<Network>, Arc<Queue>)>,
        queue: Arc<Queue>,
    ) -> Self {
        let loaded = Loaded { at: SystemTime::now(), problem: None, unloaded: false };
        Served {
            name: model.name.clone(),
            path,
            current: ArcSwapOption::from_pointee(model),
            network,
            queue,
            loaded: Mutex::new(loaded),
        }
    }

    /// What is loaded now.
    ///
    /// # Errors
    /// If it was taken out of service.
    pub fn current(&self) -> Result<Arc<Model>> {
        self.current.load_full().ok_or_else(|| {
            let text = format!("the model `{}` is not loaded", self.name);
            Refusal::new(Kind::Unavailable, text)
        })
    }

    /// What is loaded now, in that version.
    ///
    /// # Errors
    /// If another version is, or none.
    pub fn version(&self, version: Option<&str>) -> Result<Arc<Model>> {
        let model = self.current()?;
        match version {
            Some(asked) if asked != model.version && !asked.is_empty() => {
                let text = format!("the model `{}` has no such version", self.name);
                Err(Refusal::new(Kind::NotFound, text))
            }
            _ => Ok(model),
        }
    }

    /// Read the file again and serve what is in it from now on. On any failure what was there
    /// stays. Whether it is another version.
    ///
    /// # Errors
    /// As [`Model::open`]; or where it does not go with the network.
    pub fn reload(&self) -> heat_ood::Result<bool> {
        let length = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let room = check_room(&self.path, length, free_memory());
        let opened = room.and_then(|()| Model::open(&self.name, &self.path)).and_then(|model| {
            if let Some((network, _)) = &self.network {
                network.check(&model.detector)?;
            }
            Ok(model)
        });
        let problem = opened.as_ref().err().map(ToString::to_string);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let unloaded = loaded.unloaded && problem.is_some();
        *loaded = Loaded { at: SystemTime::now(), problem, unloaded };
        let model = opened?;
        let before = self.current.load();
        let same = before.as_ref().is_some_and(|before| before.sha256 == model.sha256);
        if !same {
            self.current.store(Some(Arc::new(model)));
        }
        Ok(!same)
    }

    /// Take it out of service. Requests that are being answered still get their answers.
    pub fn unload(&self) {
        self.current.store(None);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        *loaded = Loaded { at: SystemTime::now(), problem: None, unloaded: true };
    }

    /// How the last loading ended.
    pub fn loaded(&self) -> Loaded {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Refuse a detector for which there is no room beside the one that is served meanwhile. It takes its
/// file's size twice at most, once it is scored with.
fn check_room(path: &Path, length: u64, free: Option<usize>) -> heat_ood::Result<()> {
    let needed = usize::try_from(length).unwrap_or(usize::MAX).saturating_mul(2);
    match free {
        Some(free) if needed > free => {
            let problem = format!(
                "takes up to {}, beside the detector that is served, and {} are free: stop the server \
                 and start it anew, or give it more memory",
                readable(needed),
                readable(free)
            );
            Err(Error::format(path, problem))
        }
        _ => Ok(()),
    }
}

/// All that is served, by name.
pub type Models = BTreeMap<String, Arc<Served>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_without_room_is_refused() {
        let path = Path::new("d.safetensors");
        assert!(check_room(path, 5 << 20, Some(10 << 20)).is_ok());
        assert!(check_room(path, u64::MAX, None).is_ok());
        let said = check_room(path, 6 << 20, Some(10 << 20)).unwrap_err().to_string();
        assert!(said.contains("12.0 MiB") && said.contains("10.0 MiB are free"), "{said}");
    }
}
