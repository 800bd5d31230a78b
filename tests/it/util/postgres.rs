//! A PostgreSQL server of the tests, from Debian's package.
//!
//! Each process that needs one starts its own, on a socket in a directory of its own. The server
//! ends with the process, however that ends: a shell waits for the end of its standard input.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::certificates::Identity;
use super::network::FarNetwork;
use super::peers;

/// Where Debian has the programs of the server.
const PROGRAMS: &str = "/usr/lib/postgresql";

/// The server refuses to run as root.
pub(crate) const USER: &str = "postgres";

/// The port that the name of a socket has if no other one is named.
const USUAL_PORT: u16 = 5432;

/// A running server.
pub(crate) struct PostgresServer {
    directory: PathBuf,
    pub(crate) port: u16,
    /// Ends the server when its standard input ends.
    shell: Child,
}

/// The directory of the programs of the newest version.
fn programs() -> PathBuf {
    let versions = Path::new(PROGRAMS).read_dir().into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| number(path));
    newest
        .unwrap_or_else(|| {
            panic!("no PostgreSQL server in {PROGRAMS}; hint: run scripts/peers, or apt-get install postgresql")
        })
        .join("bin")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of the server, as a user who may run it.
fn program(name: &str) -> Command {
    as_server_user(&programs().join(name))
}

