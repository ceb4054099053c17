//! How far the server has come to its end.

/// Phases, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is not about to end.
    Serving,
    /// It is not ready any more, but takes requests still.
    Leaving,
    /// It takes no connections any more, and ends those it has after their requests.
    Draining,
}
