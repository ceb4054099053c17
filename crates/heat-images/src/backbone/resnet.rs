//! ResNets from their weights: names and shapes of every tensor, and the graph.
//!
//! ResNet-18/34/50/101/152 as torchvision and timm name their parameters, with
//! the ImageNet stem (7×7, stride 2, max-pooling) or the CIFAR one (3×3,
//! stride 1), told apart by the first kernel unless a [`Spec`] says it: strides
//! and poolings have no weights; and the CIFAR family of three
//! stages (ResNet-20/32/44/56/110), whose shortcuts drop every other pixel
//! and pad channels with zeros (option A) where there are no weights for them.
//!
//! Batch normalisations are folded into the convolutions before them, in f64.
//!
//! Reference: He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016.

use prost::Message;

use super::proto::{Attribute, Graph, Model, Node, Opset, Tensor, Value};
use super::weights::StateDict;
use heat_ood::{Error, Result};

/// Tensors by which a ResNet is found in a file.
pub(super) const ANCHORS: [&str; 3] = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight"];

/// Name, whether its blocks are bottlenecks, blocks of each stage.
const KNOWN: [(&str, bool, &[usize]); 10] = [
    ("resnet18", false, &[2, 2, 2, 2]),
    ("resnet34", false, &[3, 4, 6, 3]),
    ("resnet50", true, &[3, 4, 6, 3]),
    ("resnet101", true, &[3, 4, 23, 3]),
    ("resnet152", true, &[3, 8, 36, 3]),
    ("resnet20", false, &[3, 3, 3]),
    ("resnet32", false, &[5, 5, 5]),
    ("resnet44", false, &[7, 7, 7]),
    ("resnet56", false, &[9, 9, 9]),
    ("resnet110", false, &[18, 18, 18]),
];

/// PyTorch's ε of batch normalisations.
const EPSILON: f64 = 1e-5;

/// Most blocks of a stage that are looked for.
const MOST_BLOCKS: usize = 256;

/// Version of the standard operators in the graphs written.
const OPSET: i64 = 17;

/// Parts of a name that are of layers; others are buffers that no layer has.
const OF_LAYERS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// What a user says of a network, beside its weights: a name, and what they
/// leave open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spec {
    name: Option<String>,
    stem: Option<Stem>,
    /// The convolution of a block that has its stride.
    stride_in: Option<usize>,
}

/// What follows from no weight of the first layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stem {
    stride: usize,
    pool: bool,
}

impl Spec {
    /// From `NAME`, `stem=…` and `stride_in=…`, apart by commas or spaces.
    pub fn parse(text: &str) -> Result<Self> {
        let mut spec = Spec::default();
        let parts = text.split(|c: char| c.is_whitespace() || ",()".contains(c));
        for part in parts.filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None if spec.name.is_none() => spec.name = Some(part.to_owned()),
                Some(("stem", value)) => spec.stem = Some(Stem::parse(value)?),
                Some(("stride_in", "conv1")) => spec.stride_in = Some(1),
                Some(("stride_in", "conv2")) => spec.stride_in = Some(2),
                Some(("stride_in", value)) => {
                    let problem = "expected `conv1` (He et al., Caffe) or `conv2` (torchvision), \
                                   the convolution of a block that has the stride";
                    return Err(Error::config("stride_in", value, problem));
                }
                Some((key, _)) => {
                    return Err(Error::unknown("key of a network", key, ["stem", "stride_in"]));
                }
                None => {
                    let problem = "expected one name and `stem=…`, `stride_in=…`";
                    return Err(Error::config("architecture", text, problem));
                }
            }
        }
        Ok(spec)
    }
}

impl Stem {
    fn parse(value: &str) -> Result<Self> {
        let mut stem = Stem { stride: 0, pool: false };
        for part in value.split('+') {
            match part {
                "imagenet" => stem = Stem { stride: 2, pool: true },
                "cifar" | "stride1" => stem.stride = 1,
                "stride2" => stem.stride = 2,
                "pool" => stem.pool = true,
                _ => stem.stride = usize::MAX,
            }
        }
        if [1, 2].contains(&stem.stride) {
            return Ok(stem);
        }
        let problem = "expected `cifar` (stride 1), `cifar+pool`, `imagenet` (stride 2 and a \
                       pooling), `stride2` or `stride2+pool`";
        Err(Error::config("stem", value, problem))
    }

