//! DICOM software of other vendors as peers: DCMTK by absolute path, pydicom and pynetdicom in
//! their own environment. `scripts/peers` installs them.
//!
//! A test that needs a peer starts like this:
//!
//! ```ignore
//! let Some(mut findscu) = peers::dcmtk("findscu") else { return };
//! let answer = peers::run(findscu.args(["-S", "127.0.0.1", &port]));
//! ```
//!
//! If `CI` or `DCMDEX_REQUIRE_PEERS` is set, a missing peer fails the test. Otherwise the test
//! prints SKIPPED.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Time after which a peer counts as hung, at its start and in [`run`]. It is generous: it guards
/// against a hang and measures nothing.
const HUNG: Duration = Duration::from_secs(120);

/// Returns a DCMTK program (`echoscu`, `storescu`, `dcmsend`, `findscu`, `dcmdump`, ...), ready for
/// its arguments.
///
/// It uses the absolute path. pynetdicom installs scripts of the same names, and an active virtual
/// environment puts them first.
pub(crate) fn dcmtk(program: &str) -> Option<Command> {
    found(Path::new("/usr/bin").join(program)).map(Command::new)
}

/// Returns Orthanc, ready for its configuration file. On Debian it is a system program.
pub(crate) fn orthanc() -> Option<Command> {
    found(PathBuf::from("/usr/sbin/Orthanc")).map(Command::new)
}

/// Returns another program by its absolute path. If it does not exist, it counts as a missing peer.
pub(crate) fn program(path: impl Into<PathBuf>) -> Option<Command> {
    found(path.into()).map(Command::new)
}

/// Returns the Python that has pydicom and pynetdicom, ready to run `script`. It is a file of
/// `tests/peers`, or a whole path.
pub(crate) fn python_peer(script: impl AsRef<Path>) -> Option<Command> {
    let python = match variable("DCMDEX_PEERS_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => target_directory().join("peers/venv/bin/python"),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
    assert!(script.is_file(), "no such script: {}", script.display());
    let mut command = Command::new(found(python)?);
    // Deterministic text on the pipes, and no byte code written into the source tree.
    command.env("PYTHONUTF8", "1").env("PYTHONDONTWRITEBYTECODE", "1").arg(script);
    Some(command)
}

/// Returns the folder of OHIF that `scripts/peers` fetched.
pub(crate) fn ohif() -> Option<PathBuf> {
    fetched_by_npm("OHIF", "DCMDEX_PEERS_OHIF", "peers/ohif/package/dist", "index.html")
}

/// Returns the folder of axe-core that `scripts/peers` fetched.
pub(crate) fn axe() -> Option<PathBuf> {
    fetched_by_npm("axe-core", "DCMDEX_PEERS_AXE", "peers/axe/package", "axe.min.js")
}

/// Returns the folder of a package with this file in it. It needs npm and a network, so a missing
/// one never fails a test.
fn fetched_by_npm(name: &str, setting: &str, below_target: &str, file: &str) -> Option<PathBuf> {
    let folder = variable(setting).map_or_else(|| target_directory().join(below_target), PathBuf::from);
    if folder.join(file).is_file() {
        return Some(folder);
    }
    skipped(&format!("{} is not there; scripts/peers fetches {name} where npm is", folder.display()));
    None
}

/// Output of a peer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// Returns both streams, standard output first. Panics with all output if the peer did not exit
    /// with 0.
    pub(crate) fn expect_success(self) -> String {
        let Self { status, stdout, stderr } = self;
        assert!(status.success(), "the peer ended with {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        stdout + &stderr
    }
}

/// Runs a peer to its end and returns its output. A peer that hangs is killed, and the test fails.
pub(crate) fn run(command: &mut Command) -> Answer {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (done, ended) = mpsc::channel();
    let stdout = collect(child.stdout.take().unwrap(), done.clone());
    let stderr = collect(child.stderr.take().unwrap(), done);
    // Both streams at their end: the peer is ending. (The channel is closed when both readers have
    // dropped their side.)
    if ended.recv_timeout(HUNG) == Err(mpsc::RecvTimeoutError::Timeout) {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("the peer hung and was killed: {command:?}");
    }
    Answer { status: child.wait().unwrap(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn collect(mut stream: impl Read + Send + 'static, done: mpsc::Sender<()>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        drop(done);
        // DCMTK prints values in the character set of the object.
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Returns `program` if it exists. Otherwise the test fails if peers are required, and else prints
/// SKIPPED.
fn found(program: PathBuf) -> Option<PathBuf> {
    if program.is_file() {
        return Some(program);
    }
    let missing = format!("{} is not there; run scripts/peers to install the peers", program.display());
    let required =
        ["CI", "DCMDEX_REQUIRE_PEERS"].into_iter().any(|name| variable(name).is_some_and(|value| !value.is_empty()));
    assert!(!required, "{missing}");
    skipped(&missing);
    None
}

/// Prints clearly that the current test cannot run here. `scripts/test` repeats it at its end.
pub(crate) fn skipped(missing: &str) {
    let test = thread::current();
    let name = test.name().unwrap_or("a test");
    let line = format!("SKIPPED {name}: {missing}\n");
    // The runner keeps what eprintln prints in a passing test to itself.
    io::stderr().write_all(line.as_bytes()).unwrap();
    if let Some(list) = variable("DCMDEX_SKIPPED_LIST") {
        let mut list = File::options().append(true).create(true).open(list).unwrap();
        list.write_all(line.as_bytes()).unwrap();
    }
}

/// Returns Cargo's target directory, even if it is not `target/`.
fn target_directory() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "which peers to use is a setting of the tests, not of the program")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// A server of another vendor. It is killed when dropped.
pub(crate) struct Server(Child);

impl Server {
    /// Starts it and waits until it listens on these ports. It gives no other sign that it is
    /// ready.
    pub(crate) fn start(command: &mut Command, ports: &[u16]) -> Self {
        let mut server =
            Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begun = Instant::now();
        for &port in ports {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(server.0.try_wait().unwrap().is_none(), "{command:?} has ended");
                assert!(begun.elapsed() < HUNG, "{command:?} does not listen");
                thread::sleep(Duration::from_millis(20));
            }
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a port that was free a moment ago. These programs cannot choose a free port themselves
/// and report it.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scu_of_dcmtk_is_not_that_of_pynetdicom() {
        for program in ["echoscu", "storescu", "dcmsend", "findscu"] {
            let Some(mut command) = dcmtk(program) else {
                return;
            };
            let version = run(command.arg("--version")).expect_success();
            assert!(version.starts_with(&format!("$dcmtk: {program} v")), "{version}");
        }
    }

    #[test]
    fn the_python_peers_are_of_the_pinned_versions() {
        let pinned: Vec<_> = include_str!("../../peers/requirements.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let Some(mut versions) = python_peer("versions.py") else {
            return;
        };
        let installed = run(&mut versions).expect_success();
        assert_eq!(installed.lines().collect::<Vec<_>>(), pinned);
    }
}
