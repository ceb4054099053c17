//! What the scorers are, for lists and for choosing many at once.
//!
//! What a method needs is found by fitting it on a few made-up rows with and
//! without labels, logits and head: it cannot differ from what its fit asks for.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use super::method::Entry;
use super::spec::ScorerSpec;
use super::{
    LAYER, TrainingData, VIEWS, gaussian, logits, maps, methods, neighbours, subspace, views,
};
use crate::error::{Error, Result};
use crate::features::{
    FeatureSet, Field, GRAM_POWERS, Head, InMemory, Part, Pooling, View, gram_rows,
};
use crate::math::rng::{Purpose, Stream};
use crate::observe::Silent;

/// One scorer of the list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub name: &'static str,
    /// Its settings by name with their defaults; those without are null.
    pub settings: Vec<(String, serde_json::Value)>,
}

impl Listed {
    /// What a fit needs besides the features; found out by fitting all scorers, once.
    pub fn needs(&self) -> Needs {
        static FOUND: LazyLock<HashMap<&str, Needs>> = LazyLock::new(|| {
            let probe = Probe::new().ok();
            let needs = |listed: &Listed| {
                // Whoever cannot be tried is taken to need everything.
                let everything = Needs {
                    labels: Labels::Yes,
                    logits: true,
                    head: true,
                    maps: None,
                    views: BTreeSet::new(),
                };
                let clusters = listed.settings.iter().any(|(key, _)| key == "kmeans");
                let found = probe.as_ref().map(|probe| probe.needs(listed.name, clusters));
                (listed.name, found.unwrap_or(everything))
            };
            catalogue().iter().map(needs).collect()
        });
        FOUND[self.name].clone()
    }
}

/// What a fit needs besides the features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Class labels.
    pub labels: Labels,
    /// The logits, stored or from the classifier's head.
    pub logits: bool,
    /// The classifier's head itself.
    pub head: bool,
    /// Which of [`Field::OF_MAPS`] stand for the features.
    pub maps: Option<Field>,
    /// Which views of the images must be there beside these, when it scores.
    pub views: BTreeSet<View>,
}

/// Whether a fit needs class labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// No.
    No,
    /// Yes.
    Yes,
    /// Unless clusters are found in their place (`kmeans=`); one will do.
    UnlessClustered,
    /// Unless several clusters are.
    UnlessSeveral,
}

/// Scorers that are chosen together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Every scorer, as it is; those of maps and of views where there is
    /// [what they read](Group::scorers_for).
    All,
    /// Those of the logits alone.
    Logits,
    /// Those of the features, without the classifier: class means, neighbours, subspaces.
    Features,
    /// Those of features and the classifier together: its head, or what it predicts.
    Head,
    /// Those of what is made of feature maps where it is asked for.
    Maps,
    /// Those of other views of the images, which are there where they are asked for.
    Views,
    /// Those that need neither labels nor classifier, with one cluster where classes were
    /// wanted.
    Unlabelled,
    /// Those that are composed where nothing is known of what is to be detected; of a certain
    /// training set the [`committee`].
    Committee,
}

