//! The card, and without one what is said of it. Tests that need a card say that they are skipped; with
//! `HEAT_REQUIRE_GPU=1` they fail instead.
#![cfg(feature = "cuda")]

use std::collections::BTreeMap;
use std::io::Write as _;

use heat_gpu::device::Device;
use heat_gpu::driver::Card;
use heat_gpu::mirror::Mirror;
use heat_gpu::plan::{
    At, Chain, Drop, Elements, Kind, Net, Op, Plan, Precision, Product, Seed, Shape, Slot,
};
use heat_ood::ebm::mlp::{Architecture, Mlp};
use heat_ood::ebm::sampler::{Langevin, Projection};

/// Ragged on purpose: no multiples of blocks, warps or groups.
const ROWS: usize = 131;
const WIDTH: usize = 37;
const CLASSES: usize = 5;

fn card(test: &str) -> Option<Card> {
    match Card::open(0) {
        Ok(card) => Some(card),
        Err(e) if std::env::var("HEAT_REQUIRE_GPU").is_ok_and(|v| v == "1") => {
            panic!("{test}: {e}")
        }
        Err(_) => {
            // Past what the test runner holds back.
            let line = format!("skipped: {test} (no card)\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            None
        }
    }
}

#[test]
fn without_a_driver_the_error_says_so_and_what_to_do() {
    // SAFETY: opening the library runs what it does at its start, which is harmless.
    if unsafe { cudarc::driver::sys::is_culib_present() } {
        return;
    }
    let error = Card::open(0).err().expect("there is no driver").to_string();
    for part in ["cuda:0: ", "no NVIDIA driver", "install it", "--gpus all", "--device cpu"] {
        assert!(error.contains(part), "{error}");
    }
    let error = Card::open(usize::MAX).err().expect("there is no driver").to_string();
    assert!(error.starts_with(&format!("cuda:{}: no NVIDIA driver", usize::MAX)), "{error}");
}

#[test]
fn a_number_that_no_card_has_is_refused() {
    let Some(_) = card("a_number_that_no_card_has_is_refused") else { return };
    for number in [1000, usize::MAX] {
        let error = Card::open(number).err().expect("so many cards are not here").to_string();
        assert!(error.contains("no such card: there ") && error.contains("cuda:0"), "{error}");
    }
}

#[test]
fn what_is_put_is_taken() {
    let Some(mut card) = card("what_is_put_is_taken") else { return };
    assert!(!card.model().is_empty());
    let numbers = filled(Slot::Rows, 1000);
    assert!(!card.reserve(&[(Slot::Rows, 1000), (Slot::Key, 8)]).unwrap());
    card.put(Slot::Rows, &numbers).unwrap();
    card.put_words(Slot::Key, &[7; 8]).unwrap();
    let mut out = vec![0.0; 1000];
    card.take(Slot::Rows, &mut out).unwrap();
    assert_eq!(out, numbers);
    // Less of it, and what is there already.
    assert!(!card.reserve(&[(Slot::Rows, 10)]).unwrap());
    card.take(Slot::Rows, &mut out[..10]).unwrap();
    assert_eq!(out, numbers);
    card.take(Slot::Rows, &mut []).unwrap();
    // More than there is, and of another kind.
    let error = card.put(Slot::Rows, &vec![0.0; 1001]).unwrap_err().to_string();
    assert!(error.contains("Rows has 1000 elements, not 1001"), "{error}");
    let error = card.put_words(Slot::Rows, &[0]).unwrap_err().to_string();
    assert!(error.contains("Rows holds Numbers, not Words"), "{error}");
    let error = card.take(Slot::Noise, &mut out).unwrap_err().to_string();
    assert!(error.contains("Noise has not been reserved"), "{error}");
}

#[test]
fn programs_are_refused_once_their_memory_has_moved() {
    let Some(mut card) = card("programs_are_refused_once_their_memory_has_moved") else { return };
    let x = Slot::Rows.into();
    let plan =
        Plan { ops: vec![Op::Scale { x, len: 10, factor: 2.0 }], slots: vec![(Slot::Rows, 10)] };
    let error = card.prepare(&plan).err().expect("nothing is reserved").to_string();
    assert!(error.contains("Rows has not been reserved"), "{error}");
    card.reserve(&plan.slots).unwrap();
    card.put(Slot::Rows, &[3.0; 10]).unwrap();
    let program = card.prepare(&plan).unwrap();
    // What is prepared is not carried out.
    let mut out = [0.0; 10];
    card.take(Slot::Rows, &mut out).unwrap();
    assert_eq!(out, [3.0; 10]);
    card.run(&program).unwrap();
    card.run(&program).unwrap();
    card.take(Slot::Rows, &mut out).unwrap();
    assert_eq!(out, [12.0; 10]);
    // Other memory may come and grow.
    assert!(!card.reserve(&[(Slot::Noise, 10)]).unwrap());
    assert!(card.reserve(&[(Slot::Noise, 20)]).unwrap());
    card.run(&program).unwrap();
    assert!(card.reserve(&[(Slot::Rows, 11)]).unwrap());
    let error = card.run(&program).unwrap_err().to_string();
    assert!(error.contains("has moved"), "{error}");
    let mut other = Card::open(0).unwrap();
    other.reserve(&plan.slots).unwrap();
    assert!(other.run(&program).is_err());
    let long = Plan { ops: vec![Op::Scale { x, len: 12, factor: 2.0 }], slots: Vec::new() };
    let error = card.prepare(&long).err().expect("it is too long").to_string();
    assert!(error.contains("Rows has 11 elements, not 0 + 12"), "{error}");
    // A program may outlive the card that it is of.
    drop(card);
    drop(program);
}

#[test]
fn too_much_memory_is_refused_with_what_to_do() {
    let Some(mut card) = card("too_much_memory_is_refused_with_what_to_do") else { return };
    card.reserve(&[(Slot::Rows, 10)]).unwrap();
    // 4 TiB.
    let error = card.reserve(&[(Slot::Rows, 1 << 40)]).unwrap_err().to_string();
    for part in ["4194304 MiB more are needed", "are free", "`batch_size`", "--device cpu"] {
        assert!(error.contains(part), "{error}");
    }
    // What was lost is told as soon as something works.
    assert!(card.reserve(&[(Slot::Rows, 10)]).unwrap());
    card.put(Slot::Rows, &[1.0; 10]).unwrap();
}

#[test]
fn cards_are_used_from_several_threads() {
    let Some(mut card) = card("cards_are_used_from_several_threads") else { return };
    let plan = planned(element_wise().concat());
    let (expected, found) = std::thread::scope(|scope| {
        let here = outcome(&mut card, &plan);
        let other = scope.spawn(|| outcome(&mut Card::open(0).unwrap(), &plan));
        let moved = scope.spawn(|| outcome(&mut card, &plan));
        let (other, moved) = (other.join().unwrap(), moved.join().unwrap());
        same("two cards", &here, &other, 0.0);
        (here, moved)
    });
    same("another thread", &expected, &found, 0.0);
}

#[test]
fn element_by_element_the_card_has_the_bits_of_the_processor() {
    let test = "element_by_element_the_card_has_the_bits_of_the_processor";
    let Some(mut card) = card(test) else { return };
    let mut all = element_wise();
    all.push(all.concat());
    for ops in all {
        let name = format!("{ops:?}");
        let plan = planned(ops);
        same(&name, &outcome(&mut Mirror::default(), &plan), &outcome(&mut card, &plan), 0.0);
    }
}

#[test]
fn energies_and_softmax_are_those_of_the_processor() {
    let Some(mut card) = card("energies_and_softmax_are_those_of_the_processor") else { return };
    let [x, weight, out] = [Slot::Activation(0), Slot::Parameters, Slot::Energies].map(At::from);
    let bias = At { slot: Slot::Parameters, offset: WIDTH };
    let (rows, width) = (ROWS, WIDTH);
    let r = Slot::Responsibilities.into();
    let softmax = Op::NegatedSoftmax { x: r, offset: Slot::Offset.into(), rows, width: CLASSES };
    for op in [Op::Energy { top: x, weight, bias, out, rows, width }, softmax] {
        let plan = planned(vec![op]);
        same(
            &format!("{op:?}"),
            &outcome(&mut Mirror::default(), &plan),
            &outcome(&mut card, &plan),
            1e-6,
        );
    }
}

#[test]
fn products_are_those_of_the_processor() {
    let Some(mut card) = card("products_are_those_of_the_processor") else { return };
    // The second with sizes that suit the fast units; both with B out of line.
    for [m, n, k] in [[ROWS, CLASSES, WIDTH], [128, 64, 32], [1, WIDTH, 1]] {
        for flags in 0..16 {
            let [a_transposed, b_transposed, exact, added] =
                [1, 2, 4, 8].map(|bit| flags & bit != 0);
            let op = Op::Product(Product {
                a: Slot::Activation(0).into(),
                a_transposed,
                b: At { slot: Slot::Parameters, offset: flags % 3 },
                b_transposed,
                out: Slot::Activation(1).into(),
                m,
                n,
                k,
                alpha: if added { -0.5 } else { 1.0 },
                beta: if added { 1.0 } else { 0.0 },
                precision: if exact { Precision::F32 } else { Precision::Tf32 },
            });
            // Of at most 37 terms below 1: what TF32 cuts off is 2⁻¹⁰ of each.
            let most = if exact { 1e-5 } else { 2e-2 };
            let plan = planned(vec![op]);
            same(
                &format!("{op:?}"),
                &outcome(&mut Mirror::default(), &plan),
                &outcome(&mut card, &plan),
                most,
            );
        }
    }
}

#[test]
fn chains_and_gradients_are_those_of_the_processor() {
    let Some(mut card) = card("chains_and_gradients_are_those_of_the_processor") else { return };
    for (tied, tapered) in [(true, false), (false, false), (false, true)] {
        let architecture =
            Architecture { input_dim: WIDTH, hidden_dim: 64, n_hidden_layers: 2, tied, tapered };
        let net = Net::of(&Mlp::new(architecture, 1).unwrap());
        let langevin = Langevin {
            steps: 3,
            step_size: (0.1, 0.05),
            eps: (0.01, 0.001),
            precondition: false,
            svgd: false,
        };
        let prior = Shape { dim: WIDTH, components: CLASSES, kind: Kind::Mixture };
        let chain = Chain {
            langevin: &langevin,
            prior: &prior,
            projection: Projection { relu: true, normalize: true, halves: false },
            scale: 1.0,
            prior_scale: 0.01,
            labelled: false,
            precision: Precision::F32,
        };
        let drop = Some(Drop { probability: 0.2, scale: 1.25 });
        let precision = Precision::F32;
        let labelled = Chain { labelled: true, ..chain };
        let forward = Plan::energies(&net, ROWS, precision, drop);
        let backward = Plan::parameter_gradient(&net, ROWS, precision, drop);
        for plan in [
            Plan::chain(&net, &chain, ROWS),
            Plan::chain(&net, &labelled, ROWS),
            one_after_the_other(forward, backward),
        ] {
            let name = format!("tied {tied}, tapered {tapered}, {} operations", plan.ops.len());
            same(&name, &outcome(&mut Mirror::default(), &plan), &outcome(&mut card, &plan), 1e-3);
        }
    }
}

fn one_after_the_other(mut first: Plan, second: Plan) -> Plan {
    first.ops.extend(second.ops);
    let mut slots: BTreeMap<Slot, usize> = BTreeMap::new();
    for (slot, len) in first.slots.into_iter().chain(second.slots) {
        let most = slots.entry(slot).or_default();
        *most = len.max(*most);
    }
    Plan { ops: first.ops, slots: slots.into_iter().collect() }
}

/// Numbers between −1 and 1, the same for a slot each time; some are zero. Weights are small, so that
/// what a network makes of them is not large.
fn filled(slot: Slot, len: usize) -> Vec<f32> {
    let mut state =
        format!("{slot:?}").bytes().fold(1u32, |s, b| s.wrapping_mul(31) ^ u32::from(b));
    let size = if matches!(slot, Slot::Parameters | Slot::Whiten) { 0.25 } else { 1.0 };
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        if state >> 28 == 0 { 0.0 } else { size * number }
    };
    (0..len).map(next).collect()
}

