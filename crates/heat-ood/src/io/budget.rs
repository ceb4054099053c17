//! What reading an untrusted file may allocate: four times its size, or 32 MiB
//! if that is more. What is compressed, or is text, or lies in another order than
//! rows do, may also take what the memory limit allows.

use super::memory::memory_limit;

/// Small files may hold relatively much.
const FLOOR: usize = 32 << 20;

/// Bytes for one value of a JSON text with its place in a list or map, with
/// what these waste while they grow (measured: 59 to 125).
const VALUE: usize = 128;

/// Bytes that may still be allocated for a file.
pub(crate) struct Budget(usize);

impl Budget {
    /// For a file of `length` bytes.
    pub fn new(length: usize) -> Self {
        Budget(FLOOR.max(length.saturating_mul(4)))
    }

    /// For the rows of a file of `length` bytes, as many as they are in memory.
    pub fn of_content(length: usize) -> Self {
        Budget(memory_limit().max(length.saturating_mul(4)))
    }

    /// Take off `bytes`; `false` where there are not as many.
    pub fn spend(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// At most what parsing a JSON text takes: it is walked without building it.
/// A short text can hold many values, one for every two bytes.
pub(crate) fn json_cost(text: &[u8]) -> usize {
    let (mut values, mut quoted, mut escaped) = (1usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b':' | b'[' | b'{' if !quoted => values += 1,
            _ => {}
        }
    }
    values.saturating_mul(VALUE).saturating_add(3 * text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_texts() {
        let cost = |text: &str| json_cost(text.as_bytes()) - 3 * text.len();
        assert_eq!(cost("7"), VALUE);
        // The list, and the places of three values.
        assert_eq!(cost("[1,2,3]"), 4 * VALUE);
        assert_eq!(cost(r#""[,\",:{""#), VALUE);
        assert_eq!(cost(r#"{"a,b":"\\","c":[]}"#), 6 * VALUE);
    }

    #[test]
    fn a_budget_ends() {
        let mut budget = Budget::new(FLOOR);
        assert!(budget.spend(3 * FLOOR) && budget.spend(FLOOR));
        assert!(!budget.spend(1));
        assert!(!Budget::new(0).spend(FLOOR + 1));
    }
}
