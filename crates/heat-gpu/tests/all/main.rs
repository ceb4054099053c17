//! The engine without a card.

mod host;
mod kernels;
mod plans;
mod refusals;
