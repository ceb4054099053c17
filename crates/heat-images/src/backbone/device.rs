//! What a network is run on, and how exactly.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use heat_ood::{Error, Result};

/// What a network is run on: the processor, or a device that ONNX Runtime has an execution provider
/// for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, with the bits that all processors give.
    #[default]
    Cpu,
    /// A card of NVIDIA's, by its number.
    Cuda(u16),
    /// The same through TensorRT, which compiles the network for it.
    TensorRt(u16),
    /// A card of AMD's.
    MiGraphX,
    /// What an Apple has.
    CoreMl,
    /// A card under Windows, by its number.
    DirectMl(u16),
    /// What Intel makes: `CPU`, `GPU`, or `GPU.1`.
    OpenVino(String),
}

/// The names of devices.
const NAMES: &str = "cpu, cuda, tensorrt, migraphx, coreml, directml or openvino; of several cards one by its \
                     number (cuda:1, tensorrt:1, directml:1), of OpenVINO's devices one by its name \
                     (openvino:CPU, openvino:GPU, openvino:GPU.1)";

impl Device {
    /// The provider of ONNX Runtime that runs it.
    pub fn provider(&self) -> &'static str {
        match self {
            Device::Cpu => "CPUExecutionProvider",
            Device::Cuda(_) => "CUDAExecutionProvider",
            Device::TensorRt(_) => "TensorrtExecutionProvider",
            Device::MiGraphX => "MIGraphXExecutionProvider",
            Device::CoreMl => "CoreMLExecutionProvider",
            Device::DirectMl(_) => "DmlExecutionProvider",
            Device::OpenVino(_) => "OpenVINOExecutionProvider",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::TensorRt(number) => write!(f, "tensorrt:{number}"),
            Device::MiGraphX => f.write_str("migraphx"),
            Device::CoreMl => f.write_str("coreml"),
            Device::DirectMl(number) => write!(f, "directml:{number}"),
            Device::OpenVino(device) => write!(f, "openvino:{device}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, which) = match text.split_once(':') {
            Some((name, which)) => (name, Some(which)),
            None => (text, None),
        };
        let number = || which.map_or(Some(0), number);
        let device = match (name, which) {
            ("cpu", None) => Some(Device::Cpu),
            ("cuda", _) => number().map(Device::Cuda),
            ("tensorrt", _) => number().map(Device::TensorRt),
            ("migraphx", None) => Some(Device::MiGraphX),
            ("coreml", None) => Some(Device::CoreMl),
            ("directml", _) => number().map(Device::DirectMl),
            ("openvino", None) => Some(Device::OpenVino("CPU".into())),
            // AUTO, HETERO and MULTI choose for themselves, so nobody would know what had computed; an
            // NPU computes in halves.
            ("openvino", Some(which)) if is_intel(which) => Some(Device::OpenVino(which.into())),
            _ => None,
        };
        device.ok_or_else(|| Error::config("device", text, format!("expected {NAMES}")))
    }
}

/// Digits alone: no sign.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_intel(name: &str) -> bool {
    let card = |name: &str| name.strip_prefix("GPU.").is_some_and(|n| number(n).is_some());
    matches!(name, "CPU" | "GPU") || card(name)
}

/// How exactly products are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Factors rounded to ten bits of fraction, which the tensor cores of NVIDIA's cards multiply
    /// several times as fast.
    Tf32,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Precision::F32),
            "tf32" => Ok(Precision::Tf32),
            _ => Err(Error::config("precision", text, "expected f32 or tf32")),
        }
    }
}

/// The variable by which NVIDIA's libraries never compute in TF32.
const OVERRIDE: &str = "NVIDIA_TF32_OVERRIDE";

impl Precision {
    /// Refuse a precision that the device does not have.
    pub(super) fn check(self, device: &Device) -> Result<()> {
        let never = std::env::var_os(OVERRIDE).is_some_and(|value| value == "0");
        self.check_with(device, never)
    }

    /// The same, with what the environment says.
    fn check_with(self, device: &Device, never: bool) -> Result<()> {
        let refuse = |problem: String| Err(Error::config("precision", self, problem));
        match (self, device) {
            (Precision::Tf32, Device::Cuda(_) | Device::TensorRt(_)) if never => refuse(format!(
                "the environment has {OVERRIDE}=0, by which there is no TF32: unset it, or take f32"
            )),
            // TensorRT has no option of ONNX Runtime that switches TF32 off.
            (Precision::F32, Device::TensorRt(_)) if !never => refuse(format!(
                "TensorRT computes in TF32 unless the environment has {OVERRIDE}=0: set that, or \
                 take tf32"
            )),
            (Precision::Tf32, Device::Cuda(_) | Device::TensorRt(_)) => Ok(()),
            (Precision::Tf32, other) => refuse(format!(
                "{other} has none: TF32 is of NVIDIA's cards (cuda, tensorrt); take f32"
            )),
            (Precision::F32, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        let short = ["cpu", "cuda", "tensorrt", "migraphx", "coreml", "directml", "openvino"];
        let whole =
            ["cpu", "cuda:0", "tensorrt:0", "migraphx", "coreml", "directml:0", "openvino:CPU"];
        for (short, whole) in short.into_iter().zip(whole) {
            assert_eq!(short.parse::<Device>().unwrap().to_string(), whole);
        }
        let others = ["cuda:1", "cuda:65535", "tensorrt:12", "directml:3"];
        let intel = ["openvino:GPU", "openvino:GPU.0", "openvino:GPU.11"];
        for name in whole.into_iter().chain(others).chain(intel) {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        let numbers = ["cuda:", "cuda:-1", "cuda:+1", "cuda:0:1", "cuda:65536", "cuda:x", "cuda0"];
        let names = ["", "gpu", "CUDA", "cpu:0", "coreml:1", "migraphx:0", " cuda", "rocm"];
        let intel = ["openvino:", "openvino:AUTO", "openvino:NPU", "openvino:GPU.", "openvino:gpu"];
        for name in numbers.into_iter().chain(names).chain(intel) {
            let said = name.parse::<Device>().unwrap_err().to_string();
            for known in short {
                assert!(said.contains(known), "{name}: {said}");
            }
            assert!(said.contains("openvino:GPU.1"), "{name}: {said}");
        }
    }

    #[test]
    fn tf32_is_of_nvidia_and_never_unasked() {
        let said = |precision: Precision, device: &str, never| {
            let device = device.parse().unwrap();
            precision.check_with(&device, never).err().map(|e| e.to_string()).unwrap_or_default()
        };
        for device in ["cpu", "migraphx", "coreml", "directml", "openvino"] {
            assert_eq!(said(Precision::F32, device, false), "");
            let refused = said(Precision::Tf32, device, false);
            assert!(refused.contains("cuda, tensorrt") && refused.contains(device), "{refused}");
        }
        assert_eq!(said(Precision::F32, "cuda", false), "");
        assert_eq!(said(Precision::Tf32, "cuda", false), "");
        assert_eq!(said(Precision::Tf32, "tensorrt", false), "");
        assert_eq!(said(Precision::F32, "tensorrt", true), "");
        assert!(said(Precision::F32, "tensorrt", false).contains("NVIDIA_TF32_OVERRIDE=0"));
        assert!(said(Precision::Tf32, "cuda", true).contains("unset it"));
        assert!("bf16".parse::<Precision>().unwrap_err().to_string().contains("f32 or tf32"));
    }
}
