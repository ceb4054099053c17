//! A detector that is loaded: its version, what it reads and gives.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use heat_ood::calibrate::Calibration;
use heat_ood::features::Field;
use heat_ood::io::{open_regular, sha256_of};
use heat_ood::{Detector, Error};
use serde_json::{Value, json};

use crate::protocol::{Asked, Column, Datatype};
use crate::refusal::{Refusal, Result};
use crate::scored::Scored;

/// Digits of a version: the first of the file's SHA-256.
const VERSION_DIGITS: usize = 12;

/// Calibrations kept for rates that requests ask for.
const RATES: usize = 16;

/// A detector that is loaded.
pub struct Model {
    /// What clients call it.
    pub name: String,
    /// The first digits of the file's SHA-256.
    pub version: String,
    /// The file's SHA-256.
    pub sha256: String,
    /// What scores.
    pub detector: Detector,
    /// The fields that it reads, with their D.
    pub inputs: Vec<(Field, usize)>,
    /// What it gives, those by default first.
    pub outputs: Vec<Output>,
    rates: Mutex<Vec<(u64, Arc<Calibration>)>>,
}

/// What can be asked of a model, a value a row each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The score; higher = more out-of-distribution.
    Score,
    /// The conformal p-value.
    PValue,
    /// The verdict.
    IsOod,
    /// The class that the classifier predicts.
    Class,
    /// A part of the score, by its place.
    Component(usize),
}

