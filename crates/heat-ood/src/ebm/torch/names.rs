//! Which tensors of a checkpoint are the network's, and what network they make.

use std::collections::BTreeMap;
use std::path::Path;

use super::ReadOptions;
use crate::ebm::mlp::{Architecture, Place};
use crate::error::{Error, Result};
use crate::torch::{Tensor, is_float, likeliest, quoted};

/// Tensors by their names from `mlp.` on.
pub(super) type Group = BTreeMap<String, Tensor>;

/// The tensors of the one network in the file.
pub(super) fn group(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    options: &ReadOptions,
) -> Result<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut others = Vec::new();
    for (name, tensor) in tensors {
        match split(&name) {
            Some((prefix, rest)) => {
                groups.entry(prefix.into()).or_default().insert(rest.into(), tensor);
            }
            None => others.push(name),
        }
    }
    if let Some(prefix) = &options.prefix {
        let names: Vec<String> = groups.keys().cloned().collect();
        return groups.remove(prefix).ok_or_else(|| {
            let remedy = format!("it has networks under: {}", quoted(&names));
            Error::missing(path.display().to_string(), format!("`{prefix}mlp.0.weight`"), remedy)
        });
    }
    let prefix = likeliest(path, groups.keys().cloned().collect())?;
    prefix.and_then(|prefix| groups.remove(&prefix)).ok_or_else(|| {
        others.sort();
        let remedy = match others.len() {
            0 => "it holds no tensor at all".into(),
            _ => format!("it holds: {}", quoted(&others)),
        };
        Error::missing(path.display().to_string(), "tensors named `mlp.0.weight` …", remedy)
    })
}

/// A name cut before its last `mlp.N`.
fn split(name: &str) -> Option<(&str, &str)> {
    let starts = |at: usize| at == 0 || name[..at].ends_with('.');
    let numbered = |at: usize| name[at + 4..].starts_with(|c: char| c.is_ascii_digit());
    let mut places = name.rmatch_indices("mlp.").map(|(at, _)| at);
    places.find(|at| starts(*at) && numbered(*at)).map(|at| name.split_at(at))
}

/// The network whose tensors these are, taken as untied, with every tensor
/// checked against it.
pub(super) fn architecture(path: &Path, group: &Group) -> Result<(Architecture, Vec<Place>)> {
    let names: Vec<String> = group.keys().cloned().collect();
    let first = group.get("mlp.0.weight").map(Tensor::shape);
    let &[hidden_dim, input_dim] = first.ok_or_else(|| {
        let remedy = format!("it holds: {}", quoted(&names));
        Error::missing(path.display().to_string(), "tensor `mlp.0.weight`", remedy)
    })?
    else {
        return Err(Error::Shape {
            place: path.display().to_string(),
            tensor: "mlp.0.weight".into(),
            expected: "[H, D]".into(),
            got: format!("{:?}", first.unwrap_or_default()),
        });
    };
    let numbers: Vec<Vec<usize>> = names.iter().map(|name| numbers(name)).collect();
    let tapered = numbers.iter().any(|n| n.len() > 1);
    let last = numbers.iter().filter_map(|n| n.first().copied()).max().unwrap_or(0);
    let n_hidden_layers = if tapered { last.saturating_sub(2) } else { (last / 2).max(1) - 1 };
    let found = Architecture { input_dim, hidden_dim, n_hidden_layers, tied: false, tapered };
    let places = found.places().map_err(|e| Error::format(path, e.to_string()))?;
    compare(path, group, &places)?;
    Ok((found, places))
}

/// The numbers after `mlp.`.
fn numbers(name: &str) -> Vec<usize> {
    name.split('.').skip(1).map_while(|part| part.parse().ok()).collect()
}

/// Every name that is missing, that should not be there, or whose tensor is
/// not a float matrix of the right shape, in one error.
fn compare(path: &Path, group: &Group, places: &[Place]) -> Result<()> {
    let mut rest: BTreeMap<&str, &Tensor> = group.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let mut problems = Vec::new();
    for place in places {
        for (end, shape) in [("weight", &place.shape[..]), ("bias", &place.shape[..1])] {
            let name = format!("{}.{end}", place.name);
            match rest.remove(name.as_str()) {
                None => problems.push(format!("`{name}` {shape:?} is missing")),
                Some(t) if t.shape() != shape => {
                    problems
                        .push(format!("`{name}` has shape {:?}, expected {shape:?}", t.shape()));
                }
                Some(t) if !is_float(t.dtype()) => {
                    problems
                        .push(format!("`{name}` has type {:?}, expected a float type", t.dtype()));
                }
                Some(_) => {}
            }
        }
    }
    problems.extend(rest.into_keys().map(|name| format!("`{name}` is unexpected")));
    if problems.is_empty() {
        return Ok(());
    }
    let problem = format!("not a network of the published code: {}", problems.join("; "));
    Err(Error::format(path, problem))
}
