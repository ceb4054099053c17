//! The operations that plans are lists of, and the memory that they work on.

use heat_ood::ebm::sampler::Projection;

/// A piece of the device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// The rows, `[n, D]`.
    Rows,
    /// Their classes, `[n]`, in whole numbers.
    Labels,
    /// What names the noise, [`key_words`], in whole numbers.
    Key,
    /// The network's parameters as they are applied.
    Parameters,
    /// Their gradient.
    ParameterGradient,
    /// Output of a hidden layer, `[n, H]`; counted in order of application.
    Activation(usize),
    /// ∂/∂(what comes out of a hidden layer), `[n, H]`: two, used in turns.
    Delta(usize),
    /// ∇E of the rows, `[n, D]`.
    Gradient,
    /// Network energies, then the loss's gradient with respect to them, `[n]`.
    Energies,
    /// z − m, `[n, D]`.
    Centred,
    /// Whitened rows, `[n, D]`.
    White,
    /// Noise of a step, `[n, D]`.
    Noise,
    /// Responsibilities or probabilities, `[n, K]`.
    Responsibilities,
    /// Partial sums over rows, `[n/ROWS_OF_SUMS, widest]`, in double precision.
    PartialSums,
    /// m, `[D]`.
    Centre,
    /// μ_k, `[K, D]`.
    Means,
    /// P, `[D, D]`.
    Whiten,
    /// L, `[D, D]`.
    Colour,
    /// w_k, or W of a head, `[K, D]`.
    Directions,
    /// What is added to products with them, `[K]`.
    Offset,
}

/// What a slot's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elements {
    /// `f32`.
    Numbers,
    /// `u32`.
    Words,
    /// `f64`.
    Doubles,
}

impl Elements {
    /// Of one.
    pub fn bytes(self) -> usize {
        match self {
            Elements::Numbers | Elements::Words => 4,
            Elements::Doubles => 8,
        }
    }
}

impl Slot {
    /// What its elements are.
    pub fn elements(self) -> Elements {
        match self {
            Slot::Labels | Slot::Key => Elements::Words,
            Slot::PartialSums => Elements::Doubles,
            _ => Elements::Numbers,
        }
    }
}

/// A place in a slot: so many elements from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Which piece.
    pub slot: Slot,
    /// Elements before it.
    pub offset: usize,
}

impl From<Slot> for At {
    fn from(slot: Slot) -> Self {
        At { slot, offset: 0 }
    }
}

/// How exactly products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Operands rounded to eleven bits, sums in single precision: the fast units.
    #[default]
    Tf32,
    /// Single precision.
    F32,
}

impl Precision {
    /// As it is given and written.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Tf32 => "tf32",
            Precision::F32 => "f32",
        }
    }
}

/// `out` = `alpha`·A·B + `beta`·`out`, A `[m, k]`, B `[k, n]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// A.
    pub a: At,
    /// Whether A lies as `[k, m]`.
    pub a_transposed: bool,
    /// B.
    pub b: At,
    /// Whether B lies as `[n, k]`.
    pub b_transposed: bool,
    /// `[m, n]`.
    pub out: At,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what is there: 0 or 1.
    pub beta: f32,
    /// How exactly.
    pub precision: Precision,
}

/// Dropout of a layer: `probability` and the factor of what is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drop {
    /// Of being set to zero.
    pub probability: f32,
    /// 1/(1 − probability).
    pub scale: f32,
}

/// One operation. All are functions of their inputs alone, row by row or element by element, but for
/// the products and the sums over rows. Matrices are `[rows, width]`; the names of operands are those of
/// the formulas.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "each operation says what its operands are")]
pub enum Op {
    /// A matrix product.
    Product(Product),
    /// Add the bias, then LeakyReLU, in place.
    BiasLeaky { x: At, bias: At, rows: usize, width: usize },
    /// Set elements to zero by their uniforms: those of [`Key`](Slot::Key), layer and block of 64 rows.
    Drop { x: At, rows: usize, width: usize, layer: usize, drop: Drop },
    /// `out` = seed·w ⊙ LeakyReLU'(`top`): the seed one number, or one a row.
    Seed { top: At, weight: At, seed: Seed, out: At, rows: usize, width: usize },
    /// Multiply by LeakyReLU' at the activations.
    Mask { x: At, activations: At, rows: usize, width: usize },
    /// Take ∂/∂(activation after dropout) to that before.
    DropBack { x: At, activations: At, rows: usize, width: usize, scale: f32 },
    /// The last layer: w·row + b, summed in double precision.
    Energy { top: At, weight: At, bias: At, out: At, rows: usize, width: usize },
    /// `out` = z − m.
    Centre { rows_of: At, centre: At, out: At, rows: usize, width: usize },
    /// `out` = scale·(z − μ_y) with the class of each row, below `classes`.
    CentreOnMeans {
        rows_of: At,
        means: At,
        labels: At,
        out: At,
        rows: usize,
        width: usize,
        classes: usize,
        scale: f32,
    },
    /// Add the offset, softmax of each row, negated.
    NegatedSoftmax { x: At, offset: At, rows: usize, width: usize },
    /// Multiply by a number.
    Scale { x: At, len: usize, factor: f32 },
    /// Set to zero.
    Zero { x: At, len: usize },
    /// Standard normals of step `t`: those of [`Key`](Slot::Key) and block of 64 rows.
    Noise { out: At, rows: usize, width: usize, t: usize },
    /// `x` = step·x + eps·noise.
    WhiteStep { x: At, noise: At, rows: usize, width: usize, step: f32, eps: f32 },
    /// z ← Π(z − step·g − eps·noise); without noise 0.
    Step {
        z: At,
        gradient: At,
        noise: Option<At>,
        rows: usize,
        width: usize,
        step: f32,
        eps: f32,
        projection: Projection,
    },
    /// Σ over rows of weight·x, first over groups of [`ROWS_OF_SUMS`] rows, in double precision; without
    /// weights, 1 each.
    PartialSums { x: At, weights: Option<At>, out: At, rows: usize, width: usize },
    /// Add the groups in order, and that to `out`.
    AddSums { sums: At, out: At, groups: usize, width: usize },
}

/// The factor of [`Op::Seed`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seed {
    /// The same for all rows.
    Same(f32),
    /// One a row.
    OfRow(At),
}

/// Rows that are summed by one group of threads.
pub const ROWS_OF_SUMS: usize = 128;

/// What names the noise of a call, as words of the device: seed, purpose, step and first block, the
/// low word of each before the high.
pub fn key_words(seed: u64, purpose: u64, step: u64, block: u64) -> [u32; 8] {
    let mut words = [0; 8];
    for (pair, v) in words.chunks_exact_mut(2).zip([seed, purpose, step, block]) {
        (pair[0], pair[1]) = (v as u32, (v >> 32) as u32);
    }
    words
}
