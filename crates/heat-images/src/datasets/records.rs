//! Images of one size, one after the other in memory or in a mapped file.

use std::path::{Path, PathBuf};

use super::ImageDataset;
use super::archive::Slice;
use crate::Image;
use heat_ood::{Error, Result};

/// How the values of one image lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[3, height, width]`: CIFAR.
    Planes,
    /// Column-major `[height, width, 3]`: MATLAB.
    Columns,
    /// `[height, width]`: MNIST.
    Grey,
    /// `[height, width, 3]`, or with a fourth value that is passed over: numpy.
    Pixels(usize),
}

/// Some consecutive images in one file.
pub(super) struct Piece {
    pub place: String,
    /// Where it was read from.
    pub file: PathBuf,
    pub bytes: Slice,
    /// From one image to the next.
    pub stride: usize,
    /// From there to its values.
    pub skip: usize,
    pub labels: Option<Vec<u32>>,
}

pub(super) struct Records {
    pub name: String,
    pub width: usize,
    pub height: usize,
    pub layout: Layout,
    pub pieces: Vec<Piece>,
    pub classes: Vec<String>,
    pub notes: Vec<String>,
}

impl Piece {
    fn len(&self) -> usize {
        self.bytes.len() / self.stride
    }
}

impl Records {
    fn piece(&self, mut i: usize) -> (&Piece, usize) {
        for piece in &self.pieces {
            if i < piece.len() {
                return (piece, i);
            }
            i -= piece.len();
        }
        // Callers stay below `len`; the last image stands for the rest.
        let last = &self.pieces[self.pieces.len() - 1];
        (last, last.len() - 1)
    }

    /// Refuse images of more than `most` pixels.
    pub fn within(self, path: &Path, most: u64) -> Result<Self> {
        let (width, height) = (self.width, self.height);
        if width as u64 * height as u64 > most {
            let problem = format!("images of {width}×{height}: more than {most} pixels, refused");
            return Err(Error::format(path, problem));
        }
        Ok(self)
    }

    /// Bytes of one image's values; `None` where they have no number.
    pub fn size(width: usize, height: usize, layout: Layout) -> Option<usize> {
        let values = match layout {
            Layout::Grey => 1,
            Layout::Pixels(values) => values,
            Layout::Planes | Layout::Columns => 3,
        };
        width.checked_mul(height)?.checked_mul(values)
    }
}

/// Check that all labels are below the number of classes.
pub(super) fn check_labels(place: &str, labels: &[u32], classes: usize) -> Result<()> {
    match labels.iter().position(|&l| l as usize >= classes) {
        None => Ok(()),
        Some(row) => {
            let label = i64::from(labels[row]);
            Err(Error::Label { place: place.into(), row, label, classes })
        }
    }
}

impl ImageDataset for Records {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    fn label(&self, i: usize) -> Option<u32> {
        let (piece, i) = self.piece(i);
        piece.labels.as_ref().map(|l| l[i])
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn place(&self, i: usize) -> String {
        let (piece, i) = self.piece(i);
        // Part of the hash by which a finished extraction is known again, so
        // the word stays.
        format!("{}, picture {i}", piece.place)
    }

    fn file(&self, i: usize) -> Option<PathBuf> {
        Some(self.piece(i).0.file.clone())
    }

    fn image_name(&self, i: usize) -> String {
        let (piece, i) = self.piece(i);
        // Where it lies says nothing.
        let place = piece.place.rsplit(['/', '\\']).next().unwrap_or_default();
        format!("{place}, {i}")
    }

    fn image(&self, i: usize) -> Result<Image> {
        let (piece, i) = self.piece(i);
        let (width, height) = (self.width, self.height);
        let size = piece.stride - piece.skip;
        let values = &piece.bytes[i * piece.stride + piece.skip..][..size];
        let mut rgb = vec![0; width * height * 3];
        for (at, pixel) in rgb.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (y, x) = (at / width, at % width);
            for (c, v) in pixel.iter_mut().enumerate() {
                *v = match self.layout {
                    Layout::Planes => values[(c * height + y) * width + x],
                    Layout::Columns => values[(c * width + x) * height + y],
                    Layout::Grey => values[at],
                    Layout::Pixels(n) => values[at * n + c],
                };
            }
        }
        Ok(Image { width, height, rgb })
    }
}
