//! A server as clients meet it: over sockets.

mod common;
mod connections;
mod images;
mod kept;
mod limits;
mod protocol;
mod reload;
mod security;
