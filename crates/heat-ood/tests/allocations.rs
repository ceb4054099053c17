//! Training allocates nothing per step after the first.
//!
//! Its own test binary, because the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use heat_ood::Silent;
use heat_ood::ebm::{HeatConfig, Proposal, Trainer};
use heat_ood::features::FeatureSet;
use heat_ood::math::parallel;
use heat_ood::scorers::GmmConfig;
use heat_ood::{Fit, TrainingData};
use ndarray::Array2;

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn steps_after_the_first_allocate_nothing() {
    let rows = Array2::from_shape_fn((4000, 40), |(i, j)| {
        ((i * 40 + j) as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32
    });
    let labels: Vec<u32> = (0..4000).map(|i| i % 5).collect();
    let train = FeatureSet::from_arrays(rows.view(), Some(&labels)).unwrap();
    for proposal in [Proposal::BaseDist, Proposal::BaseDistTemp, Proposal::RandomNormal] {
        let prior = GmmConfig::default().fit(&TrainingData::new(&train), &mut Silent).unwrap();
        let mut config = HeatConfig { batch_size: 300, ..HeatConfig::default() };
        // Layers of several sizes, with any panel's padding.
        config.ebm.model.hidden_dim = 100;
        config.ebm.model.steps = 3;
        config.ebm.model.proposal_type = proposal;
        config.ebm.model.sample_from_batch_statistics = proposal == Proposal::BaseDistTemp;
        // A replay buffer that fills up meanwhile, with classes, does not allocate either.
        config.ebm.model.use_pcd = proposal == Proposal::BaseDist;
        config.ebm.model.buffer_size = 1000;
        let base = &mut config.ebm.model.base_dist;
        base.use_simplified_mahalanobis_score = proposal != Proposal::RandomNormal;
        let mut trainer = Trainer::new(config, prior, &train).unwrap();
        let allocations = parallel::with_threads(2, || {
            let mut step = || {
                trainer.propose().unwrap();
                trainer.sample().unwrap();
                trainer.apply().unwrap();
            };
            step();
            let before = COUNT.load(Ordering::SeqCst);
            (0..8).for_each(|_| step());
            COUNT.load(Ordering::SeqCst) - before
        });
        assert_eq!(allocations.unwrap(), 0, "{proposal:?}");
    }
}
