//! Where values stand on an axis.

use std::ops::Range;

/// How values are spread along an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithms.
    Log,
    /// Evenly about a centre, by their logarithms far from it: what is near stays wide where
    /// others are far away.
    Symlog { center: f64, width: f64 },
}

/// Where 90 % of some values take less than this part of the axis, they would be a spike on it.
const SPIKE: f64 = 0.12;

impl Scale {
    /// For groups of ascending values on this range: linear, if no group becomes a spike.
    pub fn fitting(groups: &[&[f32]], range: &Range<f64>) -> Self {
        let span = range.end - range.start;
        let core = |values: &&[f32]| {
            let at = |q: f64| quantile(values, q);
            (at(0.95) - at(0.05), at(0.5))
        };
        // What has one value only is a spike on any scale.
        let cores = groups.iter().map(core).filter(|(width, _)| *width > 1e-9 * span);
        match cores.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((width, center)) if width < SPIKE * span => {
                Scale::Symlog { center, width: width / 2.0 }
            }
            _ => Scale::Linear,
        }
    }

    /// Where a value stands.
    pub fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Symlog { center, width } => ((value - center) / width).asinh(),
        }
    }

    /// What stands there.
    pub fn value(self, place: f64) -> f64 {
        match self {
            Scale::Linear => place,
            Scale::Log => 10f64.powf(place),
            Scale::Symlog { center, width } => center + width * place.sinh(),
        }
    }

    /// Places of about so many round values.
    pub fn ticks(self, range: &Range<f64>, about: usize) -> Vec<f64> {
        let (first, last) = (self.place(range.start), self.place(range.end));
        if self == Scale::Log {
            return (first.ceil() as i32..=last.floor() as i32).map(f64::from).collect();
        }
        let step = (last - first) / about.max(1) as f64;
        let mut ticks: Vec<f64> = Vec::new();
        for i in 0..about {
            let place = first + (i as f64 + 0.5) * step;
            let close = |v: &f64| (self.place(*v) - place).abs() < 0.2 * step;
            // As few digits as keep it near.
            let value = self.value(place);
            let round = (0..6).map(|digits| rounded(value, digits)).find(close).unwrap_or(value);
            ticks.push(self.place(if close(&0.0) { 0.0 } else { round }));
        }
        ticks
    }
}

/// The q-quantile of ascending scores, as a score that occurs.
pub fn quantile(ascending: &[f32], q: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    let at = (q * last as f64).round() as usize;
    ascending.get(at).map_or(0.0, |v| f64::from(*v))
}

/// With so many digits after the first.
fn rounded(value: f64, digits: usize) -> f64 {
    format!("{value:.digits$e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_tail_gets_a_scale_and_a_wide_group_none() {
        let near: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).collect();
        let far: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        assert_eq!(Scale::fitting(&[&near, &near], &(0.0..2.0)), Scale::Linear);
        let scale = Scale::fitting(&[&near, &far], &(0.0..1000.0));
        let Scale::Symlog { center, width } = scale else { panic!("{scale:?}") };
        assert!((center - 0.5).abs() < 0.01 && (width - 0.45).abs() < 0.01);
        // Of the axis the near values take a good part.
        let whole = scale.place(1000.0) - scale.place(0.0);
        assert!((scale.place(1.0) - scale.place(0.0)) / whole > 0.15);
        // Constant values have no width to be shown.
        assert_eq!(Scale::fitting(&[&[2.0; 9], &far], &(0.0..1000.0)), Scale::Linear);
    }

    #[test]
    fn places_go_both_ways_and_ticks_are_round() {
        let scale = Scale::Symlog { center: -3.0, width: 0.7 };
        for value in [-1e6, -3.0, 0.0, 0.25, 1e9] {
            let back = scale.value(scale.place(value));
            assert!((back - value).abs() <= 1e-12 * f64::max(1.0, value.abs()), "{value}: {back}");
        }
        let values = |s: Scale, range| -> Vec<f64> {
            // But for what rounding leaves of zero.
            let value = |p: &f64| (s.value(*p) * 1e9).round() / 1e9;
            s.ticks(&range, 5).iter().map(value).collect()
        };
        assert_eq!(values(Scale::Log, 0.001..1.0), [0.001, 0.01, 0.1, 1.0]);
        let ticks = values(scale, -5.0..1e4);
        assert_eq!(ticks.len(), 5);
        assert!(ticks.windows(2).all(|w| w[0] < w[1]), "{ticks:?}");
        assert!(ticks.iter().all(|v| rounded(*v, 1) == *v), "{ticks:?}");
    }
}
