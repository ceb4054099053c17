//! Other views of an image: what is done to it before the network sees it. Their features are a
//! [`Part`] of a set, as those of further layers are.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::Part;
use crate::error::{Error, Result};

/// A view of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Left and right exchanged: `mirror`.
    Mirror,
    /// Values rounded to so many bits: `bits5`.
    Bits(u32),
    /// The median of squares of so many cells a side: `median2`.
    Median(u32),
    /// So many hundredths of the values, those with the smallest gradient of the largest logit, moved by half of
    /// its sign: `nudged5`.
    Nudged(u32),
    /// The mean of what the network makes of so many noisy images, uniform within so many thousandths of a
    /// normalised value: `noise8x256`.
    Noise {
        /// Bound of the noise.
        thousandths: u32,
        /// Passes.
        samples: u32,
    },
    /// So many passes of the network with dropout, of which logits and probabilities are kept: `dropout30`.
    Dropout(u32),
}

impl View {
    /// The view of that name, if it is one.
    pub fn known(name: &str) -> Option<Self> {
        let number = |text: &str, range: std::ops::RangeInclusive<u32>| {
            let number = text.parse().ok().filter(|n| range.contains(n))?;
            // One name for each: no `+5`, no `05`.
            (text == u32::to_string(&number)).then_some(number)
        };
        if let Some(bits) = name.strip_prefix("bits") {
            return number(bits, 1..=8).map(View::Bits);
        }
        if let Some(side) = name.strip_prefix("median") {
            return number(side, 2..=15).map(View::Median);
        }
        if let Some(percent) = name.strip_prefix("nudged") {
            return number(percent, 1..=100).map(View::Nudged);
        }
        if let Some(passes) = name.strip_prefix("dropout") {
            // Of one pass there is no deviation.
            return number(passes, 2..=1000).map(View::Dropout);
        }
        if let Some((bound, samples)) = name.strip_prefix("noise").and_then(|n| n.split_once('x')) {
            let (thousandths, samples) = (number(bound, 1..=1000)?, number(samples, 1..=1000)?);
            return Some(View::Noise { thousandths, samples });
        }
        (name == MIRROR).then_some(View::Mirror)
    }

    /// The views that some parts are of, or within.
    pub fn of(parts: &[Part]) -> BTreeSet<Self> {
        let first = |part: &Part| part.name().split('.').next().and_then(View::known);
        parts.iter().filter_map(first).collect()
    }

    /// Passes of the network whose mean its features are.
    pub fn passes(self) -> u32 {
        match self {
            View::Noise { samples, .. } | View::Dropout(samples) => samples,
            _ => 1,
        }
    }

    /// The part that its features are.
    ///
    /// # Errors
    /// If more names of parts are known than is allowed.
    pub fn part(self) -> Result<Part> {
        Part::named(&self.to_string())
    }
}

/// The part of the mirrored images.
pub const MIRROR: &str = "mirror";

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            View::Mirror => f.write_str(MIRROR),
            View::Bits(bits) => write!(f, "bits{bits}"),
            View::Median(side) => write!(f, "median{side}"),
            View::Nudged(percent) => write!(f, "nudged{percent}"),
            View::Noise { thousandths, samples } => write!(f, "noise{thousandths}x{samples}"),
            View::Dropout(passes) => write!(f, "dropout{passes}"),
        }
    }
}

impl FromStr for View {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        View::known(name).ok_or_else(|| {
            let problem =
                "expected mirror, bits1 to bits8, median2 to median15, nudged1 to nudged100, noise8x256 \
                 (bound in thousandths, passes; both up to 1000), or dropout2 to dropout1000 (passes)";
            Error::config("views", name, problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let first = [View::Mirror, View::Bits(1), View::Bits(8), View::Median(2), View::Median(15)];
        let noise = |thousandths, samples| View::Noise { thousandths, samples };
        let moved = [View::Nudged(1), View::Nudged(100), noise(1, 1000), noise(1000, 1)];
        let passes = [View::Dropout(2), View::Dropout(1000)];
        for view in first.into_iter().chain(moved).chain(passes) {
            assert_eq!(view.to_string().parse::<View>().unwrap(), view);
            assert_eq!(view.part().unwrap().name(), view.to_string());
        }
        let bits = ["bits", "bits0", "bits9", "bits05", "bits+5"];
        let others = ["", "Mirror", "median1", "median16", "nudged", "nudged0", "nudged101"];
        let noise =
            ["noise", "noise8", "noise8x", "noisex8", "noise0x1", "noise8x1001", "noise08x1"];
        let passes = ["dropout", "dropout1", "dropout1001", "dropout030"];
        for name in bits.into_iter().chain(others).chain(noise).chain(passes) {
            let said = name.parse::<View>().unwrap_err().to_string();
            assert!(said.contains("bits1 to bits8"), "{name}");
        }
        let parts =
            ["mid", "mirror.mid", "median2", "bits", "mirror"].map(|n| Part::named(n).unwrap());
        assert_eq!(View::of(&parts), BTreeSet::from([View::Mirror, View::Median(2)]));
    }
}
