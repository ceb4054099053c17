//! Everything, as JSON.

use heat_ood::evaluate::Results;

pub fn render(results: &Results) -> String {
    serde_json::to_string_pretty(results).unwrap_or_default() + "\n"
}
