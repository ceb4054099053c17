//! Text that came from files, made fit for a terminal.

/// Longest text of a name or value in a message, in characters.
const LONGEST: usize = 1000;

/// A name, value or other text of a file as one line that any terminal shows as
/// it stands: control characters, and those that turn the direction of writing
/// or cannot be seen, are written as escapes; what is beyond a thousand
/// characters is left out of the middle.
pub fn printable(text: &str) -> String {
    within(text, LONGEST)
}

/// The same, of so many characters at most.
fn within(text: &str, longest: usize) -> String {
    let shorter = shortened(text, longest);
    let mut out = String::with_capacity(shorter.len());
    for c in shorter.chars() {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same of what is told, in which such names are few: its lines stay lines, and are cut where
/// they are ten times as long.
pub(crate) fn printable_lines(text: &str) -> String {
    const MOST: usize = 40;
    let mut lines: Vec<String> =
        text.lines().take(MOST).map(|line| within(line, 10 * LONGEST)).collect();
    if text.lines().nth(MOST).is_some() {
        lines.push("…".into());
    }
    lines.join("\n")
}

fn shortened(text: &str, longest: usize) -> std::borrow::Cow<'_, str> {
    // A byte or more for each character.
    if text.len() <= longest || text.chars().nth(longest).is_none() {
        return text.into();
    }
    let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    let tail = text.char_indices().rev().nth(longest / 4).map_or(0, |(at, _)| at);
    let left_out = text[at(longest / 2)..tail].chars().count();
    format!("{} … ({left_out} characters) … {}", &text[..at(longest / 2)], &text[tail..]).into()
}

/// Marks of direction, of width zero, and line separators.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_the_cursor_is_escaped() {
        assert_eq!(printable("Größe 3 → é"), "Größe 3 → é");
        assert_eq!(printable("a\x1b[2Jb\r\n\tc\u{9b}"), "a\\u{1b}[2Jb\\r\\n\\tc\\u{9b}");
        assert_eq!(printable("gp\u{202e}nsr"), "gp\\u{202e}nsr");
        assert_eq!(printable_lines("a\n\x07b"), "a\n\\u{7}b");
    }

    #[test]
    fn long_texts_are_cut_in_the_middle() {
        let kept = "ä".repeat(LONGEST);
        assert_eq!(printable(&kept), kept);
        let text = format!("begin{}end", "ä".repeat(1 << 20));
        let short = printable(&text);
        assert!(short.starts_with("begin") && short.ends_with("end"), "{short}");
        assert!(short.chars().count() < LONGEST, "{}", short.chars().count());
        assert!(short.contains("characters"), "{short}");
        assert!(printable_lines(&"x\n".repeat(1 << 16)).lines().count() < 50);
    }
}