    fn text(self) -> String {
        format!("stride {}, {}", self.stride, if self.pool { "max-pooling" } else { "no pooling" })
    }
}

/// A convolution without bias and the batch normalisation after it.
struct Conv {
    name: String,
    norm: String,
    from: usize,
    to: usize,
    kernel: usize,
    stride: usize,
}

/// What is added to a block's output.
enum Shortcut {
    Identity,
    Project(Conv),
    /// Every other pixel, zeros around the channels.
    Pad(Conv),
}

struct Block {
    name: String,
    convs: Vec<Conv>,
    shortcut: Shortcut,
}

/// A ResNet's layers.
pub(super) struct ResNet {
    /// Its name, for people.
    pub name: String,
    stem: Conv,
    pool: bool,
    blocks: Vec<Block>,
    /// The layer of the head, and whether it has a bias.
    head: Option<(String, bool)>,
    dim: usize,
    classes: usize,
    stride_in: usize,
}

impl ResNet {
    /// The network whose weights these are, or the one asked for by name; every
    /// tensor is checked against it.
    ///
    /// # Errors
    /// If the name is unknown, or a tensor is missing, superfluous or of
    /// another shape: all are listed.
    pub fn of(dict: &StateDict, spec: &Spec) -> Result<Self> {
        let asked = spec.name.as_deref();
        let found = |bottleneck, blocks: Vec<usize>| {
            let known = KNOWN.iter().find(|(_, b, n)| (*b, *n) == (bottleneck, &blocks[..]));
            let name = known.map_or(format!("resnet of {blocks:?} blocks"), |k| k.0.to_owned());
            (name, bottleneck, blocks)
        };
        let (name, bottleneck, blocks) = match asked {
            None => found(dict.shape("layer1.0.conv3.weight").is_some(), count_blocks(dict)),
            Some(asked) => {
                let known = KNOWN.iter().find(|(name, ..)| *name == asked);
                let names = KNOWN.iter().map(|(name, ..)| *name);
                let (_, bottleneck, blocks) =
                    known.ok_or_else(|| Error::unknown("architecture", asked, names))?;
                (asked.to_owned(), *bottleneck, blocks.to_vec())
            }
        };
        let network = Self::layers(dict, &name, bottleneck, &blocks, spec);
        dict.check(&network.name, &network.expected(), is_of_layer)?;
        Ok(network)
    }

