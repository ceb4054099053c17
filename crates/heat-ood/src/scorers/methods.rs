//! The list of methods: one line each.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use super::training::{Training, Want};
use super::{
    Cadref, CadrefConfig, Cfood, CfoodConfig, Kpca, KpcaConfig, Nnguide, NnguideConfig, Relation,
    RelationConfig, Residual, ResidualConfig, Rmds, Weiper, WeiperConfig,
};
use super::{
    Cosine, CosineConfig, Dice, DiceConfig, EnergyLogits, Gmm, GmmConfig, Klm, Knn, KnnConfig,
    LogitsConfig, MaxLogit, Mean, MeanConfig, Msp, Norm, NormConfig, Odin, OdinConfig, Scorer, Ssd,
    Stored, Vim, VimConfig,
};
use super::{
    Entropy, Fdbd, FdbdConfig, Gen, GenConfig, GradNorm, GradNormConfig, Nci, NciConfig, Neco,
    NecoConfig, Pnml, PnmlConfig, React, ReactConfig, Shaped, Shaping, ShapingConfig, She,
    SheConfig, Temperature, TemperatureConfig, Vra, VraConfig,
};
use crate::error::{Error, Result};
use crate::settings::typed;

/// All methods, in the order in which they are listed to people.
pub(super) const METHODS: [Entry; 40] = [
    entry::<Msp>(),
    entry::<MaxLogit>(),
    entry::<EnergyLogits>(),
    entry::<Odin>(),
    entry::<Klm>(),
    entry::<Gmm>(),
    entry::<Ssd>(),
    entry::<Maha>(),
    entry::<Knn>(),
    entry::<Vim>(),
    entry::<Dice>(),
    entry::<Cosine>(),
    entry::<Mean>(),
    entry::<Norm>(),
    // Of the head.
    entry::<React>(),
    entry::<AshP>(),
    entry::<AshB>(),
    entry::<AshS>(),
    entry::<Scale>(),
    entry::<Vra>(),
    entry::<Lts>(),
    entry::<Gen>(),
    entry::<Entropy>(),
    entry::<Temperature>(),
    entry::<She>(),
    entry::<GradNorm>(),
    entry::<Fdbd>(),
    entry::<Nci>(),
    entry::<Neco>(),
    entry::<Pnml>(),
    // Of distances and densities.
    entry::<MdsPp>(),
    entry::<Rmds>(),
    entry::<RmdsPp>(),
    entry::<Residual>(),
    entry::<Cadref>(),
    entry::<Kpca>(),
    entry::<Nnguide>(),
    entry::<Cfood>(),
    entry::<Relation>(),
    entry::<Weiper>(),
];

/// A scorer that is fitted from features alone, by name.
pub(super) trait Method {
    /// Its name.
    const NAME: &'static str;
    /// Its settings.
    type Config: Serialize + DeserializeOwned + Default + 'static;

    /// What settings must hold beyond their types.
    fn check(_config: &Self::Config, _given: &Table) -> Result<()> {
        Ok(())
    }

    /// Sums over the training set that its fit needs first: they are found in
    /// a pass shared with other scorers.
    fn wants(_config: &Self::Config, _training: &mut Training<'_>) -> Result<Vec<Want>> {
        Ok(Vec::new())
    }