impl Group {
    /// All, with the word for each.
    pub const ALL: [(&'static str, Group); 8] = [
        ("all", Group::All),
        ("logits", Group::Logits),
        ("features", Group::Features),
        ("head", Group::Head),
        ("maps", Group::Maps),
        ("views", Group::Views),
        ("unlabelled", Group::Unlabelled),
        ("committee", Group::Committee),
    ];

    /// The group that this word names.
    pub fn named(word: &str) -> Option<Self> {
        // The other spelling too.
        let word = if word == "unlabeled" { "unlabelled" } else { word };
        Self::ALL.into_iter().find(|(name, _)| *name == word).map(|(_, group)| group)
    }

    /// Its scorers, in the order of the list.
    pub fn scorers(self) -> Vec<ScorerSpec> {
        let of = |directories: &[&[&[Entry]]]| {
            let entries = directories.iter().flat_map(|d| d.iter()).flat_map(|f| f.iter());
            entries.map(|entry| spec(entry.name, None)).collect()
        };
        match self {
            Group::All => {
                let asked_for = [Group::Maps.scorers(), Group::Views.scorers()].concat();
                let all = methods::NAMES.iter().map(|name| spec(name, None));
                all.filter(|spec| !asked_for.contains(spec)).collect()
            }
            Group::Maps => of(&[maps::METHODS]),
            Group::Views => of(&[views::METHODS]),
            Group::Logits => of(&[logits::METHODS]),
            Group::Features => {
                let needs_head = |s: &ScorerSpec| {
                    let needs = catalogue().iter().find(|l| l.name == s.name).map(Listed::needs);
                    needs.is_some_and(|n| n.head || n.logits)
                };
                let mut all: Vec<ScorerSpec> =
                    of(&[gaussian::METHODS, neighbours::METHODS, subspace::METHODS]);
                all.retain(|s| !needs_head(s));
                all
            }
            Group::Head => {
                let of_logits = Group::Logits.scorers();
                let is_of_both = |l: &&Listed| {
                    let needs = l.needs();
                    needs.maps.is_none()
                        && needs.views.is_empty()
                        && (needs.head
                            || (needs.logits && of_logits.iter().all(|s| s.name != l.name)))
                };
                catalogue().iter().filter(is_of_both).map(|l| spec(l.name, None)).collect()
            }
            Group::Committee => parsed(&COMMITTEE),
            Group::Unlabelled => {
                let with_needs = catalogue().iter().map(|l| (l, l.needs()));
                let alone = with_needs.filter(|(_, n)| !n.logits && !n.head && n.views.is_empty());
                let one = |(listed, needs): (&Listed, Needs)| match needs.labels {
                    Labels::No => Some(spec(listed.name, None)),
                    Labels::UnlessClustered => Some(spec(listed.name, Some(1))),
                    Labels::Yes | Labels::UnlessSeveral => None,
                };
                alone.filter_map(one).collect()
            }
        }
    }

    /// Its scorers for such a training set: the members of the committee that goes with it; of all also
    /// those of maps whose fields it has, and of views that it has.
    pub fn scorers_for(self, data: &TrainingData) -> Vec<ScorerSpec> {
        let mut found = match self {
            Group::Committee => committee(data),
            group => group.scorers(),
        };
        let has = |field: Field| data.features.fields().any(|f| f.base() == field);
        let parts = data.features.parts();
        let seen = |view: View| parts.iter().any(|part| View::known(part.name()) == Some(view));
        if self == Group::All && Field::OF_MAPS.into_iter().any(has) {
            let of_maps = catalogue().iter().filter(|l| l.needs().maps.is_some_and(has));
            found.extend(of_maps.map(|l| spec(l.name, None)));
        }
        if self == Group::All {
            found.extend(by_gradients(&data.features));
        }
        if self == Group::All && !parts.is_empty() {
            let of_views = catalogue().iter().filter(|l| {
                let views = l.needs().views;
                !views.is_empty() && views.into_iter().all(seen)
            });
            found.extend(of_views.map(|l| spec(l.name, None)));
        }
        found
    }
}

/// Scorers that can do without gradients, and take them where a set has them.
fn by_gradients(set: &FeatureSet) -> Vec<ScorerSpec> {
    let with = |name: &str, setting: String| ScorerSpec::new(name, [&*setting]).ok();
    let has = |layer: &Part| set.dim(Field::Nac.within(*layer)).is_some();
    let layers = set.layers().into_iter().filter(has);
    let nac = layers.filter_map(|layer| with("nac", format!("layer={}", layer.name())));
    let all = set.dim(Field::Graduncertainty).map(|_| "parameters=all".to_owned());
    nac.chain(all.and_then(|all| with("graduncertainty", all))).collect()
}

/// Who may be in the committee. They see different things: how far features lie from the class
/// means, in which directions the classifier reads them, how strongly they speak, their
/// neighbours, and how they vary over the map.
const COMMITTEE: [&str; 7] = [
    "cadref",
    "fdbd",
    "lts",
    "nnguide",
    "knn(k=5)",
    "gmm(shrinkage=1)",
    "gmm(pooling=std,shrinkage=1)",
];

/// The members of the fixed committee for such data, which count alike: where there are deviations
/// over a map and a classifier's head, those that read the head and the deviations; else those that
/// go by distances, since logits of a head on other features may say little. Chosen on images,
/// texts and digits (docs/decisions.md).
pub fn committee(data: &TrainingData) -> Vec<ScorerSpec> {
    let has_std = data.features.dim(Field::Features(Pooling::Std)).is_some();
    let of_maps = has_std && data.head.is_some();
    let belongs = |text: &&str| match *text {
        "nnguide" => data.head.is_some(),
        "cadref" | "fdbd" | "lts" => of_maps,
        "gmm(pooling=std,shrinkage=1)" => has_std,
        _ => !of_maps,
    };
    let members: Vec<&str> = COMMITTEE.into_iter().filter(|text| belongs(text)).collect();
    parsed(&members)
}

fn parsed(texts: &[&str]) -> Vec<ScorerSpec> {
    texts.iter().filter_map(|text| ScorerSpec::parse(text).ok()).collect()
}

fn spec(name: &str, clusters: Option<i64>) -> ScorerSpec {
    let mut settings = toml::Table::new();
    if let Some(clusters) = clusters {
        settings.insert("kmeans".into(), clusters.into());
    }
    ScorerSpec { name: name.to_owned(), settings }
}

/// Every scorer with its settings.
pub fn catalogue() -> &'static [Listed] {
    static LISTED: LazyLock<Vec<Listed>> =
        LazyLock::new(|| methods::NAMES.iter().map(|name| listed(name)).collect());
    &LISTED
}

