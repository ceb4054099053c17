//! A running test in a file, to go on after a restart as if there had been none.

use super::bets::BETS;
use super::pool::Pool;
use super::{CalibrationScores, Drift, DriftConfig, Since, Wealth};
use crate::error::{Error, Result};
use crate::io::{Tensor, TensorFile, sha256_of};

/// Names of the tensors.
const SCORES: &str = "drift.scores";
const LENGTHS: &str = "drift.lengths";
const WEALTH: &str = "drift.wealth";
const SINCE: &str = "drift.since";

/// The text that says what the tensors are of.
const ABOUT: &str = "drift";

/// What the tensors are of.
#[derive(serde::Serialize, serde::Deserialize)]
struct About {
    config: DriftConfig,
    /// SHA-256 of the calibration scores.
    reference: String,
    rows: u64,
    bounded: bool,
}

fn digest(reference: &CalibrationScores) -> String {
    sha256_of([bytemuck::cast_slice::<f32, u8>(reference.scores())])
}

impl Drift {
    /// All that it knows, as tensors and a text for a file of [`save_tensors`](crate::io::save_tensors).
    pub fn state(&self) -> (Vec<(String, Tensor)>, (&'static str, String)) {
        let tests = self.wealth.len();
        let [scores, lengths] = self.pool.tensors();
        let wealth = self.wealth.iter().flat_map(|w| [w.logs, w.dated]).flatten().collect();
        let since = self.wealth.iter().flat_map(|w| w.since);
        let since = since.flat_map(|s| [s.start, s.rows, s.odd]).map(|n| n as i64).collect();
        let tensors = [
            (SCORES, scores),
            (LENGTHS, lengths),
            (WEALTH, Tensor::f64([tests, 2, BETS.len()], wealth)),
            (SINCE, Tensor::i64([tests, BETS.len(), 3], since)),
        ];
        let about = About {
            config: self.config.clone(),
            reference: digest(&self.reference),
            rows: self.row,
            bounded: self.pool.is_bounded(),
        };
        let text = serde_json::to_string(&about).unwrap_or_default();
        (tensors.map(|(name, tensor)| (name.to_owned(), tensor)).to_vec(), (ABOUT, text))
    }

    /// Go on where [`Drift::state`] was taken: every row gives what it would have given there.
    ///
    /// # Errors
    /// If the file holds none, or one of other settings or another calibration.
    pub fn resume(
        config: DriftConfig,
        reference: &CalibrationScores,
        file: &TensorFile,
    ) -> Result<Self> {
        let bad = |why: &str| Error::format(file.path(), format!("its drift test {why}"));
        let text = file.metadata(ABOUT).ok_or_else(|| bad("is missing"))?;
        let about: About =
            serde_json::from_str(text).map_err(|e| bad(&format!("is not readable: {e}")))?;
        if about.config != config {
            return Err(bad("has other settings"));
        }
        if about.reference != digest(reference) {
            return Err(bad("is of another calibration"));
        }
        let mut drift = Drift::new(config, reference)?;
        drift.row = about.rows;
        let integers = |name: &str| file.i64(name, file.shape(name)?);
        let (scores, lengths) = (integers(SCORES)?, integers(LENGTHS)?);
        let whole = |pool: &Pool| pool.len() as u64 == reference.len() as u64 + about.rows;
        drift.pool = Pool::from_tensors(&scores, &lengths, about.bounded)
            .filter(whole)
            .ok_or_else(|| bad("is damaged"))?;
        let tests = drift.wealth.len();
        let wealth = file.f64(WEALTH, &[tests, 2, BETS.len()])?;
        let since = file.i64(SINCE, &[tests, BETS.len(), 3])?;
        let numbers = wealth.as_chunks::<{ BETS.len() }>().0.as_chunks::<2>().0;
        let times = since.as_chunks::<3>().0.as_chunks::<{ BETS.len() }>().0;
        let fresh: Vec<f64> = drift.wealth.iter().map(|w| drift.fresh(w.test).threshold).collect();
        for (((own, threshold), [logs, dated]), times) in
            drift.wealth.iter_mut().zip(fresh).zip(numbers).zip(times)
        {
            let of = |[start, rows, odd]: [i64; 3]| {
                let [start, rows, odd] = [start, rows, odd].map(|n| u64::try_from(n).ok());
                let since = Since { start: start?, rows: rows?, odd: odd? };
                let end = since.start.checked_add(since.rows)?;
                (since.odd <= since.rows && end <= about.rows).then_some(since)
            };
            let mut since = [Since::default(); BETS.len()];
            for (to, from) in since.iter_mut().zip(times) {
                *to = of(*from).ok_or_else(|| bad("is damaged"))?;
            }
            *own = Wealth { test: own.test, logs: *logs, dated: *dated, since, threshold };
        }
        Ok(drift)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::sealed_tensors;

    fn value(i: u32) -> f32 {
        (f64::from(i.wrapping_mul(2_654_435_761)) / f64::from(u32::MAX)).powi(2) as f32
    }

    fn file(drift: &Drift) -> TensorFile {
        let (tensors, text) = drift.state();
        let bytes = sealed_tensors(&tensors, &[text]).unwrap();
        TensorFile::from_memory(Path::new("state"), bytes).unwrap()
    }

    /// With a change in the stream, so that alarms come and tests begin anew: each row gives the
    /// same after a restart as without one, to the bit.
    #[test]
    fn it_goes_on_as_if_nothing_had_happened() {
        let reference = CalibrationScores::new((0..1000).map(value).collect()).unwrap();
        let config = DriftConfig { horizon: 3000, ..DriftConfig::default() };
        for bounded in [false, true] {
            let new = || {
                let drift = Drift::new(config.clone(), &reference).unwrap();
                if bounded { drift.in_bounded_memory() } else { drift }
            };
            let (mut whole, mut parted) = (new(), new());
            let mut alarms = 0;
            for i in 0..20_000 {
                let score = value(i + 5000) + if i > 9000 { 0.5 } else { 0.0 };
                let score = if i == 50 { f32::INFINITY } else { score };
                let want = whole.push(score).unwrap();
                if i % 997 == 0 {
                    parted = Drift::resume(config.clone(), &reference, &file(&parted)).unwrap();
                }
                assert_eq!(parted.push(score).unwrap(), want);
                alarms += want.alarms.len();
            }
            assert!(alarms > 0 && whole.evidence().eq(parted.evidence()));
        }
    }

    #[test]
    fn what_is_of_something_else_is_refused() {
        let reference = CalibrationScores::new((0..100).map(value).collect()).unwrap();
        let other = CalibrationScores::new((1..101).map(value).collect()).unwrap();
        let config = DriftConfig::default();
        let mut drift = Drift::new(config.clone(), &reference).unwrap().in_bounded_memory();
        (0..2000).for_each(|i| drop(drift.push(value(i)).unwrap()));
        let error = |config: DriftConfig, reference: &CalibrationScores, file: &TensorFile| {
            Drift::resume(config, reference, file).err().unwrap().to_string()
        };
        let whole = file(&drift);
        assert!(error(config.clone(), &other, &whole).contains("another calibration"));
        let settings = DriftConfig { alpha: 0.02, ..config.clone() };
        assert!(error(settings, &reference, &whole).contains("other settings"));
        // Sound as a file, and no test: each number that is not checked otherwise.
        let (tensors, text) = drift.state();
        for (name, index, value) in [
            (SCORES, 0, 0),
            (SCORES, 3, i64::MAX),
            (LENGTHS, 0, -1),
            (LENGTHS, 1, 1),
            (SINCE, 0, -1),
            (SINCE, 1, 1 << 40),
            (SINCE, 2, 1 << 40),
        ] {
            let mut tensors = tensors.clone();
            let found = tensors.iter_mut().find(|(n, _)| n == name).unwrap();
            let crate::io::TensorData::I64(values) = &mut found.1.data else { unreachable!() };
            values[index] = value;
            let bytes = sealed_tensors(&tensors, std::slice::from_ref(&text)).unwrap();
            let file = TensorFile::from_memory(Path::new("state"), bytes).unwrap();
            assert!(error(config.clone(), &reference, &file).contains("damaged"), "{name}");
        }
        let none = sealed_tensors(&tensors, &[]).unwrap();
        let none = TensorFile::from_memory(Path::new("state"), none).unwrap();
        assert!(error(config, &reference, &none).contains("missing"));
    }

    /// After a million rows it is small.
    #[test]
    fn its_size_is_bounded() {
        let reference = CalibrationScores::new((0..1000).map(value).collect()).unwrap();
        let drift = Drift::new(DriftConfig::default(), &reference).unwrap();
        let mut drift = drift.in_bounded_memory();
        (0..200_000).for_each(|i| drop(drift.push(value(i * 3)).unwrap()));
        let (tensors, text) = drift.state();
        let size = sealed_tensors(&tensors, &[text]).unwrap().len();
        assert!(size < 48 << 10, "{size}");
    }
}
