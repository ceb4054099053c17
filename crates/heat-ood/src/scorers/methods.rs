//! The list of all methods, put together from those of each directory.

use super::method::Entry;
use super::{gaussian, head, logits, maps, neighbours, subspace, views};

/// By directory, in the order in which they are listed to people.
const DIRECTORIES: [&[&[Entry]]; 7] = [
    logits::METHODS,
    gaussian::METHODS,
    neighbours::METHODS,
    subspace::METHODS,
    head::METHODS,
    maps::METHODS,
    views::METHODS,
];

const COUNT: usize = {
    let (mut count, mut d) = (0, 0);
    while d < DIRECTORIES.len() {
        let mut f = 0;
        while f < DIRECTORIES[d].len() {
            count += DIRECTORIES[d][f].len();
            f += 1;
        }
        d += 1;
    }
    count
};

/// Names of all scorers that are fitted from features alone.
pub const NAMES: [&str; COUNT] = {
    let mut names = [""; COUNT];
    let (mut i, mut d) = (0, 0);
    while d < DIRECTORIES.len() {
        let mut f = 0;
        while f < DIRECTORIES[d].len() {
            let mut e = 0;
            while e < DIRECTORIES[d][f].len() {
                names[i] = DIRECTORIES[d][f][e].name;
                i += 1;
                e += 1;
            }
            f += 1;
        }
        d += 1;
    }
    names
};

/// The method of that name.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    let mut all = DIRECTORIES.iter().flat_map(|d| d.iter()).flat_map(|f| f.iter());
    all.find(|entry| entry.name == name)
}
