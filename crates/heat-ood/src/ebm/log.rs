//! What training records: `metrics.jsonl` and TensorBoard event files.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::loss::LossValues;
use crate::error::{Error, Result};
use crate::observe::EpochLog;

/// Running sums of an epoch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Sums {
    batches: u64,
    total: LossValues,
    last: LossValues,
    prior: (f64, f64),
}

impl Sums {
    pub(super) fn add(&mut self, v: &LossValues) {
        self.batches += 1;
        self.last = *v;
        self.total.loss += v.loss;
        self.total.cd += v.cd;
        self.total.l2 += v.l2;
        self.total.energy_real += v.energy_real;
        self.total.energy_generated += v.energy_generated;
    }

    pub(super) fn prior(&mut self, real: f64, generated: f64) {
        self.prior = (real, generated);
    }

    pub(super) fn finish(self, epoch: usize, step: u64, lr: f64) -> EpochLog {
        let n = self.batches.max(1) as f64;
        let (real, generated) = self.prior;
        EpochLog {
            epoch,
            step,
            lr,
            loss: self.total.loss / n,
            cd_loss: self.total.cd / n,
            l2_loss: self.total.l2 / n,
            energy_nn_real: self.total.energy_real / n,
            energy_nn_generated: self.total.energy_generated / n,
            energy_prior_real: real,
            energy_prior_generated: generated,
            energy_real: self.last.energy_real + real,
            energy_generated: self.last.energy_generated + generated,
        }
    }
}

/// What TensorBoard shows of an epoch.
fn scalars(log: &EpochLog) -> [(&'static str, f64); 10] {
    [
        ("train/lr", log.lr),
        ("train/loss", log.loss),
        ("train/cd_loss", log.cd_loss),
        ("train/l2_loss", log.l2_loss),
        ("energy_nn/real", log.energy_nn_real),
        ("energy_nn/generated", log.energy_nn_generated),
        ("energy_prior/real", log.energy_prior_real),
        ("energy_prior/generated", log.energy_prior_generated),
        ("energy/real", log.energy_real),
        ("energy/generated", log.energy_generated),
    ]
}

/// A TensorBoard event file, appended to epoch by epoch.
///
/// Records are TFRecords (length, masked CRC-32C of it, payload, masked CRC-32C
/// of it) of `tensorflow.Event` messages; the four fields used are encoded by
/// hand, which is shorter than a protobuf dependency with its build step.
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

const PREFIX: &str = "events.out.tfevents.";

impl EventFile {
    /// A new file in `folder` that begins with `history`; older ones of the
    /// directory, of which it is a continuation, are removed.
    pub(super) fn create(directory: &Path, history: &[EpochLog]) -> Result<Self> {
        for entry in std::fs::read_dir(directory).map_err(Error::io("list", directory))? {
            let path = entry.map_err(Error::io("list", directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PREFIX) && name.ends_with(".heat") {
                std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        let path = directory.join(format!("{PREFIX}{}.heat", now() as u64));
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let mut events = EventFile { path, file };
        let mut first = Message::default();
        first.double(1, now());
        first.bytes(3, b"brain.Event:2");
        events.record(&first.0)?;
        for log in history {
            events.append(log)?;
        }
        Ok(events)
    }

    /// Add an epoch's scalars.
    pub(super) fn append(&mut self, log: &EpochLog) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in scalars(log) {
            let mut scalar = Message::default();
            scalar.bytes(1, tag.as_bytes());
            scalar.float(2, value as f32);
            summary.bytes(1, &scalar.0);
        }
        let mut event = Message::default();
        event.double(1, now());
        event.varint(2, log.epoch as u64);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    fn record(&mut self, payload: &[u8]) -> Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        let mut out = length.to_vec();
        out.extend(masked_crc(&length).to_le_bytes());
        out.extend(payload);
        out.extend(masked_crc(payload).to_le_bytes());
        self.file.write_all(&out).map_err(Error::io("write", &self.path))
    }
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.raw_varint(field << 3 | wire);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The protobuf documentation's own example: field 1, varint 150 is 08 96 01.
    #[test]
    fn varints_as_documented() {
        let mut m = Message::default();
        m.varint(1, 150);
        assert_eq!(m.0, [0x08, 0x96, 0x01]);
        let mut m = Message::default();
        m.bytes(2, b"testing");
        assert_eq!(m.0, *b"\x12\x07testing");
    }

    /// CRC-32C of "123456789" is e3069283 (RFC 3720's check value).
    #[test]
    fn crc_is_castagnoli() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
