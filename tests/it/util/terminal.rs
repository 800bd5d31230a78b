//! Runs a program on a terminal.

use std::io::Read as _;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs a program whose standard output and standard error are a terminal with this number of
/// columns. Returns its exit code and what it wrote.
pub(crate) fn run(command: &mut Command, columns: u16) -> (i32, String) {
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&main).unwrap();
    unlockpt(&main).unwrap();
    tcsetwinsize(&main, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&main, Vec::new()).unwrap();
    let open = || std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut child =
        command.env("TERM", "xterm-256color").stdin(Stdio::null()).stdout(open()).stderr(open()).spawn().unwrap();
    // The command keeps its ends of the terminal, so that reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut written = Vec::new();
    // When the last end is closed, reading fails (EIO).
    let _end = std::fs::File::from(main).read_to_end(&mut written);
    (child.wait().unwrap().code().unwrap(), String::from_utf8(written).unwrap())
}
