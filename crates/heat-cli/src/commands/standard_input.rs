//! Standard input, read by a thread of its own, so that it can be asked whether more is there.

use std::io::{Read, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::progress;

/// Pieces that wait to be read.
const PIECES: usize = 4;

/// How often a reader that waits looks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

/// What has come of standard input.
pub struct Pump {
    receive: Receiver<Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    /// Pieces that were sent and not received, the end among them.
    waiting: Arc<AtomicUsize>,
}

/// Whether a read would be answered at once.
pub struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    pub fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Pump {
    /// Begin to read.
    pub fn start() -> (Self, Waiting) {
        let (send, receive) = sync_channel(PIECES);
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = Arc::clone(&waiting);
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            loop {
                let mut piece = vec![0; 1 << 16];
                let read = input.read(&mut piece);
                if read.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::Interrupted) {
                    continue;
                }
                let last = !matches!(read, Ok(1..));
                let piece = read.map(|n| {
                    piece.truncate(n);
                    piece
                });
                // The end stays there: it is answered at once, however often it is asked for.
                sent.fetch_add(1, Ordering::SeqCst);
                if send.send(piece).is_err() || last {
                    return;
                }
            }
        });
        let pump = Pump { receive, piece: Vec::new(), at: 0, waiting: Arc::clone(&waiting) };
        (pump, Waiting(waiting))
    }

    /// The next piece; empty at the end.
    fn receive(&self) -> Result<Vec<u8>> {
        loop {
            match self.receive.recv_timeout(LOOK) {
                Ok(piece) => {
                    if piece.as_ref().is_ok_and(|piece| !piece.is_empty()) {
                        self.waiting.fetch_sub(1, Ordering::SeqCst);
                    }
                    return piece;
                }
                Err(RecvTimeoutError::Timeout) if progress::interrupted() => {
                    return Err(std::io::Error::other("interrupted"));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Vec::new()),
            }
        }
    }
}

impl Read for Pump {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        if self.at == self.piece.len() {
            (self.piece, self.at) = (self.receive()?, 0);
        }
        let n = out.len().min(self.piece.len() - self.at);
        out[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
