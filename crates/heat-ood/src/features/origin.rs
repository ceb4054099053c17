//! Which network made a set's features, and of images transformed how.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::TensorFile;

/// Where features come from. What fits features of one network says nothing about those of
/// another, though dimensions agree and scores look as sure as ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the network's file, for people.
    pub network: String,
    /// SHA-256 of that file, and which of its outputs are the features.
    pub network_sha256: String,
    /// Where in the network the features are taken.
    pub tap: String,
    /// From images to its input, as JSON.
    pub transform: String,
    /// SHA-256 of the values of its last layer, where it has one ([`super::Head::digest`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_sha256: Option<String>,
    /// Further layers by name, each with where in the network it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layers: BTreeMap<String, String>,
    /// What the network was run on and how exactly, where that was not the processor: such features
    /// have other last bits, and mean the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// The text of a safetensors file that holds it.
pub(super) const KEY: &str = "origin";

impl Origin {
    /// Of a file of features, where it says.
    pub(super) fn of_file(file: &TensorFile) -> Result<Option<Self>> {
        let parse = |text: &str| {
            serde_json::from_str(text).map_err(|e| {
                let problem = format!("the text `{KEY}` of its header is not readable: {e}");
                Error::format(file.path(), problem)
            })
        };
        file.metadata(KEY).map(parse).transpose()
    }

    /// As the text of a file's header.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// How another differs in what makes features other features, in words.
    pub fn difference(&self, other: &Origin) -> Option<String> {
        let short = |digest: &str| digest.chars().take(12).collect::<String>();
        if self.network_sha256 != other.network_sha256 {
            let said = |o: &Origin| format!("{} ({}…)", o.network, short(&o.network_sha256));
            return Some(format!("network {} and not {}", said(other), said(self)));
        }
        if self.tap != other.tap {
            return Some(format!("layer {} and not {}", other.tap, self.tap));
        }
        if self.transform != other.transform {
            return Some(format!("transform {} and not {}", other.transform, self.transform));
        }
        // A set may have layers that another does not need.
        let both =
            self.layers.iter().filter_map(|(name, at)| Some((name, at, other.layers.get(name)?)));
        let mut differing = both.filter(|(_, at, other)| at != other);
        differing.next().map(|(name, at, other)| format!("layer {name} at {other} and not at {at}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            network: "net.onnx".into(),
            network_sha256: "0123456789abcdef".into(),
            tap: "flatten".into(),
            transform: "{}".into(),
            head_sha256: None,
            layers: BTreeMap::new(),
            device: None,
        }
    }

    #[test]
    fn differences_are_named() {
        let ours = origin();
        assert_eq!(ours.difference(&origin()), None);
        let renamed = Origin { network: "copy.onnx".into(), ..origin() };
        assert_eq!(ours.difference(&renamed), None, "a name is no difference");
        let elsewhere = Origin { device: Some("cuda:0, f32".into()), ..origin() };
        assert_eq!(ours.difference(&elsewhere), None, "nor is the device");
        let other = Origin { network_sha256: "fedcba9876543210".into(), ..origin() };
        let said = ours.difference(&other).unwrap();
        assert_eq!(said, "network net.onnx (fedcba987654…) and not net.onnx (0123456789ab…)");
        let mid = |at: &str| Origin { layers: [("mid".into(), at.into())].into(), ..origin() };
        assert_eq!(mid("a").difference(&origin()), None, "not all sets need all layers");
        assert_eq!(mid("a").difference(&mid("b")).unwrap(), "layer mid at b and not at a");
        let other = Origin { transform: "{\"crop\":224}".into(), ..origin() };
        assert_eq!(ours.difference(&other).unwrap(), "transform {\"crop\":224} and not {}");
    }
}
