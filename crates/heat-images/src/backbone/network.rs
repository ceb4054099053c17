//! A network in the runtime: images to its outputs, and gradients back to images.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use heat_ood::features::{Batch, Field};
use heat_ood::io::Bytes;
use heat_ood::{Error, Result};

use super::check::{self, Checked};
use super::device::{Device, Precision};
use super::dropout::Passes;
use super::gradient::{self, Wanted};
use super::graph::Found;
use super::pooled::{Pooled, PooledLayer};
use super::runtime::{self, Library, Session, find_library};
use super::{Backbone, fixed, outputs};

impl Backbone {
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
            backwards: Vec::new(),
            passes: None,
        })
    }

    /// Copies of it that work side by side, each on images of its own: on a device one, for which
    /// all threads decode.
    pub(crate) fn copies(&self) -> usize {
        match &self.device {
            Device::Cpu => runtime::networks(),
            _ => 1,
        }
    }
}

/// Images of a run on a device where nobody says how many.
const ON_DEVICE: usize = 64;

/// A network ready to run.
pub struct Network {
    pub(super) place: PathBuf,
    pub(super) forward: Forward,
    pub(super) found: Found,
    pub(super) graph: Arc<Bytes>,
    pub(super) library: Library,
    device: Device,
    precision: Precision,
    /// What was found for images of one size.
    checked: Option<([usize; 2], Checked)>,
    backwards: Vec<Backward>,
    pub(super) passes: Option<Passes>,
}

/// The graph, loaded.
pub(super) enum Forward {
    /// For any number of images of any size.
    Free(Session),
    /// On a device: for so many images of one size, loaded when that is known.
    Fixed { images: usize, made: Option<(Vec<usize>, Session)> },
}

/// A second graph, for images of one size and seeds of some fields; one for all that is wanted of it.
struct Backward {
    wanted: Wanted,
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

    /// What makes sense for images of that height and width, seen on noise.
    ///
    /// # Errors
    /// If the runtime refuses such images.
    pub fn check(&mut self, size: [usize; 2]) -> Result<Checked> {
        let image = check::noise(3 * size[0] * size[1]);
        self.check_on(&image, size)
    }

    /// The same, seen on the first of some images; it holds for all others of
    /// that size. (Values of eight bits end where calibration did, which noise
    /// may exceed.)
    ///
    /// # Errors
    /// If the runtime refuses it.
    pub fn check_on(&mut self, images: &[f32], size: [usize; 2]) -> Result<Checked> {
        if let Some((of, checked)) = &self.checked
            && *of == size
        {
            return Ok(checked.clone());
        }
        let image = &images[..(3 * size[0] * size[1]).min(images.len())];
        let made = self.outputs(image.to_vec(), [1, 3, size[0], size[1]])?;
        let checked = check::of(&self.found, &made);
        self.assume(size, &checked);
        Ok(checked)
    }

    /// Take for images of that size what another copy of the network has seen.
    pub(super) fn assume(&mut self, size: [usize; 2], checked: &Checked) {
        self.checked = Some((size, checked.clone()));
    }

    fn run_together(&mut self, images: Vec<f32>, shape: [usize; 4]) -> Result<Pooled> {
        let alone = self.check_on(&images, [shape[2], shape[3]])?.alone;
        let kept = if self.found.follows_gradients() { images.clone() } else { vec![] };
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
                let (gram, nac) = Default::default();
                PooledLayer { part: layer.part, avg: take(Some(avg)), std: take(std), gram, nac }
            })
            .collect();
        self.of_maps(&mut made, shape[0], alone.as_deref(), &mut pooled)?;
        self.of_gradients(&kept, shape, &mut pooled)?;
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
    pub(super) fn fixed(
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
    pub(super) fn batch(&self) -> Option<usize> {
        let on_device = match self.forward {
            Forward::Free(_) => None,
            Forward::Fixed { images, .. } => Some(images),
        };
        self.found.batch().or(on_device)
    }

    /// Add rows of zeros where a run is of more than `n`; returns the number of rows.
    pub(super) fn fill(batch: Option<usize>, n: usize, values: &mut Vec<f32>) -> usize {
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
        let mut out = self.backward(images, shape, seeds, &Wanted::Images)?;
        let out = out.pop().unwrap_or_default();
        if out.len() == images.len() {
            return Ok(out);
        }
        let problem = format!("its gradient has {} values, not {}", out.len(), images.len());
        Err(Error::format(&self.place, problem))
    }

    /// What is wanted of the gradient for `n` images, output by output.
    pub(super) fn backward(
        &mut self,
        images: &[f32],
        shape: [usize; 4],
        seeds: &Batch,
        wanted: &Wanted,
    ) -> Result<Vec<Vec<f32>>> {
        let [n, channels, height, width] = shape;
        let fields: Vec<Field> = seeds.fields().collect();
        let together = (GRADIENT_PIXELS / (height * width).max(1)).clamp(1, GRADIENT_IMAGES);
        let together = self.found.batch().unwrap_or(together);
        let (fixed, last) = (self.is_on_device(), self.found.channels_last);
        let names = wanted.outputs();
        let of = |b: &Backward| b.wanted == *wanted;
        let known = self.backwards.iter().position(of).map(|at| self.backwards.swap_remove(at));
        let fits = |b: &Backward| b.size == [height, width] && b.fields == fields;
        let mut backward = match known.filter(fits) {
            Some(backward) => backward,
            None => {
                let (place, size) = (&self.place, [height, width]);
                let model = gradient::with_gradient(
                    place,
                    &self.graph,
                    &self.found,
                    size,
                    &fields,
                    wanted,
                )?;
                let session = if fixed {
                    let image = self.found.as_taken([together, channels, height, width]).to_vec();
                    let seed =
                        |field: &Field| (gradient::seed(*field), vec![together, seeds.dim(*field)]);
                    let mut inputs = vec![(self.found.input.clone(), image)];
                    inputs.extend(fields.iter().map(seed));
                    self.fixed(&model, &inputs, &names)?
                } else {
                    Session::load(place, &self.library, &model)?
                };
                Backward { wanted: wanted.clone(), size, fields, session }
            }
        };
        let batch = if fixed { Some(together) } else { self.found.batch() };
        let size = channels * height * width;
        let mut out = vec![Vec::new(); names.len()];
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
            let mut made = backward.session.run(&self.place, inputs, &names)?;
            for (name, out) in names.iter().zip(&mut out) {
                let mut made = made.remove(name).unwrap_or_default();
                if last && *wanted == Wanted::Images {
                    made = turned_back(&made, shape);
                }
                made.truncate(made.len() / filled * rows.len());
                out.extend(made);
            }
        }
        self.backwards.push(backward);
        Ok(out)
    }
}

/// Images `[n, channels, height, width]` with their channels last.
pub(super) fn turned(images: &[f32], [_, channels, height, width]: [usize; 4]) -> Vec<f32> {
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
