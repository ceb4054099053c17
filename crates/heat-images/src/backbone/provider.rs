//! The execution providers of ONNX Runtime: which the library has, how each is asked for, and what
//! helps where one cannot be had.

use std::fs;
use std::path::{Path, PathBuf};

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};

use heat_ood::math::parallel;

use super::device::{Device, Precision};

/// The devices that the library loaded has a provider for, by name.
fn there() -> Vec<&'static str> {
    let all: [(&str, ort::Result<bool>); 6] = [
        ("cuda", ep::CUDA::is_available()),
        ("tensorrt", ep::TensorRT::is_available()),
        ("migraphx", ep::MIGraphX::is_available()),
        ("coreml", ep::CoreML::is_available()),
        ("directml", ep::DirectML::is_available()),
        ("openvino", ep::OpenVINO::is_available()),
    ];
    let there = all.into_iter().filter(|(_, there)| matches!(there, Ok(true)));
    std::iter::once("cpu").chain(there.map(|(name, _)| name)).collect()
}

/// Why the library loaded cannot run `device`, where it was made without.
pub(super) fn lacking(device: &Device) -> Option<String> {
    let there = there();
    let name = device.to_string();
    let name = name.split(':').next().unwrap_or_default();
    (!there.contains(&name)).then(|| {
        let there = there.join(", ");
        format!("it was made for {there} alone, not for {name}: {}", package(device))
    })
}

/// What to install.
fn package(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "`pip install onnxruntime`",
        Device::Cuda(_) => {
            "`pip uninstall onnxruntime`, then `pip install 'onnxruntime-gpu[cuda,cudnn]'`, in the \
             active Python environment"
        }
        Device::TensorRt(_) => {
            "`pip uninstall onnxruntime`, then `pip install 'onnxruntime-gpu[cuda,cudnn]' \
             'tensorrt-cu13<11'`, in the active Python environment"
        }
        Device::MiGraphX => {
            "`pip uninstall onnxruntime`, then install AMD's package onnxruntime-migraphx for the \
             ROCm at hand, in the active Python environment"
        }
        Device::CoreMl => "`pip install onnxruntime` on an Apple",
        Device::DirectMl(_) => {
            "`pip uninstall onnxruntime`, then `pip install onnxruntime-directml`, in the active \
             Python environment of a Windows"
        }
        Device::OpenVino(_) => {
            "`pip uninstall onnxruntime`, then `pip install onnxruntime-openvino`, in the active \
             Python environment"
        }
    }
}

/// The providers to be asked for, the first first.
pub(super) fn of(device: &Device, precision: Precision) -> Vec<ExecutionProviderDispatch> {
    let cuda = |number: u16| {
        let cuda = ep::CUDA::default().with_device_id(number.into());
        // Its default is TF32, unsaid.
        let cuda = cuda.with_tf32(precision == Precision::Tf32);
        // All runs have one shape, so that the search is made once.
        cuda.with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Exhaustive).build()
    };
    let all = match device {
        Device::Cpu => Vec::new(),
        Device::Cuda(number) => vec![cuda(*number)],
        // What TensorRT does not know runs on the same card.
        Device::TensorRt(number) => {
            vec![ep::TensorRT::default().with_device_id((*number).into()).build(), cuda(*number)]
        }
        Device::MiGraphX => vec![ep::MIGraphX::default().build()],
        // The older format computes in halves.
        Device::CoreMl => {
            let format = ep::coreml::ModelFormat::MLProgram;
            vec![ep::CoreML::default().with_model_format(format).build()]
        }
        Device::DirectMl(number) => {
            vec![ep::DirectML::default().with_device_id((*number).into()).build()]
        }
        // Unasked it computes in bfloat16 on processors that have it, in halves on cards.
        Device::OpenVino(name) => {
            let openvino = ep::OpenVINO::default().with_device_type(name).with_precision("FP32");
            vec![openvino.with_num_threads(parallel::threads()).build()]
        }
    };
    all.into_iter().map(ExecutionProviderDispatch::error_on_failure).collect()
}

/// Load what the providers for NVIDIA's cards need of NVIDIA's Python packages, where these lie beside
/// that of ONNX Runtime: the providers name their libraries without a place. What cannot be loaded
/// is not needed, or its absence is told when the provider is.
pub(super) fn preload(device: &Device, library: &Path) {
    if !matches!(device, Device::Cuda(_) | Device::TensorRt(_)) {
        return;
    }
    // site-packages/onnxruntime/capi/libonnxruntime.so
    let Some(packages) = library.ancestors().nth(3) else {
        return;
    };
    // What others need before these.
    let cuda = ["cudart", "cublasLt", "cublas", "nvrtc", "curand", "cufft", "cudnn"];
    let tensorrt = ["nvinfer", "nvinfer_plugin", "nvonnxparser"];
    let files = libraries(packages);
    for name in cuda.iter().chain(&tensorrt) {
        let named = |file: &&PathBuf| {
            let file = file.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&format!("lib{name}.so.")) || is_windows(&file, name)
        };
        for file in files.iter().filter(named) {
            let _ = ort::util::preload_dylib(file);
        }
    }
}

