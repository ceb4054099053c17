//! From images to features: a classifier, run by ONNX Runtime.
//!
//! [`Backbone::open`] reads the graph of any classifier in ONNX, finds the last
//! linear layer and the feature map before its global pooling, and adds pooled
//! outputs inside the graph, so that only pooled numbers leave the runtime. Of
//! a ResNet the weights are enough (PyTorch checkpoints, safetensors): its
//! graph is made here. [`extract`] runs a data set through it into a feature
//! set. A second graph gives the gradient with respect to the images, by
//! which [`Perturbation`] moves them before they are scored.

mod check;
mod constants;
mod device;
mod external;
mod extract;
mod fixed;
mod gradient;
mod graph;
mod layer;
mod layers;
mod linear;
mod maps;
mod meter;
mod outputs;
mod perturb;
mod pooling;
mod proto;
mod provider;
mod quantised;
mod resnet;
mod runtime;
mod shapes;
mod weights;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::TransformConfig;
use heat_ood::features::{Batch, Field, Head, Origin, Part as FeaturePart, Pooling};

use heat_ood::io::{Bytes, map, sha256_of, write_atomically};
use heat_ood::math::parallel;
use heat_ood::{Error, Result};

pub use check::Checked;
pub use device::{Device, Precision};
pub use extract::{ExtractConfig, Extracted, Live, Part, extract, images_of_rows, stream};
pub use graph::{Chosen, Found, Tap};
pub use layer::Layer;
pub use layers::LayersAsked;
pub use perturb::{Perturbation, PerturbedBy};
pub use runtime::{Library, find_library};

use graph::Asked;
use resnet::{ResNet, Spec};
use runtime::Session;
use weights::StateDict;

/// What the file alone does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackboneOptions {
    /// The tensor to take as features, `[N, D, h, w]` or `[N, D]`, where what
    /// is found is not what is wanted.
    pub tap: Option<String>,
    /// The output that is the classifier's, where there are several and
    /// another one is found.
    pub output: Option<String>,
    /// Classes of the labels, by which one of several outputs is chosen.
    pub classes: Option<usize>,
    /// The architecture that weights must be of (`resnet34`), and what they do
    /// not tell: `stem=…`, `stride_in=…`, apart by commas or spaces.
    pub arch: Option<String>,
    /// What stands before the names of the weights, where a file has several
    /// networks.
    pub prefix: Option<String>,
    /// The ONNX Runtime library, where it should not be searched for.
    pub library: Option<PathBuf>,
}

/// A classifier whose graph has been read.
#[derive(Clone)]
pub struct Backbone {
    path: PathBuf,
    bytes: Arc<Bytes>,
    found: Found,
    architecture: Option<String>,
    notes: Vec<String>,
    sha256: String,
    options: BackboneOptions,
    device: Device,
    precision: Precision,
}

/// Pooled outputs of some images.
#[derive(Debug, Clone, Default)]
pub struct Pooled {
    /// `[n, D]`.
    pub avg: Vec<f32>,
    /// Standard deviation over the map with Bessel's correction, `[n, D]`;
    /// empty where the features are vectors.
    pub std: Vec<f32>,
    /// `[n, D]`; empty where the features are vectors.
    pub max: Vec<f32>,
    /// `[n, C]`; empty where there is no linear layer.
    pub logits: Vec<f32>,
    /// Gram matrices by their rows' sums, `[n, 10 · D]`; empty where they were not asked for.
    pub gram: Vec<f32>,
    /// Mean without the map's first singular component, `[n, D]`; empty where it was not asked for.
    pub rankfeat: Vec<f32>,
    /// Of further layers.
    pub layers: Vec<PooledLayer>,
    /// Of other views of the images.
    pub views: Vec<(FeaturePart, Pooled)>,
}

/// Pooled outputs of a further layer.
#[derive(Debug, Clone)]
pub struct PooledLayer {
    /// Which.
    pub part: FeaturePart,
    /// `[n, D]`.
    pub avg: Vec<f32>,
    /// `[n, D]`; empty where there is none.
    pub std: Vec<f32>,
    /// `[n, 10 · D]`; empty where it was not asked for.
    pub gram: Vec<f32>,
}