/// What all slots of numbers hold after a plan, from [`filled`] ones: the same three times.
fn outcome<D: Device>(device: &mut D, plan: &Plan) -> BTreeMap<Slot, Vec<f32>> {
    device.reserve(&plan.slots).unwrap();
    let program = device.prepare(plan).unwrap();
    let mut found = BTreeMap::new();
    for round in 0..3 {
        for &(slot, len) in &plan.slots {
            match slot {
                Slot::PartialSums => {}
                Slot::Labels => {
                    let labels: Vec<u32> = (0..len).map(|i| (i * i % CLASSES) as u32).collect();
                    device.put_words(slot, &labels).unwrap();
                }
                Slot::Key => {
                    device
                        .put_words(slot, &heat_gpu::plan::key_words(1 << 40 | 5, 1, 7, 3))
                        .unwrap();
                }
                slot => device.put(slot, &filled(slot, len)).unwrap(),
            }
        }
        device.run(&program).unwrap();
        let taken = |&(slot, len): &(Slot, usize)| {
            let mut out = vec![0.0; len];
            device.take(slot, &mut out).unwrap();
            (slot, out)
        };
        let slots = plan.slots.iter().filter(|(s, _)| s.elements() == Elements::Numbers);
        let now: BTreeMap<Slot, Vec<f32>> = slots.map(taken).collect();
        if round > 0 {
            same("the next run", &found, &now, 0.0);
        }
        found = now;
    }
    found
}

