//! Nothing but a place for the benches, whose criterion other builds and tests then do without.
