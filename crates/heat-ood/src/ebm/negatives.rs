//! Given negatives: rows of feature sets, one set a kind.
//!
//! Every batch draws as many rows of each kind, whatever the kinds' sizes; they are rows as the network
//! gives them, with the steps that the training rows take and no projection.

use std::path::Path;

use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field, FieldSet, ID_SET, OpenOptions, Pooling, RowSketch};
use crate::math::rng::{Purpose, Stream};
use crate::provenance::{Provenance, SEEN};
use crate::scorers::Prior;

/// The setting that says where they lie.
const KEY: &str = "ebm.model.negatives";

/// Feature sets whose rows are negatives, by kind.
#[derive(Clone)]
pub struct Negatives {
    kinds: Vec<(String, FeatureSet)>,
}

/// Memory of the draws; grown once, then kept.
#[derive(Default)]
pub(super) struct NegativesWorkspace {
    rows: Vec<u32>,
    raw: Vec<f32>,
}

impl Negatives {
    /// Sets by the name of their kind.
    ///
    /// # Errors
    /// If there are none.
    pub fn new(kinds: Vec<(String, FeatureSet)>) -> Result<Self> {
        if kinds.is_empty() {
            return Err(Error::config(KEY, "", "give at least one set of rows"));
        }
        Ok(Negatives { kinds })
    }

    /// The sets of a directory ([`FeatureSet::open_each`]), each a kind, but for `id`; or one set, where
    /// `path` is a file.
    ///
    /// # Errors
    /// If there is none, or one cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.exists() {
            let problem = "nothing lies there: give the place of the feature sets";
            return Err(Error::config(KEY, path.display(), problem));
        }
        if !path.is_dir() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Self::new(vec![(name, FeatureSet::open(path)?)]);
        }
        let mut kinds = FeatureSet::open_each(path, &OpenOptions::default())?;
        kinds.retain(|(name, _)| name != ID_SET);
        if kinds.is_empty() {
            let problem = "no kind of negatives lies there: give a directory with a feature set (a \
                           sub-directory or a file) for each kind, besides `id`";
            return Err(Error::config(KEY, path.display(), problem));
        }
        Self::new(kinds)
    }

    /// The sets by the name of their kind.
    pub fn kinds(&self) -> &[(String, FeatureSet)] {
        &self.kinds
    }

    /// Hashes of all kinds' files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn digest(&self) -> Result<String> {
        let mut digest = Vec::new();
        for (kind, set) in &self.kinds {
            let files = set.digests()?.into_iter().map(|(_, sha256)| sha256);
            digest.push(format!("{kind}:{}", files.collect::<Vec<_>>().join("+")));
        }
        Ok(digest.join(" "))
    }

    /// What a scorer that is trained against them has seen: no rows to report results on.
    ///
    /// # Errors
    /// If a set cannot be read.
    pub fn provenance(&self, pooling: Pooling) -> Result<Provenance> {
        let mut provenance = Provenance::new();
        for (_, set) in &self.kinds {
            provenance.tuned_on.extend(set.digests()?);
            provenance
                .tuned_rows
                .push(RowSketch::of(set, &FieldSet::of(Field::Features(pooling)))?);
        }
        Ok(provenance)
    }

    /// That they can be told from training rows: of the same network and dimension, and not the same rows.
    pub(super) fn check(&self, train: &FeatureSet, pooling: Pooling) -> Result<()> {
        let field = Field::Features(pooling);
        let dim = train.require(field)?;
        let of_kind = |set: &&FeatureSet| set.origin().is_some();
        let all = || std::iter::once(train).chain(self.kinds.iter().map(|(_, set)| set));
        let origin = all().find(of_kind).and_then(FeatureSet::origin);
        let rows = RowSketch::of(train, &FieldSet::of(field))?;
        for (kind, set) in &self.kinds {
            FieldSet::checked(set, field, dim)?;
            if let Some(origin) = origin {
                set.check_origin(origin)?;
            }
            if let Some((o, shared)) = rows.shared(set)?.filter(|(o, _)| o.fraction() > SEEN) {
                let problem = format!(
                    "{} of {} rows that were compared of {} are training rows ({}): negatives are \
                     rows that are not ID; leave `{kind}` out",
                    o.shared,
                    o.compared,
                    set.name(),
                    set.rows_text(&shared)
                );
                return Err(Error::config(KEY, kind, problem));
            }
        }
        Ok(())
    }

    /// Fill `out` (`[B, D]`) with stepped rows: of each kind as many as of the others, but for one
    /// where B is no multiple of their number.
    pub(super) fn draw(
        &self,
        prior: &dyn Prior,
        seed: u64,
        step: u64,
        ws: &mut NegativesWorkspace,
        out: &mut [f32],
    ) -> Result<()> {
        let (dim, field) = (prior.dim(), Field::Features(prior.pooling()));
        let rows = out.len() / dim;
        let (each, more) = (rows / self.kinds.len(), rows % self.kinds.len());
        let mut stream = Stream::new(seed, Purpose::Negatives, step, 0);
        let order = stream.permutation(self.kinds.len() as u32);
        let mut rest = out;
        for (i, kind) in order.into_iter().enumerate() {
            let set = &self.kinds[kind as usize].1;
            let input_dim = set.require(field)?;
            let count = each + usize::from(i < more);
            ws.rows.clear();
            ws.rows.extend((0..count).map(|_| stream.below(set.len() as u32)));
            let (mine, others) = rest.split_at_mut(count * dim);
            rest = others;
            if prior.steps().pca.is_some() {
                ws.raw.resize(count * input_dim, 0.0);
                set.gather(field, &ws.rows, &mut ws.raw)?;
                mine.copy_from_slice(&prior.steps().apply(&ws.raw, input_dim));
            } else {
                set.gather(field, &ws.rows, mine)?;
                prior.steps().clip_and_normalize(mine, dim);
            }
        }
        Ok(())
    }
}
