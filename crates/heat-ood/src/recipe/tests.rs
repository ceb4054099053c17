use super::*;
use crate::ebm::{PriorKind, Proposal};
use crate::features::Pooling;
use crate::features::SubsetConfig;

fn resolve(arguments: &[&str]) -> Result<Recipe> {
    Recipe::resolve(arguments, None)
}

/// METHOD §4's table, row by row.
#[test]
fn recipes_hold_the_published_values() {
    type Row = (&'static str, PriorKind, Pooling, f64, Proposal, usize, [f64; 3], [usize; 2]);
    use {
        Pooling::{Avg, Std},
        PriorKind::{El, Gmm},
        Proposal::{BaseDist, RandomNormal},
    };
    let rows: [Row; 6] = [
        ("heat_gmm_c10", Gmm, Avg, 1e3, BaseDist, 40, [1e-4, 5e-3, 10.0], [1024, 20]),
        ("heat_gmm_std_c10", Gmm, Std, 1e3, BaseDist, 1, [1e-4, 5e-3, 10.0], [1024, 20]),
        ("heat_el_c10", El, Avg, 1.0, RandomNormal, 50, [1e-1, 1e-1, 0.1], [256, 20]),
        ("heat_gmm_c100", Gmm, Avg, 1e3, BaseDist, 20, [2e-4, 1e-3, 20.0], [1024, 20]),
        ("heat_gmm_std_c100", Gmm, Std, 1e3, BaseDist, 20, [2e-4, 1e-3, 20.0], [1024, 20]),
        ("heat_el_c100", El, Avg, 1.0, RandomNormal, 200, [1e-1, 1e-2, 1.0], [1024, 8]),
    ];
    for (name, prior, pooling, t_prior, proposal, steps, [step, eps, l2], [batch, epochs]) in rows {
        let recipe = resolve(&[&format!("ebm={name}")]).unwrap();
        let c = &recipe.heat;
        let m = &c.ebm.model;
        assert_eq!(recipe.exp_name, name);
        assert_eq!(
            (c.ebm.prior, c.pooling, m.temperature_prior),
            (prior, pooling, t_prior),
            "{name}"
        );
        assert_eq!(c.normalize, prior == Gmm, "{name}");
        assert_eq!((m.proposal_type, m.steps), (proposal, steps), "{name}");
        let chain = m.langevin();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(chain.step_size.0, step) && near(chain.step_size.1, step / 10.0), "{name}");
        assert!(near(chain.eps.0, eps) && near(chain.eps.1, eps / 10.0), "{name}");
        assert_eq!((c.ebm.loss.l2_coef, c.ebm.loss.eps_data), (l2, 1e-4), "{name}");
        assert_eq!((c.batch_size, c.n_epochs), (batch, epochs), "{name}");
        let o = &c.ebm.optimizer;
        assert_eq!((o.opt.lr, o.opt.betas), (1e-5, [0.0, 0.999]), "{name}");
        assert_eq!((&o.sch.milestones[..], o.sch.gamma), (&[10][..], 0.1), "{name}");
        assert_eq!((m.hidden_dim, m.n_hidden_layers, m.tied, m.temperature), (1024, 4, true, 1.0));
    }
}

/// METHOD §4's table, the rows of ImageNet.
#[test]
fn imagenet_recipes_hold_the_published_values() {
    for (name, t_prior, steps, [step, eps, l2, lr], layers, accum, milestone) in [
        ("heat_gmm_imagenet", 5e3, 10, [1e-7, 1e-4, 10.0, 1e-4], 6, 20, 1),
        ("heat_gmm_std_imagenet", 5e3, 0, [1e-4, 1e-4, 40.0, 1e-4], 6, 20, 1),
        ("heat_el_imagenet", 5e2, 40, [1e3, 1e-3, 20.0, 1e-5], 4, 10, 1000),
    ] {
        let c = resolve(&["dataset=imagenet", &format!("ebm={name}")]).unwrap().heat;
        let m = &c.ebm.model;
        let el = name.contains("el_");
        assert_eq!(c.ebm.prior, if el { PriorKind::El } else { PriorKind::Gmm });
        assert_eq!(c.pooling == Pooling::Std, name.contains("std"));
        let proposal = if el { Proposal::RandomNormal } else { Proposal::BaseDistTemp };
        assert_eq!((m.proposal_type, m.sample_from_batch_statistics), (proposal, !el));
        assert_eq!(m.base_dist.use_simplified_mahalanobis_score, !el);
        assert_eq!((m.temperature_prior, m.steps, m.step_size_start), (t_prior, steps, step));
        assert_eq!((m.eps_start, c.ebm.loss.l2_coef, c.ebm.optimizer.opt.lr), (eps, l2, lr));
        assert_eq!((m.reduce_width, m.hidden_dim, m.n_hidden_layers), (true, 1024, layers));
        assert_eq!((c.batch_size, c.accum_iter, c.n_epochs), (256, accum, 8));
        let schedule = &c.ebm.optimizer.sch;
        assert_eq!(schedule.milestones, [milestone]);
        assert_eq!(schedule.gamma, if el { 0.9 } else { 0.1 });
        assert_eq!(c.normalize, !el);
    }
}

