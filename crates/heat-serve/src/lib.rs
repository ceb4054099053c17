//! `heat serve`: verdicts of detectors behind the Open Inference Protocol.
//!
//! The way of a request: a connection (`http`), its body read within bounds, tensors
//! (`protocol`), rows checked against the model (`model`), a place in the queue
//! (`queue`), a batch that is scored together with others, an answer. Beside it a monitor
//! watches what passes, and metrics count it. Requests never wait for either.
//!
//! Like `heat-ood`, this crate never panics on input; what it has to say goes through one log.

mod budget;
mod grpc;
mod http;
mod images;
mod kept;
mod log;
mod metrics;
mod model;
mod monitor;
mod phase;
mod protocol;
mod queue;
mod refusal;
mod rows;
mod scored;
mod served;
mod server;
mod settings;
mod shared;
mod tls;
mod tokens;

pub use log::Form;
pub use model::check_name;
pub use server::{Addresses, Ended, Server, Stop};
pub use settings::{NamedFile, Settings};
pub use tokens::{Scope, make as make_token};
