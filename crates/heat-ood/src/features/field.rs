//! What the matrices of a feature set are called: fields, and the parts of a set.

use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which pooled features a scorer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean over the feature map.
    #[default]
    Avg,
    /// Standard deviation over the feature map.
    Std,
    /// Maximum over the feature map.
    Max,
    /// Mean and standard deviation side by side (2D columns); where rows are normalised, each of
    /// the two is. No field of a file: it is made of `avg` and `std`.
    AvgStd,
}

impl Pooling {
    /// The field's name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Avg => "avg",
            Pooling::Std => "std",
            Pooling::Max => "max",
            Pooling::AvgStd => "avg_std",
        }
    }
}

/// A matrix of a feature set: of the set itself, or of one of its [parts](Part).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Pooled features.
    Features(Pooling),
    /// The classifier's outputs.
    Logits,
    /// Its probabilities, where there are no logits.
    Probabilities,
    /// Gram matrices of the feature map, [as they are kept](super::gram_rows).
    Gram,
    /// Mean over the feature map [without its first singular component](super::mean_without_first).
    Rankfeat,
    /// What the classifier's certainty hangs on: each channel's sum over the map, times that of the gradient of
    /// KL(uniform ‖ softmax) with respect to it, as a [signed root](super::signed_root) (scorer `nac`).
    Nac,
    /// Norm of the gradient of each weight tensor of the network, towards all classes at once, as a
    /// [root](super::signed_root) (scorer `graduncertainty`).
    Graduncertainty,
    /// Standard deviation of each class's probability between passes of the network, with Bessel's correction
    /// (view `dropoutK`).
    Spread,
    /// One of these, of a part: `mid.avg`.
    Of(PartField),
}

/// A field of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartField {
    part: Part,
    /// Which of [`BASES`].
    base: u8,
}

/// Fields that files have, in the order in which they are listed.
const STORED: usize = 10;

/// All fields of a set itself.
const BASES: [Field; STORED + 1] = [
    Field::Features(Pooling::Avg),
    Field::Features(Pooling::Std),
    Field::Features(Pooling::Max),
    Field::Logits,
    Field::Probabilities,
    Field::Gram,
    Field::Rankfeat,
    Field::Nac,
    Field::Graduncertainty,
    Field::Spread,
    Field::Features(Pooling::AvgStd),
];

impl Field {
    /// The fields that a file can have of the set itself.
    pub(crate) const ALL: [Field; STORED] = *BASES.first_chunk().expect("more than these");

    /// The fields that are made of feature maps only where it is asked for.
    pub const OF_MAPS: [Field; 4] =
        [Field::Gram, Field::Rankfeat, Field::Nac, Field::Graduncertainty];

    /// The field's name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Field::Features(p) => p.name(),
            Field::Logits => "logits",
            Field::Probabilities => "probs",
            Field::Gram => "gram",
            Field::Rankfeat => "rankfeat",
            Field::Nac => "nac",
            Field::Graduncertainty => "graduncertainty",
            Field::Spread => "spread",
            Field::Of(field) => {
                with_names(|names| names[field.part.0 as usize].fields[usize::from(field.base)])
            }
        }
    }

    /// The field of that name in a file: `avg`, `mid.std`, `mirror.logits`.
    pub fn named(name: &str) -> Option<Self> {
        let stored = |name: &str| Field::ALL.into_iter().find(|f| f.name() == name);
        match name.rsplit_once('.') {
            None => stored(name),
            Some((part, base)) => Some(stored(base)?.within(Part::named(part).ok()?)),
        }
    }

    /// By what fields are ordered: those of the set itself come first, others by their part's name.
    pub(crate) fn order(self) -> (&'static str, u8) {
        let place = |field| BASES.iter().position(|f| *f == field).unwrap_or(0) as u8;
        match self {
            Field::Of(field) => (field.part.name(), field.base),
            field => ("", place(field)),
        }
    }

    /// What it is of its part.
    pub fn base(self) -> Field {
        match self {
            Field::Of(field) => BASES[usize::from(field.base)],
            field => field,
        }
    }

    /// The fields that `avg_std` is made of, of the same part.
    pub(super) fn sides(self) -> [Field; 2] {
        let own = |field: Field| self.part().map_or(field, |part| field.within(part));
        [Pooling::Avg, Pooling::Std].map(|pooling| own(Field::Features(pooling)))
    }

    /// The part that it is of, where it is not of the set itself.
    pub fn part(self) -> Option<Part> {
        match self {
            Field::Of(field) => Some(field.part),
            _ => None,
        }
    }

    /// The same field of a part (of the part's part, where it is of a part already).
    pub fn within(self, part: Part) -> Field {
        let (_, base) = self.base().order();
        let part = self.part().map_or(part, |inner| part.join(inner));
        Field::Of(PartField { part, base })
    }

    /// What it is to the part, if it lies in that.
    pub fn inside(self, part: Part) -> Option<Field> {
        let own = self.part()?;
        if own == part {
            return Some(self.base());
        }
        let rest = own.name().strip_prefix(part.name())?.strip_prefix('.')?;
        Some(self.base().within(Part::named(rest).ok()?))
    }
}

