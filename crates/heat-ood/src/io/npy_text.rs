//! numpy's arrays of texts, as labels are: `<U5` (code points) and `|S5` (bytes).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::Budget;
use super::{Array, Dtype};

/// What a distinct text takes beside its bytes, about.
const ENTRY: usize = 96;

const TOO_MUCH: &str = "its texts take more memory than is allowed";

/// How texts are stored.
#[derive(Clone, Copy)]
pub(super) struct Text {
    /// Bytes of one character: 4 or 1.
    unit: usize,
    swapped: bool,
    characters: usize,
}

/// The form of texts that a type such as `<U5` names.
pub(super) fn text_width(kind: &str) -> Option<Text> {
    let (order, rest) = kind.split_at_checked(1)?;
    let unit = match rest.as_bytes().first()? {
        b'U' if order == "<" || order == ">" => 4,
        b'S' if order == "|" => 1,
        _ => return None,
    };
    let characters: usize = rest[1..].parse().ok().filter(|n| (1..=1 << 20).contains(n))?;
    Some(Text { unit, swapped: order == ">", characters })
}

impl Text {
    /// Bytes of one text.
    pub(super) fn bytes(self) -> usize {
        self.unit * self.characters
    }

    /// The numbers of the texts in their sorted order, with these as names.
    pub(super) fn array(
        self,
        bytes: &[u8],
        shape: Vec<usize>,
        budget: &mut Budget,
    ) -> Result<Array, &'static str> {
        let mut first = BTreeMap::new();
        for raw in bytes.chunks_exact(self.bytes()) {
            if !first.contains_key(raw) {
                if !budget.spend(ENTRY) {
                    return Err(TOO_MUCH);
                }
                first.insert(raw, 0u32);
            }
        }
        let mut named = Vec::new();
        for raw in first.keys() {
            if !budget.spend(ENTRY + raw.len()) {
                return Err(TOO_MUCH);
            }
            named.push((self.decode(raw)?, *raw));
        }
        named.sort();
        let mut names: Vec<String> = Vec::with_capacity(named.len());
        for (name, raw) in named {
            if names.last() != Some(&name) {
                names.push(name);
            }
            first.insert(raw, names.len() as u32 - 1);
        }
        if !budget.spend(bytes.len() / self.bytes() * 4) {
            return Err(TOO_MUCH);
        }
        let codes = bytes.chunks_exact(self.bytes()).flat_map(|raw| first[raw].to_le_bytes());
        let mut array = Array::owned(codes.collect(), Dtype::U32, &shape);
        array.names = Some(Arc::new(names));
        Ok(array)
    }

    /// One text.
    pub(super) fn decode(self, raw: &[u8]) -> Result<String, &'static str> {
        const DAMAGED: &str = "holds a text that is no valid Unicode";
        let text = if self.unit == 1 {
            std::str::from_utf8(raw).map_err(|_| DAMAGED)?.to_owned()
        } else {
            let point = |b: &[u8; 4]| match self.swapped {
                true => char::from_u32(u32::from_be_bytes(*b)),
                false => char::from_u32(u32::from_le_bytes(*b)),
            };
            let points = raw.as_chunks().0.iter();
            points.map(point).collect::<Option<String>>().ok_or(DAMAGED)?
        };
        Ok(text.trim_end_matches('\0').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_numbered_in_their_order() {
        let code = |text: &str, width: usize| -> Vec<u8> {
            let points = text.chars().map(u32::from).chain(std::iter::repeat(0));
            points.take(width).flat_map(u32::to_le_bytes).collect()
        };
        let bytes: Vec<u8> =
            ["dog", "äpfel", "cat", "dog"].iter().flat_map(|t| code(t, 5)).collect();
        let text = text_width("<U5").unwrap();
        let array = text.array(&bytes, vec![4], &mut Budget::new(0)).unwrap();
        assert_eq!(**array.names.as_ref().unwrap(), ["cat", "dog", "äpfel"]);
        assert_eq!((0..4).map(|i| array.integer(i)).collect::<Vec<_>>(), [1, 2, 0, 1]);
        let bytes = text_width("|S2").unwrap();
        let array = bytes.array(b"b\0a\0", vec![2], &mut Budget::new(0)).unwrap();
        assert_eq!(**array.names.as_ref().unwrap(), ["a", "b"]);
        assert!(bytes.array(b"\xff\xff", vec![1], &mut Budget::new(0)).is_err());
        for kind in ["<U0", "<S3", "|U3", "<U", "<U-1", "<U99999999"] {
            assert!(text_width(kind).is_none(), "{kind}");
        }
    }
}
