//! Messages where the system would end the command by a signal, without a word: for a mapped file
//! that another program cut short, and for a file beyond the size that may be written
//! (`ulimit -f`).
//!
//! Only the command listens to them; who uses the library has a program of their own.

use std::ffi::{c_int, c_void};

use heat_ood::io::mapped_file;

/// The exit code of a command that ends so.
const EXIT_CODE: c_int = 4;

/// Say which file it was, or that a write failed, from now on.
pub fn explain() {
    // SAFETY: `action` is a whole value of its type, all zeros being one (no flags, an empty mask);
    // the handler has the signature that SA_SIGINFO asks for, and does only what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(_, _, _) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
    // Then the write fails, is told like a full disk, and its temporary file removed.
    // SAFETY: to ignore a signal needs no handler, and any signal but two can be ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// It takes no lock and no memory: the thread that it interrupts may hold both.
extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the system gives a handler with SA_SIGINFO a valid `info`.
    let address = unsafe { (*info).si_addr() }.addr();
    let mut name = [0; 256];
    let Some(length) = mapped_file(address, &mut name) else {
        // Something else: let it end the program as if there were no handler.
        // SAFETY: the default action is one for this signal.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    };
    let text: [&[u8]; 3] = [
        b"error: ",
        &name[..length],
        b": was cut short by another program while it was read; nothing was written of it. Run the \
          command again when the file is whole, or with `--no-mmap`, which reads it into memory first\n",
    ];
    for part in text {
        // SAFETY: the pointer and the length are those of `part`. What was written matters to
        // nobody any more.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: it ends the process, running nothing of it.
    unsafe { libc::_exit(EXIT_CODE) };
}
