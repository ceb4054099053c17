//! Who may ask for what: tokens, of which only the hashes are stored.
//!
//! A file has one line for each: a name, a scope (`score` or `admin`), the SHA-256 of the token.

use std::path::Path;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use heat_ood::Error;
use heat_ood::io::{read_text, sha256_of};
use subtle::ConstantTimeEq;

use crate::refusal::{Kind, Refusal, Result};

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Scores and metadata.
    Score,
    /// The admin plane.
    Admin,
}

impl Scope {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Scope::Score => "score",
            Scope::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "score" => Ok(Scope::Score),
            "admin" => Ok(Scope::Admin),
            _ => Err("expected score or admin".into()),
        }
    }
}

/// The known tokens.
#[derive(Debug, Default)]
pub struct Tokens(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    scope: Scope,
    /// Of the token, in hexadecimal.
    sha256: String,
}

impl Tokens {
    /// Read a file of tokens.
    ///
    /// # Errors
    /// If others than its owner may read it, or a line is none.
    pub fn open(path: &Path) -> heat_ood::Result<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let found = std::fs::metadata(path).map_err(Error::io("read", path))?;
            let mode = found.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let problem =
                    format!("has mode {mode:o}: others may read it; `chmod 600` it first");
                return Err(Error::format(path, problem));
            }
        }
        let mut tokens = Vec::new();
        for (i, line) in read_text(path)?.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = entry(line).map_err(|problem| {
                let place = i + 1;
                Error::format(
                    path,
                    format!(
                        "line {place}: {problem}; expected `NAME score|admin SHA256`, as `heat token` prints it"
                    ),
                )
            })?;
            tokens.push(entry);
        }
        if tokens.is_empty() {
            return Err(Error::format(
                path,
                "has no token: `heat token NAME --scope score` makes one",
            ));
        }
        Ok(Tokens(tokens))
    }

    /// Whether the value of an `Authorization` header opens `scope`.
    ///
    /// # Errors
    /// If it holds no token, an unknown one, or one of the other scope.
    pub fn check(&self, header: Option<&[u8]>, scope: Scope) -> Result<()> {
        let unknown = |text: &str| Err(Refusal::new(Kind::Unauthenticated, text));
        let Some(header) = header else {
            return unknown("a token is needed: `Authorization: Bearer TOKEN`");
        };
        let Some(token) = bearer(header) else {
            return unknown("expected `Authorization: Bearer TOKEN`");
        };
        let hash = sha256_of([token]);
        // All entries, so that the time says nothing of which one it was.
        let mut found = None;
        for entry in &self.0 {
            if bool::from(entry.sha256.as_bytes().ct_eq(hash.as_bytes())) {
                found = Some(entry.scope);
            }
        }
        match found {
            None => unknown("the token is not known"),
            // Who may administer may also score.
            Some(has) if has == scope || has == Scope::Admin => Ok(()),
            Some(_) => {
                let text = format!("the token has not the scope `{}`", scope.word());
                Err(Refusal::new(Kind::Forbidden, text))
            }
        }
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn entry(line: &str) -> std::result::Result<Entry, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[_, scope, hash] = &words[..] else {
        return Err(format!("{} words", words.len()));
    };
    if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("the last word is no SHA-256".into());
    }
    Ok(Entry { scope: scope.parse()?, sha256: hash.to_ascii_lowercase() })
}

