//! Warnings about what a node shares with other programs, for `serve` and for `config check`. These
//! are receivers of events, and the folder of the worklist.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::config::Config;
use crate::events::{EventReceiver, EventTarget};

/// Warnings about receivers of events.
pub(super) fn of_receivers(receivers: &[EventReceiver]) -> Vec<String> {
    receivers.iter().filter_map(of_receiver).collect()
}

fn of_receiver(receiver: &EventReceiver) -> Option<String> {
    let name = &receiver.name;
    match &receiver.target {
        EventTarget::Webhook(target) if !target.url.has_tls() && !is_this_machine(target.url.host()) => Some(format!(
            "others can read the events of the receiver `{name}` on their way to {}; https hides them",
            target.url
        )),
        EventTarget::Webhook(_) => None,
        EventTarget::Command(command) => {
            // The system looks for a name alone in its own places.
            let program = command.first().filter(|program| program.contains('/'))?;
            let error = accessat(CWD, Path::new(program), Access::EXEC_OK, AtFlags::EACCESS).err()?;
            Some(format!(
                "the program {program} of the receiver `{name}` of events cannot be run, so its events wait: {error}"
            ))
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// A warning about the folder of the worklist. It may be a share that is away for a moment.
pub(super) fn of_worklist(config: &Config) -> Option<String> {
    let folder = config.worklist.folder.as_deref().filter(|_| config.worklist.enabled)?;
    let error = fs::read_dir(folder).err()?;
    Some(format!("the folder of the worklist, {}, cannot be read: {error}", folder.display()))
}
