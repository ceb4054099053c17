//! `heat scorers`: every scorer, its formula, its settings and what it needs.

use std::fmt::Write;

use anyhow::Result;
use heat_ood::features::{Field, View};
use heat_ood::scorers::{Group, Labels, Listed, catalogue};
use serde_json::{Value, json};

use super::{outputs::made, write_output};
use crate::args::{Form, ScorersArgs};

/// Formulas in short; docs/methods.md has them in full, with references.
const FORMULAS: [(&str, &str); 55] = [
    ("msp", "1 − max p, p = softmax(logits)"),
    ("max_logit", "−max logits"),
    ("el", "−logsumexp(logits)"),
    ("joint_energy", "−Σ_k log(1 + exp logit_k)"),
    ("klm", "min_k KL(p ‖ mean p of training rows predicted as k)"),
    ("odin", "−max softmax(logits/T)"),
    ("temperature", "1 − max softmax(logits/T), T fitted to the labels"),
    (
        "openmax",
        "log-odds of an unknown class, by Weibull tails of distances of logits to class means",
    ),
    ("gen", "Σ p^γ (1−p)^γ over the m largest p"),
    ("entropy", "−Σ p log p"),
    ("gmm", "−log Σ_k π_k N(z; μ_k, Σ)"),
    ("ssd", "min_k (z−μ_k)ᵀ Σ⁻¹ (z−μ_k), z normalised"),
    ("maha", "min_k (z−μ_k)ᵀ Σ⁻¹ (z−μ_k)"),
    ("mds_pp", "ssd by its name in Mahalanobis++"),
    ("rmds", "min_k M_k − M_0, Mahalanobis distances to classes and to all rows"),
    ("rmds_pp", "the same, z normalised"),
    ("mean", "−max_k z·m_k, m_k the class mean"),
    ("norm", "‖z‖"),
    ("knn", "squared distance to the k-th nearest training row"),
    ("nnguide", "−E(z)·mean of the k largest E(x)·cos(z, x), E = logsumexp(logits)"),
    ("cfood", "rank of z's distances among those of reference rows"),
    ("relation", "−Σ_x s(z, x)^power, s = max(0, cos(z, x))·p(z)·p(x) above threshold"),
    ("lid", "k / Σ log(r_k/r_i), r_i the distances to the k nearest training rows"),
    ("dknn", "how many of the k nearest training rows have another label than the predicted class"),
    ("trust", "distance to the predicted class ÷ distance to the nearest other class"),
    ("vim", "α‖Rᵀ(z−o)‖ − logsumexp(logits), R the directions of least variance"),
    ("residual", "‖Rᵀ(z−o)‖"),
    ("kpca", "reconstruction error of kernel principal components"),
    ("neco", "−max logits·‖Px‖/‖x‖, P the principal directions"),
    ("dice", "−logsumexp of the head's strongest weights"),
    ("cosine", "−logsumexp_c cos(z, W_c)"),
    ("react", "−logsumexp(W min(z, t) + b), t a quantile of all coordinates"),
    ("ash_p", "−logsumexp(Wh + b), h the largest coordinates of z"),
    ("ash_b", "the same, each replaced by their mean"),
    ("ash_s", "ash_p with h scaled by exp(S/S_k)"),
    ("scale", "−logsumexp(Wz·exp(S/S_k) + b)"),
    ("lts", "−logsumexp(logits·(S/S_k)²)"),
    ("vra", "−logsumexp(W f(z) + b), f cuts each column at two quantiles"),
    ("she", "−z·S_ŷ, S_k the mean of rows predicted correctly as k"),
    ("gradnorm", "−‖z‖₁ Σ|p − 1/C| / T"),
    ("graduncertainty", "−(‖z‖² + 1)·Σ (C·p − 1)²"),
    ("nac", "−mean coverage of the neurons' activities, sigmoid(α·z·∂KL(uniform ‖ p)/∂z)"),
    ("fdbd", "−mean distance to the boundaries of the predicted class, over ‖z−μ‖"),
    ("nci", "−w_ŷ·(z−μ)/‖z−μ‖ − α‖z‖₁"),
    ("pnml", "log Σ p/(p + (1−p)p^g) / log C, g by the training rows"),
    ("cadref", "e⁺/E(z) + e⁻/mean E, e± the parts of z − m_y by the head's signs"),
    ("weiper", "divergences of z and of perturbed logits from their usual histograms"),
    ("gram", "deviations of Gram matrices of maps from the bounds of the predicted class"),
    ("rankfeat", "−logsumexp of the logits without the map's first singular component"),
    ("feature_squeezing", "max over squeezed views of ‖softmax(logits) − softmax(view's logits)‖"),
    ("adascale_a", "−logsumexp(W·z·exp(S/S_k) + b), k by how much the moved image changes z"),
    ("adascale_l", "−logsumexp of the logits times (S/S_k)², k as for adascale_a"),
    ("jtla", "Σ −ln p of the labels of the k nearest rows of each layer, and of pairs of layers"),
    (
        "odds",
        "max over classes of how much more noise speaks for them than it does for ordinary images",
    ),
    (
        "mcd",
        "mean variance of the probabilities over passes with dropout, or 1 − max of their mean",
    ),
];

