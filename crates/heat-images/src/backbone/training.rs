//! A graph that was exported in training mode, put into evaluation mode: dropout passes all values on, and batch
//! normalisation takes the means and variances that it has stored. Else the features of an image would differ from
//! run to run, and hang on the images beside it.

use std::path::Path;

use super::proto::{Model, Node};
use super::rewrite;
use heat_ood::Result;

/// Operators that draw numbers at each run.
const RANDOM: [&str; 6] = [
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// What is said of a model that trains: which operators do, how many.
pub(super) fn notes(model: &Model) -> Vec<String> {
    let nodes = || model.graph.iter().flat_map(|g| &g.node);
    let count = |op: &str| nodes().filter(|n| n.op == op && trains(n)).count();
    let mut notes = Vec::new();
    let (dropout, normalisation) = (count("Dropout"), count("BatchNormalization"));
    if dropout + normalisation > 0 {
        notes.push(format!(
            "the graph was exported in training mode ({dropout} Dropout, {normalisation} BatchNormalization): it is run \
             in evaluation mode"
        ));
    }
    if let Some(node) = nodes().find(|n| RANDOM.contains(&n.op.as_str())) {
        notes.push(format!(
            "its operator `{}` ({}) draws numbers at each run: features of the same image may differ",
            node.name, node.op
        ));
    }
    notes
}

/// Whether some of its operators train.
pub(super) fn some_do(model: &Model) -> bool {
    model.graph.iter().flat_map(|g| &g.node).any(trains)
}

/// The model in evaluation mode.
///
/// # Errors
/// If it is not a whole model.
pub(super) fn ended(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    rewrite::nodes(path, bytes, |node| trains(&node).then(|| vec![evaluating(node)]))
}

/// Whether an operator has been told to train, or may be told: in evaluation mode all of them do nothing else.
fn trains(node: &Node) -> bool {
    match node.op.as_str() {
        "Dropout" => node.input.get(2).is_some_and(|mode| !mode.is_empty()),
        // Before version 14 it trains where it has further outputs.
        "BatchNormalization" => node.int("training_mode", 0) != 0 || node.output.len() > 1,
        _ => false,
    }
}

fn evaluating(mut node: Node) -> Node {
    node.output.truncate(1);
    if node.op == "Dropout" {
        // Its probability stays, for passes with dropout.
        node.input.truncate(2);
    }
    node.attribute.retain(|a| a.name != "training_mode");
    node
}
