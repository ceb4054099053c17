//! `heat import`: a detector from a network that PyTorch trained.

use anyhow::Result;
use heat_ood::ebm::Heat;
use heat_ood::ebm::mlp::{Architecture, Mlp};
use heat_ood::ebm::torch::{self, ReadOptions};
use heat_ood::features::Field;
use heat_ood::io::kind_of;
use heat_ood::recipe::Recipe;
use heat_ood::{Error, Fitted};

use super::{Data, refuse_overwriting, scorers, wrote};
use crate::args::ImportArgs;
use crate::progress::Progress;

/// The recipe names prior, pooling and temperatures; the prior is fitted, the
/// network read.
pub fn run(args: &ImportArgs, progress: &mut Progress) -> Result<()> {
    let mut inputs = vec![&*args.network, &*args.data.train];
    inputs.extend([&args.data.labels, &args.data.head].into_iter().flatten().map(|p| &**p));
    refuse_overwriting(Some(&args.output), &inputs)?;
    let recipe = Recipe::resolve(&args.settings, args.recipes.as_deref())?;
    for notice in &recipe.notices {
        progress.say(&format!("note: {notice}"));
    }
    let data = recipe.training_data(&Data::open(&args.data, progress)?.training())?;
    recipe.check_backbone(&data.features)?;
    let field = Field::Features(recipe.heat.pooling);
    let input_dim = data.features.require(field)?;
    let net = read(args, &recipe, input_dim)?;
    let prior = recipe.heat.fit_prior(&data, progress)?;
    let model = &recipe.heat.ebm.model;
    let heat = Heat::new(prior, net, model.temperature, model.prior_temperature(), input_dim)?;
    let source = args.network.file_name().unwrap_or_default().to_string_lossy();
    let text = format!("# network read from {source}\n{}", recipe.to_toml());
    scorers::detector(Fitted::on(&data, heat)?, &text).save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}

/// The file's network, checked against the recipe before anything is fitted.
fn read(args: &ImportArgs, recipe: &Recipe, input_dim: usize) -> Result<Mlp> {
    let config = &recipe.heat;
    let dim = if config.use_pca { config.pca_n_principal_components } else { input_dim };
    // The mean of several networks is exported as one that is as many times as wide.
    let one = config.ebm.model.architecture(dim);
    let expected = Architecture { hidden_dim: one.hidden_dim * config.ebm.model.nets, ..one };
    let Architecture { tapered, tied, .. } = expected;
    // A recipe without shared layers takes equal ones as apart; one with them
    // must find them equal, which `expect` says best.
    let apart = (!tapered && !tied).then_some(false);
    let options = ReadOptions { tied: apart, prefix: args.prefix.clone() };
    let net = torch::read(&args.network, &options).map_err(|error| {
        // What is no archive and no pickle is better named by what it is.
        let near = ["PyTorch", "TorchScript", "pickle", "zip"];
        let bytes = heat_ood::io::map(&args.network).ok();
        match bytes.and_then(|bytes| kind_of(&bytes)) {
            Some(kind) if !near.iter().any(|word| kind.contains(word)) => {
                Error::format(&args.network, format!("is {kind}, not a PyTorch checkpoint"))
            }
            _ => error,
        }
    })?;
    torch::expect(&args.network, &net, expected)?;
    Ok(net)
}
