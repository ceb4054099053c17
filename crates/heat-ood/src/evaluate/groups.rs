//! Near and far OOD sets.

use serde::Serialize;

use crate::error::{Error, Result};

/// Which OOD sets are near the ID set (of like classes) and which far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// Names of the near sets, in the order of the report.
    pub near: Vec<String>,
    /// Names of the far sets.
    pub far: Vec<String>,
}

const FAR_OF_CIFAR: [&str; 4] = ["mnist", "svhn", "texture", "places365"];
const NEAR_OF_IMAGENET: [&str; 2] = ["ssb_hard", "ninco"];
const FAR_OF_IMAGENET: [&str; 3] = ["inaturalist", "texture", "openimage_o"];

/// ID set, near and far sets of OpenOOD v1.5 (Zhang et al., 2023), in its order.
type Benchmark = (&'static str, &'static [&'static str], &'static [&'static str]);
const OPENOOD: [Benchmark; 4] = [
    ("cifar10", &["cifar100", "tin"], &FAR_OF_CIFAR),
    ("cifar100", &["cifar10", "tin"], &FAR_OF_CIFAR),
    ("imagenet200", &NEAR_OF_IMAGENET, &FAR_OF_IMAGENET),
    ("imagenet", &NEAR_OF_IMAGENET, &FAR_OF_IMAGENET),
];

/// Spelling of the data sets' names does not matter: OpenOOD itself has both
/// `texture` and `textures`.
fn plain(name: &str) -> String {
    let name: String = name.chars().filter(|c| c.is_alphanumeric()).collect();
    match name.to_lowercase().as_str() {
        "textures" | "dtd" => "texture".into(),
        "tinyimagenet" | "tinyimagenet200" => "tin".into(),
        "places" => "places365".into(),
        "openimages" | "openimageso" => "openimageo".into(),
        other => other.into(),
    }
}

impl Groups {
    /// The groups of OpenOOD v1.5 for an ID set, as far as there are such
    /// sets; any usual spelling of their names is taken.
    ///
    /// # Errors
    /// If the benchmark is unknown, or a group would be empty.
    pub fn openood<S: AsRef<str>>(benchmark: &str, sets: &[S]) -> Result<Self> {
        let found = OPENOOD.iter().find(|(name, ..)| plain(name) == plain(benchmark));
        let Some((_, near, far)) = found else {
            let known = OPENOOD.iter().map(|(name, ..)| *name);
            return Err(Error::unknown("benchmark", benchmark, known));
        };
        let present = |list: &[&str]| -> Result<Vec<String>> {
            let mut out = Vec::new();
            for name in list {
                let same = sets.iter().map(AsRef::as_ref).filter(|s| plain(s) == plain(name));
                let found: Vec<&str> = same.collect();
                if let [first, second, ..] = found[..] {
                    let problem = format!(
                        "`{first}` and `{second}` both go by the name {name}; leave one out, or name \
                         your own near and far sets"
                    );
                    return Err(Error::config("groups", benchmark, problem));
                }
                out.extend(found.into_iter().map(str::to_owned));
            }
            Ok(out)
        };
        let groups = Groups { near: present(near)?, far: present(far)? };
        for (key, group, known) in [("near", &groups.near, near), ("far", &groups.far, far)] {
            if group.is_empty() {
                let problem = format!(
                    "none of its {key} sets ({}) is among the OOD sets; name your own near and far sets",
                    known.join(", ")
                );
                return Err(Error::config("groups", benchmark, problem));
            }
        }
        Ok(groups)
    }

    /// Whether the groups can be those of these sets.
    ///
    /// # Errors
    /// If a group is empty or names a set that is not there or twice, or a
    /// set goes by the name of a group.
    pub fn check<S: AsRef<str>>(&self, sets: &[S]) -> Result<()> {
        let names = || sets.iter().map(AsRef::as_ref);
        for (key, group) in [("near", &self.near), ("far", &self.far)] {
            if group.is_empty() {
                return Err(Error::config(key, "", "name at least one OOD set of that group"));
            }
            if names().any(|name| name == key) {
                let problem = "an OOD set has the name of a group; write NAME=FEATURES";
                return Err(Error::config("ood", key, problem));
            }
            for name in group {
                if !names().any(|known| known == name) {
                    return Err(Error::unknown("OOD set", name, names()));
                }
                let times = self.near.iter().chain(&self.far).filter(|n| *n == name).count();
                if times > 1 {
                    return Err(Error::config(key, name, "that set is in the groups twice"));
                }
            }
        }
        Ok(())
    }

    /// Sets that are in neither group.
    pub fn others<'a, S: AsRef<str>>(&self, sets: &'a [S]) -> Vec<&'a str> {
        let grouped = |name: &str| self.near.iter().chain(&self.far).any(|n| n == name);
        sets.iter().map(AsRef::as_ref).filter(|name| !grouped(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openood_takes_what_is_there_in_its_order() {
        let sets = ["scenes", "textures", "TIN", "mnist", "cifar100", "iSUN"];
        let groups = Groups::openood("cifar-10", &sets).unwrap();
        assert_eq!(groups.near, ["cifar100", "TIN"]);
        assert_eq!(groups.far, ["mnist", "textures"]);
        assert_eq!(groups.others(&sets), ["scenes", "iSUN"]);
        groups.check(&sets).unwrap();
        let imagenet = ["ninco", "ssb-hard", "OpenImage-O"];
        let groups = Groups::openood("imagenet", &imagenet).unwrap();
        assert_eq!(groups.near, ["ssb-hard", "ninco"]);
        assert_eq!(groups.far, ["OpenImage-O"]);
    }

    #[test]
    fn refusals_say_what_there_is() {
        let error = |r: Result<Groups>| r.unwrap_err().to_string();
        let text = error(Groups::openood("cifar1000", &["tin"]));
        assert!(text.contains("did you mean `cifar100`?"), "{text}");
        let twice = ["tiny-imagenet-200", "texture", "DTD"];
        let text = error(Groups::openood("cifar10", &twice));
        assert!(text.contains("`texture` and `DTD` both go by the name texture"), "{text}");
        let text = error(Groups::openood("cifar10", &["tin"]));
        assert!(text.contains("far sets (mnist, svhn"), "{text}");
        let check = |near: &[&str], far: &[&str], sets: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
            Groups { near: own(near), far: own(far) }.check(sets).unwrap_err().to_string()
        };
        assert!(check(&["mnits"], &["a"], &["mnist", "a"]).contains("did you mean `mnist`?"));
        assert!(check(&[], &["a"], &["a"]).contains("at least one"));
        assert!(check(&["a"], &["a"], &["a"]).contains("twice"));
        assert!(check(&["near"], &["a"], &["near", "a"]).contains("name of a group"));
    }
}
