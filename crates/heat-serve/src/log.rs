//! What the server says: lines on standard error, one each, from a thread of their own. A reader
//! that is slow costs lines, which are counted, and never a request its time.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use heat_ood::printable;
use serde_json::{Map, Value, json};

/// Lines that wait.
const WAITING: usize = 4096;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As text on a terminal, else as JSON.
    Auto,
    /// As text.
    Text,
    /// As JSON, an object a line.
    Json,
}

/// Where lines go.
#[derive(Clone)]
pub struct Log {
    lines: SyncSender<Line>,
    json: bool,
    dropped: Arc<AtomicU64>,
}

enum Line {
    Text(String),
    /// Answer when all before it is written.
    Flush(SyncSender<()>),
}

impl Log {
    /// Start the thread that writes.
    pub fn start(form: Form) -> Self {
        use std::io::IsTerminal;
        let json = match form {
            Form::Json => true,
            Form::Text => false,
            Form::Auto => !std::io::stderr().is_terminal(),
        };
        let (lines, waiting) = sync_channel::<Line>(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let write = move || {
            for line in waiting {
                match line {
                    Line::Text(text) => {
                        // A disk that is full, or a pipe without a reader, ends nothing.
                        if writeln!(std::io::stderr(), "{text}").is_err() {
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Line::Flush(done) => {
                        let _ = done.try_send(());
                    }
                }
            }
        };
        // Without it lines are dropped, and counted.
        let _ = std::thread::Builder::new().name("log".into()).spawn(write);
        Log { lines, json, dropped }
    }

    /// Lines that were lost.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Say something, with what belongs to it.
    pub fn say(&self, level: &str, message: &str, fields: Value) {
        let line =
            if self.json { as_json(level, message, fields) } else { as_text(message, fields) };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.try_send(Line::Text(line))
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Say something.
    pub fn info(&self, message: &str) {
        self.say("info", message, Value::Null);
    }

    /// Say that something is wrong.
    pub fn warn(&self, message: &str) {
        self.say("warn", message, Value::Null);
    }

    /// Wait until all that was said is written, or a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(std::time::Duration::from_secs(1));
        }
    }
}

fn as_json(level: &str, message: &str, fields: Value) -> String {
    let mut line = Map::new();
    line.insert("time".into(), json!(now()));
    line.insert("level".into(), level.into());
    line.insert("message".into(), message.into());
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    // U+2028 and U+2029 end lines for some readers of JSON.
    let text = Value::Object(line).to_string();
    text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn as_text(message: &str, fields: Value) -> String {
    let mut line = message.to_owned();
    if let Value::Object(fields) = fields {
        for (key, value) in fields {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            line.push_str(&format!(" {key}={value}"));
        }
    }
    printable(&line)
}

/// Seconds since 1970.
pub fn now() -> f64 {
    seconds(SystemTime::now())
}

/// Seconds from 1970 to then.
pub fn seconds(at: SystemTime) -> f64 {
    let passed = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    (passed.as_secs_f64() * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one() {
        let nasty = "a\r\nb\u{1b}[31m\u{2028}\"<img onerror=x>";
        let line = as_json("info", "request", json!({"id": nasty}));
        assert!(!line.contains(['\n', '\r', '\u{1b}', '\u{2028}']), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["id"], nasty);
        let line = as_text("request", json!({"id": nasty, "rows": 2}));
        assert!(!line.contains(['\n', '\r', '\u{1b}']) && line.contains("rows=2"), "{line}");
    }
}
