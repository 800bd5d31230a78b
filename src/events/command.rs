//! Commands that take events.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, kill_process_group};

use super::delivery_failure::DeliveryFailure;
use super::message::OutgoingEvent;

/// Pauses between two looks at a running command: the first, and the longest.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A command, with a limit on its time.
pub(super) struct CommandCaller {
    pub(super) command: Vec<String>,
    pub(super) timeout: Duration,
}

impl CommandCaller {
    /// Runs the command once with the event on its standard input. What it writes is thrown away.
    pub(super) fn deliver(&self, event: &OutgoingEvent) -> Result<(), DeliveryFailure> {
        let cannot = |error: io::Error| DeliveryFailure::Unreachable(format!("it cannot be started: {error}"));
        let mut child = self.start(event).map_err(cannot)?;
        let deadline = Instant::now() + self.timeout;
        let mut pause = POLL.0;
        loop {
            match child.try_wait().map_err(cannot)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(DeliveryFailure::Refused(status.to_string())),
                None if Instant::now() >= deadline => {
                    end(&mut child);
                    return Err(DeliveryFailure::Silent(format!("it took longer than {:?}", self.timeout)));
                }
                None => thread::sleep(pause),
            }
            pause = (pause * 2).min(POLL.1);
        }
    }

    fn start(&self, event: &OutgoingEvent) -> io::Result<Child> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it has no name"));
        };
        // A file in memory. A pipe would block here, if the command does not read it.
        let mut input = File::from(rustix::fs::memfd_create("event", MemfdFlags::CLOEXEC)?);
        input.write_all(&event.body)?;
        input.rewind()?;
        Command::new(program)
            .args(arguments)
            .env("DCMDEX_EVENT", &event.id)
            .env("DCMDEX_EVENT_KIND", &event.kind)
            .stdin(Stdio::from(input))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own, so that what it has started ends with it.
            .process_group(0)
            .spawn()
    }
}

/// Ends a command and all that it has started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // It may end by itself at this moment.
    let _ended = group.map(|group| kill_process_group(group, Signal::KILL));
    let _reaped = child.wait();
}
