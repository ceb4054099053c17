//! Lines of bounded length.

use std::io::{Error, ErrorKind, Read, Result};

/// Ends with an error where a line goes on and on: readers of lines keep them whole.
pub(super) struct Guard<'r> {
    reader: Box<dyn Read + 'r>,
    longest: usize,
    /// Bytes since the last end of a line.
    line: usize,
}

impl<'r> Guard<'r> {
    pub fn new(reader: Box<dyn Read + 'r>, longest: usize) -> Self {
        Guard { reader, longest, line: 0 }
    }
}

impl Read for Guard<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let n = self.reader.read(out)?;
        self.line = match out[..n].iter().rposition(|b| *b == b'\n') {
            Some(at) => n - at - 1,
            None => self.line + n,
        };
        if self.line > self.longest {
            let problem = format!("a line of more than {} bytes", self.longest);
            return Err(Error::new(ErrorKind::InvalidData, problem));
        }
        Ok(n)
    }
}
