//! What a device does not do is refused by name.

use heat_gpu::engine::{Gpu, check};
use heat_gpu::mirror::Mirror;
use heat_gpu::place::Place;
use heat_gpu::plan::Precision;
use heat_ood::ebm::HeatConfig;
use heat_ood::features::FeatureSet;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{Fit, KnnConfig};
use heat_ood::{Silent, TrainingData};

#[test]
fn other_priors_and_svgd() {
    let mut x = vec![0.0; 60 * 4];
    Stream::new(4, Purpose::User, 0, 0).fill_normal(&mut x);
    let x = ndarray::ArrayView2::from_shape((60, 4), &x).unwrap();
    let set = FeatureSet::from_arrays(x, None).unwrap();
    let knn = KnnConfig { k: Some(3), ..KnnConfig::default() };
    let prior = knn.fit(&TrainingData::new(&set), &mut Silent).unwrap().into_parts().0;
    let mut config = HeatConfig::default();
    let said = check(&config, &*prior, "cuda:0").unwrap_err().to_string();
    assert!(
        said.contains("`knn`") && said.contains("`gmm`") && said.contains("--device cpu"),
        "{said}"
    );
    let said =
        Gpu::new(Mirror::default(), prior.clone(), Precision::F32).err().unwrap().to_string();
    assert!(said.contains("`knn`"), "{said}");
    config.ebm.model.use_svgd = true;
    let said = check(&config, &*prior, "cuda:0").unwrap_err().to_string();
    assert!(said.contains("ebm.model.use_svgd") && said.contains("--device cpu"), "{said}");
}

#[test]
fn names_of_places() {
    for (text, place) in [
        ("cpu", Place::Cpu),
        ("cuda", Place::Cuda(0)),
        ("cuda:0", Place::Cuda(0)),
        ("cuda:12", Place::Cuda(12)),
    ] {
        assert_eq!(text.parse::<Place>().unwrap(), place);
        assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
    }
    for text in [
        "",
        "gpu",
        "cpu:0",
        "cuda:",
        "cuda:-1",
        "cuda:01",
        "cuda:+1",
        "cuda:99999",
        "CUDA",
        "tensorrt",
    ] {
        let said = text.parse::<Place>().unwrap_err().to_string();
        assert!(said.contains("cuda:1") && said.contains("cpu"), "{said}");
    }
    assert_eq!("tf32".parse::<Precision>().unwrap(), Precision::Tf32);
    assert!("bf16".parse::<Precision>().unwrap_err().to_string().contains("tf32 or f32"));
}
