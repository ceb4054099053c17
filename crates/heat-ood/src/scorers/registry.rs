//! How scorers and priors are read back, by name: the library's own, and those
//! for which a loader is registered.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::method::Method;
use super::methods::{self, NAMES};
use super::no_prior::NoPrior;
use super::{EnergyLogitsConfig, GmmConfig, KnnConfig, Prior, Scorer, Stored, VimConfig};
use super::{LAYER, VIEWS};
use crate::error::{Error, Result};

/// Reads a scorer back.
type Loader = Arc<dyn Fn(&Stored<'_>) -> Result<Arc<dyn Scorer>> + Send + Sync>;

/// Reads a prior back.
type PriorLoader = Arc<dyn Fn(&Stored<'_>) -> Result<Arc<dyn Prior>> + Send + Sync>;

#[derive(Clone)]
enum Registered {
    Scorer(Loader),
    Prior(PriorLoader),
}

static LOADERS: LazyLock<RwLock<HashMap<String, Registered>>> = LazyLock::new(Default::default);

/// What the library makes itself besides the methods.
const RESERVED: [&str; 7] =
    ["heat", "combined", "fusion", "predictor", LAYER, VIEWS, NoPrior::NAME];

fn insert(kind: &str, loader: Registered) -> Result<()> {
    if methods::find(kind).is_some() || RESERVED.contains(&kind) {
        return Err(Error::config("kind", kind, "is the name of a scorer of this library"));
    }
    let mut loaders = LOADERS.write().unwrap_or_else(PoisonError::into_inner);
    loaders.insert(kind.to_owned(), loader);
    Ok(())
}

fn find(kind: &str) -> Option<Registered> {
    LOADERS.read().unwrap_or_else(PoisonError::into_inner).get(kind).cloned()
}

/// Register how a scorer of your own is read back: `kind` is that of its
/// [`Section`](super::Section). A detector that holds one can then be saved,
/// and opened wherever it is registered. The last loader of a kind counts.
///
/// # Errors
/// If the library has a scorer of that name.
pub fn register(
    kind: &str,
    loader: impl Fn(&Stored<'_>) -> Result<Arc<dyn Scorer>> + Send + Sync + 'static,
) -> Result<()> {
    insert(kind, Registered::Scorer(Arc::new(loader)))
}

/// The same of a prior: a HEAT trained on it can then be saved and opened,
/// a run on it resumed, and the prior itself be a detector.
///
/// # Errors
/// As [`register`].
pub fn register_prior(
    kind: &str,
    loader: impl Fn(&Stored<'_>) -> Result<Arc<dyn Prior>> + Send + Sync + 'static,
) -> Result<()> {
    insert(kind, Registered::Prior(Arc::new(loader)))
}

/// Read back with a registered loader, if there is one.
fn load_registered(stored: &Stored<'_>) -> Option<Result<Arc<dyn Scorer>>> {
    Some(match find(stored.kind())? {
        Registered::Scorer(loader) => loader(stored),
        Registered::Prior(loader) => loader(stored).map(|prior| prior as Arc<dyn Scorer>),
    })
}

/// As [`load_registered`], of priors.
fn load_registered_prior(stored: &Stored<'_>) -> Option<Result<Arc<dyn Prior>>> {
    match find(stored.kind())? {
        Registered::Scorer(_) => None,
        Registered::Prior(loader) => Some(loader(stored)),
    }
}

/// Read back a scorer: one of [`NAMES`], or a [registered](super::register) one.
///
/// # Errors
/// If its kind is unknown or its tensors are not what they should be.
pub fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>> {
    if let Some(method) = methods::find(stored.kind()) {
        return (method.load)(stored);
    }
    let unknown = || Err(Error::unknown("scorer", stored.kind(), NAMES));
    load_registered(stored).unwrap_or_else(unknown)
}

/// Names of the scorers that a residual energy can be trained on.
pub const PRIORS: [&str; 4] = ["gmm", "el", "vim", "knn"];

/// Read back a prior: one of [`PRIORS`], or a [registered](super::register_prior) one.
///
/// # Errors
/// As [`load`].
pub fn load_prior(stored: &Stored<'_>) -> Result<Arc<dyn Prior>> {
    match stored.kind() {
        "gmm" => Ok(Arc::new(GmmConfig::load(stored)?)),
        "vim" => Ok(Arc::new(VimConfig::load(stored)?)),
        "knn" => Ok(Arc::new(KnnConfig::load(stored)?)),
        NoPrior::NAME => Ok(Arc::new(NoPrior::load(stored)?)),
        "el" => {
            let el = EnergyLogitsConfig::load(stored)?;
            if !el.has_head() {
                let problem = "its `el` prior has no head";
                return Err(Error::format(stored.file.path(), problem));
            }
            Ok(Arc::new(el))
        }
        other => {
            let unknown = || Err(Error::unknown("prior", other, PRIORS));
            load_registered_prior(stored).unwrap_or_else(unknown)
        }
    }
}

fn unregistered(kind: &str, function: &str) -> Error {
    let problem = format!(
        "no loader is registered for it, so that a file with it could not be opened: \
         call `scorers::{function}(\"{kind}\", …)` first"
    );
    Error::config("scorer", kind, problem)
}

/// That a scorer of this kind can be read back.
pub(crate) fn check_scorer(kind: &str) -> Result<()> {
    if NAMES.contains(&kind) || find(kind).is_some() {
        return Ok(());
    }
    Err(unregistered(kind, "register"))
}

/// That a prior of this kind can be read back.
pub(crate) fn check_prior(kind: &str) -> Result<()> {
    let ours = PRIORS.contains(&kind) || kind == NoPrior::NAME;
    if ours || matches!(find(kind), Some(Registered::Prior(_))) {
        return Ok(());
    }
    Err(unregistered(kind, "register_prior"))
}