/// Whether all numbers are within `most` of each other, relative to those above 1; for 0, their bits.
#[track_caller]
fn same(
    what: &str,
    expected: &BTreeMap<Slot, Vec<f32>>,
    found: &BTreeMap<Slot, Vec<f32>>,
    most: f32,
) {
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{what}");
    for (slot, values) in expected {
        for (i, (e, f)) in values.iter().zip(&found[slot]).enumerate() {
            let equal = if most == 0.0 {
                e.to_bits() == f.to_bits()
            } else {
                (e - f).abs() <= most * e.abs().max(1.0)
            };
            assert!(equal, "{what}: {slot:?}[{i}] is {f:?}, not {e:?}");
        }
    }
}

/// `ops`, with room enough for each in every slot.
fn planned(ops: Vec<Op>) -> Plan {
    let matrix = ROWS * 64;
    let numbers = [
        Slot::Parameters,
        Slot::Energies,
        Slot::Activation(0),
        Slot::Activation(1),
        Slot::Delta(0),
        Slot::Offset,
        Slot::Means,
        Slot::Noise,
        Slot::Responsibilities,
    ];
    let mut slots: Vec<(Slot, usize)> = numbers.into_iter().map(|slot| (slot, matrix)).collect();
    slots.extend([(Slot::Labels, ROWS), (Slot::Key, 8), (Slot::PartialSums, 2 * WIDTH)]);
    Plan { ops, slots }
}

