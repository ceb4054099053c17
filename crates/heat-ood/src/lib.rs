//! HEAT.
mod error;
pub mod features;
pub mod math;
pub mod metrics;
mod observe;
pub mod scorers;
pub use error::{Error, Result};
pub use observe::*;
pub mod ebm {
    /** e */
    #[derive(Debug)]
    pub struct EpochLog;
}
