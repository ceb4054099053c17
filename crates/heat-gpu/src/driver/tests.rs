//! What can be tested of the driver without a card.

use std::ffi::c_char;

use cudarc::nvrtc::sys as nvrtc_sys;
use heat_ood::ebm::sampler::Projection;

use super::open::missing;
use super::*;
use crate::KERNELS;
use crate::plan::{Drop, Op, Precision, Product, Seed};

const ROWS: usize = 130;
const WIDTH: usize = 37;

fn product(beta: f32) -> Product {
    Product {
        a: Slot::Rows.into(),
        a_transposed: true,
        b: At { slot: Slot::Parameters, offset: 3 },
        b_transposed: false,
        out: Slot::Gradient.into(),
        m: 5,
        n: 7,
        k: 9,
        alpha: 2.0,
        beta,
        precision: Precision::Tf32,
    }
}

/// Each operation, with what it leaves out where it can.
fn operations() -> Vec<Op> {
    let (rows, width) = (ROWS, WIDTH);
    let place = |i| At::from(Slot::Activation(i));
    let [x, y, out] = [0, 1, 2].map(place);
    let drop = Drop { probability: 0.25, scale: 4.0 / 3.0 };
    let both = Projection { relu: true, normalize: true, halves: true };
    let labels = Slot::Labels.into();
    let step = |noise, projection| {
        let (z, gradient, step, eps) = (x, y, 0.5, 0.25);
        Op::Step { z, gradient, noise, rows, width, step, eps, projection }
    };
    vec![
        Op::BiasLeaky { x, bias: y, rows, width },
        Op::Drop { x, rows, width, layer: 2, drop },
        Op::Seed { top: x, weight: y, seed: Seed::Same(2.0), out, rows, width },
        Op::Seed { top: x, weight: y, seed: Seed::OfRow(y), out, rows, width },
        Op::Mask { x, activations: y, rows, width },
        Op::DropBack { x, activations: y, rows, width, scale: 2.0 },
        Op::Energy { top: x, weight: y, bias: y, out, rows, width },
        Op::Centre { rows_of: x, centre: y, out, rows, width },
        Op::CentreOnMeans {
            rows_of: x,
            means: y,
            labels,
            out,
            rows,
            width,
            classes: 4,
            scale: 2.0,
        },
        Op::NegatedSoftmax { x, offset: y, rows, width },
        Op::Scale { x, len: 1000, factor: 2.0 },
        Op::Zero { x, len: 1000 },
        Op::Noise { out, rows, width, t: 3 },
        Op::WhiteStep { x, noise: y, rows, width, step: 0.5, eps: 0.25 },
        step(Some(out), both),
        step(None, Projection::default()),
        Op::PartialSums { x, weights: Some(y), out: Slot::PartialSums.into(), rows, width },
        Op::PartialSums { x, weights: None, out: Slot::PartialSums.into(), rows, width },
        Op::AddSums { sums: Slot::PartialSums.into(), out, groups: 2, width },
    ]
}

/// Every slot at an address of its own.
fn anywhere(at: At, _: usize) -> std::result::Result<u64, String> {
    Ok(4096 + 4 * at.offset as u64)
}

fn kernel(op: &Op) -> Kernel {
    match lower(op, &mut anywhere) {
        Ok(Some(Work::Kernel(kernel))) => kernel,
        other => panic!("{op:?}: {other:?}"),
    }
}

/// The types with which the source declares a kernel.
fn declared(name: &str) -> Vec<&'static str> {
    let begin = format!("extern \"C\" __global__ void {name}(");
    let (_, rest) = KERNELS.split_once(&begin).unwrap_or_else(|| panic!("no kernel {name}"));
    let (parameters, _) = rest.split_once(')').unwrap();
    let type_of = |p: &'static str| match p.trim().rsplit_once(' ').unwrap().0 {
        pointer if pointer.ends_with('*') => "pointer",
        other => other,
    };
    parameters.split(',').map(type_of).collect()
}

#[test]
fn kernels_are_given_what_they_declare() {
    for op in operations() {
        let kernel = kernel(&op);
        let given = kernel.args.iter().map(|arg| match arg {
            Arg::At(_) => "pointer",
            Arg::Word(_) => "u32",
            Arg::Long(_) => "u64",
            Arg::Number(_) => "float",
        });
        assert_eq!(given.collect::<Vec<_>>(), declared(kernel.name), "{op:?}");
    }
}

#[test]
fn every_kernel_is_loaded_and_used() {
    let used =
        operations().iter().map(|op| kernel(op).name).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), NAMES);
}

