//! Keys of the published configuration that need translation.
//!
//! Some have no meaning here and are accepted with a notice; some repeat
//! another key and must agree with it.

use toml::{Table, Value};

use crate::error::{Error, Result};

/// Accepted with a notice.
const IGNORED: [(&str, &str); 10] = [
    ("print_freq", "progress is shown as it happens"),
    ("eval_freq", "evaluate with `heat eval`"),
    ("eval_max_iter", "evaluate with `heat eval`"),
    ("eval_prior", "evaluate the prior as a scorer of its own"),
    ("load_from_checkpoint", "resume the run instead"),
    ("ckpt_path", "resume the run instead"),
    ("distributed", "one process uses all cores"),
    ("dataset.features_dataset", "the training features are given apart"),
    ("ebm.model.base_dist.max_fit_iter", "the prior is fitted on all rows"),
    ("ebm.model.base_dist.cache_base_dist", "the prior is kept in the checkpoint"),
];

/// Must agree with the top-level key.
const REPEATED: [(&str, &str); 3] = [
    ("ebm.model.base_dist.pooling", "pooling"),
    ("ebm.model.base_dist.normalize", "normalize"),
    ("ebm.model.base_dist.use_pca", "use_pca"),
];

/// May be said to be absent.
const SUBSET: [&str; 4] = [
    "dataset.subset",
    "dataset.subset.proportion",
    "dataset.subset.number_labels",
    "dataset.subset.random_state",
];

/// All of these keys.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let ignored = IGNORED.iter().map(|(k, _)| *k);
    ignored.chain(REPEATED.iter().map(|(k, _)| *k))
}

/// Take these keys out of `table`; returns the notices.
pub(super) fn translate(table: &mut Table) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    for (key, why) in IGNORED {
        if take(table, key).is_some() {
            notices.push(format!("`{key}` has no effect: {why}"));
        }
    }
    for (key, top) in REPEATED {
        let Some(value) = take(table, key) else {
            continue;
        };
        match table.get(top) {
            None => {
                table.insert(top.to_owned(), value);
            }
            Some(same) if *same == value => {}
            Some(other) => {
                let problem =
                    format!("prior and network read the same features: `{top}` is {other}");
                return Err(Error::config(key, value, problem));
            }
        }
    }
    for key in SUBSET {
        // Python's and YAML's words for "not set".
        if let Some(value) = take(table, key)
            && !matches!(value.as_str(), Some("None" | "null" | "~" | ""))
        {
            super::set(table, key, value)?;
        }
    }
    Ok(notices)
}

fn take(table: &mut Table, key: &str) -> Option<Value> {
    match key.split_once('.') {
        None => table.remove(key),
        Some((group, rest)) => match table.get_mut(group)? {
            Value::Table(t) => take(t, rest),
            _ => None,
        },
    }
}
