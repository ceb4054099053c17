//! Kernels on the processor, one by one.

use heat_gpu::device::Device;
use heat_gpu::launch::Launch;
use heat_gpu::mirror::Mirror;
use heat_gpu::plan::{At, Drop, Op, Plan, Slot, key_words};
use heat_ood::math::rng::{Purpose, Stream};

use crate::host::Host;

fn plan(op: Op, slots: &[(Slot, usize)]) -> Plan {
    Plan { ops: vec![op], slots: slots.to_vec() }
}

/// What an operation makes of the same contents, by the kernels and by the mirror.
fn both(
    test: &str,
    op: Op,
    slots: &[(Slot, usize)],
    words: [u32; 8],
    result: Slot,
) -> Option<[Vec<f32>; 2]> {
    fn run<D: Device>(mut device: D, plan: &Plan, words: [u32; 8], result: Slot) -> Vec<f32> {
        device.reserve(&plan.slots).unwrap();
        for (i, &(slot, len)) in plan.slots.iter().enumerate() {
            if slot == Slot::Key {
                device.put_words(slot, &words).unwrap();
            } else {
                let mut values = vec![0.0; len];
                Stream::new(8, Purpose::User, i as u64, 0).fill_normal(&mut values);
                device.put(slot, &values).unwrap();
            }
        }
        let program = device.prepare(plan).unwrap();
        device.run(&program).unwrap();
        let len = plan.slots.iter().find(|(slot, _)| *slot == result).unwrap().1;
        let mut out = vec![0.0; len];
        device.take(result, &mut out).unwrap();
        out
    }
    let plan = plan(op, slots);
    Some([
        run(Host::new(test)?, &plan, words, result),
        run(Mirror::default(), &plan, words, result),
    ])
}

fn assert_bits([a, b]: [Vec<f32>; 2], what: &str) {
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let first = a.iter().zip(&b).position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(bits(&a), bits(&b), "{what}: first at {first:?}");
}

/// `rng::Stream` is what the processor's chains draw from: rows that fill no block, no chunk of 512, no
/// group of 16, and names with high words.
#[test]
fn noise_has_the_bits_of_the_processor() {
    for (rows, width) in [(1, 1), (3, 5), (64, 8), (65, 7), (150, 22), (130, 511), (70, 33)] {
        for words in [
            key_words(1, Purpose::Langevin as u64, 2, 3),
            key_words(u64::MAX - 5, Purpose::Langevin as u64, 1 << 40, (1 << 31) + 7),
        ] {
            let op = Op::Noise { out: Slot::Noise.into(), rows, width, t: 39 };
            let slots = [(Slot::Noise, rows * width), (Slot::Key, 8)];
            let Some(both) = both("noise", op, &slots, words, Slot::Noise) else { return };
            assert_bits(both, &format!("{rows} × {width}"));
        }
    }
}

#[test]
fn dropout_has_the_bits_of_the_processor() {
    let drop = Drop { probability: 0.3, scale: 1.0 / 0.7 };
    for (rows, width) in [(1, 1), (65, 17), (130, 300), (3, 512)] {
        let words = key_words(5, Purpose::Dropout as u64, 11, 0);
        let x = Slot::Activation(1);
        let op = Op::Drop { x: x.into(), rows, width, layer: 1, drop };
        let slots = [(x, rows * width), (Slot::Key, 8)];
        let Some(both) = both("dropout", op, &slots, words, x) else { return };
        let zeros = both[0].iter().filter(|v| **v == 0.0).count() as f64;
        let n = (rows * width) as f64;
        assert!((zeros - 0.3 * n).abs() <= 5.0 * (0.21 * n).sqrt() + 1.0);
        assert_bits(both, &format!("{rows} × {width}"));
    }
}

/// Steps and projections: the sums of a norm are in the processor's order.
#[test]
fn steps_have_the_bits_of_the_processor() {
    use heat_ood::ebm::sampler::Projection;
    for (rows, width) in [(1, 1), (3, 31), (5, 32), (9, 130), (2, 2048)] {
        for (relu, normalize, halves) in
            [(false, false, false), (true, false, false), (true, true, false), (true, true, true)]
        {
            let projection = Projection { relu, normalize, halves };
            for noise in [None, Some(At::from(Slot::Noise))] {
                let op = Op::Step {
                    z: Slot::Rows.into(),
                    gradient: Slot::Gradient.into(),
                    noise,
                    rows,
                    width,
                    step: 0.3,
                    eps: 0.07,
                    projection,
                };
                let n = rows * width;
                let slots = [(Slot::Rows, n), (Slot::Gradient, n), (Slot::Noise, n)];
                let Some(both) = both("steps", op, &slots, [0; 8], Slot::Rows) else { return };
                assert_bits(both, &format!("{rows} × {width}, {projection:?}"));
            }
        }
    }
}

/// What a launch must not do is seen: a test of the sanitizers themselves.
#[test]
fn an_access_beyond_a_slot_ends_the_kernels() {
    let Some(mut host) = Host::new("beyond") else { return };
    host.reserve(&[(Slot::Rows, 10)]).unwrap();
    host.put(Slot::Rows, &[1.0; 10]).unwrap();
    let op = Op::Scale { x: Slot::Rows.into(), len: 11, factor: 2.0 };
    host.launch(&Launch::of(&op).unwrap().unwrap()).unwrap();
    assert!(host.take(Slot::Rows, &mut [0.0; 10]).is_err());
    // Its end is what was wanted.
    host.forgive();
}