/// Ours: the two differ in their pooling alone.
#[test]
fn shrunk_recipes_shrink() {
    let [avg, std] = ["heat_gmm_shrunk", "heat_gmm_std_shrunk"]
        .map(|name| resolve(&[&format!("ebm={name}")]).unwrap().heat);
    let m = &avg.ebm.model;
    assert_eq!(m.base_dist.shrinkage, crate::scorers::Shrinkage::Ratio(1.0));
    assert_eq!((m.precondition, m.proposal_type), (true, Proposal::Data));
    assert_eq!((avg.pooling, std.pooling), (Pooling::Avg, Pooling::Std));
    assert_eq!(HeatConfig { pooling: Pooling::Avg, ..std }, avg);
}

/// Ours: E_nn alone against given rows.
#[test]
fn the_residual_on_surrogates_has_no_prior() {
    let c = resolve(&["ebm=heat_surrogate", "ebm.model.negatives=some/place"]).unwrap().heat;
    let m = &c.ebm.model;
    assert_eq!((m.proposal_type, m.use_base_dist), (Proposal::Features, false));
    assert_eq!(m.negatives.as_deref(), Some(std::path::Path::new("some/place")));
    assert_eq!((m.hidden_dim, m.n_hidden_layers, m.tied, m.nets), (512, 1, false, 3));
    assert_eq!((m.dropout, c.ebm.optimizer.opt.weight_decay), (0.3, 1e-4));
    assert_eq!((c.pooling, c.normalize, c.standardize), (Pooling::AvgStd, true, true));
    let again = Recipe::parse(&resolve(&["ebm=heat_surrogate"]).unwrap().to_toml()).unwrap();
    assert_eq!(again.heat, resolve(&["ebm=heat_surrogate"]).unwrap().heat);
}

/// The published README's first command.
#[test]
fn the_published_command_is_understood() {
    let recipe = resolve(&[
        "dataset=cifar10",
        "transform=cifar10",
        "backbone=resnet34_c10",
        "ebm=heat_gmm_std_c10",
        "batch_size=1024",
        "n_epochs=20",
        "exp_name=mine",
        "pooling=std",
    ])
    .unwrap();
    assert_eq!(recipe.exp_name, "mine");
    assert_eq!(recipe.dataset.as_ref().unwrap().num_classes, 10);
    assert_eq!(recipe.backbone.as_ref().unwrap().dim, 512);
    assert!(recipe.notices.is_empty());
    let transform = recipe.transform.as_ref().unwrap();
    assert_eq!((transform.resize, transform.crop), (Some(Resize::Exact([32, 32])), None));
    assert_eq!(
        (transform.mean, transform.std),
        ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
    );
    assert_eq!(Recipe::parse(&recipe.to_toml()).unwrap(), recipe);
}

#[test]
fn overrides_reach_every_level() {
    let recipe = resolve(&[
        "ebm.model.steps=7",
        "ebm.optimizer.opt.lr=1e-3",
        "ebm.optimizer.sch.milestones=[2,3]",
        "ebm=heat_el_c10",
        "seed=3",
        "ebm.loss.l2_coef=2",
    ])
    .unwrap();
    let c = recipe.heat;
    assert_eq!((c.ebm.model.steps, c.ebm.optimizer.opt.lr, c.seed), (7, 1e-3, 3));
    assert_eq!((c.ebm.optimizer.sch.milestones, c.ebm.loss.l2_coef), (vec![2, 3], 2.0));
}

#[test]
fn refusals_name_the_key_and_the_nearest() {
    let error = |a: &[&str]| resolve(a).unwrap_err().to_string();
    assert_eq!(
        error(&["ebm.model.stpes=3"]),
        "unknown key `ebm.model.stpes`; did you mean `ebm.model.steps`?"
    );
    assert_eq!(error(&["lr=3"]), "unknown key `lr`; did you mean `ebm.optimizer.opt.lr`?");
    assert_eq!(
        error(&["ebm=heat_gmm_c1"]),
        "unknown recipe `ebm=heat_gmm_c1`; did you mean `ebm=heat_gmm_c10`?"
    );
    assert!(
        error(&["ebm.model.steps=many"])
            .starts_with("`ebm.model.steps` = \"many\": expected a whole number")
    );
    assert!(error(&["steps"]).contains("written `key=value`"));
    assert!(error(&["ebm.model.use_svgd=3"]).contains("use_svgd"));
    assert!(error(&["ebm.loss.objective=mle"]).contains("objective"));
    let wrong = error(&["ebm.model.base_dist.shrinkage=lots"]);
    assert!(wrong.contains("ledoit_wolf") && wrong.contains("base_dist.shrinkage"), "{wrong}");
    assert!(error(&["ebm.model.temperature=0"]).contains("positive"));
    assert!(error(&["batch_size=0"]).contains("at least 1"));
    assert!(error(&["batch_size.x=0"]).contains("batch_size"));
    assert!(error(&["ebm=../x"]).contains("unknown recipe"));
    let clash = error(&["pooling=std", "ebm.model.base_dist.pooling=avg"]);
    assert!(clash.contains("same features"), "{clash}");
}