    /// Fit it.
    fn fit(config: &Self::Config, training: &mut Training<'_>) -> Result<Arc<dyn Scorer>>;

    /// Read it back.
    fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>>;
}

/// A method of the list.
pub(super) struct Entry {
    pub name: &'static str,
    prepare: fn(&Table) -> Result<Box<dyn Prepared>>,
    pub load: fn(&Stored<'_>) -> Result<Arc<dyn Scorer>>,
}

impl Entry {
    /// Its settings, read and checked.
    pub fn prepare(&self, settings: &Table) -> Result<Box<dyn Prepared>> {
        (self.prepare)(settings)
    }
}

/// A method with its settings.
pub(super) trait Prepared {
    fn wants(&self, training: &mut Training<'_>) -> Result<Vec<Want>>;
    fn fit(&self, training: &mut Training<'_>) -> Result<Arc<dyn Scorer>>;
}

struct With<M: Method>(M::Config);

impl<M: Method> Prepared for With<M> {
    fn wants(&self, training: &mut Training<'_>) -> Result<Vec<Want>> {
        M::wants(&self.0, training)
    }

    fn fit(&self, training: &mut Training<'_>) -> Result<Arc<dyn Scorer>> {
        M::fit(&self.0, training)
    }
}

const fn entry<M: Method + 'static>() -> Entry {
    fn prepare<M: Method + 'static>(settings: &Table) -> Result<Box<dyn Prepared>> {
        let config: M::Config = typed(settings, M::NAME)?;
        M::check(&config, settings)?;
        Ok(Box::new(With::<M>(config)))
    }
    Entry { name: M::NAME, prepare: prepare::<M>, load: M::load }
}

/// A method whose fit needs no more than this expression.
macro_rules! method {
    ($type:ty, $name:literal, $config:ty, |$c:ident, $t:ident| $fit:expr) => {
        impl Method for $type {
            const NAME: &'static str = $name;
            type Config = $config;

            fn fit($c: &$config, $t: &mut Training<'_>) -> Result<Arc<dyn Scorer>> {
                Ok(Arc::new($fit))
            }

            fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>> {
                Ok(Arc::new(<$type>::load(stored)?))
            }
        }
    };
}

method!(Msp, "msp", LogitsConfig, |c, t| Msp::fit(c.clone(), t.train, t.head)?);
method!(MaxLogit, "max_logit", LogitsConfig, |c, t| MaxLogit::fit(c.clone(), t.train, t.head)?);
method!(EnergyLogits, "el", LogitsConfig, |c, t| {
    EnergyLogits::fit(c.clone(), t.train, t.head)?
});
method!(Odin, "odin", OdinConfig, |c, t| c.fit(t.train, t.head)?);
method!(Klm, "klm", LogitsConfig, |c, t| Klm::fit(c.clone(), t.train, t.head, t.observer)?);
method!(Knn, "knn", KnnConfig, |c, t| {
    let classes = t.known_classes()?;
    c.fit(t.train, classes, t.observer)?
});
method!(Dice, "dice", DiceConfig, |c, t| c.fit(t.train, t.head, t.observer)?);
method!(Cosine, "cosine", CosineConfig, |c, t| c.fit(t.train, t.head)?);
method!(Mean, "mean", MeanConfig, |c, t| {
    let classes = Some(t.classes()?);
    c.fit(t.train, classes, t.observer)?
});
method!(Norm, "norm", NormConfig, |c, t| c.fit(t.train)?);

/// `ssd` without normalising.
struct Maha;

/// Those that share the moments of the classes.
macro_rules! gaussian {
    ($type:ty, $name:literal, $check:expr, |$config:ident| $settings:expr, $wrap:expr, $load:expr) => {
        impl Method for $type {
            const NAME: &'static str = $name;
            type Config = GmmConfig;

            fn check(config: &GmmConfig, given: &Table) -> Result<()> {
                let check: fn(&GmmConfig, &Table) -> Result<()> = $check;
                check(config, given)
            }

            fn wants($config: &GmmConfig, training: &mut Training<'_>) -> Result<Vec<Want>> {
                $settings.wants(training)
            }

            fn fit($config: &GmmConfig, training: &mut Training<'_>) -> Result<Arc<dyn Scorer>> {
                Ok(Arc::new($wrap($settings.fit_in(training)?)?))
            }

            fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>> {
                Ok(Arc::new($load(stored)?))
            }
        }
    };
}

fn anything(_: &GmmConfig, _: &Table) -> Result<()> {
    Ok(())
}

/// Refuse `normalize` of this value.
fn refuse_normalize(given: &Table, value: bool, problem: &str) -> Result<()> {
    if given.get("normalize") == Some(&toml::Value::Boolean(value)) {
        return Err(Error::config("normalize", value, problem));
    }
    Ok(())
}

fn not_normalized(_: &GmmConfig, given: &Table) -> Result<()> {
    refuse_normalize(given, true, "`maha` is `ssd` without normalising; use `ssd`")
}

gaussian!(Gmm, "gmm", anything, |config| config, Ok::<_, Error>, Gmm::load);
gaussian!(Ssd, "ssd", anything, |config| config, ssd, Ssd::load);

fn ssd(gmm: Gmm) -> Result<Ssd> {
    Ok(Ssd::of(gmm))
}
gaussian!(
    Maha,
    "maha",
    not_normalized,
    |config| GmmConfig { normalize: false, ..config.clone() },
    ssd,
    Ssd::load
);

/// Methods whose settings have `wants` and `fit_in`.
macro_rules! gathered {
    ($type:ty, $name:literal, $config:ty, $check:expr) => {
        impl Method for $type {
            const NAME: &'static str = $name;
            type Config = $config;

            fn check(config: &$config, given: &Table) -> Result<()> {
                let check: fn(&$config, &Table) -> Result<()> = $check;
                check(config, given)
            }

            fn wants(config: &$config, training: &mut Training<'_>) -> Result<Vec<Want>> {
                config.wants(training)
            }

            fn fit(config: &$config, training: &mut Training<'_>) -> Result<Arc<dyn Scorer>> {
                Ok(Arc::new(config.fit_in(training)?))
            }

            fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>> {
                Ok(Arc::new(<$type>::load(stored)?))
            }
        }
    };
}

method!(React, "react", ReactConfig, |c, t| c.fit(t.train, t.head)?);
method!(Gen, "gen", GenConfig, |c, t| c.fit(t.train, t.head)?);
method!(Entropy, "entropy", LogitsConfig, |c, t| Entropy::fit(c.clone(), t.train, t.head)?);
method!(GradNorm, "gradnorm", GradNormConfig, |c, t| c.fit_in(t)?);

/// Those that differ in [`Shaping`] alone.
macro_rules! shaping {
    ($($type:ident, $name:literal;)*) => {$(
        struct $type;

        impl Method for $type {
            const NAME: &'static str = $name;
            type Config = ShapingConfig;

            fn fit(c: &ShapingConfig, training: &mut Training<'_>) -> Result<Arc<dyn Scorer>> {
                Ok(Arc::new(c.fit_in(Shaping::$type, training)?))
            }

            fn load(stored: &Stored<'_>) -> Result<Arc<dyn Scorer>> {
                Ok(Arc::new(Shaped::load(stored)?))
            }
        }
    )*};
}

shaping! {
    AshP, "ash_p";
    AshB, "ash_b";
    AshS, "ash_s";
    Scale, "scale";
    Lts, "lts";
}

gathered!(Vra, "vra", VraConfig, |_, _| Ok(()));
gathered!(Temperature, "temperature", TemperatureConfig, |_, _| Ok(()));
gathered!(She, "she", SheConfig, |_, _| Ok(()));
gathered!(Fdbd, "fdbd", FdbdConfig, |_, _| Ok(()));
gathered!(Nci, "nci", NciConfig, |_, _| Ok(()));
gathered!(Neco, "neco", NecoConfig, |_, _| Ok(()));
gathered!(Pnml, "pnml", PnmlConfig, |_, _| Ok(()));

/// `ssd` by its name in the paper on normalised features.
struct MdsPp;

/// `rmds` on normalised features.
struct RmdsPp;

gaussian!(
    MdsPp,
    "mds_pp",
    |_, given| refuse_normalize(given, false, "`mds_pp` normalises; use `maha`"),
    |config| config,
    |gmm| Ok::<_, Error>(Ssd::plus_plus(gmm)),
    Ssd::load
);
gaussian!(
    Rmds,
    "rmds",
    |_, given| refuse_normalize(given, true, "`rmds` does not normalise; use `rmds_pp`"),
    |config| GmmConfig { normalize: false, ..config.clone() },
    Rmds::of,
    Rmds::load
);
gaussian!(
    RmdsPp,
    "rmds_pp",
    |_, given| refuse_normalize(given, false, "`rmds_pp` normalises; use `rmds`"),
    |config| config,
    Rmds::of,
    Rmds::load
);

gathered!(Vim, "vim", VimConfig, |_, _| Ok(()));
gathered!(Residual, "residual", ResidualConfig, |_, _| Ok(()));
gathered!(Cadref, "cadref", CadrefConfig, CadrefConfig::check);
gathered!(Kpca, "kpca", KpcaConfig, KpcaConfig::check);
gathered!(Weiper, "weiper", WeiperConfig, |_, _| Ok(()));

method!(Nnguide, "nnguide", NnguideConfig, |c, t| c.fit(t.train, t.head, t.observer)?);
method!(Cfood, "cfood", CfoodConfig, |c, t| c.fit(t.train, t.observer)?);
method!(Relation, "relation", RelationConfig, |c, t| c.fit(t.train, t.head, t.observer)?);