/// A set within a set, of the same rows: the features of another layer of the network, or those of
/// another view of the image. Its fields are named `PART.avg`; parts of a part have both names, apart
/// by a point (`mirror.mid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part(u32);

/// Most parts that a process knows, so that names in files cannot fill the memory.
const MOST: usize = 1 << 14;

/// Longest name of a part.
const LONGEST: usize = 128;

/// The names of one part, which live as long as the process: fields are copied and compared often.
struct Names {
    part: &'static str,
    fields: [&'static str; BASES.len()],
}

static PARTS: RwLock<Vec<Names>> = RwLock::new(Vec::new());

fn with_names<T>(f: impl FnOnce(&[Names]) -> T) -> T {
    f(&PARTS.read().unwrap_or_else(PoisonError::into_inner))
}

impl Part {
    /// The part of that name: letters, digits, `_` and `-`; a point between the names of a part
    /// and of a part of that.
    ///
    /// # Errors
    /// If it is no such name, or that of a field.
    pub fn named(name: &str) -> Result<Self> {
        if let Some(known) = Part::known(name) {
            return Ok(known);
        }
        let piece = |piece: &str| {
            let field =
                BASES.iter().any(|f| f.name() == piece) || ["label", "name"].contains(&piece);
            let letters = piece.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
            !piece.is_empty() && letters && !field
        };
        if name.len() > LONGEST || !name.split('.').all(piece) {
            let problem =
                "a layer has a name of letters, digits, `_` and `-` that is not a field's";
            return Err(Error::config("layer", name, problem));
        }
        if with_names(<[_]>::len) >= MOST {
            let problem = format!("more than {MOST} names of layers were met");
            return Err(Error::config("layer", name, problem));
        }
        Ok(Part::enter(name))
    }

    fn known(name: &str) -> Option<Self> {
        with_names(|names| Self::among(names, name))
    }

    fn among(names: &[Names], name: &str) -> Option<Self> {
        names.iter().position(|n| n.part == name).map(|at| Part(at as u32))
    }

    /// The part of a name that may be one.
    fn enter(name: &str) -> Self {
        let mut names = PARTS.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = Self::among(&names, name) {
            return known;
        }
        let leak = |text: String| -> &'static str { text.leak() };
        let fields = BASES.map(|base| leak(format!("{name}.{}", base.name())));
        names.push(Names { part: leak(name.to_owned()), fields });
        Part(names.len() as u32 - 1)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        with_names(|names| names[self.0 as usize].part)
    }

    /// The part of this part. Both have names, so that there are no more of these than someone
    /// put together.
    fn join(self, inner: Part) -> Part {
        Part::enter(&format!("{}.{}", self.name(), inner.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::MIRROR;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["avg", "probs", "mid.avg", "mirror.logits", "mirror.mid.std"] {
            assert_eq!(Field::named(name).unwrap().name(), name);
        }
        for name in ["", ".avg", "mid.", "mid.label", "a b.avg", "avg.std", "x..avg", "mid.avg_std"]
        {
            assert_eq!(Field::named(name), None, "{name}");
        }
        assert!(Part::named(&"x".repeat(129)).is_err());
    }

    #[test]
    fn a_part_is_looked_into() {
        let [mirror, mid] = [MIRROR, "mid"].map(|name| Part::named(name).unwrap());
        let field = Field::named("mirror.mid.std").unwrap();
        assert_eq!(field.inside(mirror), Some(Field::Features(Pooling::Std).within(mid)));
        assert_eq!(field.inside(mirror).unwrap().inside(mid), Some(Field::Features(Pooling::Std)));
        assert_eq!(field.inside(mid), None);
        assert_eq!(field, Field::Features(Pooling::Std).within(mid).within(mirror));
        assert_eq!(Field::Logits.inside(mirror), None);
        assert_eq!(Field::named("mirrored.avg").unwrap().inside(mirror), None);
        let both = Field::Features(Pooling::AvgStd).within(mid);
        assert_eq!((both.name(), both.base()), ("mid.avg_std", Field::Features(Pooling::AvgStd)));
    }
}