impl Backbone {
    /// Read an `.onnx` file, or the weights of a ResNet (`.pt`, `.pth`,
    /// `.ckpt`, `.th`, `.safetensors`); the network is not run yet.
    ///
    /// # Errors
    /// If it is not an ONNX model, its weights are in another file that is not
    /// there, or it has no image as its input; if weights are not those of the
    /// architecture, with every mismatch.
    pub fn open(path: impl AsRef<Path>, options: &BackboneOptions) -> Result<Self> {
        let path = path.as_ref();
        let mut bytes = map(path)?;
        let (mut architecture, mut notes) = (None, Vec::new());
        let mut sha256 = sha256_of([&bytes[..]]);
        if weights::holds_weights(&bytes) {
            let dict = StateDict::open(path, &resnet::ANCHORS, options.prefix.as_deref())?;
            let spec = options.arch.as_deref().map(Spec::parse).transpose()?.unwrap_or_default();
            let network = ResNet::of(&dict, &spec)?;
            if let Some(prefix) = dict.of_several() {
                sha256 = sha256_of([&sha256, prefix]);
            }
            notes.extend(dict.note());
            notes.extend(network.notes(&dict, &spec)?);
            bytes = Arc::new(Bytes::from(network.graph(&dict)?));
            architecture = Some(network.name);
        } else if let Some(key) = options.arch.as_ref().or(options.prefix.as_ref()) {
            let problem = "an ONNX file says itself what it is; leave the option out";
            return Err(Error::config("backbone", key, problem));
        } else {
            let model = graph::decode(path, &bytes)?;
            let opset = graph::opset(&model);
            let outside = external::some_are_outside(&model);
            let quantised = quantised::some_are(&model, opset);
            drop(model);
            if outside {
                bytes = Arc::new(Bytes::from(external::inlined(path, &bytes)?));
                sha256 = sha256_of([&bytes[..]]);
            }
            if quantised {
                bytes = Arc::new(Bytes::from(quantised::taken_apart(path, &bytes, opset)?));
            }
        }
        let asked = Asked {
            tap: options.tap.as_deref(),
            output: options.output.as_deref(),
            classes: options.classes,
        };
        let found = graph::read(path, &bytes, asked)?;
        Ok(Backbone {
            path: path.to_owned(),
            bytes,
            found,
            architecture,
            notes,
            sha256,
            options: options.clone(),
            device: Device::Cpu,
            precision: Precision::F32,
        })
    }

    /// The same network, run on that device.
    ///
    /// # Errors
    /// If the device has no such precision, no ONNX Runtime is found, or the one that is has no
    /// provider for the device. Whether there is such a device is seen when images are given.
    pub fn on(self, device: Device, precision: Precision) -> Result<Self> {
        precision.check(&device)?;
        if device != Device::Cpu {
            runtime::require(&find_library(self.options.library.as_deref())?, &device)?;
        }
        Ok(Backbone { device, precision, ..self })
    }

