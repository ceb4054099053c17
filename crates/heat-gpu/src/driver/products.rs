//! Matrix products in cuBLASLt's words.

use std::ffi::c_void;
use std::ptr::from_ref;

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{result as lt, sys as lt_sys};

use super::shared::Owned;

/// Of the products; more is of no use to them.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;

/// What the choice of an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a_transposed: bool,
    pub(super) b_transposed: bool,
    pub(super) tf32: bool,
    /// The bits of β.
    pub(super) beta: u32,
    /// Of A, B and what comes out, in bytes.
    pub(super) alignment: [u32; 3],
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { m, n, k, .. } = self;
        write!(f, "[{m}, {k}]·[{k}, {n}]")
    }
}

/// How products of a shape are done.
pub(super) struct Way {
    pub(super) algorithm: lt_sys::cublasLtMatmulAlgo_t,
    pub(super) tf32: bool,
}

pub(super) type Desc = Owned<lt_sys::cublasLtMatmulDesc_t, CublasError>;
pub(super) type Layout = Owned<lt_sys::cublasLtMatrixLayout_t, CublasError>;

/// A product in the library's words. It counts elements column by column, where ours are row by row: a
/// matrix of ours is its transpose in the library's. So outᵀ = Bᵀ·Aᵀ is computed, with what is B here first.
pub(super) struct Described {
    pub(super) desc: Desc,
    /// Bᵀ: `[n, k]` column by column, or `[k, n]` if B is transposed.
    pub(super) first: Layout,
    /// Aᵀ: `[k, m]`, or `[m, k]` if A is transposed.
    pub(super) second: Layout,
    /// outᵀ: `[n, m]`.
    pub(super) out: Layout,
}

impl Described {
    pub(super) fn new(shape: &Shape, tf32: bool) -> std::result::Result<Self, CublasError> {
        use lt_sys::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
        use lt_sys::cublasLtMatmulDescAttributes_t::{
            CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB,
        };
        let numbers = lt_sys::cudaDataType::CUDA_R_32F;
        let Shape { m, n, k, .. } = *shape;
        let compute = if tf32 { CUBLAS_COMPUTE_32F_FAST_TF32 } else { CUBLAS_COMPUTE_32F };
        let desc = lt::create_matmul_desc(compute, numbers)?;
        let desc = Desc { handle: desc, destroy: lt::destroy_matmul_desc };
        let transposes = [
            (CUBLASLT_MATMUL_DESC_TRANSA, shape.b_transposed),
            (CUBLASLT_MATMUL_DESC_TRANSB, shape.a_transposed),
        ];
        for (which, transposed) in transposes {
            // CUBLAS_OP_N and CUBLAS_OP_T.
            let op = i32::from(transposed);
            // SAFETY: the description lives, and the attribute is a number of this size, read now.
            unsafe {
                lt::set_matmul_desc_attribute(
                    desc.handle,
                    which,
                    from_ref(&op).cast(),
                    size_of_val(&op),
                )
            }?;
        }
        let layout = |rows: usize, columns: usize, transposed: bool| {
            let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
            let handle =
                lt::create_matrix_layout(numbers, rows as u64, columns as u64, rows.max(1) as i64)?;
            Ok(Layout { handle, destroy: lt::destroy_matrix_layout })
        };
        let first = layout(n, k, shape.b_transposed)?;
        let second = layout(k, m, shape.a_transposed)?;
        Ok(Described { desc, first, second, out: layout(n, m, false)? })
    }

    /// The library's first choice for it.
    pub(super) fn algorithm(
        &self,
        products: lt_sys::cublasLtHandle_t,
        shape: &Shape,
    ) -> std::result::Result<lt_sys::cublasLtMatmulAlgo_t, CublasError> {
        use lt_sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let wanted = lt::create_matmul_pref()?;
        let wanted: Owned<_, CublasError> =
            Owned { handle: wanted, destroy: lt::destroy_matmul_pref };
        let set = |which: Preference, value: *const c_void, size: usize| {
            // SAFETY: the preference lives, and the attribute is a number of this size, read now.
            unsafe { lt::set_matmul_pref_attribute(wanted.handle, which, value, size) }
        };
        let room: u64 = WORKSPACE_BYTES as u64;
        set(
            Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            from_ref(&room).cast(),
            size_of_val(&room),
        )?;
        // Otherwise it takes for granted that all matrices begin at multiples of 256 bytes.
        let [a, b, out] = &shape.alignment;
        for (which, bytes) in [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            set(which, from_ref(bytes).cast(), size_of_val(bytes))?;
        }
        let (first, second, out) = (self.first.handle, self.second.handle, self.out.handle);
        // SAFETY: all descriptions live.
        let found = unsafe {
            lt::get_matmul_algo_heuristic(
                products,
                self.desc.handle,
                first,
                second,
                out,
                out,
                wanted.handle,
            )
        };
        found.map(|found| found.algo)
    }
}
