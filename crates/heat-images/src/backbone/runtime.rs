//! ONNX Runtime, loaded when it is first needed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::SessionInputValue;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::Tensor;

use heat_ood::math::parallel;
use heat_ood::{Error, Result};

use super::device::{Device, Precision};
use super::provider;

/// Where an ONNX Runtime was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The shared library.
    pub path: PathBuf,
    /// What pointed to it.
    pub found_by: String,
}

/// How to get it.
const REMEDY: &str = "install it with `pip install onnxruntime` in the active Python environment, \
                      or set ORT_DYLIB_PATH to libonnxruntime.so (1.17 or newer)";

fn is_library(name: &str) -> bool {
    name.starts_with("libonnxruntime.so")
        || name == "onnxruntime.dll"
        || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
}

/// A library in a directory, the longest name first: that with its version.
fn in_directory(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let found = entries.filter(|e| is_library(&e.file_name().to_string_lossy()));
    found.map(|e| e.path()).max_by_key(|p| p.as_os_str().len())
}

/// Within a Python environment: `lib/python3.x/site-packages/onnxruntime/capi`.
fn in_python(root: &Path) -> Option<PathBuf> {
    let mut roots = vec![root.join("Lib/site-packages")];
    for entry in std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("python3") {
            roots.extend(["site-packages", "dist-packages"].map(|p| entry.path().join(p)));
        }
    }
    roots.iter().find_map(|r| in_directory(&r.join("onnxruntime/capi")))
}

/// Find an ONNX Runtime: the given file, `ORT_DYLIB_PATH`, the Python package
/// of the active environment, the system's directories.
///
/// # Errors
/// If there is none, with the way to get one.
pub fn find_library(given: Option<&Path>) -> Result<Library> {
    let named = given.map(|p| (p.to_owned(), "as given".to_owned()));
    let variable = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty());
    let variable = variable.map(|v| (PathBuf::from(v), "ORT_DYLIB_PATH".to_owned()));
    if let Some((path, found_by)) = named.or(variable) {
        if !path.is_file() {
            let problem = format!("no such file (from {found_by}); {REMEDY}");
            return Err(Error::format(path, problem));
        }
        return Ok(Library { path, found_by });
    }
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        let root = std::env::var_os(variable).map(PathBuf::from);
        if let Some(path) = root.as_deref().and_then(in_python) {
            return Ok(Library { path, found_by: format!("the Python package in {variable}") });
        }
    }
    for root in ["/usr/local", "/usr", "/opt/homebrew"].map(Path::new) {
        let directories = ["lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];
        let found = directories.iter().find_map(|f| in_directory(&root.join(f)));
        if let Some(path) = found.or_else(|| in_python(root)) {
            return Ok(Library { path, found_by: "the system".into() });
        }
    }
    Err(Error::missing("this machine", "ONNX Runtime", REMEDY))
}

/// The process's one environment: the library cannot be loaded twice.
fn environment(library: &Library) -> Result<Environment> {
    static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, environment)) = &*loaded {
        return Ok(environment.clone());
    }
    let refused = |e: String| {
        let problem = format!("cannot be loaded as ONNX Runtime: {e}; {REMEDY}");
        Error::format(&library.path, problem)
    };
    let mut builder = ort::init_from(&library.path).map_err(|e| refused(e.to_string()))?;
    // What goes wrong comes back as an error. Its own log would print the same to standard error,
    // with names of the network's file as they stand there. Who looks for more sets ORT_LOG.
    if std::env::var_os("ORT_LOG").is_none() {
        builder = builder.with_logger(Arc::new(|level, _, _, _, text| {
            if matches!(level, LogLevel::Error | LogLevel::Fatal) {
                last_error(|last| text.clone_into(last));
            }
        }));
    }
    let made = builder.with_name("heat").with_telemetry(false).build();
    let made = made.map_err(|e| refused(e.to_string()))?;
    *loaded = Some((library.path.clone(), made.clone()));
    Ok(made)
}

