//! Poolings over the positions of a feature map: of which map, and over which
//! of its axes.

use std::collections::HashMap;

use super::constants::Constants;
use super::proto::Node;

/// How a map lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[N, D, height, width]`.
    Channels,
    /// `[N, height, width, D]`.
    ChannelsLast,
    /// `[N, positions, D]`: tokens.
    Tokens,
    /// `[N, D, positions]`.
    TokensLast,
}

impl Layout {
    /// The order of axes that puts the channels before the positions.
    pub fn turn(self) -> Option<&'static [usize]> {
        match self {
            Layout::Channels | Layout::TokensLast => None,
            Layout::ChannelsLast => Some(&[0, 3, 1, 2]),
            Layout::Tokens => Some(&[0, 2, 1]),
        }
    }

    /// Number of axes.
    pub fn rank(self) -> usize {
        match self {
            Layout::Channels | Layout::ChannelsLast => 4,
            Layout::Tokens | Layout::TokensLast => 3,
        }
    }
}

/// The mean of a map over its positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pooled {
    pub map: String,
    pub layout: Layout,
}

/// What a node averages, if it averages a whole map.
pub(super) fn of(
    node: &Node,
    constants: &Constants<'_>,
    makers: &HashMap<&str, &Node>,
) -> Option<Pooled> {
    let map = node.input.first()?.clone();
    match node.op.as_str() {
        // Before a linear layer of as many columns as the map has channels, an
        // average can only be over all of it; whether that is so is seen when
        // it runs.
        "GlobalAveragePool" | "AveragePool" => Some(Pooled { map, layout: Layout::Channels }),
        "ReduceMean" => over(node, map, constants, makers),
        // Σ/n, in two nodes.
        "Div" | "Mul" => {
            let sum = makers.get(map.as_str()).filter(|n| n.op == "ReduceSum")?;
            constants.value(node.input.get(1)?).filter(|n| n.len() == 1)?;
            over(sum, sum.input.first()?.clone(), constants, makers)
        }
        _ => None,
    }
}

fn over(
    node: &Node,
    map: String,
    constants: &Constants<'_>,
    makers: &HashMap<&str, &Node>,
) -> Option<Pooled> {
    let axes = |node: &Node| match node.attribute("axes") {
        Some(a) => Some(a.ints.clone()),
        None => constants.ints(node.input.get(1)?),
    };
    let mut own = axes(node)?;
    own.sort_unstable();
    let layout = match own[..] {
        [2, 3] | [-2, -1] => Layout::Channels,
        [1, 2] | [-3, -2] => Layout::ChannelsLast,
        [1] | [-2] => Layout::Tokens,
        [2] | [-1] => {
            // Rows, then columns: both are positions.
            let inner = makers.get(map.as_str()).filter(|n| n.op == node.op);
            let last = inner.and_then(|n| axes(n)).is_some_and(|a| matches!(a[..], [3] | [-1]));
            if let (Some(inner), true) = (inner, last) {
                return Some(Pooled {
                    map: inner.input.first()?.clone(),
                    layout: Layout::Channels,
                });
            }
            Layout::TokensLast
        }
        _ => return None,
    };
    Some(Pooled { map, layout })
}