fn listed(name: &'static str) -> Listed {
    let entry = methods::find(name);
    let (keys, defaults) = entry.map_or_else(Default::default, |e| ((e.keys)(), (e.defaults)()));
    let value = |key: String| {
        let value = defaults.get(&key).cloned().unwrap_or_default();
        (key, value)
    };
    let mut settings: Vec<_> = keys.into_iter().map(value).collect();
    // Settings of where to read stand beside those of a method.
    if settings.iter().any(|(key, _)| key == "pooling") {
        settings.push((LAYER.to_owned(), serde_json::Value::Null));
    }
    settings.push((VIEWS.to_owned(), serde_json::Value::Null));
    Listed { name, settings }
}

/// Made-up rows of two classes, with what may go with them.
struct Probe {
    plain: FeatureSet,
    labelled: FeatureSet,
    with_logits: FeatureSet,
    complete: FeatureSet,
    /// Rows to score: some scorers say the same of all that they were fitted on.
    others: FeatureSet,
    head: Head,
}

impl Probe {
    fn new() -> Result<Self> {
        const ROWS: usize = 600;
        // So that a twentieth of the columns is some.
        const DIM: usize = 40;
        const CLASSES: usize = 4;
        let mut stream = Stream::new(0, Purpose::HoldOut, 3, 0);
        let mut rows = vec![0.0f32; ROWS * DIM];
        stream.fill_normal(&mut rows);
        let labels: Vec<u32> = (0..ROWS).map(|i| (i % CLASSES) as u32).collect();
        for (row, label) in rows.chunks_exact_mut(DIM).zip(&labels) {
            // Positive, as after a ReLU, and told apart by the head below.
            row.iter_mut().for_each(|v| *v = v.abs());
            row[*label as usize] += 4.0;
        }
        let weight: Vec<f32> = (0..CLASSES * DIM)
            .map(|i| if i / DIM == i % DIM { 1.0 } else { 0.03 * (i % 5) as f32 })
            .collect();
        let head = Head::new(weight, vec![0.0; CLASSES])?;
        let mut logits = vec![0.0; ROWS * CLASSES];
        head.logits(&rows, &mut logits, &mut Default::default());
        let matrix = |values: &[f32], columns| {
            ndarray::Array2::from_shape_vec((values.len() / columns, columns), values.to_vec())
                .map_err(|e| Error::format("memory", e.to_string()))
        };
        let pairs = rows.iter().zip(rows[DIM..].iter().cycle());
        let between: Vec<f32> = pairs.map(|(a, b)| 0.5 * (a + b)).collect();
        let mut of_others = vec![0.0; ROWS * CLASSES];
        head.logits(&between, &mut of_others, &mut Default::default());
        let others = FeatureSet::in_memory("others").avg(matrix(&between, DIM)?);
        let mut others = others.logits(matrix(&of_others, CLASSES)?);
        // Other rows as their views.
        for view in [View::Bits(5), View::Median(2)] {
            let part = view.part()?;
            let avg = Field::Features(Pooling::Avg).within(part);
            others = others.field(avg, matrix(&rows[..between.len()], DIM)?);
            let stored = Field::Logits.within(part);
            others = others.field(stored, matrix(&logits[..of_others.len()], CLASSES)?);
        }
        // Rows as maps of one cell; any features serve as those without a component, and as those of an
        // image that was moved.
        let avg = Field::Features(Pooling::Avg);
        let nudged = avg.within(View::Nudged(5).part()?);
        let noise = View::Noise { thousandths: 8, samples: 256 }.part()?;
        let dropout = View::Dropout(30).part()?;
        let gram = |rows: &[f32]| -> Vec<f32> {
            rows.chunks_exact(DIM).flat_map(|row| gram_rows(row, DIM)).collect()
        };
        let of_maps = |set: InMemory, rows: &[f32]| {
            let set = set.field(Field::Gram, matrix(&gram(rows), GRAM_POWERS * DIM)?);
            let set = set.field(Field::Rankfeat, matrix(rows, DIM)?);
            let set = set.field(nudged, matrix(rows, DIM)?);
            let noisy: Vec<f32> = rows.iter().map(|v| 0.9 * v).collect();
            let mut logits = vec![0.0; rows.len() / DIM * CLASSES];
            head.logits(&noisy, &mut logits, &mut Default::default());
            let set = set.field(avg.within(noise), matrix(&noisy, DIM)?);
            let set = set.field(Field::Logits.within(noise), matrix(&logits, CLASSES)?);
            let spread: Vec<f32> = logits.iter().map(|v| 0.01 * v.abs()).collect();
            Ok::<_, Error>(set.field(Field::Spread.within(dropout), matrix(&spread, CLASSES)?))
        };
        let others = of_maps(others, &between)?.build()?;
        let set = |labelled: bool, logits: Option<&[f32]>| {
            let features = matrix(&rows, DIM)?;
            let mut set = of_maps(FeatureSet::in_memory("probe").avg(features), &rows)?;
            if let Some(logits) = logits {
                set = set.logits(matrix(logits, CLASSES)?);
            }
            if labelled {
                set = set.labels(labels.iter().copied());
            }
            set.build()
        };
        Ok(Probe {
            plain: set(false, None)?,
            labelled: set(true, None)?,
            with_logits: set(false, Some(&logits))?,
            complete: set(true, Some(&logits))?,
            others,
            head,
        })
    }