/// The last error in the log of ONNX Runtime: of a provider that cannot be loaded it says there why,
/// and in its answer only that.
fn last_error<R>(with: impl FnOnce(&mut String) -> R) -> R {
    static LAST: Mutex<String> = Mutex::new(String::new());
    with(&mut LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Load the library, and refuse it if it has no provider for a device.
///
/// # Errors
/// If it cannot be loaded, or was made without that provider.
pub(super) fn require(library: &Library, device: &Device) -> Result<()> {
    environment(library)?;
    match provider::lacking(device) {
        None => Ok(()),
        Some(problem) => {
            let found_by = &library.found_by;
            Err(Error::format(&library.path, format!("(found by {found_by}) {problem}")))
        }
    }
}

/// Sessions side by side: on the processor one a thread, so that no thread waits for another, but not
/// so many that their weights fill the memory.
pub(super) fn networks() -> usize {
    parallel::threads().clamp(1, 4)
}

pub(super) struct Session {
    session: ort::session::Session,
    device: Device,
}

impl Session {
    /// Load a model from memory, to run it on the processor; `path` is used in messages.
    pub fn load(path: &Path, library: &Library, model: &[u8]) -> Result<Self> {
        let environment = environment(library)?;
        let refused = |e: String| {
            let problem = format!("ONNX Runtime ({}) refuses it: {e}", library.path.display());
            Error::format(path, problem)
        };
        let build = || -> std::result::Result<_, String> {
            let builder =
                ort::session::Session::builder(&environment).map_err(|e| e.to_string())?;
            builder
                .with_intra_threads(parallel::threads().div_ceil(networks()))
                .map_err(|e| e.to_string())?
                .with_intra_op_spinning(false)
                .map_err(|e| e.to_string())?
                .with_optimization_level(GraphOptimizationLevel::All)
                .map_err(|e| e.to_string())?
                .commit_from_memory(model)
                .map_err(|e| e.to_string())
        };
        build().map(|session| Session { session, device: Device::Cpu }).map_err(refused)
    }

    /// Load a model whose inputs have fixed shapes, to run it on a device and nowhere else.
    ///
    /// # Errors
    /// If the library has no provider for it, the provider cannot be loaded, there is no such device,
    /// or some operator would run on the processor.
    pub fn load_on(
        path: &Path,
        library: &Library,
        model: &[u8],
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        require(library, device)?;
        provider::preload(device, &library.path);
        let environment = environment(library)?;
        last_error(String::clear);
        let build = || -> std::result::Result<_, String> {
            let builder =
                ort::session::Session::builder(&environment).map_err(|e| e.to_string())?;
            builder
                .with_intra_op_spinning(false)
                .map_err(|e| e.to_string())?
                .with_optimization_level(GraphOptimizationLevel::All)
                .map_err(|e| e.to_string())?
                // What DirectML needs; with one shape there is nothing for others to gain.
                .with_memory_pattern(false)
                .map_err(|e| e.to_string())?
                .with_execution_providers(provider::of(device, precision))
                .map_err(|e| e.to_string())?
                // Operators that a provider does not know would otherwise run on the processor
                // unsaid. Those of shapes would too, but with fixed shapes they are constants.
                .with_disable_cpu_fallback()
                .map_err(|e| e.to_string())?
                .commit_from_memory(model)
                .map_err(|e| e.to_string())
        };
        build().map(|session| Session { session, device: device.clone() }).map_err(|mut error| {
            let logged = last_error(std::mem::take);
            let (answer, logged) = (error.trim_end(), logged.trim_end());
            error = match logged.is_empty() || answer.contains(logged) {
                true => answer.to_owned(),
                false => format!("{answer} ({logged})"),
            };
            let remedy = provider::remedy(device, &error);
            let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
            let library = library.path.display();
            let problem =
                format!("ONNX Runtime ({library}) cannot run it on {device}: {error}{remedy}");
            Error::format(path, problem)
        })
    }

    /// Values of the named outputs, for inputs of a name, a shape and values.
    pub fn run(
        &mut self,
        path: &Path,
        inputs: Vec<(String, Vec<usize>, Vec<f32>)>,
        outputs: &[String],
    ) -> Result<HashMap<String, Vec<f32>>> {
        let device = &self.device;
        let failed = |e: String| {
            let remedy = provider::remedy(device, &e);
            let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
            Error::format(path, format!("ONNX Runtime: {e}{remedy}"))
        };
        let tensors = inputs.into_iter().map(|(name, shape, values)| {
            let tensor = Tensor::from_array((shape, values)).map_err(|e| failed(e.to_string()))?;
            Ok((name, SessionInputValue::from(tensor)))
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let made = self.session.run(tensors).map_err(|e| failed(e.to_string()))?;
        let mut all = HashMap::new();
        for name in outputs {
            let value =
                made.get(name.as_str()).ok_or_else(|| failed(format!("no output `{name}`")))?;
            let (_, values) =
                value.try_extract_tensor::<f32>().map_err(|e| failed(e.to_string()))?;
            all.insert(name.clone(), values.to_vec());
        }
        Ok(all)
    }
}
