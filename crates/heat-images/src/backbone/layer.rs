//! A further layer whose features are taken.

use super::pooling::Layout;
use heat_ood::features::Part;

/// A further layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What its features are called: `NAME.avg`, `NAME.std`.
    pub part: Part,
    /// The tensor in the graph.
    pub tensor: String,
    /// Its shape for one image, without the batch.
    pub shape: Vec<usize>,
    /// How a map lies; `None`: a vector.
    pub(super) layout: Option<Layout>,
}

impl Layer {
    /// Whether there is a deviation: of maps of more than one cell.
    pub fn has_std(&self) -> bool {
        let Some(layout) = self.layout else { return false };
        let channels = self.channels(layout);
        self.shape.iter().product::<usize>() > channels
    }

    fn channels(&self, layout: Layout) -> usize {
        match layout {
            Layout::Channels | Layout::TokensLast => self.shape.first().copied().unwrap_or(0),
            Layout::ChannelsLast | Layout::Tokens => self.shape.last().copied().unwrap_or(0),
        }
    }

    /// What it is, in words.
    pub fn text(&self) -> String {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let pooled = if self.has_std() { "avg and std" } else { "avg alone" };
        format!(
            "layer     {}: {} [N, {}], {pooled}",
            self.part.name(),
            self.tensor,
            shape.join(", ")
        )
    }
}