    /// What it is run on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How exactly it is computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Write the graph with its pooled outputs (`avg`, `std`, `max`, `logits`
    /// under the names in the graph) as an `.onnx` file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let model = outputs::with_pooled_outputs(&self.bytes, &self.found);
        write_atomically(path.as_ref(), |to| to.write_all(&model))
    }

    /// What the weights are of, where it was read from weights.
    pub fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }

    /// What its weights leave open, and what was assumed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What to say of it before its features are taken, as it was seen to run.
    pub fn notes_of(&self, checked: &Checked) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(why) = &checked.alone {
            notes.push(format!("`avg` alone, without `std` and `max`: {why}"));
        }
        match (&self.found.headless, &checked.headless) {
            (Some(why), _) => notes.push(format!("features alone, without a head: {why}")),
            (None, Some(why)) => notes.push(format!("no head is written: {why}")),
            _ => {}
        }
        if self.head().is_some_and(|head| head.classes() == 1) {
            let problem = "one logit: scores of softmax and of several logits (msp, max_logit, el, \
                           odin) say nothing of it; scorers of features do";
            notes.push(problem.into());
        }
        notes
    }

    /// SHA-256 of the file; of the whole model where its weights are in others; of the file's and
    /// of what stands before its names where the file has several networks.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was found in the graph.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The last linear layer.
    pub fn head(&self) -> Option<&Head> {
        self.found.head.as_ref()
    }

    /// What goes with features that it makes: the network, where in it they are taken, and how
    /// images reach it.
    pub fn origin(&self, transform: &TransformConfig) -> Origin {
        let architecture = self.architecture().map(|name| format!("{name}, "));
        Origin {
            network: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            network_sha256: self.sha256.clone(),
            tap: architecture.unwrap_or_default() + &format!("{:?}", self.found.tap),
            transform: serde_json::to_string(transform).unwrap_or_default(),
            head_sha256: self.head().map(Head::digest),
            layers: self
                .found
                .layers()
                .iter()
                .map(|l| (l.part.name().to_owned(), l.tensor.clone()))
                .collect(),
            device: match &self.device {
                Device::Cpu => None,
                device => Some(format!("{device}, {}", self.precision)),
            },
        }
    }

    /// Load the runtime and the network into it, for as many images at a time as are given.
    ///
    /// # Errors
    /// If no ONNX Runtime is found, or it refuses the model.
    pub fn load(&self) -> Result<Network> {
        self.load_for(ON_DEVICE)
    }

    /// The same. On a device all runs are of `images` images: fewer are filled up.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for(&self, images: usize) -> Result<Network> {
        let library = find_library(self.options.library.as_deref())?;
        let forward = match &self.device {
            Device::Cpu => {
                let model = outputs::with_pooled_outputs(&self.bytes, &self.found);
                Forward::Free(Session::load(&self.path, &library, &model)?)
            }
            device => {
                runtime::require(&library, device)?;
                Forward::Fixed { images: images.max(1), made: None }
            }
        };
        let fixed = matches!(forward, Forward::Fixed { .. });
        Ok(Network {
            place: self.path.clone(),
            forward,
            found: Found { fixed, ..self.found.clone() },
            graph: Arc::clone(&self.bytes),
            library,
            device: self.device.clone(),
            precision: self.precision,
            checked: None,
            backward: None,
        })
    }

    /// Copies of it that work side by side, each on images of its own: on a device one, for which
    /// all threads decode.
    pub(crate) fn copies(&self) -> usize {
        match &self.device {
            Device::Cpu => networks(),
            _ => 1,
        }
    }
}

/// On the processor one a thread, so that no thread waits for another, but not
/// so many that their weights fill the memory.
fn networks() -> usize {
    parallel::threads().clamp(1, 4)
}

/// Images of a run on a device where nobody says how many.
const ON_DEVICE: usize = 64;

/// A network ready to run.
pub struct Network {
    place: PathBuf,
    forward: Forward,
    found: Found,
    graph: Arc<Bytes>,
    library: Library,
    device: Device,
    precision: Precision,
    /// What was found for images of one size.
    checked: Option<([usize; 2], Checked)>,
    backward: Option<Backward>,
}

/// The graph, loaded.
enum Forward {
    /// For any number of images of any size.
    Free(Session),
    /// On a device: for so many images of one size, loaded when that is known.
    Fixed { images: usize, made: Option<(Vec<usize>, Session)> },
}

/// The second graph, for images of one size and seeds of some fields.
struct Backward {
    size: [usize; 2],
    fields: Vec<Field>,
    session: Session,
}

/// Pixels and images whose activations are kept at a time for the gradient:
/// four of 224×224, less than half a GiB with ResNet-50.
const GRADIENT_PIXELS: usize = 4 * 224 * 224;
const GRADIENT_IMAGES: usize = 16;