/// `cublas64_13.dll`, `nvinfer_10.dll`.
fn is_windows(file: &str, name: &str) -> bool {
    let rest = file.strip_prefix(name).and_then(|rest| rest.strip_suffix(".dll"));
    rest.is_some_and(|rest| rest.starts_with("64_") || rest.starts_with('_'))
}

/// Files where NVIDIA's Python packages have their libraries.
fn libraries(packages: &Path) -> Vec<PathBuf> {
    let list = |directory: PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut places = vec![packages.join("tensorrt_libs")];
    for package in list(packages.join("nvidia")) {
        places.extend(["lib", "bin", "bin/x86_64"].map(|place| package.join(place)));
    }
    let mut files: Vec<PathBuf> = places.into_iter().flat_map(list).collect();
    files.sort();
    files
}

/// What helps against an error of ONNX Runtime, where that is known.
pub(super) fn remedy(device: &Device, error: &str) -> Option<String> {
    if *device == Device::Cpu {
        return None;
    }
    let error = error.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| error.contains(word));
    let nvidia = matches!(device, Device::Cuda(_) | Device::TensorRt(_));
    if says(&["explicitly disabled by the user"]) {
        return Some(format!(
            "{device} does not know some operators of this network, which would run on the processor \
             unsaid: take another device, or cpu"
        ));
    }
    if says(&[
        "out of memory",
        "failed to allocate",
        "alloc_failed",
        "not enough memory",
        "8007000e",
    ]) {
        return Some(format!(
            "the memory of {device} is full: give it fewer images at a time, or end what else is \
             in it"
        ));
    }
    if says(&["invalid device", "device ordinal", "device id", "device_id", "is not available"])
        || says(&["unsupported device", "device with \"gpu", "no available devices"])
    {
        let list = if nvidia { "; `nvidia-smi -L` lists those there are" } else { "" };
        return Some(format!("this machine has no device {device}{list}"));
    }
    if nvidia && says(&["libcuda.so", "nvcuda.dll", "driver", "no cuda-capable device"]) {
        return Some(
            "NVIDIA's driver is missing, or older than this CUDA needs: `nvidia-smi` must show the \
             card and a version of CUDA that is not lower"
                .into(),
        );
    }
    if nvidia
        && says(&["cannot open shared object", "loadlibrary", "dlopen", "is missing", "cudnn"])
    {
        let problem = "libraries of NVIDIA's that it needs are missing, or of another version";
        return Some(format!("{problem}: {}", package(device)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_remedies() {
        let cuda = Device::Cuda(1);
        let said = |device: &Device, error: &str| remedy(device, error).unwrap_or_default();
        let gpu = "Failed to load library libonnxruntime_providers_cuda.so with error: ";
        for (error, part) in [
            ("libcublasLt.so.13: cannot open shared object file", "onnxruntime-gpu[cuda,cudnn]"),
            ("libcudnn.so.9: cannot open shared object file", "onnxruntime-gpu[cuda,cudnn]"),
            ("libcuda.so.1: cannot open shared object file", "`nvidia-smi` must show"),
            ("CUDA failure 35: CUDA driver version is insufficient", "`nvidia-smi` must show"),
            ("CUDA failure 100: no CUDA-capable device is detected", "`nvidia-smi` must show"),
            ("CUDA failure 101: invalid device ordinal", "no device cuda:1; `nvidia-smi -L`"),
            ("CUDA failure 2: out of memory", "fewer images at a time"),
            ("Failed to allocate memory for requested buffer of size 822083584", "fewer images"),
        ] {
            let got = said(&cuda, &format!("{gpu}{error}"));
            assert!(got.contains(part), "{error}: {got}");
        }
        let cpu = "This session contains graph nodes that are assigned to the default CPU EP, but \
                   fallback to CPU EP has been explicitly disabled by the user.";
        assert!(said(&Device::CoreMl, cpu).contains("coreml does not know some operators"));
        assert_eq!(said(&cuda, "of which nothing is known"), "");
        assert_eq!(said(&Device::Cpu, "out of memory"), "");
    }

    #[test]
    fn libraries_are_found_beside_the_runtime() {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        for file in ["nvidia/cu13/lib/libcublas.so.13", "nvidia/cudnn/lib/libcudnn.so.9"] {
            fs::create_dir_all(place(file).parent().unwrap()).unwrap();
            fs::write(place(file), "").unwrap();
        }
        let found = libraries(root.path());
        let all = ["nvidia/cu13/lib/libcublas.so.13", "nvidia/cudnn/lib/libcudnn.so.9"];
        assert_eq!(found, all.map(place));
        assert!(libraries(&place("none")).is_empty());
        assert!(is_windows("cublas64_13.dll", "cublas") && is_windows("nvinfer_10.dll", "nvinfer"));
        assert!(!is_windows("cublasLt64_13.dll", "cublas"));
    }
}
