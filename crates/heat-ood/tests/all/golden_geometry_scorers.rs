//! Scorers of geometry and of banks of rows against NumPy in float64; see
//! `golden/make_geometry_scorers.py`.

use crate::common;

use common::{Golden, close, path};
use heat_ood::Silent;
use heat_ood::TrainingData;
use heat_ood::io::TensorFile;
use heat_ood::scorers::ScorerSpec;

fn expected(name: &str) -> Vec<f32> {
    let file = TensorFile::open(&path("geometry_scorers.safetensors")).unwrap();
    let shape = file.shape(name).unwrap().to_vec();
    file.f64(name, &shape).unwrap().into_iter().map(|v| v as f32).collect()
}

#[test]
fn scores_equal_numpy() {
    let golden = Golden::open();
    let (train, head) = (golden.train(), golden.head());
    for (spec, name, tolerance) in [
        ("rmds", "rmds", 1e-6),
        ("rmds_pp", "rmds_pp", 2e-6),
        ("mds_pp", "mds_pp", 2e-6),
        ("residual(principal_dim=8,center=mean)", "residual_d8", 1e-6),
        ("residual(principal_dim=8)", "residual_d8_origin", 1e-6),
        ("vim(principal_dim=8)", "vim_d8_origin", 1e-6),
        ("cadref", "cadref_energy", 2e-6),
        ("cadref(confidence=msp)", "cadref_msp", 2e-6),
        ("cadref(confidence=max_logit)", "cadref_max_logit", 2e-6),
        ("cadref(confidence=gen)", "cadref_gen", 2e-6),
        ("cadref(decoupled=false)", "caref", 2e-6),
        ("kpca", "kpca_cop", 2e-6),
        ("kpca(kernel=corp,features=64)", "kpca_corp", 1e-5),
        ("kpca(kernel=corp,features=40,gamma=0.5,explained=0.6,seed=7)", "kpca_corp_gamma", 1e-5),
        ("nnguide", "nnguide_k10", 2e-6),
        ("nnguide(k=3)", "nnguide_k3", 2e-6),
        ("cfood(alpha=1)", "cfood", 1e-7),
        ("cfood(alpha=1,k=0.05)", "cfood_k5", 1e-7),
        ("relation", "relation", 5e-6),
        ("relation(threshold=0.2,power=4)", "relation_power", 5e-6),
        ("weiper", "weiper", 1e-4),
        (
            "weiper(repeats=6,distance=0.7,bins=24,lambda1=0.5,lambda2=2,smoothing=1,\
             smoothing_perturbed=5,seed=11)",
            "weiper_other",
            1e-4,
        ),
    ] {
        let spec = ScorerSpec::parse(spec).unwrap();
        let scorer = spec.fit(&TrainingData::new(&train).with_head(&head), &mut Silent).unwrap();
        for probe in ["test", "ood"] {
            let got = scorer.score(&golden.set(&format!("{probe}.avg"))).unwrap();
            let want = expected(&format!("{name}.{probe}"));
            close(&format!("{spec} {probe}"), &got, &want, tolerance);
        }
    }
}