    /// What the weights leave open, and what of the file is left out.
    pub fn notes(&self, dict: &StateDict, spec: &Spec) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        if spec.stem.is_none() && self.stem.kernel != 7 {
            let (kernel, stem) = (self.stem.kernel, self.stem().text());
            notes.push(format!(
                "weights do not tell strides and poolings: the {kernel}×{kernel} stem is taken to \
                 have {stem}; if it has others, the logits are wrong: say `stem=cifar+pool`, \
                 `stem=stride2` …"
            ));
        }
        if self.head.is_none() {
            notes.push("has no linear layer: features alone".into());
        }
        let expected: Vec<String> = self.expected().into_iter().map(|(name, _)| name).collect();
        let left: Vec<&str> = dict.names().filter(|n| !expected.iter().any(|e| e == n)).collect();
        for name in &left {
            let of = |ending: &str| -> Result<Option<Vec<f32>>> {
                let shape = dict.shape(ending).unwrap_or_default();
                let three = shape.iter().product::<usize>() == 3 && shape.len() <= 4;
                three.then(|| dict.values(ending)).transpose()
            };
            let pairs =
                [("mean", "std"), ("means", "sds"), ("mu", "sigma"), ("new_mean", "new_std")];
            let pair = pairs.iter().find_map(|(m, s)| Some((name.strip_suffix(m)?, *s)));
            let Some((stem, deviation)) = pair else {
                if !pairs.iter().any(|(m, s)| {
                    name.strip_suffix(s)
                        .is_some_and(|stem| left.contains(&format!("{stem}{m}").as_str()))
                }) {
                    notes.push(format!("`{name}` is no part of a ResNet: left out"));
                }
                continue;
            };
            let (Some(mean), Some(std)) = (of(name)?, of(&format!("{stem}{deviation}"))?) else {
                notes.push(format!("`{name}` is no part of a ResNet: left out"));
                continue;
            };
            if mean != [0.0; 3] || std != [1.0; 3] {
                notes.push(format!(
                    "the network normalises its images itself, by `{name}` {mean:?} and \
                     `{stem}{deviation}` {std:?}, which is not done here: give these as mean and \
                     standard deviation of the preprocessing"
                ));
            }
        }
        Ok(notes)
    }

    fn stem(&self) -> Stem {
        Stem { stride: self.stem.stride, pool: self.pool }
    }

    /// The layers, where the weights decide what the name leaves open.
    fn layers(
        dict: &StateDict,
        name: &str,
        bottleneck: bool,
        blocks: &[usize],
        spec: &Spec,
    ) -> Self {
        let cifar = blocks.len() < 4;
        let shape = dict.shape("conv1.weight").unwrap_or_default();
        let width = match spec.name.is_some() {
            true if cifar => 16,
            true => 64,
            false => shape.first().copied().unwrap_or(64),
        };
        let kernel = shape.get(2).copied().filter(|k| [1, 3, 5, 7].contains(k)).unwrap_or(3);
        let large = !cifar && kernel == 7;
        let usual = Stem { stride: if large { 2 } else { 1 }, pool: large };
        let stem = spec.stem.unwrap_or(usual);
        let there = |name: &str| dict.shape(name).is_some();
        let projection = ["downsample", "shortcut"]
            .into_iter()
            .find(|s| (1..=blocks.len()).any(|l| there(&format!("layer{l}.0.{s}.0.weight"))));
        let pads = cifar && projection.is_none();
        let stride_in = spec.stride_in.unwrap_or(if bottleneck { 2 } else { 1 });
        let mut name = match stem == usual {
            true => format!("{name} with the {} stem", if large { "ImageNet" } else { "CIFAR" }),
            false => format!("{name} with a {kernel}×{kernel} stem ({})", stem.text()),
        };
        if spec.stride_in.is_some() {
            name += &format!(", stride in conv{stride_in}");
        }
        let mut network = ResNet {
            name,
            stem: Conv {
                name: "conv1".into(),
                norm: "bn1".into(),
                from: 3,
                to: width,
                kernel,
                stride: stem.stride,
            },
            pool: stem.pool,
            blocks: Vec::new(),
            head: None,
            dim: width,
            classes: 0,
            stride_in,
        };
        for (stage, &n) in blocks.iter().enumerate() {
            for i in 0..n {
                let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                let name = format!("layer{}.{i}", stage + 1);
                let strides = [1, 2].map(|i| if i == network.stride_in { stride } else { 1 });
                let convs = block(&name, network.dim, width << stage, strides, bottleneck);
                let to = convs.last().map_or(width, |c| c.to);
                let beside = |name: String, norm: String| Conv {
                    name,
                    norm,
                    from: network.dim,
                    to,
                    kernel: 1,
                    stride,
                };
                let shortcut = match (stride, network.dim == to, pads) {
                    (1, true, _) => Shortcut::Identity,
                    (_, _, true) => Shortcut::Pad(beside(format!("{name}.pad"), String::new())),
                    _ => {
                        let name = format!("{name}.{}", projection.unwrap_or("downsample"));
                        Shortcut::Project(beside(format!("{name}.0"), format!("{name}.1")))
                    }
                };
                network.dim = to;
                network.blocks.push(Block { name, convs, shortcut });
            }
        }
        if let Some((head, classes)) = find_head(dict) {
            let bias = there(&format!("{head}.bias"));
            (network.head, network.classes) = (Some((head, bias)), classes);
        }
        network
    }

    fn convs(&self) -> impl Iterator<Item = &Conv> {
        let blocks = self.blocks.iter().flat_map(|b| {
            let projection = match &b.shortcut {
                Shortcut::Project(conv) => Some(conv),
                _ => None,
            };
            b.convs.iter().chain(projection)
        });
        std::iter::once(&self.stem).chain(blocks)
    }

    /// Names and shapes of all its tensors.
    fn expected(&self) -> Vec<(String, Vec<usize>)> {
        let mut all = Vec::new();
        for conv in self.convs() {
            let shape = vec![conv.to, conv.from, conv.kernel, conv.kernel];
            all.push((format!("{}.weight", conv.name), shape));
            for part in ["weight", "bias", "running_mean", "running_var"] {
                all.push((format!("{}.{part}", conv.norm), vec![conv.to]));
            }
        }
        if let Some((head, bias)) = &self.head {
            all.push((format!("{head}.weight"), vec![self.classes, self.dim]));
            all.extend(bias.then(|| (format!("{head}.bias"), vec![self.classes])));
        }
        all
    }

    /// The graph: `image` `[N, 3, height, width]` to `logits` `[N, C]`.
    ///
    /// # Errors
    /// If a tensor cannot be read or holds NaN or infinity.
    pub fn graph(&self, dict: &StateDict) -> Result<Vec<u8>> {
        let mut g = Builder { dict, nodes: Vec::new(), weights: Vec::new() };
        let mut now = g.conv("image", &self.stem)?;
        now = g.relu(&now);
        if self.pool {
            let attributes = vec![
                Attribute::ints("kernel_shape", &[3; 2]),
                Attribute::ints("strides", &[2; 2]),
                Attribute::ints("pads", &[1; 4]),
            ];
            now = g.add("MaxPool", &[&now], "maxpool", attributes);
        }
        for block in &self.blocks {
            now = g.block(&now, block)?;
        }
        let pooled = g.add("GlobalAveragePool", &[&now], "pooled", vec![]);
        let avg = g.add("Flatten", &[&pooled], "avg", vec![Attribute::int("axis", 1)]);
        let mut output = Value::floats("avg", Some(&[Err("batch"), Ok(self.dim)]));
        if let Some((head, bias)) = &self.head {
            let [w, b] = ["weight", "bias"].map(|part| format!("{head}.{part}"));
            g.weights.push(Tensor::of_floats(&w, &[self.classes, self.dim], &dict.values(&w)?));
            let mut inputs = vec![&avg[..], &w];
            if *bias {
                g.weights.push(Tensor::of_floats(&b, &[self.classes], &dict.values(&b)?));
                inputs.push(&b);
            }
            g.add("Gemm", &inputs, "logits", vec![Attribute::int("transB", 1)]);
            output = Value::floats("logits", Some(&[Err("batch"), Ok(self.classes)]));
        }
        let image = [Err("batch"), Ok(3), Err("height"), Err("width")];
        let graph = Graph {
            name: self.name.clone(),
            node: g.nodes,
            initializer: g.weights,
            input: vec![Value::floats("image", Some(&image))],
            output: vec![output],
        };
        let model = Model {
            ir_version: 8,
            producer: format!("heat {}", env!("CARGO_PKG_VERSION")),
            graph: Some(graph),
            opset: vec![Opset { domain: String::new(), version: OPSET }],
        };
        Ok(model.encode_to_vec())
    }
}