    /// The least with which it can be fitted.
    fn needs(&self, name: &str, clusters: bool) -> Needs {
        let maps = Cell::new(None);
        let views = RefCell::default();
        let fits = |set: &FeatureSet, head: bool, clusters: Option<i64>| {
            let data = TrainingData::new(set).with_head(head.then_some(&self.head));
            let fitted = spec(name, clusters).fit(&data, &mut Silent);
            if let Ok(scorer) = &fitted {
                maps.set(scorer.scorer().of_maps().first().copied());
                views.replace(View::of(&scorer.scorer().parts()));
            }
            // Where one cluster is no class to compare others with, all scores are the same.
            fitted.and_then(|scorer| scorer.score(&self.others)).is_ok_and(|scores| {
                let (low, high) = scores
                    .iter()
                    .fold((f32::MAX, f32::MIN), |(low, high), s| (low.min(*s), high.max(*s)));
                high - low > 1e-6
            })
        };
        use Labels::{No, UnlessClustered, UnlessSeveral, Yes};
        let needs = |labels, logits, head| Needs {
            labels,
            logits,
            head,
            maps: maps.get(),
            views: views.take(),
        };
        match () {
            _ if fits(&self.plain, false, None) => needs(No, false, false),
            _ if clusters && fits(&self.plain, false, Some(1)) => {
                needs(UnlessClustered, false, false)
            }
            _ if clusters && fits(&self.plain, false, Some(4)) => {
                needs(UnlessSeveral, false, false)
            }
            _ if fits(&self.labelled, false, None) => needs(Yes, false, false),
            _ if fits(&self.with_logits, false, None) => needs(No, true, false),
            _ if fits(&self.complete, false, None) => needs(Yes, true, false),
            _ if fits(&self.plain, true, None) => needs(No, true, true),
            _ => needs(Yes, true, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of maps with a head; of maps alone; of other rows with a head, and alone.
    #[test]
    fn the_committee_goes_with_the_data() {
        let rows = || ndarray::Array2::from_elem((4, 2), 1.0f32);
        let bare = FeatureSet::in_memory("bare").avg(rows()).build().unwrap();
        let of_maps = FeatureSet::in_memory("maps").avg(rows()).std(rows()).build().unwrap();
        let head = Head::new(vec![1.0; 4], vec![0.0; 2]).unwrap();
        let names = |set: &FeatureSet, head: Option<&Head>| -> Vec<String> {
            let data = TrainingData::new(set).with_head(head);
            committee(&data).iter().map(ScorerSpec::to_string).collect()
        };
        let [knn, gmm, of_std] = ["knn(k=5)", "gmm(shrinkage=1)", "gmm(pooling=std,shrinkage=1)"];
        assert_eq!(names(&of_maps, Some(&head)), ["cadref", "fdbd", "lts", "nnguide", of_std]);
        assert_eq!(names(&of_maps, None), [knn, gmm, of_std]);
        assert_eq!(names(&bare, Some(&head)), ["nnguide", knn, gmm]);
        assert_eq!(names(&bare, None), [knn, gmm]);
    }

    /// By the formulas of docs/methods.md.
    #[test]
    fn groups_are_what_the_methods_need() {
        let names = |group: Group| -> Vec<String> {
            group.scorers().iter().map(ScorerSpec::to_string).collect()
        };
        let of_views = ["feature_squeezing", "adascale_a", "adascale_l", "odds", "mcd"];
        let asked_for = [&["gram", "rankfeat"][..], &of_views].concat();
        assert_eq!([names(Group::Maps), names(Group::Views)].concat(), asked_for);
        let plain: Vec<&str> =
            methods::NAMES.into_iter().filter(|name| !asked_for.contains(name)).collect();
        assert_eq!(names(Group::All), plain);
        let probe = Probe::new().unwrap();
        let with: Vec<String> = Group::All
            .scorers_for(&TrainingData::new(&probe.others))
            .iter()
            .map(ScorerSpec::to_string)
            .collect();
        assert_eq!(with, methods::NAMES);
        let without = FeatureSet::in_memory("x").avg(ndarray::Array2::<f32>::zeros((2, 2)));
        let without = TrainingData::new(&without.build().unwrap());
        assert_eq!(Group::All.scorers_for(&without), Group::All.scorers());
        let clustered = ["gmm", "ssd", "maha", "mds_pp"];
        let alone = ["norm", "knn", "cfood", "lid", "kpca"];
        let of_one = clustered.map(|name| format!("{name}(kmeans=1)"));
        assert_eq!(names(Group::Unlabelled), [&of_one[..], &alone.map(str::to_owned)].concat());
        let several = ["rmds", "rmds_pp"];
        let logits = ["msp", "max_logit", "el", "joint_energy", "odin", "klm", "gen", "entropy"];
        let logits = [&logits[..], &["temperature", "openmax"]].concat();
        assert_eq!(names(Group::Logits), logits);
        let features = ["gmm", "ssd", "maha", "mds_pp", "rmds", "rmds_pp", "mean", "norm"];
        let features = [&features[..], &["knn", "cfood", "lid", "kpca"]].concat();
        assert_eq!(names(Group::Features), features);
        let of_head = |name: &&str| !logits.contains(name) && !features.contains(name);
        let head: Vec<&str> = plain.iter().copied().filter(|n| of_head(n)).collect();
        assert_eq!(names(Group::Head), head);
        assert_eq!(names(Group::Committee), COMMITTEE);
        // They read what the classifier predicts, which logits tell as well.
        let of_predicted = ["dknn", "trust", "jtla"];
        let of_logits = ["dknn", "trust", "jtla", "gram", "odds"];
        for listed in catalogue() {
            let name = listed.name;
            let labels = match () {
                _ if ["mean", "temperature", "she", "openmax"].contains(&name) => Labels::Yes,
                _ if of_predicted.contains(&name) => Labels::Yes,
                _ if clustered.contains(&name) => Labels::UnlessClustered,
                _ if several.contains(&name) => Labels::UnlessSeveral,
                _ => Labels::No,
            };
            let views = match name {
                "feature_squeezing" => vec![View::Bits(5), View::Median(2)],
                "adascale_a" | "adascale_l" => vec![View::Nudged(5)],
                "odds" => vec![View::Noise { thousandths: 8, samples: 256 }],
                "mcd" => vec![View::Dropout(30)],
                _ => vec![],
            };
            let of_parts = ["gram", "rankfeat", "adascale_a", "adascale_l", "odds"];
            let both = head.contains(&name) || of_parts.contains(&name);
            let of_view_alone = name == "mcd";
            let with_view = !views.is_empty() && !of_view_alone;
            let logits = both || logits.contains(&name) || with_view;
            let head = both && !of_logits.contains(&name);
            let maps = match name {
                "gram" => Some(Field::Gram),
                "rankfeat" => Some(Field::Rankfeat),
                _ => None,
            };
            let views = BTreeSet::from_iter(views);
            assert_eq!(listed.needs(), Needs { labels, logits, head, maps, views }, "{name}");
        }
    }
}
