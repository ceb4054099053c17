//! HTTP: connections, bodies, addresses.

mod accept;
mod admin;
mod body;
mod infer;
mod openapi;
mod routes;
mod tls;

pub use accept::{Listen, accept};
pub use body::Limits;
pub use routes::{admin, data};
pub use tls::{Certificates, Tls};