/// Blocks of each stage, as the names say.
fn count_blocks(dict: &StateDict) -> Vec<usize> {
    let there = |stage: usize, block: usize| {
        dict.shape(&format!("layer{stage}.{block}.conv1.weight")).is_some()
    };
    let blocks = |stage| (0..MOST_BLOCKS).take_while(|&i| there(stage, i)).count();
    (1..=4).map(blocks).take_while(|n| *n > 0).collect()
}

/// The layer that is the head, under whatever name, and its classes: the
/// matrix beside the blocks, where there is one alone.
fn find_head(dict: &StateDict) -> Option<(String, usize)> {
    let matrices = dict.names().filter_map(|name| {
        let shape = dict.shape(name).filter(|shape| shape.len() == 2)?;
        Some((name.strip_suffix(".weight")?.to_owned(), shape[0]))
    });
    let mut all: Vec<(String, usize)> = matrices.collect();
    if all.len() > 1 {
        all.retain(|(name, _)| ["fc", "linear", "classifier"].contains(&name.as_str()));
    }
    all.into_iter().next()
}

/// Whether a tensor is that of a layer, from its name.
fn is_of_layer(name: &str) -> bool {
    OF_LAYERS.contains(&name.rsplit('.').next().unwrap_or_default())
}

/// The convolutions of a block; `strides` of the first two.
fn block(
    name: &str,
    from: usize,
    width: usize,
    strides: [usize; 2],
    bottleneck: bool,
) -> Vec<Conv> {
    let conv = |i: usize, from, to, kernel, stride| Conv {
        name: format!("{name}.conv{i}"),
        norm: format!("{name}.bn{i}"),
        from,
        to,
        kernel,
        stride,
    };
    if bottleneck {
        vec![
            conv(1, from, width, 1, strides[0]),
            conv(2, width, width, 3, strides[1]),
            conv(3, width, 4 * width, 1, 1),
        ]
    } else {
        vec![conv(1, from, width, 3, strides[0]), conv(2, width, width, 3, strides[1])]
    }
}

