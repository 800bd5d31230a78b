//! Ctrl-Z: a process that is stopped in the middle of a transaction would keep the index locked for everybody else.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGTSTP, SIGTTIN, SIGTTOU};
use signal_hook::low_level::{emulate_default_handler, pipe};

use crate::db::Suspension;

/// How long a stop waits for the end of a transaction. Whoever waits longer than this waits for another process, and has nothing locked.
const LONGEST: Duration = Duration::from_secs(5);

/// Has the process stop between two transactions, when a terminal asks for it. SIGCONT goes on as ever.
pub(super) fn commit_before_stopping(suspension: &Suspension) -> anyhow::Result<()> {
    let (mut asked, asks) = UnixStream::pair().context("signals cannot be handled")?;
    for signal in [SIGTSTP, SIGTTIN, SIGTTOU] {
        let asks = asks.try_clone().context("signals cannot be handled")?;
        pipe::register(signal, asks).context("signals cannot be handled")?;
    }
    let suspension = suspension.clone();
    std::thread::Builder::new()
        .name("suspension".into())
        .spawn(move || {
            let mut some = [0; 64];
            // Several that came together are one.
            while asked.read(&mut some).is_ok_and(|read| read > 0) {
                suspension.between_transactions(LONGEST, || {
                    let _it_is_stopped_by_force_then = emulate_default_handler(SIGTSTP);
                });
            }
        })
        .context("a thread for signals cannot be started")?;
    Ok(())
}
