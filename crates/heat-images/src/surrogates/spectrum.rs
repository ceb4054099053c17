//! Images made through their spectrum: other phases, and noise of a given fall.

use rustfft::FftPlannerScalar;
use rustfft::num_complex::Complex;

use super::filters::byte;
use crate::Image;

type Spectrum = Vec<Complex<f64>>;

/// Fourier transforms of planes of one size. The plain code, without vector instructions, so that
/// images are the same bytes on every processor.
struct Fourier {
    width: usize,
    height: usize,
    planner: FftPlannerScalar<f64>,
}

impl Fourier {
    fn new(width: usize, height: usize) -> Self {
        Fourier { width, height, planner: FftPlannerScalar::new() }
    }

    fn forward(&mut self, plane: impl Iterator<Item = f64>) -> Spectrum {
        let mut values: Spectrum = plane.map(|v| Complex::new(v, 0.0)).collect();
        let (rows, columns) =
            (self.planner.plan_fft_forward(self.width), self.planner.plan_fft_forward(self.height));
        rows.process(&mut values);
        let mut turned = transposed(&values, self.width, self.height);
        columns.process(&mut turned);
        transposed(&turned, self.height, self.width)
    }

    /// The real part of what has that spectrum.
    fn inverse(&mut self, mut spectrum: Spectrum) -> Vec<f64> {
        let (rows, columns) =
            (self.planner.plan_fft_inverse(self.width), self.planner.plan_fft_inverse(self.height));
        rows.process(&mut spectrum);
        let mut turned = transposed(&spectrum, self.width, self.height);
        columns.process(&mut turned);
        let scale = 1.0 / (self.width * self.height) as f64;
        transposed(&turned, self.height, self.width).iter().map(|v| v.re * scale).collect()
    }
}

fn transposed(values: &[Complex<f64>], width: usize, height: usize) -> Spectrum {
    (0..width).flat_map(|x| (0..height).map(move |y| values[y * width + x])).collect()
}

/// Three planes as an image.
fn image(width: usize, height: usize, planes: [Vec<f64>; 3]) -> Image {
    let pixels = (0..width * height).flat_map(|i| planes.each_ref().map(|plane| byte(plane[i])));
    Image { width, height, rgb: pixels.collect() }
}

/// The amplitudes of each channel with the phases of one plane of noise, those of the constant term
/// kept: the noise is real, so what comes out is.
pub(super) fn with_phases_of(noise: &[f32], of: &Image) -> Image {
    let mut fourier = Fourier::new(of.width, of.height);
    let noise = fourier.forward(noise.iter().map(|v| f64::from(*v)));
    let phase = |v: &Complex<f64>| match v.norm() {
        0.0 => Complex::new(1.0, 0.0),
        norm => v / norm,
    };
    let phases: Spectrum = noise.iter().map(phase).collect();
    let planes = [0, 1, 2].map(|c| {
        let values = of.rgb.iter().skip(c).step_by(3).map(|v| f64::from(*v));
        let mut spectrum = fourier.forward(values);
        let changed = spectrum.iter_mut().zip(&phases).skip(1);
        changed.for_each(|(v, phase)| *v = phase * v.norm());
        fourier.inverse(spectrum)
    });
    image(of.width, of.height, planes)
}

/// Mean and deviation of each channel.
const MEAN: f64 = 128.0;
const DEVIATION: f64 = 64.0;

/// Three planes of noise whose amplitudes are divided by the frequency to the power `alpha`.
pub(super) fn pink(noise: &[f32], alpha: f64, width: usize, height: usize) -> Image {
    let mut fourier = Fourier::new(width, height);
    // Cycles a pixel, negative ones from the middle on.
    let frequency = |i: usize, side: usize| i.min(side - i) as f64 / side as f64;
    let n = width * height;
    let planes = [0, 1, 2].map(|c| {
        let mut spectrum = fourier.forward(noise[c * n..][..n].iter().map(|v| f64::from(*v)));
        for (i, value) in spectrum.iter_mut().enumerate() {
            let (y, x) = (frequency(i / width, height), frequency(i % width, width));
            // The mean is set afterwards.
            *value = if i == 0 { Complex::ZERO } else { *value / y.hypot(x).powf(alpha) };
        }
        let plane = fourier.inverse(spectrum);
        let deviation = (plane.iter().map(|v| v * v).sum::<f64>() / n as f64).sqrt();
        let scale = if deviation > 0.0 { DEVIATION / deviation } else { 0.0 };
        plane.iter().map(|v| MEAN + scale * v).collect()
    });
    image(width, height, planes)
}
