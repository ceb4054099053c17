//! A server as clients meet it: over sockets.

mod common;
mod limits;
mod protocol;
mod reload;
mod security;