#[test]
fn grids_cover_what_is_there() {
    let [x, out] = [0, 1].map(|i| At::from(Slot::Activation(i)));
    let (rows, width) = (ROWS, WIDTH);
    let grid = |op| kernel(&op).grid;
    // 130 · 37 elements.
    assert_eq!(grid(Op::Mask { x, activations: out, rows, width }), (19, 1));
    // A warp a row.
    assert_eq!(grid(Op::NegatedSoftmax { x, offset: out, rows, width }), (17, 1));
    // 64 · 37 normals, of 32 a thread, in 5 chunks; 3 blocks of rows.
    assert_eq!(grid(Op::Noise { out, rows, width, t: 0 }), (1, 3));
    assert_eq!(grid(Op::Noise { out, rows, width: 512, t: 0 }), (4, 3));
    // 64 rows, 3 threads a row.
    let drop = Drop { probability: 0.5, scale: 2.0 };
    assert_eq!(grid(Op::Drop { x, rows, width, layer: 0, drop }), (1, 3));
    // Columns, and groups of 128 rows.
    assert_eq!(grid(Op::PartialSums { x, weights: None, out, rows, width }), (1, 2));
}

#[test]
fn nothing_is_done_for_no_rows() {
    let x = Slot::Rows.into();
    for op in [Op::Zero { x, len: 0 }, Op::Mask { x, activations: x, rows: 0, width: 3 }] {
        assert_eq!(lower(&op, &mut anywhere), Ok(None));
    }
    let none = Op::Product(Product { m: 0, ..product(0.0) });
    assert_eq!(lower(&none, &mut anywhere), Ok(None));
}

#[test]
fn too_many_rows_are_refused() {
    let rows = 64 * 65_535;
    let noise = |rows| Op::Noise { out: Slot::Noise.into(), rows, width: 1, t: 0 };
    assert_eq!(kernel(&noise(rows)).grid.1, 65_535);
    let problem = lower(&noise(rows + 1), &mut anywhere).unwrap_err();
    assert!(
        problem.starts_with("too many rows at once") && problem.contains("`batch_size`"),
        "{problem}"
    );
    let problem = lower(&noise(1 << 33), &mut anywhere).unwrap_err();
    assert!(problem.contains("`batch_size`"), "{problem}");
}

#[test]
fn operands_have_their_sizes() {
    let asked = |op: &Op| {
        let mut asked = Vec::new();
        lower(op, &mut |at, len| {
            asked.push((at.slot, at.offset, len));
            Ok(4096)
        })
        .unwrap();
        asked
    };
    let rows = [(Slot::Rows, 0, 45), (Slot::Parameters, 3, 63), (Slot::Gradient, 0, 35)];
    assert_eq!(asked(&Op::Product(product(1.0))), rows);
    let [x, out] = [Slot::Rows, Slot::PartialSums].map(At::from);
    let weights = Some(Slot::Energies.into());
    let op = Op::PartialSums { x, weights, out, rows: ROWS, width: WIDTH };
    let sums = [
        (Slot::Rows, 0, ROWS * WIDTH),
        (Slot::Energies, 0, ROWS),
        (Slot::PartialSums, 0, 2 * WIDTH),
    ];
    assert_eq!(asked(&op), sums);
}

#[test]
fn products_say_how_their_operands_are_aligned() {
    let Ok(Some(Work::Product(product))) = lower(&Op::Product(product(1.0)), &mut anywhere) else {
        panic!("a product is one");
    };
    assert_eq!(product.shape.alignment, [256, 4, 256]);
    assert_eq!((product.shape.tf32, product.shape.beta), (true, 1.0f32.to_bits()));
}

#[test]
fn idle_kernels_have_no_rows() {
    for op in operations() {
        let idle = kernel(&op).idle();
        let none = |arg: &Arg| !matches!(arg, Arg::Word(1..) | Arg::Long(1..));
        assert!(idle.grid == (1, 1) && idle.args.iter().all(none), "{idle:?}");
    }
}

/// Where NVRTC is installed, which needs no card.
#[test]
fn kernels_compile() {
    // SAFETY: opening the library runs what it does at its start, which is harmless.
    if !unsafe { nvrtc_sys::is_culib_present() } {
        let line = b"skipped: kernels_compile (no NVRTC)\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
        return;
    }
    for generation in [80, 90] {
        let code = compiled("cuda:0", generation).unwrap();
        assert_eq!(code[1..4], [b'E', b'L', b'F'].map(|c| c as c_char));
    }
    // Of a card that no compiler knows: text, for the last that it knows, ended with zero.
    let text = compiled("cuda:0", 9990).unwrap();
    assert!(text.len() > 1000 && text.last() == Some(&0));
    let error = compiled("cuda:0", 10).unwrap_err().to_string();
    assert!(error.contains("knows no cards so old"), "{error}");
}

#[test]
fn what_is_missing_is_named_with_where_to_get_it() {
    let error = missing("cuda:0", "NVRTC", "nvidia-cuda-nvrtc").to_string();
    for part in
        ["cuda:0", "NVRTC", "pip install nvidia-cuda-nvrtc", "LD_LIBRARY_PATH", "--device cpu"]
    {
        assert!(error.contains(part), "{error}");
    }
}