impl Model {
    /// Read a detector's file: whole, so that nothing that happens to the file later is noticed
    /// here. It must prove itself by the probe rows that it has.
    ///
    /// # Errors
    /// If it cannot be read, is no detector, does not score as where it was made, or says not
    /// what it reads.
    pub fn open(name: &str, path: &Path) -> heat_ood::Result<Self> {
        let mut file = open_regular(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let sha256 = sha256_of([&bytes]);
        let detector = Detector::from_bytes(&path.display().to_string(), bytes)?;
        detector.verify()?;
        Self::new(name, detector, sha256).ok_or_else(|| {
            let remedy = "checkpoints and files of earlier versions have none: give a detector \
                          that this version made";
            Error::missing(path.display().to_string(), "probe rows to prove itself by", remedy)
        })
    }

    /// Of a detector at hand; `None` where it says not what it reads.
    pub fn new(name: &str, detector: Detector, sha256: String) -> Option<Self> {
        let inputs = detector.inputs();
        if inputs.is_empty() {
            return None;
        }
        let mut outputs = vec![Output::Score];
        let calibration = detector.calibration();
        if calibration.is_some() {
            outputs.extend([Output::PValue, Output::IsOod]);
        }
        let named = detector.provenance().classes.len();
        let by_class = calibration.is_some_and(|c| c.predictor().is_some());
        let of_names = named > 0 && inputs.contains(&(Field::Logits, named));
        if by_class || of_names {
            outputs.push(Output::Class);
        }
        outputs.extend((0..detector.scorer().components().len()).map(Output::Component));
        let version = sha256.chars().take(VERSION_DIGITS).collect();
        let (name, rates) = (name.to_owned(), Mutex::default());
        let detector = detector.of_any_origin();
        Some(Model { name, version, sha256, detector, inputs, outputs, rates })
    }

    /// One of a scorer that no file has.
    #[cfg(test)]
    pub fn of_test(
        scorer: Arc<dyn heat_ood::scorers::Scorer>,
        inputs: Vec<(Field, usize)>,
    ) -> Self {
        let provenance = heat_ood::Provenance::default();
        let detector = Detector::new(heat_ood::scorers::Fitted::from_parts(scorer, provenance));
        let (name, version, sha256) = ("test".into(), "0".into(), "0".into());
        let (outputs, rates) = (vec![Output::Score], Mutex::default());
        Model { name, version, sha256, detector, inputs, outputs, rates }
    }

    /// The name of an output.
    pub fn output_name(&self, output: Output) -> &str {
        match output {
            Output::Score => "score",
            Output::PValue => "p_value",
            Output::IsOod => "is_ood",
            Output::Class => "class",
            Output::Component(i) => &self.detector.scorer().components()[i],
        }
    }

    fn output_type(&self, output: Output) -> Datatype {
        match output {
            Output::Score | Output::Component(_) => Datatype::Fp32,
            Output::PValue => Datatype::Fp64,
            Output::IsOod => Datatype::Bool,
            Output::Class if self.detector.provenance().classes.is_empty() => Datatype::Int64,
            Output::Class => Datatype::Bytes,
        }
    }

    /// The outputs that a request asks for, or those by default, each with whether it is to be
    /// bytes.
    ///
    /// # Errors
    /// If there is none of such a name, or one is asked for twice.
    pub fn asked(&self, asked: Option<&[Asked]>, binary: bool) -> Result<Vec<(Output, bool)>> {
        let Some(asked) = asked else {
            let default =
                |output: &&Output| matches!(output, Output::Score | Output::PValue | Output::IsOod);
            return Ok(self.outputs.iter().filter(default).map(|o| (*o, binary)).collect());
        };
        let mut all: Vec<(Output, bool)> = Vec::new();
        for asked in asked {
            let found = self.outputs.iter().find(|o| self.output_name(**o) == asked.name);
            let found = *found.ok_or_else(|| self.no_output(&asked.name))?;
            if all.iter().any(|(other, _)| *other == found) {
                let name = &asked.name;
                return Err(Refusal::invalid(format!("the output `{name}` is asked for twice")));
            }
            all.push((found, asked.binary));
        }
        Ok(all)
    }

    /// Bytes that an answer of so many rows takes at most, or about as many.
    pub fn answer_bytes(&self, asked: &[(Output, bool)], rows: usize) -> usize {
        let names = &self.detector.provenance().classes;
        let longest = names.iter().map(String::len).max().unwrap_or(0);
        let each = |(output, binary): &(Output, bool)| match (self.output_type(*output), binary) {
            (Datatype::Bytes, _) => longest + 4,
            (_, true) => 8,
            // The digits of a number.
            (Datatype::Bool, false) => 6,
            (Datatype::Fp64, false) => 25,
            (_, false) => 16,
        };
        rows * asked.iter().map(each).sum::<usize>()
    }

    fn no_output(&self, name: &str) -> Refusal {
        let verdict = ["p_value", "is_ood"].contains(&name);
        if verdict && self.detector.calibration().is_none() {
            return Refusal::invalid(format!(
                "the model `{}` is not calibrated and gives no `{name}`: `heat calibrate` makes \
                 one that does",
                self.name
            ));
        }
        let names: Vec<&str> = self.outputs.iter().map(|o| self.output_name(*o)).collect();
        Refusal::invalid(format!(
            "the model `{}` has no output `{name}`, but {}",
            self.name,
            names.join(", ")
        ))
    }

    /// The calibration for another rate than the detector's.
    ///
    /// # Errors
    /// If it is not calibrated, or by too few rows for that rate.
    pub fn at_rate(&self, alpha: f64) -> Result<Arc<Calibration>> {
        let Some(own) = self.detector.calibration() else {
            return Err(Refusal::invalid(format!(
                "`alpha` is for verdicts, and the model `{}` is not calibrated",
                self.name
            )));
        };
        if own.config().alpha == alpha {
            return Ok(Arc::clone(own));
        }
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = rates.iter().find(|(bits, _)| *bits == alpha.to_bits()) {
            return Ok(Arc::clone(found));
        }
        let made = own.with_alpha(alpha).map_err(|e| Refusal::invalid(e.to_string()))?;
        let made = Arc::new(made);
        if rates.len() == RATES {
            rates.remove(0);
        }
        rates.push((alpha.to_bits(), Arc::clone(&made)));
        Ok(made)
    }

    /// The values of an output.
    pub fn column(&self, output: Output, scored: &Scored) -> Column {
        match output {
            Output::Score => Column::F32(scored.scores.clone()),
            Output::PValue => Column::F64(scored.p_values.clone()),
            Output::IsOod => Column::Bool(scored.ood.clone()),
            Output::Component(i) => {
                let width = self.detector.scorer().components().len();
                let values = scored.components.iter().skip(i).step_by(width);
                Column::F32(values.copied().collect())
            }
            Output::Class => {
                let names = &self.detector.provenance().classes;
                match names.len() {
                    0 => Column::I64(scored.classes.iter().map(|c| i64::from(*c)).collect()),
                    _ => {
                        let name = |c: &u32| names.get(*c as usize).cloned().unwrap_or_default();
                        Column::Text(scored.classes.iter().map(name).collect())
                    }
                }
            }
        }
    }

    /// What the protocol says of it.
    pub fn metadata(&self, network: bool) -> Value {
        let tensor = |name: &str, kind: &str, shape: &[i64]| json!({"name": name, "datatype": kind, "shape": shape});
        let mut inputs: Vec<Value> = Vec::new();
        if network {
            inputs.push(tensor("image_bytes", "BYTES", &[-1]));
            inputs.push(tensor("image", "UINT8", &[-1, -1, -1, 3]));
        }
        inputs.extend(
            self.inputs.iter().map(|(f, dim)| tensor(f.name(), "FP32", &[-1, *dim as i64])),
        );
        let outputs: Vec<Value> = self
            .outputs
            .iter()
            .map(|o| tensor(self.output_name(*o), self.output_type(*o).name(), &[-1]))
            .collect();
        let mut parameters = json!({
            "scorer": self.detector.scorer().name(),
            "score": "an energy: higher = more out-of-distribution",
            "sha256": self.sha256,
        });
        if let Some(calibration) = self.detector.calibration() {
            parameters["alpha"] = calibration.config().alpha.into();
            parameters["guarantee"] = calibration.words().into();
        }
        if network {
            parameters["inputs"] =
                "one of image_bytes, image, or the features after them, all together".into();
        }
        json!({
            "name": self.name,
            "versions": [self.version],
            "platform": "heat_safetensors",
            "inputs": inputs,
            "outputs": outputs,
            "parameters": parameters,
        })
    }
}

/// Refuse a name that could be mistaken: for a path, or for an address of the protocol.
///
/// # Errors
/// If it is no letter or digit followed by at most 62 letters, digits, `.`, `_` and `-`, or `stats`.
pub fn check_name(name: &str) -> heat_ood::Result<()> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !first || name.len() > 63 || !name.chars().all(inner) {
        let problem = "a model's name is a letter or digit, followed by at most 62 letters, \
                       digits, `.`, `_` and `-`; give one as NAME=DETECTOR";
        return Err(Error::config("name", name, problem));
    }
    if name == "stats" {
        let problem = "is an address of the protocol; choose another name";
        return Err(Error::config("name", name, problem));
    }
    Ok(())
}
