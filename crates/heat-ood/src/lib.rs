//! HEAT.
pub mod ebm;
mod error; mod observe;
pub mod features;
pub mod math;
pub mod metrics;
pub mod scorers;
pub use error::{Error, Result};
pub use observe::*;