fn formula(name: &str) -> &'static str {
    FORMULAS.iter().find(|(n, _)| *n == name).map_or("", |(_, formula)| formula)
}

pub fn run(args: &ScorersArgs) -> Result<()> {
    let named = |listed: &&Listed| match &args.group {
        None => true,
        Some(group) if group.0 == Group::All => true,
        Some(group) => group.0.scorers().iter().any(|spec| spec.name == listed.name),
    };
    let listed: Vec<&Listed> = catalogue().iter().filter(named).collect();
    let text = match args.format {
        Form::Table => table(&listed),
        Form::Json => json(&listed),
    };
    write_output(None, &text)
}

fn needs(listed: &Listed) -> String {
    let needs = listed.needs();
    let labels = match needs.labels {
        Labels::No => None,
        Labels::Yes => Some("labels"),
        Labels::UnlessClustered | Labels::UnlessSeveral => Some("labels or kmeans="),
    };
    let classifier = match (needs.head, needs.logits) {
        (true, _) => Some("head"),
        (_, true) => Some("logits or head"),
        _ => None,
    };
    let maps = needs.maps.map(|field| format!("{0} (heat extract --for {0})", field.name()));
    let views: Vec<String> = needs.views.iter().map(View::to_string).collect();
    let views = (!views.is_empty())
        .then(|| format!("{} (heat extract --views {})", views.join(", "), views.join(",")));
    let both = labels.into_iter().chain(classifier).map(str::to_owned);
    let all: Vec<String> = both.chain(maps).chain(views).collect();
    if all.is_empty() { "–".to_owned() } else { all.join(", ") }
}

/// Settings of its own with their defaults; those of all are told below the table.
fn settings(listed: &Listed) -> String {
    const COMMON: [&str; 5] = ["pooling", "react", "normalize", "pca", "whiten"];
    let own = listed.settings.iter().filter(|(key, _)| !COMMON.contains(&key.as_str()));
    let text = |(key, value): &(String, Value)| match value {
        Value::Null => format!("{key}="),
        Value::String(text) => format!("{key}={text}"),
        value => format!("{key}={value}"),
    };
    own.map(text).collect::<Vec<_>>().join(" ")
}

fn table(listed: &[&Listed]) -> String {
    let mut out = String::new();
    let width = listed.iter().map(|l| l.name.len()).max().unwrap_or(0);
    for listed in listed {
        let _ = writeln!(out, "{:<width$}  {}", listed.name, formula(listed.name));
        let _ = writeln!(out, "{:<width$}  needs: {}", "", needs(listed));
        let settings = settings(listed);
        if !settings.is_empty() {
            let _ = writeln!(out, "{:<width$}  {settings}", "");
        }
    }
    let groups: Vec<&str> = Group::ALL.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(
        out,
        "\nSettings of all: react=QUANTILE normalize=true|false pca=N whiten=true, before the formula; \
         pooling=avg|std|max where\nfeatures are read. A setting without a value has no default, or one \
         that goes with the data.\nGroups for --scorers: {}.",
        groups.join(", ")
    );
    out
}

fn json(listed: &[&Listed]) -> String {
    let one = |l: &&Listed| {
        let settings: serde_json::Map<String, Value> = l.settings.iter().cloned().collect();
        let needs = l.needs();
        let labels = match needs.labels {
            Labels::No => json!(false),
            Labels::Yes => json!(true),
            Labels::UnlessClustered | Labels::UnlessSeveral => json!("unless kmeans="),
        };
        let maps = needs.maps.map(Field::name);
        let views: Vec<String> = needs.views.iter().map(View::to_string).collect();
        let needs = json!({
            "labels": labels,
            "logits": needs.logits,
            "head": needs.head,
            "maps": maps,
            "views": views,
        });
        let about = json!({"formula": formula(l.name), "needs": needs, "settings": settings});
        (l.name.to_owned(), about)
    };
    let scorers: serde_json::Map<String, Value> = listed.iter().map(one).collect();
    format!("{:#}\n", json!({"scorers": scorers, "made": made(Default::default())}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scorer_has_its_formula() {
        for listed in catalogue() {
            assert!(!formula(listed.name).is_empty(), "{}", listed.name);
        }
        assert_eq!(FORMULAS.len(), catalogue().len());
    }
}