#[test]
fn training_subsets() {
    let recipe = resolve(&[
        "dataset=cifar10",
        "dataset.subset.proportion=0.1",
        "dataset.subset.number_labels=5",
        "dataset.subset.random_state=3",
    ])
    .unwrap();
    let subset = recipe.dataset.as_ref().unwrap().subset.clone();
    let want = SubsetConfig { proportion: Some(0.1), number_labels: Some(5), random_state: 3 };
    assert_eq!(subset, want);
    assert_eq!(Recipe::parse(&recipe.to_toml()).unwrap().dataset, recipe.dataset);
    let of = |a: &[&str]| resolve(a).unwrap().dataset.unwrap().subset;
    assert_eq!(of(&["dataset.subset.proportion=1"]).proportion, Some(1.0));
    assert!(of(&["dataset=cifar10", "dataset.subset.proportion=None"]).is_default());
    assert!(of(&["dataset=cifar10", "dataset.subset=null"]).is_default());
    let error = |a: &[&str]| resolve(a).unwrap_err().to_string();
    assert_eq!(
        error(&["dataset.subset.propotion=0.1"]),
        "unknown key `dataset.subset.propotion`; did you mean `dataset.subset.proportion`?"
    );
    assert!(error(&["dataset.subset.number_labels=-1"]).contains("`dataset.subset.number_labels`"));
    assert!(error(&["dataset.subset=3"]).contains("expected a group of keys"));
}

#[test]
fn keys_without_meaning_are_noticed() {
    let recipe = resolve(&["print_freq=10", "ebm.model.use_sgld=true"]).unwrap();
    assert_eq!(recipe.notices, ["`print_freq` has no effect: progress is shown as it happens"]);
}

#[test]
fn a_users_folder_comes_first() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("ebm")).unwrap();
    let file = directory.path().join("ebm/heat_gmm_c10.toml");
    std::fs::write(file, "[model]\nsteps = 3\n[run]\nbatch_size = 5\n").unwrap();
    let recipe = Recipe::resolve(&["ebm=heat_gmm_c10"], Some(directory.path())).unwrap();
    assert_eq!((recipe.heat.ebm.model.steps, recipe.heat.batch_size), (3, 5));
}

/// METHOD §1's data sets are all there, each with a place for its images.
#[test]
fn every_set_of_a_benchmark_has_its_images() {
    for name in ["cifar10", "cifar100", "imagenet"] {
        let recipe = resolve(&[&format!("dataset={name}")]).unwrap().dataset.unwrap();
        let id = ImagesRecipe::named(&recipe.ID_NAME, None).unwrap();
        assert!(id.train.is_some_and(|p| !p.paths.is_empty()), "{name}");
        for set in recipe.ood.iter().chain([&recipe.ID_NAME]) {
            let images = ImagesRecipe::named(set, None).unwrap();
            assert!(images.test.is_some_and(|p| !p.paths.is_empty()), "{set}");
            assert!(images.download.is_some() && images.format.is_some(), "{set}");
        }
        transform(&recipe.transform, None).unwrap();
    }
    assert_eq!(transform("imagenet", None).unwrap(), TransformConfig::imagenet());
    let error = ImagesRecipe::named("cifar11", None).unwrap_err().to_string();
    assert!(error.contains("did you mean"), "{error}");
}

#[test]
fn images_are_found_below_the_data_directory() {
    let root = tempfile::tempdir().unwrap();
    let svhn = ImagesRecipe::named("svhn", None).unwrap();
    let error = svhn.find("svhn", false, root.path()).unwrap_err().to_string();
    assert!(
        error.contains("SVHN/test_32x32.mat") && error.contains("heat data get svhn"),
        "{error}"
    );
    std::fs::create_dir(root.path().join("svhn")).unwrap();
    std::fs::write(root.path().join("svhn/test_32x32.mat"), "").unwrap();
    let (found, options) = svhn.find("svhn", false, root.path()).unwrap();
    assert_eq!(found, root.path().join("svhn/test_32x32.mat"));
    assert_eq!(options.format, Some(Format::Svhn));
    let lsun = ImagesRecipe::named("lsun", None).unwrap();
    let error = lsun.find("lsun", true, root.path()).unwrap_err().to_string();
    assert!(error.contains("no training images"), "{error}");
    // One's own recipe comes first.
    let own = root.path().join("pictures");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("svhn.toml"), "[test]\npaths = [\"mine\"]\n").unwrap();
    let mine = ImagesRecipe::named("svhn", Some(root.path())).unwrap();
    assert_eq!((mine.test.unwrap().paths, mine.format), (vec!["mine".to_owned()], None));
}
