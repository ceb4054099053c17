//! Images that play out-of-distribution: ordinary images, transformed, and sent through the real
//! network. Nothing of the kind that will be met has to be known, and what the network makes of a
//! strange image is seen, not assumed.
//!
//! [`Surrogates`] are an [`ImageDataset`] over the images of another one, resized and cropped as the network gets
//! them. Image `i` of a kind is a function of seed, kind, `i` and the images that it is made of: the
//! same bytes on any number of threads and any processor. [`extract_surrogates`] makes a feature set
//! of each kind and one of the images themselves.

mod extract;
mod filters;
mod patches;
mod shapes;
mod sheet;
mod sources;
mod spectrum;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::{Image, ImageDataset, Made, Transform, TransformConfig};
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::{Error, Result};

pub use extract::{ExtractedSurrogates, SurrogateConfig, extract_surrogates};
pub use sheet::contact_sheet;
pub use sources::Sources;

/// What is done to images. S is the shorter side of an image as the network gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Kind {
    /// 2×2 patches in another order.
    Jigsaw2 = 1,
    /// 4×4 patches in another order.
    Jigsaw4 = 2,
    /// 8×8 patches in another order.
    Jigsaw8 = 3,
    /// The mean of two images of different classes.
    Mixup = 4,
    /// Half an image and half of another of a different class, beside each other or one upon the other.
    Cutmix = 5,
    /// Convolved with a Gaussian of deviation S/16.
    Blur = 6,
    /// A window of a quarter of each side, enlarged.
    Zoom = 7,
    /// Turned by 90°, 180° or 270°.
    Rotate = 8,
    /// Each value from the other end: a negative.
    Invert = 9,
    /// With Gaussian noise of deviation 50 added to each value.
    Noise = 10,
    /// With its amplitude spectrum and random phases.
    Phase = 11,
    /// Noise alone, 1/f^α with α between ½ and 2.
    Pink = 12,
    /// One to five ellipses, rectangles and lines on a plain ground.
    Shapes = 13,
    /// Four times the length of its gradient.
    Edges = 14,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = [
        Kind::Jigsaw2,
        Kind::Jigsaw4,
        Kind::Jigsaw8,
        Kind::Mixup,
        Kind::Cutmix,
        Kind::Blur,
        Kind::Zoom,
        Kind::Rotate,
        Kind::Invert,
        Kind::Noise,
        Kind::Phase,
        Kind::Pink,
        Kind::Shapes,
        Kind::Edges,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Jigsaw2 => "jigsaw2",
            Kind::Jigsaw4 => "jigsaw4",
            Kind::Jigsaw8 => "jigsaw8",
            Kind::Mixup => "mixup",
            Kind::Cutmix => "cutmix",
            Kind::Blur => "blur",
            Kind::Zoom => "zoom",
            Kind::Rotate => "rotate",
            Kind::Invert => "invert",
            Kind::Noise => "noise",
            Kind::Phase => "phase",
            Kind::Pink => "pink",
            Kind::Shapes => "shapes",
            Kind::Edges => "edges",
        }
    }

    /// The kinds of these names, each once, in the order of [`Kind::ALL`]; `all` are all.
    ///
    /// # Errors
    /// If a name is none of them, or there is none.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Vec<Kind>> {
        let known = || Kind::ALL.iter().map(|kind| kind.name()).chain(["all"]);
        let mut asked = Vec::new();
        for name in names.iter().map(|name| name.as_ref().trim()) {
            match Kind::ALL.iter().find(|kind| kind.name() == name) {
                Some(kind) => asked.push(*kind),
                None if name == "all" => asked.extend(Kind::ALL),
                None => return Err(Error::unknown("kind of surrogates", name, known())),
            }
        }
        if asked.is_empty() {
            let problem = "no kind; name some, or all of them";
            return Err(Error::config("surrogates", "", problem));
        }
        asked.sort_unstable();
        asked.dedup();
        Ok(asked)
    }

    /// Whether two images of one source differ.
    fn is_random(self) -> bool {
        !matches!(self, Kind::Blur | Kind::Invert | Kind::Edges)
    }

    /// Whether it is made of two images.
    fn takes_two(self) -> bool {
        matches!(self, Kind::Mixup | Kind::Cutmix)
    }

    /// The shortest side of an image of which it can be made.
    fn least_side(self) -> usize {
        match self {
            Kind::Jigsaw2 | Kind::Cutmix => 2,
            Kind::Jigsaw4 | Kind::Zoom => 4,
            Kind::Jigsaw8 => 8,
            _ => 1,
        }
    }
}

/// Images of one kind.
pub struct Surrogates<'a> {
    sources: &'a Sources<'a>,
    kind: Kind,
    seed: u64,
    rows: usize,
    /// Positions among the sources, in the order in which they are taken.
    order: Vec<u32>,
    transform: &'a TransformConfig,
    name: String,
    made: Made,
}

/// What image `i` is made of.
struct Draw {
    first: usize,
    second: Option<usize>,
    /// The choices that remain.
    stream: Stream,
}

impl<'a> Surrogates<'a> {
    /// `rows` images of that kind. No source is taken twice while there are others; after that they are
    /// taken again, with other choices, but for kinds without any (`blur`, `invert`, `edges`), of which there
    /// are then fewer images.
    ///
    /// # Errors
    /// If the transform is impossible, or the kind mixes two images and there is one.
    pub fn new(
        sources: &'a Sources<'a>,
        kind: Kind,
        rows: usize,
        seed: u64,
        transform: &'a TransformConfig,
    ) -> Result<Self> {
        Transform::new(transform)?;
        let n = sources.images().len();
        kind.check_sources(sources.dataset().name(), n)?;
        let rows = if kind.is_random() { rows } else { rows.min(n) };
        let order = Stream::new(seed, Purpose::Surrogates, kind as u64, 0).permutation(n as u32);
        let made = Made { kind: kind.name().to_owned(), seed, of: sources.record().clone() };
        let name = format!("{} of {}", kind.name(), sources.dataset().name());
        Ok(Surrogates { sources, kind, seed, rows, order, transform, name, made })
    }