/// A new token, and the line of a file that makes it known.
pub fn make(name: &str, scope: Scope) -> heat_ood::Result<(String, String)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        let problem = "a name of at most 64 letters, digits, `.`, `_` and `-`";
        return Err(Error::config("name", name, problem));
    }
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| {
        Error::config("token", "", format!("the system gives no random bytes: {e}"))
    })?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let hash = sha256_of([&token]);
    Ok((token, format!("{name} {} {hash}", scope.word())))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    fn of(line: &str) -> Tokens {
        Tokens(vec![entry(line).unwrap()])
    }

    fn kind(tokens: &Tokens, header: &str, scope: Scope) -> Option<Kind> {
        tokens.check(Some(header.as_bytes()), scope).err().map(|refused| refused.kind)
    }

    /// SHA-256 of `abc`, from FIPS 180-2.
    #[test]
    fn tokens_by_their_hashes() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let score = of(&format!("me score {abc}"));
        assert_eq!(kind(&score, "Bearer abc", Scope::Score), None);
        assert_eq!(kind(&score, "bearer  abc ", Scope::Score), None);
        assert_eq!(kind(&score, "Bearer abc", Scope::Admin), Some(Kind::Forbidden));
        for wrong in ["Bearer abd", "Basic abc", "Bearer ", "abc", ""] {
            assert_eq!(kind(&score, wrong, Scope::Score), Some(Kind::Unauthenticated), "{wrong}");
        }
        let admin = of(&format!("me admin {abc}"));
        assert_eq!(kind(&admin, "Bearer abc", Scope::Score), None);
        assert_eq!(kind(&admin, "Bearer abc", Scope::Admin), None);
        assert!(score.check(None, Scope::Score).is_err());
    }

    #[test]
    fn a_new_token_is_known_by_its_line() {
        let (token, line) = make("ci", Scope::Admin).unwrap();
        assert!(line.starts_with("ci admin ") && !line.contains(&token));
        assert_eq!(kind(&of(&line), &format!("Bearer {token}"), Scope::Admin), None);
        assert_ne!(make("ci", Scope::Admin).unwrap().0, token);
        assert!(make("a b", Scope::Score).is_err() && make("", Scope::Score).is_err());
    }

    /// Whether the medians of what two kinds of runs take differ by far more than each differs from
    /// itself. They run in turn, so that what else the machine does meets all.
    fn differ(one: impl Fn(), other: impl Fn()) -> bool {
        const EACH: usize = 100_000;
        let mut times = [(); 4].map(|()| Vec::with_capacity(EACH));
        for _ in 0..EACH {
            for (i, times) in times.iter_mut().enumerate() {
                let began = Instant::now();
                if i % 2 == 0 {
                    one()
                } else {
                    other()
                }
                times.push(began.elapsed().as_nanos());
            }
        }
        let median = |times: &mut Vec<u128>| *times.select_nth_unstable(EACH / 2).1 as f64;
        let [a, b, again_a, again_b] = times.each_mut().map(median);
        let between = (a + again_a - b - again_b).abs() / 2.0;
        let within = (a - again_a).abs().max((b - again_b).abs());
        eprintln!("{a} ns: {between} between the two, {within} within each");
        between > 4.0 * within + 0.02 * a
    }

    /// A hash that differs in its first digit takes as long as one that differs in its last.
    #[test]
    fn the_time_says_nothing_of_the_hash() {
        let hash = sha256_of(["abc"]);
        let changed = |at: usize| {
            let digit = if hash.as_bytes()[at] == b'0' { "1" } else { "0" };
            format!("{}{digit}{}", &hash[..at], &hash[at + 1..])
        };
        let [first, last] = [0, 63].map(changed);
        let [known_first, known_last] = [&first, &last].map(|hash| of(&format!("me score {hash}")));
        let check = |tokens: &Tokens| {
            let _ = black_box(tokens.check(Some(b"Bearer abc"), Scope::Score));
        };
        // Noise may make a difference where there is none, but not each time.
        assert!((0..8).any(|_| !differ(|| check(&known_first), || check(&known_last))));
        // A comparison that ends with the first difference would be found out.
        let stops = |other: &str| {
            let _ = black_box(hash.bytes().zip(other.bytes()).all(|(a, b)| black_box(a) == b));
        };
        assert!((0..8).any(|_| differ(|| stops(&first), || stops(&last))));
    }

    #[cfg(unix)]
    #[test]
    fn files_that_others_may_read_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let open = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            Tokens::open(&path).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let line = make("ci", Scope::Score).unwrap().1;
        assert_eq!(open(&format!("# ours\n\n{line}\n"), 0o600), "");
        assert!(open(&line, 0o640).contains("chmod 600"));
        assert!(open("ci score abc", 0o600).contains("line 1"));
        assert!(open("ci all 00", 0o600).contains("no SHA-256"));
        assert!(open("# nothing\n", 0o600).contains("has no token"));
    }
}
