//! Which instructions the kernels use.
//!
//! The best that the processor has, or what `HEAT_ISA` lowers them to: so that
//! the code for one kind of processor can be tested and timed on another.
//! [`Avx512`], [`Avx2`] and [`Neon`] can only be had from their `detect`: whoever
//! holds one may call what needs those instructions.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// The values of `HEAT_ISA` on this kind of processor, lowest first.
#[cfg(target_arch = "aarch64")]
const LEVELS: [&str; 2] = ["portable", "neon"];
#[cfg(not(target_arch = "aarch64"))]
const LEVELS: [&str; 3] = ["portable", "avx2", "avx512"];

/// How far up [`LEVELS`] the kernels may go. A value that is none of them is
/// as good as none here; [`check_instruction_set`] is for who wants to say so.
fn highest() -> usize {
    static HIGHEST: OnceLock<usize> = OnceLock::new();
    *HIGHEST.get_or_init(|| {
        let wanted = std::env::var("HEAT_ISA").ok();
        wanted.and_then(|w| LEVELS.iter().position(|l| *l == w)).unwrap_or(LEVELS.len())
    })
}

/// Whether the kernels leave out what no name of a level stands for.
#[cfg(target_arch = "x86_64")]
pub(super) fn lowered() -> bool {
    highest() < 2
}

/// The instruction set of the products: `avx512`, `avx2`, `neon` or `portable`.
///
/// It is the best that the processor has, unless the environment variable
/// `HEAT_ISA` names a lower one. Results are the same to the bit.
pub fn instruction_set() -> &'static str {
    match Isa::detect() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => "avx512",
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => "avx2",
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(_) => "neon",
        Isa::Portable => "portable",
    }
}

/// That `HEAT_ISA`, if it is set, names an instruction set which this
/// processor has.
///
/// # Errors
/// If it does not.
pub fn check_instruction_set() -> Result<()> {
    let Ok(wanted) = std::env::var("HEAT_ISA") else { return Ok(()) };
    let best = LEVELS.iter().position(|l| *l == instruction_set()).unwrap_or(0);
    let problem = match LEVELS.iter().position(|l| *l == wanted) {
        None => format!("expected one of {}", LEVELS.join(", ")),
        Some(level) if level > best => "this processor does not have it".to_owned(),
        Some(_) => return Ok(()),
    };
    Err(Error::config("HEAT_ISA", wanted, problem))
}

/// For loops that the compiler vectorises: the instructions to compile them for.
pub(crate) fn arch() -> pulp::Arch {
    if highest() == 0 { pulp::Arch::Scalar } else { pulp::Arch::new() }
}

/// Proof that this processor has AVX-512 (F, VL, DQ and BW) and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        // Cached by the standard library after the first call.
        let found = highest() >= 2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("fma");
        found.then_some(Avx512(()))
    }
}

/// Proof that this processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let found =
            highest() >= 1 && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Avx2(()))
    }
}

/// Proof that this processor has NEON.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Neon(());

#[cfg(target_arch = "aarch64")]
impl Neon {
    pub(super) fn detect() -> Option<Self> {
        let found = highest() >= 1 && std::arch::is_aarch64_feature_detected!("neon");
        found.then_some(Neon(()))
    }
}

/// An instruction set that this processor has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    Portable,
}

impl Isa {
    /// The best that there is.
    pub(super) fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx512) = Avx512::detect() {
                return Isa::Avx512(avx512);
            }
            if let Some(avx2) = Avx2::detect() {
                return Isa::Avx2(avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(neon) = Neon::detect() {
            return Isa::Neon(neon);
        }
        Isa::Portable
    }

    /// All that there are.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Isa> {
        let mut all = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(Isa::Avx2));
            all.extend(Avx512::detect().map(Isa::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(Neon::detect().map(Isa::Neon));
        all
    }
}