    fn draw(&self, i: usize) -> Draw {
        let mut stream =
            Stream::new(self.seed, Purpose::Surrogates, self.kind as u64, 1 + i as u64);
        let first = self.order[i % self.order.len()] as usize;
        let second =
            self.kind.takes_two().then(|| self.sources.of_another_class(first, &mut stream));
        Draw { first, second, stream }
    }

    /// The number of a source in its data set.
    fn number(&self, source: usize) -> usize {
        self.sources.images()[source]
    }

    /// What one text says of each image that image `i` is made of.
    fn said(&self, i: usize, say: impl Fn(usize) -> String) -> String {
        let draw = self.draw(i);
        let first = say(self.number(draw.first));
        match draw.second {
            Some(second) => format!("{first} + {}", say(self.number(second))),
            None => first,
        }
    }

    /// A source as the network gets it.
    fn pixels(&self, source: usize) -> Result<Image> {
        let number = self.number(source);
        let image = self.sources.dataset().image(number)?;
        let pixels = Transform::new(self.transform)?.pixels(&image)?;
        self.kind.check_size(&self.sources.dataset().place(number), &pixels)?;
        Ok(pixels)
    }
}

impl Kind {
    /// Refuse one image where two are mixed.
    fn check_sources(self, dataset: &str, images: usize) -> Result<()> {
        if images >= 2 || !self.takes_two() {
            return Ok(());
        }
        let problem = format!(
            "mixes two images, and there is one in {dataset}: give more, or leave this kind out"
        );
        Err(Error::config("surrogates", self.name(), problem))
    }

    /// Refuse an image that is smaller than its patches.
    fn check_size(self, place: &str, image: &Image) -> Result<()> {
        let least = self.least_side();
        if image.width.min(image.height) >= least {
            return Ok(());
        }
        let problem = format!(
            "is {}×{} as the network gets it, and `{}` needs {least} pixels a side: leave this kind out",
            image.height,
            image.width,
            self.name()
        );
        Err(Error::format(place, problem))
    }
}

impl ImageDataset for Surrogates<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn label(&self, _: usize) -> Option<u32> {
        None
    }

    fn place(&self, i: usize) -> String {
        format!("{} {i} of {}", self.kind.name(), self.said(i, |n| self.sources.dataset().place(n)))
    }

    fn file(&self, i: usize) -> Option<PathBuf> {
        let draw = self.draw(i);
        let file = |source: usize| self.sources.dataset().file(self.number(source));
        let first = file(draw.first)?;
        // Of two files none tells that the image is the same.
        draw.second.is_none_or(|second| file(second).as_ref() == Some(&first)).then_some(first)
    }

    fn image_name(&self, i: usize) -> String {
        let names = self.said(i, |n| self.sources.dataset().image_name(n));
        format!("{}/{i:05}/{names}", self.kind.name())
    }

    fn made(&self) -> Option<&Made> {
        Some(&self.made)
    }

    fn image(&self, i: usize) -> Result<Image> {
        let Draw { first, second, mut stream } = self.draw(i);
        let image = self.pixels(first)?;
        let (width, height) = (image.width, image.height);
        let noise = |n: usize, stream: &mut Stream| {
            let mut noise = vec![0.0; n];
            stream.fill_normal(&mut noise);
            noise
        };
        if let Some(second) = second {
            let other = self.pixels(second)?;
            if (other.width, other.height) != (width, height) {
                return Err(Error::Shape {
                    place: self.sources.dataset().place(self.number(second)),
                    tensor: "image".into(),
                    expected: format!("[{height}, {width}] as the other; resize or crop them"),
                    got: format!("[{}, {}]", other.height, other.width),
                });
            }
            return Ok(match self.kind {
                Kind::Mixup => patches::mean(&image, &other),
                _ => patches::halves(&image, &other, stream.below(2) == 0),
            });
        }
        let jigsaw = |k: u32, stream: &mut Stream| {
            patches::rearranged(&image, k as usize, &patches::another_order(k * k, stream))
        };
        Ok(match self.kind {
            Kind::Jigsaw2 => jigsaw(2, &mut stream),
            Kind::Jigsaw4 => jigsaw(4, &mut stream),
            Kind::Jigsaw8 => jigsaw(8, &mut stream),
            Kind::Blur => filters::blurred(&image, width.min(height) as f64 / 16.0),
            Kind::Zoom => {
                let mut start = |side: usize| stream.below((side - side / 4 + 1) as u32) as usize;
                let (top, left) = (start(height), start(width));
                patches::enlarged(&image, top, left)?
            }
            Kind::Rotate => patches::turned(&image, 1 + stream.below(3))?,
            Kind::Invert => filters::inverted(&image),
            Kind::Noise => filters::noisy(&image, &noise(image.rgb.len(), &mut stream), 50.0),
            Kind::Phase => spectrum::with_phases_of(&noise(width * height, &mut stream), &image),
            Kind::Pink => {
                let alpha = 0.5 + 1.5 * stream.uniform();
                spectrum::pink(&noise(image.rgb.len(), &mut stream), alpha, width, height)
            }
            Kind::Shapes => shapes::shapes(width, height, &mut stream),
            Kind::Edges => filters::edges(&image),
            // Made of two.
            Kind::Mixup | Kind::Cutmix => image,
        })
    }
}