impl Network {
    /// Features of `n` images, `[n, 3, height, width]`.
    ///
    /// # Errors
    /// If the runtime refuses them, or what comes out is not `n` rows.
    pub fn run(&mut self, images: Vec<f32>, shape: [usize; 4]) -> Result<Pooled> {
        let [n, channels, height, width] = shape;
        let together = self.together(n, [height, width]);
        if n <= together {
            return self.run_together(images, shape);
        }
        let mut all = Pooled::default();
        for images in images.chunks(together * channels * height * width) {
            let shape = [images.len() / (channels * height * width), channels, height, width];
            all.append(self.run_together(images.to_vec(), shape)?);
        }
        Ok(all)
    }

    fn run_together(&mut self, images: Vec<f32>, shape: [usize; 4]) -> Result<Pooled> {
        let alone = self.check_on(&images, [shape[2], shape[3]])?.alone;
        let mut made = self.outputs(images, shape)?;
        let names = self.found.names();
        let mut take =
            |name: Option<String>| name.and_then(|n| made.remove(&n)).unwrap_or_default();
        let avg = take(Some(names.avg));
        let logits = take(names.logits);
        let mut pooled = Pooled { avg, logits, ..Pooled::default() };
        if alone.is_none() {
            (pooled.std, pooled.max) = (take(names.std), take(names.max));
        }
        pooled.layers = self
            .found
            .layers()
            .iter()
            .map(|layer| {
                let (avg, std) = layer.outputs();
                let gram = Vec::new();
                PooledLayer { part: layer.part, avg: take(Some(avg)), std: take(std), gram }
            })
            .collect();
        self.of_maps(&mut made, shape[0], alone.as_deref(), &mut pooled)?;
        Ok(pooled)
    }

    /// Values of all outputs for `n` images, `[n, 3, height, width]`, the
    /// number of cells beside them.
    fn outputs(
        &mut self,
        mut images: Vec<f32>,
        mut shape: [usize; 4],
    ) -> Result<HashMap<String, Vec<f32>>> {
        let n = shape[0];
        if let Some((want, got)) = self.found.mismatch(shape) {
            return Err(Error::Shape {
                place: self.place.display().to_string(),
                tensor: self.found.input.clone(),
                expected: format!("{want}; set the resizing and cropping to it"),
                got,
            });
        }
        shape[0] = Self::fill(self.batch(), n, &mut images);
        if self.found.channels_last {
            images = turned(&images, shape);
        }
        let taken = self.found.as_taken(shape).to_vec();
        self.prepare(&taken)?;
        let (Forward::Free(session) | Forward::Fixed { made: Some((_, session)), .. }) =
            &mut self.forward
        else {
            return Err(Error::format(&self.place, "is not loaded"));
        };
        let inputs = vec![(self.found.input.clone(), taken, images)];
        let mut outputs = session.run(&self.place, inputs, &self.found.outputs())?;
        let cells = self.found.names().cells;
        for (name, values) in &mut outputs {
            if Some(name) == cells.as_ref() {
                continue;
            }
            if values.is_empty() || !values.len().is_multiple_of(shape[0]) {
                let problem = format!("output `{name}` has {} values for {n} images", values.len());
                return Err(Error::format(&self.place, problem));
            }
            values.truncate(values.len() / shape[0] * n);
        }
        Ok(outputs)
    }

    /// Load the graph for images of that shape, where it is not.
    fn prepare(&mut self, shape: &[usize]) -> Result<()> {
        let Forward::Fixed { made, .. } = &mut self.forward else {
            return Ok(());
        };
        if made.as_ref().is_some_and(|(of, _)| of == shape) {
            return Ok(());
        }
        // First let the other one's memory go.
        *made = None;
        let model = outputs::with_pooled_outputs(&self.graph, &self.found);
        let inputs = [(self.found.input.clone(), shape.to_vec())];
        let session = self.fixed(&model, &inputs, &self.found.outputs())?;
        if let Forward::Fixed { made, .. } = &mut self.forward {
            *made = Some((shape.to_vec(), session));
        }
        Ok(())
    }

