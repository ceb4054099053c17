//! Operations as what the card does: kernels and products on addresses.

use std::ffi::c_void;
use std::ptr::from_ref;

use super::products::Shape;
use crate::launch::{self, Launch};
use crate::plan::{At, Op, Precision, Product};

/// Bytes that a card's pieces of memory begin at a multiple of.
const ALIGNMENT: u32 = 256;

/// An argument of a kernel, of the type that the kernel declares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arg {
    /// Memory of the card, or 0 for none.
    At(u64),
    /// `u32`.
    Word(u32),
    /// `u64`.
    Long(u64),
    /// `float`.
    Number(f32),
}

impl Arg {
    /// Where the driver reads it.
    pub(super) fn pointer(&self) -> *mut c_void {
        match self {
            Arg::At(v) | Arg::Long(v) => from_ref(v).cast_mut().cast(),
            Arg::Word(v) => from_ref(v).cast_mut().cast(),
            Arg::Number(v) => from_ref(v).cast_mut().cast(),
        }
    }
}

/// A kernel with blocks of [`THREADS`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// Blocks in x and y.
    pub(super) grid: (u32, u32),
    pub(super) args: Vec<Arg>,
}

impl Kernel {
    /// The same for no rows at all: every kernel returns at once.
    pub(super) fn idle(&self) -> Kernel {
        let none = |arg: &Arg| match *arg {
            Arg::Word(_) => Arg::Word(0),
            Arg::Long(_) => Arg::Long(0),
            other => other,
        };
        Kernel { name: self.name, grid: (1, 1), args: self.args.iter().map(none).collect() }
    }
}

/// A product whose operands are addresses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Multiplication {
    pub(super) shape: Shape,
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) out: u64,
    pub(super) alpha: f32,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    Kernel(Kernel),
    Product(Multiplication),
}

/// What a card does for an operation, or nothing, where there is nothing to do. `at` says where so many
/// elements from a place on are, if they are.
pub(super) fn lower(
    op: &Op,
    at: &mut dyn FnMut(At, usize) -> std::result::Result<u64, String>,
) -> std::result::Result<Option<Work>, String> {
    if let Op::Product(product) = op {
        return multiplication(product, at);
    }
    let Some(Launch { kernel: name, grid, args }) = Launch::of(op)? else {
        return Ok(None);
    };
    let args = args.into_iter().map(|arg| {
        Ok(match arg {
            launch::Arg::At(place, len) => Arg::At(at(place, len)?),
            launch::Arg::Null => Arg::At(0),
            launch::Arg::U32(v) => Arg::Word(v),
            launch::Arg::U64(v) => Arg::Long(v),
            launch::Arg::F32(v) => Arg::Number(v),
        })
    });
    let args: std::result::Result<_, String> = args.collect();
    Ok(Some(Work::Kernel(Kernel { name, grid, args: args? })))
}

pub(super) fn multiplication(
    p: &Product,
    at: &mut dyn FnMut(At, usize) -> std::result::Result<u64, String>,
) -> std::result::Result<Option<Work>, String> {
    let mut at = |place, rows: usize, columns| at(place, rows.saturating_mul(columns));
    let (a, b, out) = (at(p.a, p.m, p.k)?, at(p.b, p.k, p.n)?, at(p.out, p.m, p.n)?);
    if p.m == 0 || p.n == 0 {
        return Ok(None);
    }
    // What the address is a multiple of, as far as it is of use.
    let alignment = |address: u64| ALIGNMENT.min(1 << address.trailing_zeros().min(31));
    let shape = Shape {
        m: p.m,
        n: p.n,
        k: p.k,
        a_transposed: p.a_transposed,
        b_transposed: p.b_transposed,
        tf32: p.precision == Precision::Tf32,
        beta: p.beta.to_bits(),
        alignment: [alignment(a), alignment(b), alignment(out)],
    };
    Ok(Some(Work::Product(Multiplication { shape, a, b, out, alpha: p.alpha })))
}
