//! HTTP: connections, bodies, addresses.

mod accept;
mod admin;
pub mod body;
pub mod infer;
mod openapi;
pub mod routes;
mod tls;

pub use accept::{Listen, accept};
pub use body::Limits;
pub use routes::{admin, data};
pub use tls::{Certificates, Tls};