fn as_server_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    // Unlike `runuser`, it leaves no process of its own, which would stop with the server.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--"]).arg(program);
    command
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl PostgresServer {
    /// Starts a server with further settings, such as `fsync=on`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let directory = Self::make();
        Self { shell: Self::run(&directory, USUAL_PORT, settings), directory, port: USUAL_PORT }
    }

    /// Starts a server in another network. It has its socket here too.
    pub(crate) fn start_in(network: &FarNetwork, settings: &[&str]) -> Self {
        let directory = Self::make();
        let mut access = std::fs::File::options().append(true).open(directory.join("data/pg_hba.conf")).unwrap();
        writeln!(access, "host all all samenet trust").unwrap();
        let listening = format!("listen_addresses={}", network.address());
        let settings: Vec<&str> = settings.iter().copied().chain([listening.as_str()]).collect();
        let shell = Self::run_with(&network.command(), &directory, USUAL_PORT, &settings);
        Self { shell, directory, port: USUAL_PORT }
    }

    /// Starts a server that takes encrypted connections with this certificate.
    pub(crate) fn encrypted(identity: &Identity) -> Self {
        let (directory, port) = (Self::make(), peers::free_port());
        let data = directory.join("data");
        for (from, name) in [(&identity.certificate, "server.crt"), (&identity.key, "server.key")] {
            let mut install = Command::new("install");
            install.args(["-m", "600"]);
            if is_root() {
                install.args(["-o", USER]);
            }
            succeed(install.arg(from).arg(data.join(name)));
        }
        let shell = Self::run(&directory, port, &["listen_addresses=localhost", "ssl=on"]);
        Self { shell, directory, port }
    }

    /// Starts a standby, which follows this server.
    pub(crate) fn standby(&self) -> Self {
        let directory = Self::make_empty();
        let mut copy = program("pg_basebackup");
        copy.args(["-R", "-X", "stream", "-c", "fast", "-U", USER, "-p", &self.port.to_string(), "-h"]);
        succeed(copy.arg(&self.directory).arg("-D").arg(directory.join("data")));
        let standby = Self { shell: Self::run(&directory, USUAL_PORT, &[]), directory, port: USUAL_PORT };
        while self.sql(USER, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "0" {}
        standby
    }

    /// Makes a standby the server that can be written.
    pub(crate) fn promote(&self) {
        self.sql(USER, "SELECT pg_promote()");
    }

    /// Kills the server with SIGKILL. It does not start again.
    pub(crate) fn kill_for_good(&self) {
        std::fs::write(self.directory.join("stop"), "").unwrap();
        self.kill();
    }

    /// The address of a database on this server or on another one.
    pub(crate) fn address_with(&self, other: &Self, database: &str) -> PathBuf {
        let [one, other] = [self, other].map(|server| server.directory.display().to_string());
        format!("postgresql:///{database}?user={USER}&host={one}&host={other}").into()
    }

    /// Makes the directory of a server with its data.
    fn make() -> PathBuf {
        let directory = Self::make_empty();
        let data = directory.join("data");
        succeed(
            program("initdb")
                .args(["--no-sync", "-A", "trust", "-E", "UTF8", "--locale=C", "-U", USER, "-D"])
                .arg(&data),
        );
        directory
    }

    fn make_empty() -> PathBuf {
        // The path of a socket has 107 bytes at most.
        let directory = tempfile::Builder::new().prefix("dcmdex-pg").tempdir_in("/tmp").unwrap().keep();
        if is_root() {
            succeed(Command::new("chown").arg(USER).arg(&directory));
        }
        directory
    }

    fn run(directory: &Path, port: u16, settings: &[&str]) -> Child {
        Self::run_with(&[], directory, port, settings)
    }

    /// Runs a server by another command, which has the command line of the server at its end.
    fn run_with(runner: &[&str], directory: &Path, port: u16, settings: &[&str]) -> Child {
        let mut server = program("postgres");
        server.arg("-D").arg(directory.join("data"));
        server.arg("-k").arg(directory).args(["-p", &port.to_string()]);
        let usual =
            ["listen_addresses=", "fsync=off", "shared_buffers=32MB", "max_connections=200", "logging_collector=off"];
        for setting in usual.iter().chain(settings) {
            server.args(["-c", setting]);
        }
        let server = std::iter::once(server.get_program()).chain(server.get_args());
        let arguments: Vec<_> = runner.iter().map(OsStr::new).chain(server).collect();
        // A server that was killed starts again.
        let script = "dir=$1; shift
            {
                while [ ! -e \"$dir/stop\" ]; do
                    [ -e \"$dir/hold\" ] || \"$@\" >>\"$dir/log\" 2>&1 <&-
                    sleep 0.05
                done
                touch \"$dir/ended\"
            } &
            read -r _; touch \"$dir/stop\"
            while [ ! -e \"$dir/ended\" ]; do
                pid=$(head -1 \"$dir/data/postmaster.pid\")
                kill -INT \"$pid\"
                kill -CONT \"$pid\" $(pgrep -P \"$pid\")
                sleep 0.05
            done
            wait; rm -rf \"$dir\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(directory).args(arguments).current_dir("/");
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if Self::becomes_ready(directory, port) {
            return shell;
        }
        let log = std::fs::read_to_string(directory.join("log"));
        drop(shell.stdin.take());
        shell.wait().unwrap();
        panic!("{}", log.unwrap());
    }

    /// Waits until a server takes connections. Returns whether it does.
    fn becomes_ready(directory: &Path, port: u16) -> bool {
        (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let mut ready = program("pg_isready");
            ready.args(["-q", "-U", USER, "-d", USER, "-p", &port.to_string(), "-h"]).arg(directory);
            ready.status().unwrap().success()
        })
    }

    /// Kills the server with SIGKILL, which leaves it no time for anything. It starts again at
    /// once.
    pub(crate) fn kill(&self) {
        // A process that it starts meanwhile would live on, and keep the server from starting
        // again.
        self.signal_all("STOP");
        self.signal_all("KILL");
    }

    /// Kills the server. It starts again after [`Self::let_start`].
    pub(crate) fn kill_and_hold(&self) {
        std::fs::write(self.directory.join("hold"), "").unwrap();
        self.kill();
    }

    /// Lets a server start again that is held, and waits for it.
    pub(crate) fn let_start(&self) {
        std::fs::remove_file(self.directory.join("hold")).unwrap();
        self.wait();
    }

    /// Waits until the server takes connections.
    pub(crate) fn wait(&self) {
        assert!(Self::becomes_ready(&self.directory, self.port), "the server starts again");
    }

    /// Stops all of its processes, as a machine that hangs does. Connections stay.
    pub(crate) fn stop(&self) {
        self.signal_all("STOP");
    }

    /// Lets a server go on that was stopped.
    pub(crate) fn go_on(&self) {
        self.signal_all("CONT");
    }

    /// Sends a signal to the server, and then to its processes.
    fn signal_all(&self, signal: &str) {
        let pids = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let pid = pids.lines().next().unwrap();
        let send = |pids: &[&str]| Command::new("kill").arg(format!("-{signal}")).args(pids).output().unwrap();
        let children = || Command::new("pgrep").args(["-P", pid]).output().unwrap().stdout;
        // The children of one that was killed are no longer its children.
        let before = String::from_utf8(children()).unwrap();
        send(&[pid]);
        let after = String::from_utf8(children()).unwrap();
        // A child may end on its own meanwhile.
        send(&before.lines().chain(after.lines()).collect::<Vec<_>>());
    }

    /// Runs SQL in a database, and returns what it prints.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = program("psql");
        psql.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", database, "-c", sql, "-h"]).arg(&self.directory);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs SQL in a transaction that stays open.
    pub(crate) fn hold(&self, database: &str, sql: &str) -> HeldTransaction<'_> {
        let mut psql = program("psql");
        let sleeping = format!("{sql}; SELECT pg_sleep(3600)");
        psql.args(["-qAtX", "-U", USER, "-d", database, "-c", &sleeping, "-h"]).arg(&self.directory);
        let psql = psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let sleeps =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        while self.sql(database, sleeps) == "0" {}
        HeldTransaction { server: self, database: database.to_owned(), psql }
    }

    /// Ends all other connections to a database.
    pub(crate) fn disconnect_all(&self, database: &str) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.sql(database, sql);
    }

    /// Makes an empty database, and returns its address as the path of an index.
    pub(crate) fn database(&self) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("index_{}", NUMBER.fetch_add(1, SeqCst));
        self.sql(USER, &format!("CREATE DATABASE {name}"));
        self.address(&name)
    }

    /// The directory of the server, with its data and its socket.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes an empty database whose files lie in this directory, and returns its address.
    pub(crate) fn database_in(&self, directory: &Path) -> PathBuf {
        if is_root() {
            succeed(Command::new("chown").arg(USER).arg(directory));
        }
        self.sql(USER, &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", directory.display()));
        self.sql(USER, "CREATE DATABASE elsewhere TABLESPACE elsewhere");
        self.address("elsewhere")
    }

    /// The address of a database.
    pub(crate) fn address(&self, database: &str) -> PathBuf {
        format!("postgresql:///{database}?user={USER}&host={}", self.directory.display()).into()
    }
}

/// A PgBouncer before a server, which shares its sessions in this way.
pub(crate) struct Pooler {
    directory: tempfile::TempDir,
    process: Child,
}

impl Pooler {
    pub(crate) fn start(server: &PostgresServer, pool_mode: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("dcmdex-pgb").tempdir_in("/tmp").unwrap();
        if is_root() {
            succeed(Command::new("chown").arg(USER).arg(directory.path()));
        }
        let settings = format!(
            "[databases]\n* = host={} user={USER}\n[pgbouncer]\nunix_socket_dir = {}\nlisten_port = {USUAL_PORT}\n\
             auth_type = any\npool_mode = {pool_mode}\n",
            server.directory.display(),
            directory.path().display()
        );
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut pooler = as_server_user("/usr/sbin/pgbouncer".as_ref());
        pooler.arg("-q").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = pooler.spawn().expect("PgBouncer is installed; hint: run scripts/peers");
        assert!(PostgresServer::becomes_ready(directory.path(), USUAL_PORT));
        Self { directory, process }
    }

    /// The address of a database through it.
    pub(crate) fn address(&self, database: &str) -> PathBuf {
        format!("postgresql:///{database}?user={USER}&host={}", self.directory.path().display()).into()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A transaction that another process holds open. It ends when this is dropped.
pub(crate) struct HeldTransaction<'s> {
    server: &'s PostgresServer,
    database: String,
    psql: Child,
}

impl Drop for HeldTransaction<'_> {
    fn drop(&mut self) {
        self.server.disconnect_all(&self.database);
        self.psql.wait().unwrap();
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}

/// The server of this process.
pub(crate) fn server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(|| PostgresServer::start(&[]))
}

/// The name of the database that an index of [`PostgresServer::database`] is in.
pub(crate) fn database_of(index: &Path) -> String {
    let text = index.to_str().unwrap();
    text["postgresql:///".len()..].split('?').next().unwrap().to_owned()
}
