//! Handles Ctrl-Z. A process that stops within a transaction would keep the index locked for all
//! others.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGTSTP, SIGTTIN, SIGTTOU};
use signal_hook::low_level::{emulate_default_handler, pipe};

use crate::db::Suspension;

/// Maximum wait for the end of a transaction before the process stops. If it takes longer, this
/// process itself waits for a lock and holds none.
const LONGEST: Duration = Duration::from_secs(5);

/// Makes the process stop between two transactions when a terminal requests it. SIGCONT works as
/// usual.
pub(super) fn commit_before_stopping(suspension: &Suspension) -> anyhow::Result<()> {
    let (mut asked, asks) = UnixStream::pair().context("cannot handle signals")?;
    for signal in [SIGTSTP, SIGTTIN, SIGTTOU] {
        let asks = asks.try_clone().context("cannot handle signals")?;
        pipe::register(signal, asks).context("cannot handle signals")?;
    }
    let suspension = suspension.clone();
    std::thread::Builder::new()
        .name("suspension".into())
        .spawn(move || {
            let mut some = [0; 64];
            // Several signals at once count as one.
            while asked.read(&mut some).is_ok_and(|read| read > 0) {
                suspension.between_transactions(LONGEST, || {
                    let _stopped_by_force = emulate_default_handler(SIGTSTP);
                });
            }
        })
        .context("cannot start the signal thread")?;
    Ok(())
}
