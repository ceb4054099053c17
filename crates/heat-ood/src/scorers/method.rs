//! A scorer of the list: how it is fitted beside others, and read back.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use super::context::{FitContext, StatisticRequest};
use super::fit::{Fitted, TrainingData};
use super::{Scorer, Stored};
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::settings::{keys_of, typed};

/// The settings of a scorer in the list of [`methods`](super::methods).
///
/// What it writes besides: `impl Scorer` for what is fitted, and the
/// declaration of the settings.
pub(crate) trait Method: Serialize + DeserializeOwned + Default + 'static {
    /// Name of the method.
    const NAME: &'static str;
    /// What comes of fitting.
    type Scorer: Scorer;

    /// What settings must hold beyond their types; `given` are those that
    /// were written.
    fn check(&self, _given: &Table) -> Result<()> {
        Ok(())
    }

    /// Sums over the training set that the fit needs first: they are found in
    /// a pass shared with other scorers.
    fn requests(&self, _context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        Ok(Vec::new())
    }

    /// Fit it.
    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Self::Scorer>;

    /// Read a fitted one back.
    fn load(stored: &Stored<'_>) -> Result<Self::Scorer>;
}

/// Fit one method alone.
pub(super) fn fit_method<M: Method>(
    config: &M,
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Result<Fitted<M::Scorer>> {
    config.check(&Table::new())?;
    check_finite(M::NAME, config)?;
    let scorer = config.fit_in(&mut FitContext::new(data, observer));
    Fitted::on(data, scorer.map_err(|e| asked_for(M::NAME, e))?)
}

/// Refuse numbers that no file can hold: NaN and infinity.
fn check_finite<M: Serialize>(name: &str, config: &M) -> Result<()> {
    let settings = Table::try_from(config).unwrap_or_default();
    let wrong = settings.iter().find_map(|(key, value)| {
        let value = value.as_float().filter(|v| !v.is_finite())?;
        Some((key, value))
    });
    wrong.map_or(Ok(()), |(key, value)| {
        Err(Error::config(key, value, format!("`{name}` takes finite numbers alone")))
    })
}

/// An error of the method that a scorer is made of (`gmm` within `ssd`), under the name of
/// the one that was asked for.
pub(super) fn asked_for(name: &str, error: Error) -> Error {
    match error {
        Error::Fit { what, problem } if what.chars().all(|c| c.is_alphanumeric() || c == '_') => {
            Error::Fit { what: name.to_owned(), problem }
        }
        other => other,
    }
}

/// Offer the methods of a file: those that have these settings, with what
/// comes of fitting.
macro_rules! offer {
    ($($config:ident => $scorer:ident),* $(,)?) => {
        pub(in crate::scorers) const METHODS: &[$crate::scorers::method::Entry] =
            &[$($crate::scorers::method::Entry::of::<$config>()),*];

        $(
            impl $crate::scorers::Fit for $config {
                type Scorer = $scorer;

                fn fit(
                    &self,
                    data: &$crate::scorers::TrainingData,
                    observer: &mut dyn $crate::observe::Observer,
                ) -> $crate::error::Result<$crate::scorers::Fitted<$scorer>> {
                    $crate::scorers::method::fit_method(self, data, observer)
                }
            }
        )*
    };
}
pub(super) use offer;

/// A [`Method`] of the list, whatever its settings.
pub(super) struct Entry {
    pub name: &'static str,
    /// Names of its settings.
    pub keys: fn() -> Vec<String>,
    /// Their defaults, by name.
    pub defaults: fn() -> serde_json::Value,
    prepare: fn(&Table) -> Result<Box<dyn Prepared>>,
    pub load: fn(&Stored<'_>) -> Result<Arc<dyn Scorer>>,
}

/// A method with its settings.
pub(super) trait Prepared {
    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>>;
    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Arc<dyn Scorer>>;
}

impl<M: Method> Prepared for M {
    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        Method::requests(self, context)
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Method::fit_in(self, context)?))
    }
}

impl Entry {
    pub const fn of<M: Method>() -> Self {
        Entry {
            name: M::NAME,
            keys: keys_of::<M>,
            defaults: || serde_json::to_value(M::default()).unwrap_or_default(),
            prepare: |settings| {
                let config: M = typed(settings, M::NAME)?;
                config.check(settings)?;
                check_finite(M::NAME, &config)?;
                Ok(Box::new(config))
            },
            load: |stored| Ok(Arc::new(M::load(stored)?)),
        }
    }

    /// The settings, read and checked.
    pub fn prepare(&self, settings: &Table) -> Result<Box<dyn Prepared>> {
        (self.prepare)(settings)
    }
}

/// Declare the methods of a directory. Each has a file of its name, which
/// exports its settings and scorer, and `METHODS` with one entry a method.
macro_rules! methods {
    ($($module:ident),* $(,)?) => {
        $(
            pub mod $module;
            pub use $module::*;
        )*

        /// The entries of this directory, by file.
        pub(in crate::scorers) const METHODS: &[&[$crate::scorers::method::Entry]] =
            &[$($module::METHODS),*];
    };
}
pub(super) use methods;
