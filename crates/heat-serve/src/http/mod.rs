//! HTTP: connections, bodies, addresses.

mod accept;
mod admin;
pub mod answers;
pub mod body;
pub mod infer;
mod life;
mod openapi;
mod routes;

pub use accept::{Listen, Routers, accept};
pub use routes::{admin, data};