    /// A model with inputs of these shapes and these outputs alone, on the device.
    fn fixed(
        &self,
        model: &[u8],
        inputs: &[(String, Vec<usize>)],
        outputs: &[String],
    ) -> Result<Session> {
        let model = fixed::with_shapes(&self.place, model, inputs, outputs)?;
        Session::load_on(&self.place, &self.library, &model, &self.device, self.precision)
    }

    /// Whether it runs elsewhere than on the processor, which is then free to decode.
    pub(crate) fn is_on_device(&self) -> bool {
        self.device != Device::Cpu
    }

    /// Images of each run, where their number is fixed.
    fn batch(&self) -> Option<usize> {
        let on_device = match self.forward {
            Forward::Free(_) => None,
            Forward::Fixed { images, .. } => Some(images),
        };
        self.found.batch().or(on_device)
    }

    /// Add rows of zeros where a run is of more than `n`; returns the number of rows.
    fn fill(batch: Option<usize>, n: usize, values: &mut Vec<f32>) -> usize {
        let rows = batch.map_or(n, |batch| batch.max(n));
        values.resize(values.len() / n.max(1) * rows, 0.0);
        rows
    }

    /// Gradient with respect to `n` images, `[n, 3, height, width]`, of an
    /// energy whose gradient with respect to features and logits is in `seeds`.
    ///
    /// # Errors
    /// If an operator of the network has no gradient here, or the runtime
    /// refuses the graph.
    pub fn gradient(
        &mut self,
        images: &[f32],
        shape: [usize; 4],
        seeds: &Batch,
    ) -> Result<Vec<f32>> {
        let [n, channels, height, width] = shape;
        let fields: Vec<Field> = seeds.fields().collect();
        let fits = |b: &Backward| b.size == [height, width] && b.fields == fields;
        let together = (GRADIENT_PIXELS / (height * width).max(1)).clamp(1, GRADIENT_IMAGES);
        let together = self.found.batch().unwrap_or(together);
        let (fixed, last) = (self.is_on_device(), self.found.channels_last);
        let wanted = [gradient::GRADIENT.to_owned()];
        let mut backward = match self.backward.take().filter(fits) {
            Some(backward) => backward,
            None => {
                let (place, size) = (&self.place, [height, width]);
                let model =
                    gradient::with_gradient(place, &self.graph, &self.found, size, &fields)?;
                let session = if fixed {
                    let image = self.found.as_taken([together, channels, height, width]).to_vec();
                    let seed =
                        |field: &Field| (gradient::seed(*field), vec![together, seeds.dim(*field)]);
                    let mut inputs = vec![(self.found.input.clone(), image)];
                    inputs.extend(fields.iter().map(seed));
                    self.fixed(&model, &inputs, &wanted)?
                } else {
                    Session::load(place, &self.library, &model)?
                };
                Backward { size, fields, session }
            }
        };
        let batch = if fixed { Some(together) } else { self.found.batch() };
        let size = channels * height * width;
        let mut out = Vec::with_capacity(images.len());
        for first in (0..n).step_by(together) {
            let rows = first..(first + together).min(n);
            let cut = |values: &[f32], width: usize| {
                let mut values = values[rows.start * width..rows.end * width].to_vec();
                let filled = Self::fill(batch, rows.len(), &mut values);
                (filled, values)
            };
            let (filled, values) = cut(images, size);
            let shape = [filled, channels, height, width];
            let values = if last { turned(&values, shape) } else { values };
            let taken = self.found.as_taken(shape).to_vec();
            let mut inputs = vec![(self.found.input.clone(), taken, values)];
            for &field in &backward.fields {
                let dim = seeds.dim(field);
                let (filled, values) = cut(seeds.get(field), dim);
                inputs.push((gradient::seed(field), vec![filled, dim], values));
            }
            let mut made = backward.session.run(&self.place, inputs, &wanted)?;
            let mut made = made.remove(gradient::GRADIENT).unwrap_or_default();
            if last {
                made = turned_back(&made, shape);
            }
            made.truncate(rows.len() * size);
            out.extend(made);
        }
        self.backward = Some(backward);
        if out.len() == images.len() {
            return Ok(out);
        }
        let problem = format!("its gradient has {} values, not {}", out.len(), images.len());
        Err(Error::format(&self.place, problem))
    }
}