/// All that has the processor's bits.
fn element_wise() -> Vec<Vec<Op>> {
    let (rows, width) = (ROWS, WIDTH);
    let [x, y, out] = [Slot::Activation(0), Slot::Activation(1), Slot::Delta(0)].map(At::from);
    let [row, column, noise] = [Slot::Energies, Slot::Parameters, Slot::Noise].map(At::from);
    let [labels, means, sums] = [Slot::Labels, Slot::Means, Slot::PartialSums].map(At::from);
    let drop = Drop { probability: 0.25, scale: 4.0 / 3.0 };
    let project = |relu, normalize, halves| Projection { relu, normalize, halves };
    let step = |noise, projection| {
        vec![Op::Step { z: x, gradient: y, noise, rows, width, step: 0.5, eps: 0.25, projection }]
    };
    let sum = |weights| {
        let groups = rows.div_ceil(heat_gpu::plan::ROWS_OF_SUMS);
        let add = Op::AddSums { sums, out: column, groups, width };
        vec![Op::PartialSums { x, weights, out: sums, rows, width }, add]
    };
    vec![
        vec![Op::BiasLeaky { x, bias: column, rows, width }],
        vec![Op::Drop { x, rows, width, layer: 2, drop }],
        vec![Op::Drop { x, rows: 20, width: 300, layer: 0, drop }],
        vec![Op::Seed { top: x, weight: column, seed: Seed::Same(2.5), out, rows, width }],
        vec![Op::Seed { top: x, weight: column, seed: Seed::OfRow(row), out, rows, width }],
        vec![Op::Mask { x, activations: y, rows, width }],
        vec![Op::DropBack { x, activations: y, rows, width, scale: 1.25 }],
        vec![Op::Centre { rows_of: x, centre: column, out, rows, width }],
        vec![Op::CentreOnMeans {
            rows_of: x,
            means,
            labels,
            out,
            rows,
            width,
            classes: CLASSES,
            scale: 0.75,
        }],
        vec![Op::Scale { x, len: 1000, factor: 1.25 }],
        vec![Op::Zero { x, len: 1000 }],
        vec![Op::Noise { out: noise, rows, width, t: 3 }],
        vec![Op::Noise { out: noise, rows: 65, width: 64, t: 0 }],
        vec![Op::WhiteStep { x, noise, rows, width, step: 0.5, eps: 0.25 }],
        step(Some(noise), project(true, true, false)),
        step(Some(noise), project(false, true, true)),
        step(None, project(true, false, false)),
        step(None, Projection::default()),
        sum(Some(row)),
        sum(None),
    ]
}
