//! How this process was started: for what says how it was made, and for runs that are processes
//! of their own. Another program may carry the command, as the Python package does.

use std::ffi::OsString;
use std::sync::OnceLock;

/// The words that start the command, and those that follow.
struct Invocation {
    program: Vec<OsString>,
    arguments: Vec<OsString>,
}

static INVOCATION: OnceLock<Invocation> = OnceLock::new();

/// Remember it; the first time counts.
pub fn remember(program: Vec<OsString>, arguments: &[OsString]) {
    let arguments = arguments.iter().skip(1).cloned().collect();
    let _ = INVOCATION.set(Invocation { program, arguments });
}

/// What starts the command once more.
pub fn program() -> std::io::Result<Vec<OsString>> {
    match INVOCATION.get().map(|i| &i.program).filter(|program| !program.is_empty()) {
        Some(program) => Ok(program.clone()),
        None => Ok(vec![std::env::current_exe()?.into()]),
    }
}

/// The arguments after the program's name.
pub fn arguments() -> &'static [OsString] {
    INVOCATION.get().map_or(&[], |i| &i.arguments)
}