/// Images `[n, channels, height, width]` with their channels last.
fn turned(images: &[f32], [_, channels, height, width]: [usize; 4]) -> Vec<f32> {
    let cells = height * width;
    let image = |image: &[f32]| -> Vec<f32> {
        (0..cells)
            .flat_map(|i| (0..channels).map(move |c| c * cells + i))
            .map(|at| image[at])
            .collect()
    };
    images.chunks_exact((channels * cells).max(1)).flat_map(image).collect()
}

/// The other way.
fn turned_back(images: &[f32], [_, channels, height, width]: [usize; 4]) -> Vec<f32> {
    let cells = height * width;
    let image = |image: &[f32]| -> Vec<f32> {
        (0..channels)
            .flat_map(|c| (0..cells).map(move |i| i * channels + c))
            .map(|at| image[at])
            .collect()
    };
    images.chunks_exact((channels * cells).max(1)).flat_map(image).collect()
}

impl Pooled {
    /// As what scorers read.
    ///
    /// # Errors
    /// If a field is not of `rows` rows.
    pub fn batch(self, rows: usize) -> Result<Batch<'static>> {
        Batch::of(rows, self.fields())
    }

    fn fields(self) -> Vec<(Field, Vec<f32>)> {
        let [avg, std, max] = [Pooling::Avg, Pooling::Std, Pooling::Max].map(Field::Features);
        let mut all = vec![
            (avg, self.avg),
            (std, self.std),
            (max, self.max),
            (Field::Logits, self.logits),
            (Field::Gram, self.gram),
            (Field::Rankfeat, self.rankfeat),
        ];
        for layer in self.layers {
            all.push((avg.within(layer.part), layer.avg));
            all.push((std.within(layer.part), layer.std));
            all.push((Field::Gram.within(layer.part), layer.gram));
        }
        for (view, pooled) in self.views {
            all.extend(pooled.fields().into_iter().map(|(f, values)| (f.within(view), values)));
        }
        all
    }

    /// All that it holds, but for views.
    fn values_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let Pooled { avg, std, max, logits, gram, rankfeat, layers, views: _ } = self;
        let mut all = vec![avg, std, max, logits, gram, rankfeat];
        all.extend(layers.iter_mut().flat_map(|l| [&mut l.avg, &mut l.std, &mut l.gram]));
        all
    }

    /// Add the rows of other images.
    fn append(&mut self, mut other: Pooled) {
        if self.layers.is_empty() {
            self.layers = std::mem::take(&mut other.layers);
        }
        for (values, more) in self.values_mut().into_iter().zip(other.values_mut()) {
            values.append(more);
        }
        if self.views.is_empty() {
            self.views = other.views;
        } else {
            let views = self.views.iter_mut().zip(other.views);
            views.for_each(|((_, pooled), (_, other))| pooled.append(other));
        }
    }

    /// The mean of what some passes, without views, give for the same images.
    fn mean(passes: u32, mut pass: impl FnMut(u32) -> Result<Pooled>) -> Result<Pooled> {
        let mut mean = pass(0)?;
        if passes == 1 {
            return Ok(mean);
        }
        let wide = |values: &Vec<f32>| values.iter().map(|v| f64::from(*v)).collect();
        let mut sums: Vec<Vec<f64>> = mean.values_mut().iter().map(|v| wide(v)).collect();
        for i in 1..passes {
            for (sums, more) in sums.iter_mut().zip(pass(i)?.values_mut()) {
                sums.iter_mut().zip(more).for_each(|(sum, v)| *sum += f64::from(*v));
            }
        }
        for (values, sums) in mean.values_mut().into_iter().zip(sums) {
            let divided = sums.into_iter().map(|sum| (sum / f64::from(passes)) as f32);
            values.iter_mut().zip(divided).for_each(|(v, mean)| *v = mean);
        }
        Ok(mean)
    }
}
