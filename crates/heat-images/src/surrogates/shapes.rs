//! Plain shapes on a plain ground.

use crate::Image;
use heat_ood::math::rng::Stream;

type Colour = [u8; 3];

/// What is drawn, in whole pixels; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// Within these columns and rows.
    Ellipse { x: [usize; 2], y: [usize; 2] },
    /// Of these columns and rows.
    Rectangle { x: [usize; 2], y: [usize; 2] },
    /// From one point to another.
    Line { from: [usize; 2], to: [usize; 2], width: f64 },
}

impl Shape {
    /// Whether the middle of a pixel belongs to it.
    fn covers(&self, x: usize, y: usize) -> bool {
        match self {
            Shape::Rectangle { x: xs, y: ys } => {
                (xs[0]..=xs[1]).contains(&x) && (ys[0]..=ys[1]).contains(&y)
            }
            Shape::Ellipse { x: xs, y: ys } => {
                // From the middle, in half axes.
                let along = |at: usize, ends: &[usize; 2]| {
                    let sum = (ends[0] + ends[1]) as f64;
                    (2.0 * at as f64 - sum) / (ends[1] - ends[0] + 1) as f64
                };
                along(x, xs).powi(2) + along(y, ys).powi(2) <= 1.0
            }
            Shape::Line { from, to, width } => {
                let [from, to, at] = [*from, *to, [x, y]].map(|p| p.map(|v| v as f64));
                let (line, to_pixel) =
                    ([to[0] - from[0], to[1] - from[1]], [at[0] - from[0], at[1] - from[1]]);
                let length2 = line[0] * line[0] + line[1] * line[1];
                let along = line[0] * to_pixel[0] + line[1] * to_pixel[1];
                let along = if length2 > 0.0 { (along / length2).clamp(0.0, 1.0) } else { 0.0 };
                let apart = [to_pixel[0] - along * line[0], to_pixel[1] - along * line[1]];
                apart[0].hypot(apart[1]) <= width / 2.0
            }
        }
    }

    pub(super) fn draw(&self, image: &mut Image, colour: Colour) {
        for (i, pixel) in image.rgb.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            if self.covers(i % image.width, i / image.width) {
                *pixel = colour;
            }
        }
    }

    fn random(width: usize, height: usize, stream: &mut Stream) -> Self {
        let [x, y] =
            [width, height].map(|side| [(); 2].map(|()| stream.below(side as u32) as usize));
        let sorted = |ends: [usize; 2]| [ends[0].min(ends[1]), ends[0].max(ends[1])];
        match stream.below(3) {
            0 => Shape::Ellipse { x: sorted(x), y: sorted(y) },
            1 => Shape::Rectangle { x: sorted(x), y: sorted(y) },
            _ => {
                // One to three pixels of 32.
                let unit = (width.min(height) as f64 / 32.0).max(1.0);
                let width = unit * f64::from(1 + stream.below(3));
                Shape::Line { from: [x[0], y[0]], to: [x[1], y[1]], width }
            }
        }
    }
}

/// One to five shapes in colours of their own.
pub(super) fn shapes(width: usize, height: usize, stream: &mut Stream) -> Image {
    let colour = |stream: &mut Stream| [(); 3].map(|()| stream.below(256) as u8);
    let ground = colour(stream);
    let mut image = Image { width, height, rgb: ground.repeat(width * height) };
    for _ in 0..=stream.below(5) {
        let shape = Shape::random(width, height, stream);
        shape.draw(&mut image, colour(stream));
    }
    image
}
