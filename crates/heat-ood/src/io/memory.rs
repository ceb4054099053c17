//! How much memory what is read may take: half of what there is, unless told.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Where the system does not say how much memory it has.
const UNKNOWN: usize = 8 << 30;

/// The limit as told; 0 where nothing was.
static LIMIT: AtomicUsize = AtomicUsize::new(0);

/// Let the content of files, and fits whose size it decides, take at most so
/// many bytes at a time, in the whole process. (Reading a file may always take
/// four times its size.)
pub fn set_memory_limit(bytes: usize) {
    LIMIT.store(bytes.max(1), Ordering::Relaxed);
}

/// That limit: as set, else half of the machine's memory, or of its control
/// group's if that is less.
pub fn memory_limit() -> usize {
    static HALF: OnceLock<usize> = OnceLock::new();
    match LIMIT.load(Ordering::Relaxed) {
        0 => *HALF.get_or_init(|| {
            let known = [machine(), control_group()].into_iter().flatten().min();
            known.unwrap_or(UNKNOWN) / 2
        }),
        told => told,
    }
}

/// Bytes that this process may still take, where the system says it: what the machine has to spare,
/// and what the control group allows besides what the process holds.
pub fn free_memory() -> Option<usize> {
    let held = || kilobytes("/proc/self/status", "RssAnon:");
    let allowed = control_group().map(|most| most.saturating_sub(held().unwrap_or(0)));
    [kilobytes("/proc/meminfo", "MemAvailable:"), allowed].into_iter().flatten().min()
}

/// Refuse what would take more than the limit, before it is asked for.
///
/// # Errors
/// If `bytes` are more; `what` takes them.
pub(crate) fn check_memory(what: &str, bytes: Option<usize>) -> Result<()> {
    let limit = memory_limit();
    if bytes.is_some_and(|bytes| bytes <= limit) {
        return Ok(());
    }
    let size = bytes.map_or("more than 2⁶⁴ bytes".to_owned(), readable);
    let problem = format!("it would take {size} of memory, and {} are allowed", readable(limit));
    Err(Error::Fit { what: what.to_owned(), problem })
}

/// The same for means of so many classes of rows of `d`, in f64, with what is
/// added up beside them.
pub(crate) fn check_means(what: &str, d: usize, classes: usize) -> Result<()> {
    check_memory(what, d.checked_mul(classes).and_then(|n| n.checked_mul(24)))
}

/// The same for their covariance, taken apart.
pub(crate) fn check_moments(what: &str, d: usize, classes: usize) -> Result<()> {
    check_means(what, d, classes)?;
    check_memory(what, d.checked_mul(d).and_then(|n| n.checked_mul(24)))
}

/// A number of bytes for people.
pub fn readable(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// The machine's memory.
fn machine() -> Option<usize> {
    kilobytes("/proc/meminfo", "MemTotal:")
}

/// A line of one of the system's tables, in bytes.
fn kilobytes(table: &str, key: &str) -> Option<usize> {
    let text = std::fs::read_to_string(table).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The least that this process's control group and those around it allow.
fn control_group() -> Option<usize> {
    let root = Path::new("/sys/fs/cgroup");
    let read = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Version 2: `0::/a/b`; version 1: `7:memory:/a/b`.
    let groups = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, kinds, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        match kinds {
            "" => Some((root.to_owned(), path, "memory.max")),
            _ if kinds.split(',').any(|k| k == "memory") => {
                Some((root.join("memory"), path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    groups
        .flat_map(|(root, path, file)| {
            let whole = root.join(path);
            let around: Vec<_> = whole.ancestors().take_while(|p| p.starts_with(&root)).collect();
            around.iter().filter_map(|group| read(&group.join(file))).collect::<Vec<_>>()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_refused_in_words() {
        assert!(check_memory("gmm", Some(1)).is_ok());
        let said = check_memory("gmm", Some(usize::MAX)).unwrap_err().to_string();
        assert!(said.contains("cannot fit gmm") && said.contains("GiB of memory"), "{said}");
        assert!(check_memory("gmm", None).is_err());
        assert_eq!(readable(1536), "1.5 KiB");
        assert_eq!(readable(5 << 30), "5.0 GiB");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_says_how_much_memory_there_is() {
        assert!(machine().unwrap() > 1 << 26);
        assert!(memory_limit() <= machine().unwrap() / 2);
        assert!((1 << 20..machine().unwrap()).contains(&free_memory().unwrap()));
    }
}
