//! Names of files without where they lie: a page goes to others, whose machines have other
//! directories, and who need not know ours.

use std::path::Path;

/// A text with `…/` in place of the directories of absolute paths.
pub fn shortened(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let begins = !(before.is_alphanumeric() || "/\\._-…~)".contains(before));
        match begins.then(|| directories(rest)).flatten() {
            Some(length) => {
                out.push_str("…/");
                rest = &rest[length..];
                before = '/';
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                before = c;
            }
        }
    }
    out
}

/// The length of the directories of an absolute path that a text begins with.
fn directories(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let drive = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.get(1) == Some(&b':')
        && bytes.get(2).is_some_and(|b| b"/\\".contains(b));
    let share = text.starts_with("\\\\");
    let unix = bytes.first() == Some(&b'/') && bytes.get(1).is_some_and(|b| *b != b'/');
    if !(drive || share || unix) {
        return None;
    }
    let separator = |c: char| c == '/' || (drive || share) && c == '\\';
    // Where it ends: a word, a quotation, an item of a list.
    let ends = |c: char| c.is_whitespace() || "'\"`,;:()<>|=".contains(c);
    let first = if drive { 2 } else { 0 };
    let length = text[first..].find(ends).map_or(text.len(), |at| first + at);
    if length <= first + 1 {
        return None;
    }
    let path = text[..length].trim_end_matches(separator);
    path.rfind(separator).map(|last| last + 1)
}

/// The last name of a path; of a run's detector also that of its directory.
pub fn name(path: &Path) -> String {
    let last = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    match (last(path), path.parent().and_then(last)) {
        (Some(file), Some(run)) if file == "detector.safetensors" => format!("{run}/{file}"),
        (Some(file), _) => file,
        _ => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_absolute_paths_are_left_out() {
        for (text, want) in [
            ("heat eval --id /home/me/f/test.safetensors", "heat eval --id …/test.safetensors"),
            ("--ood=/a/b.npy mnist=/a/c.npy", "--ood=…/b.npy mnist=…/c.npy"),
            ("'/a/my data/x'", "'…/my data/x'"),
            ("log_dir = \"/home/me/runs\"", "log_dir = \"…/runs\""),
            ("/home/me/features/: no rows", "…/features/: no rows"),
            ("/a/lr=1e-3_seed=0/detector", "…/lr=1e-3_seed=0/detector"),
            (r"C:\data\x.npy, D:/y/z", "…/x.npy, …/z"),
            (r"\\host\share\x.npy", "…/x.npy"),
            ("/tmp", "…/tmp"),
            ("features/a/b.npy ../c ./d", "features/a/b.npy ../c ./d"),
            ("images/s, 3 / 4, a/b", "images/s, 3 / 4, a/b"),
            ("http://host/x", "http://host/x"),
        ] {
            assert_eq!(shortened(text), want);
        }
        assert_eq!(name(Path::new("/a/b/run/detector.safetensors")), "run/detector.safetensors");
        assert_eq!(name(Path::new("/a/test.safetensors")), "test.safetensors");
        assert_eq!(name(Path::new("test")), "test");
    }
}