struct Builder<'a> {
    dict: &'a StateDict,
    nodes: Vec<Node>,
    weights: Vec<Tensor>,
}

impl Builder<'_> {
    fn add(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<Attribute>,
    ) -> String {
        self.nodes.push(Node::new(op, inputs, output, attributes));
        output.to_owned()
    }

    fn relu(&mut self, input: &str) -> String {
        self.add("Relu", &[input], &format!("{input}.relu"), vec![])
    }

    /// A convolution with its batch normalisation folded in.
    fn conv(&mut self, input: &str, conv: &Conv) -> Result<String> {
        let read = |part: &str| self.dict.values(&format!("{}.{part}", conv.norm));
        let (gain, shift) = (read("weight")?, read("bias")?);
        let (mean, variance) = (read("running_mean")?, read("running_var")?);
        let mut weight = self.dict.values(&format!("{}.weight", conv.name))?;
        let mut bias = Vec::with_capacity(conv.to);
        for (c, kernel) in weight.chunks_exact_mut(conv.from * conv.kernel.pow(2)).enumerate() {
            if variance[c] < 0.0 {
                let problem = format!(
                    "`{}.running_var` is {} for channel {c}; a variance is not negative: \
                     copy or create the file again",
                    conv.norm, variance[c]
                );
                return Err(Error::format(self.dict.path(), problem));
            }
            let scale = f64::from(gain[c]) / (f64::from(variance[c]) + EPSILON).sqrt();
            kernel.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
            bias.push((f64::from(shift[c]) - f64::from(mean[c]) * scale) as f32);
        }
        self.convolve(input, conv, &weight, Some(&bias))
    }

    fn convolve(
        &mut self,
        input: &str,
        conv: &Conv,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<String> {
        let Conv { name, from, to, kernel, stride, .. } = conv;
        let [w, b] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.weights.push(Tensor::of_floats(&w, &[*to, *from, *kernel, *kernel], weight));
        let mut inputs = vec![input, &w];
        if let Some(bias) = bias {
            self.weights.push(Tensor::of_floats(&b, &[*to], bias));
            inputs.push(&b);
        }
        let attributes = vec![
            Attribute::ints("kernel_shape", &[*kernel; 2]),
            Attribute::ints("strides", &[*stride; 2]),
            Attribute::ints("pads", &[kernel / 2; 4]),
        ];
        Ok(self.add("Conv", &inputs, name, attributes))
    }

    fn block(&mut self, input: &str, block: &Block) -> Result<String> {
        let mut now = input.to_owned();
        for (i, conv) in block.convs.iter().enumerate() {
            now = self.conv(&now, conv)?;
            if i + 1 < block.convs.len() {
                now = self.relu(&now);
            }
        }
        let beside = match &block.shortcut {
            Shortcut::Identity => input.to_owned(),
            Shortcut::Project(conv) => self.conv(input, conv)?,
            Shortcut::Pad(conv) => self.pad(input, conv)?,
        };
        let sum = self.add("Add", &[&now, &beside], &format!("{}.sum", block.name), vec![]);
        Ok(self.relu(&sum))
    }

    /// Option A as a convolution that copies: every other pixel, zero channels
    /// before and after.
    fn pad(&mut self, input: &str, conv: &Conv) -> Result<String> {
        let first = conv.to.saturating_sub(conv.from) / 2;
        let mut weight = vec![0.0; conv.to * conv.from];
        (0..conv.from.min(conv.to)).for_each(|c| weight[(first + c) * conv.from + c] = 1.0);
        self.convolve(input, conv, &weight, None)
    }
}
