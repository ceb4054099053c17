//! Names of a set's rows, by row.

use std::borrow::Cow;

use super::FeatureSet;
use crate::printable;

/// Names of the rows of a set, looked up where they lie: [`FeatureSet::names`].
#[derive(Clone, Copy)]
pub struct RowNames<'a>(&'a FeatureSet);

impl<'a> RowNames<'a> {
    /// The name of a row as it is stored, which may be any text of a file: see
    /// [`RowNames::printable`].
    pub fn get(self, row: usize) -> Cow<'a, str> {
        let row = self.0.view.stored_row(row);
        let shard = self.0.shard_of(row);
        shard.names.as_ref().map_or("".into(), |names| names.get(row - shard.start))
    }

    /// The name of a row as one short line that any terminal shows.
    pub fn printable(self, row: usize) -> String {
        printable(&self.get(row))
    }
}

impl FeatureSet {
    /// Names of the rows, where the set has them: of images, the files they came from.
    pub fn names(&self) -> Option<RowNames<'_>> {
        self.shards.first()?.names.as_ref().map(|_| RowNames(self))
    }

    /// The first of some rows by number, and by name where they have one, for messages.
    pub(crate) fn rows_text(&self, rows: &[u32]) -> String {
        const LISTED: usize = 10;
        let text = |row: &u32| match self.names() {
            Some(names) => format!("{row} ({})", names.printable(*row as usize)),
            None => row.to_string(),
        };
        let listed: Vec<String> = rows.iter().take(LISTED).map(text).collect();
        let more = if rows.len() > LISTED { ", …" } else { "" };
        format!("row {}{more}", listed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use serde_json::json;

    use super::*;
    use crate::features::{ConvertConfig, Form, SubsetConfig, convert};
    use crate::observe::Silent;

    const COUNT: usize = 7;

    fn names() -> Vec<String> {
        let odd = ["", "a,\"b\".png", "Größe/ä 日本.jpg", "x\ny\x1b[2J", " blank "];
        (0..COUNT).map(|i| odd.get(i).map_or(format!("c{i}.png"), |n| (*n).to_owned())).collect()
    }

    fn set() -> FeatureSet {
        let avg = Array2::from_shape_fn((COUNT, 2), |(i, j)| (2 * i + j) as f32);
        let labels = (0..COUNT as i64).map(|i| i % 2);
        FeatureSet::in_memory("x").avg(avg).labels(labels).names(names()).build().unwrap()
    }

    fn read(set: &FeatureSet) -> Vec<String> {
        let names = set.names().unwrap();
        (0..set.len()).map(|i| names.get(i).into_owned()).collect()
    }

    #[test]
    fn names_survive_every_form_that_holds_them() {
        let directory = tempfile::tempdir().unwrap();
        let forms = [
            ("shards", Form::Shards),
            ("one.safetensors", Form::Safetensors),
            ("directory", Form::NpyDirectory),
            ("one.npz", Form::Npz),
            ("one.csv", Form::Csv),
            ("one.tsv", Form::Csv),
        ];
        let mut from = set();
        for (name, form) in forms {
            let out = directory.path().join(name);
            let shard_rows = Some(3);
            let config = ConvertConfig { form: Some(form), shard_rows, ..Default::default() };
            let done = convert(&from, None, &out, &config, &mut Silent).unwrap();
            assert!(done.written.contains(&"name") && done.left_out.is_empty(), "{name}");
            from = FeatureSet::open(&out).unwrap();
            let mut want = names();
            // Blanks around a field of a table belong to it as little as elsewhere.
            if form == Form::Csv {
                want[4] = "blank".into();
            }
            assert_eq!(read(&from)[..4], want[..4], "{name}");
            assert_eq!(read(&from)[4].trim(), "blank", "{name}");
            assert_eq!(from.labels(0..COUNT, 2).unwrap()[..3], [0, 1, 0]);
        }
        for (name, form) in [("x.npy", Form::Npy), ("mmap", Form::Memmap)] {
            let out = directory.path().join(name);
            let config = ConvertConfig { form: Some(form), ..Default::default() };
            let done = convert(&set(), None, &out, &config, &mut Silent).unwrap();
            assert!(done.left_out.contains(&"name"));
            let fields = Some(vec!["avg".into(), "name".into()]);
            let config = ConvertConfig { fields, force: true, ..config };
            assert!(convert(&set(), None, &out, &config, &mut Silent).is_err());
        }
    }

    #[test]
    fn rows_that_are_chosen_keep_theirs() {
        let chosen = set().select(vec![6, 2, 3], None).unwrap();
        assert_eq!(read(&chosen), ["c6.png", "Größe/ä 日本.jpg", "x\ny\x1b[2J"]);
        assert_eq!(chosen.names().unwrap().printable(2), "x\\ny\\u{1b}[2J");
        assert_eq!(chosen.rows_text(&[0, 2]), "row 0 (c6.png), 2 (x\\ny\\u{1b}[2J)");
        let config = SubsetConfig { number_labels: Some(1), ..SubsetConfig::default() };
        let part = config.fit(&set()).unwrap().apply(&set()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("part.safetensors");
        convert(&part, None, &out, &ConvertConfig::default(), &mut Silent).unwrap();
        assert_eq!(read(&FeatureSet::open(&out).unwrap()), read(&part));
        assert_eq!(read(&part)[0], names()[part.labels(0..1, 1).unwrap()[0] as usize]);
    }

    /// A safetensors file of two rows with these names.
    fn file(bytes: &[u8], offsets: &[i64], kind: &str) -> Vec<u8> {
        let at = 8 * offsets.len();
        let header = json!({
            "name_offset": {"dtype": "I64", "shape": [offsets.len()], "data_offsets": [0, at]},
            "avg": {"dtype": "F32", "shape": [2, 1], "data_offsets": [at, at + 8]},
            "name": {"dtype": kind, "shape": [bytes.len()], "data_offsets": [at + 8, at + 8 + bytes.len()]},
        });
        let mut header = header.to_string();
        header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.bytes());
        out.extend(offsets.iter().flat_map(|o| o.to_le_bytes()));
        out.extend([1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()));
        out.extend(bytes);
        out
    }

    #[test]
    fn bad_names_are_refused() {
        let good = FeatureSet::from_safetensors("f", file(b"a/b", &[0, 2, 3], "U8")).unwrap();
        assert_eq!(read(&good), ["a/", "b"]);
        let refused = |bytes: &[u8], offsets: &[i64], kind: &str, part: &str| {
            let error = FeatureSet::from_safetensors("f", file(bytes, offsets, kind)).err();
            let error = error.unwrap().to_string();
            assert!(error.contains(part) && error.contains("name"), "{error}");
        };
        refused(b"ab", &[0, 2, 1], "U8", "row 1 lies from byte 2 to 1");
        refused(b"ab", &[0, 1, i64::MAX], "U8", "row 1 lies");
        refused(b"a\xff", &[0, 1, 2], "U8", "row 1 is no UTF-8");
        refused(b"a\0", &[0, 1, 2], "U8", "row 1 holds NUL");
        refused(b"ab", &[0, 1], "U8", "[1], expected [2]");
        refused(b"ab", &[0, 1, 2, 2], "U8", "[3], expected [2]");
        refused(b"ab", &[0, 1, 2], "I8", "no vector of bytes");
        let avg = || Array2::from_elem((2, 1), 1.0f32);
        let built = |names: &[&str]| FeatureSet::in_memory("m").avg(avg()).names(names).build();
        assert!(built(&["a"]).is_err() && built(&["a", "b\0"]).is_err());
        assert!(built(&["a", &"x".repeat(4097)]).is_err());
        assert!(built(&["a", &"x".repeat(4096)]).is_ok());
        // Some shards with names and some without are no set.
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let bare = FeatureSet::in_memory("m").avg(avg()).build().unwrap();
        for (set, out) in [(&built(&["a", "b"]).unwrap(), "0"), (&bare, "1")] {
            let out = path(&format!("{out}.safetensors"));
            convert(set, None, &out, &ConvertConfig::default(), &mut Silent).unwrap();
        }
        let error = FeatureSet::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains("`name` must be in every shard or in none"), "{error}");
    }
}
