//! A connection to the server, for code that waits.
//!
//! The driver is asynchronous. Whoever asks waits for the answer. One thread of the process reads
//! and writes the sockets of all connections that ask. The writer does it for its own while it
//! waits ([`SocketRuntime`]).

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use fail::fail_point;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{CancelToken, Client, Config, Connection, Row, Socket, Statement};

use super::address::PostgresAddress;
use super::error::{ServerFailure, chain, of_connecting};
use super::flight::{ServerAnswer, SqlParameter, Unsent, all_at_once};
use super::tls::{ServerStream, ServerTls};
use crate::db::{Corrections, Durability, Error};
use crate::model::declared::DeclaredSet;

/// Oldest server that is known to work.
const OLDEST_SERVER: i32 = 15;

/// Most statements that a connection keeps prepared. The server keeps the plan of each in memory.
const MOST_STATEMENTS: usize = 200;

/// Numbers of instance groups that are asked for at once. Larger: larger gaps. Smaller: more round
/// trips.
const GROUP_IDS_AT_ONCE: usize = 64;

/// Statements that wait for the next one at most.
const MOST_UNSENT: usize = 64;

/// Settings of a session that writes. A node that is stopped, or loses its network, within a
/// transaction would otherwise keep its studies locked for hours. To plan a statement again for its
/// parameters takes longer than to run it. Statements look for few rows by their keys, and a plan
/// that was made while tables were small would read all of them later.
const ENDS_IF_LOST: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; \
     SET tcp_keepalives_count = 3; SET tcp_user_timeout = '15s'; SET idle_in_transaction_session_timeout = '15s'; \
     SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;";

/// Begins a transaction that only reads.
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Time that changes and scans wait for a server that is gone. A standby takes over in this time,
/// and a peer that sends does not give up.
const WAIT_FOR_SERVER: Duration = Duration::from_secs(8);

/// Pause between two attempts to reach the server.
const PAUSE: Duration = Duration::from_millis(100);

/// Attempts something. While the server is gone, it is tried again for a time.
pub(super) fn waiting_for_server<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_gone: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + WAIT_FOR_SERVER;
    loop {
        match attempt() {
            Err(error) if is_gone(&error) && Instant::now() < deadline => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let make = || Builder::new_multi_thread().worker_threads(1).thread_name("postgresql").enable_all().build().ok();
    let none = || Error::Statement("no thread for the connections to the server could be started".into());
    RUNTIME.get_or_init(make).as_ref().ok_or_else(none)
}

/// Runtime that reads and writes the socket of a connection.
enum SocketRuntime {
    /// A thread of the process. Other threads can cancel what it waits for.
    Shared(&'static Runtime),
    /// The thread that waits for an answer. Where all cores are busy, each change of threads takes
    /// as long as some statements.
    Waiting(Runtime),
}

impl SocketRuntime {
    fn of(session: ServerSession) -> Result<Self, Error> {
        match session {
            ServerSession::Reads => Ok(Self::Shared(runtime()?)),
            ServerSession::Writes(_) => {
                let made = Builder::new_current_thread().enable_all().build();
                made.map(Self::Waiting).map_err(|error| Error::Statement(error.into()))
            }
        }
    }

    fn get(&self) -> &Runtime {
        match self {
            Self::Shared(runtime) => runtime,
            Self::Waiting(runtime) => runtime,
        }
    }
}

/// The socket of a connection. It is closed with it.
struct ServerSocket {
    /// Reads and writes it.
    task: JoinHandle<()>,
    runtime: SocketRuntime,
}

impl ServerSocket {
    /// Whether it is closed, also if that came while nobody waited.
    fn is_closed(&self) -> bool {
        if let SocketRuntime::Waiting(runtime) = &self.runtime {
            // In the first turn the socket is looked at, and in the second one it is read.
            runtime.block_on(async {
                yield_now().await;
                yield_now().await;
            });
        }
        self.task.is_finished()
    }
}

impl Drop for ServerSocket {
    fn drop(&mut self) {
        if let SocketRuntime::Waiting(runtime) = &self.runtime {
            // Its client is gone, so it takes leave of the server. One that does not answer sees
            // the socket closed.
            let _taken = runtime.block_on(async { timeout(PAUSE, &mut self.task).await });
        }
    }
}

/// Purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerSession {
    /// It asks.
    Reads,
    /// It changes the index, and its commits are as durable as this says.
    Writes(Durability),
}

/// A connection. It serves one thread.
pub(super) struct ServerConnection {
    // It is dropped before its socket.
    client: Client,
    socket: ServerSocket,
    server: ConnectedServer,
    /// The declared attributes that records are read and written with.
    pub(super) declared: Arc<DeclaredSet>,
    /// The rules that instance groups are seen by: see [`super::corrections::read_rules`].
    pub(super) corrections: Arc<Corrections>,
    /// Tables that came after this version of the tables, and are there.
    more_tables: HashSet<&'static str>,
    statements: HashMap<String, Statement>,
    /// Statements that go out with the next one that is asked.
    unsent: Vec<Unsent>,
    /// Numbers for instance groups that nobody else takes.
    group_ids: Vec<i64>,
}

/// The server that a connection was made to.
#[derive(Clone)]
struct ConnectedServer {
    config: Config,
    tls: ServerTls,
    time_limit: Duration,
}

impl ConnectedServer {
    /// Connects. A server that is stopped still accepts connections, and then says nothing.
    async fn connect(&self) -> Result<(Client, Connection<Socket, ServerStream<Socket>>), ServerFailure> {
        match timeout(self.time_limit, self.config.connect(self.tls.clone())).await {
            Ok(Err(error)) if is_read_only(&error) => Err(Error::ReadOnlyServer { detail: chain(&error) }.into()),
            Ok(connected) => connected.map_err(|error| of_connecting(&error)),
            Err(_elapsed) => Err(ServerFailure::Gone(silent(self.time_limit))),
        }
    }

    /// Whether it still takes connections. One that refuses them with a reason is there too.
    async fn is_there(&self) -> bool {
        match timeout(self.time_limit, self.config.connect(self.tls.clone())).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.code().is_some(),
            Err(_elapsed) => false,
        }
    }
}

/// Whether the driver refused a server because it takes no changes. Errors of the system have a
/// number.
fn is_read_only(error: &tokio_postgres::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none())
}

fn silent(time_limit: Duration) -> String {
    format!("it has not answered for {} s", time_limit.as_secs())
}

impl ServerConnection {
    /// Connects to the first host of the address that takes it.
    pub(super) fn open(address: &PostgresAddress, session: ServerSession) -> Result<Self, Error> {
        let runtime = SocketRuntime::of(session)?;
        let mut failure = ServerFailure::Gone("it has no host".to_owned());
        for config in address.configs(session != ServerSession::Reads) {
            let server = ConnectedServer { config, tls: address.tls().clone(), time_limit: address.time_limit() };
            match runtime.get().block_on(server.connect()) {
                Ok((client, connection)) => {
                    let task = runtime.get().spawn(async move {
                        // What ended the connection is told to whoever waits for an answer of it.
                        let _ended = connection.await;
                    });
                    let declared = Arc::clone(DeclaredSet::none());
                    let mut this = Self {
                        client,
                        socket: ServerSocket { task, runtime },
                        server,
                        declared,
                        corrections: Arc::default(),
                        more_tables: HashSet::new(),
                        statements: HashMap::new(),
                        unsent: Vec::new(),
                        group_ids: Vec::new(),
                    };
                    this.begin_session(address, session).map_err(|failure| failure.of(address.shown()))?;
                    return Ok(this);
                }
                // A server that is there says more than one that is gone.
                Err(of_host) if matches!(failure, ServerFailure::Gone(_)) => failure = of_host,
                Err(_of_another) => {}
            }
        }
        Err(failure.of(address.shown()))
    }

    /// Checks the server and sets what does not depend on its configuration.
    fn begin_session(&mut self, address: &PostgresAddress, session: ServerSession) -> Result<(), ServerFailure> {
        let row = self.query_one(
            "SELECT current_setting('server_version_num')::integer / 10000, current_setting('server_encoding')",
            &[],
        )?;
        let (found, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        if found < OLDEST_SERVER {
            let server = address.shown().to_owned();
            return Err(Error::ServerTooOld { server, found, oldest: OLDEST_SERVER }.into());
        }
        if encoding != "UTF8" {
            let detail = format!("the encoding of the database is {encoding}, and it has to be UTF8");
            return Err(Error::Address { detail }.into());
        }
        let commits = match session {
            ServerSession::Writes(Durability::Os) => "SET synchronous_commit = off;",
            ServerSession::Writes(Durability::Full) => "SET synchronous_commit = on;",
            ServerSession::Reads => "",
        };
        let ends_if_lost = if session == ServerSession::Reads { "" } else { ENDS_IF_LOST };
        // Compiling a query takes longer than any of ours. Some of them take long, and must not be
        // cancelled because of that. Tables that are there already are no news.
        self.run(&format!("SET jit = off; SET statement_timeout = 0; SET client_min_messages = warning; SET standard_conforming_strings = on; {ends_if_lost} {commits}"))
    }

    /// Refuses a pooler that gives each transaction another session. The settings of a session,
    /// such as `synchronous_commit`, would be those of any program then.
    pub(super) fn refuse_shared_session(&mut self, address: &PostgresAddress) -> Result<(), ServerFailure> {
        let mark = format!("{:032x}", RandomState::new().build_hasher().finish());
        self.run(&format!("SET dcmdex.session = '{mark}'"))?;
        // This connection has no transaction, so a pooler gives its session to the next one.
        let mut other = Self::open(address, ServerSession::Reads)?;
        let row = other.query_one("SELECT coalesce(current_setting('dcmdex.session', true), '')", &[])?;
        if row.try_get::<_, &str>(0)? == mark { Err(Error::SharedSession.into()) } else { Ok(()) }
    }

    /// Waits for an answer. A question may take long, so silence alone does not say that the server
    /// is gone. It is asked over another connection then.
    fn wait<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, ServerFailure> {
        let time_limit = self.server.time_limit;
        let waited = self.socket.runtime.get().block_on(async {
            let mut answer = pin!(answer);
            loop {
                match timeout(time_limit, &mut answer).await {
                    Ok(answered) => return Ok(answered?),
                    Err(_elapsed) if self.server.is_there().await => {}
                    Err(_elapsed) => return Err(ServerFailure::Gone(silent(time_limit))),
                }
            }
        });
        if matches!(waited, Err(ServerFailure::Gone(_))) {
            // Nothing that is asked of it afterwards may wait once more.
            self.socket.task.abort();
        }
        waited
    }

    fn statement(&mut self, sql: &str) -> Result<Statement, ServerFailure> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        if self.statements.len() >= MOST_STATEMENTS {
            self.statements.clear();
        }
        let statement = self.wait(self.client.prepare(sql))?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Has a statement go out with the next one that is asked. What it fails with, that one fails
    /// with.
    pub(super) fn later(&mut self, sql: &str, parameters: &[SqlParameter<'_>]) -> Result<(), ServerFailure> {
        let statement = self.statement(sql)?;
        self.unsent.push(Unsent::prepared(statement, parameters)?);
        if self.unsent.len() < MOST_UNSENT { Ok(()) } else { self.query_all([]).map(|[]| ()) }
    }

    /// The same for statements without parameters.
    pub(super) fn run_later(&mut self, sql: &str) {
        self.unsent.push(Unsent::Text(sql.to_owned()));
    }

    /// Sends what has waited, and after it what `ask` makes. Waits for all of it.
    fn fly<'f, T: 'f>(
        &'f self,
        unsent: &'f [Unsent],
        asked: impl IntoIterator<Item = ServerAnswer<'f, T>>,
    ) -> Result<Vec<T>, ServerFailure> {
        let before = unsent.iter().map(|unsent| unsent.send(&self.client));
        self.wait(all_at_once(before.chain(asked).collect()))
    }

    /// Asks several questions at once. Each sees what the one before it has done. One without a
    /// text is not asked, and nothing is its answer.
    pub(super) fn query_all<const N: usize>(
        &mut self,
        questions: [(&str, &[SqlParameter<'_>]); N],
    ) -> Result<[Vec<Row>; N], ServerFailure> {
        let mut statements = Vec::with_capacity(N);
        for (at, (sql, parameters)) in questions.into_iter().enumerate().filter(|(_, (sql, _))| !sql.is_empty()) {
            statements.push((at, self.statement(sql)?, parameters));
        }
        let (unsent, client) = (std::mem::take(&mut self.unsent), &self.client);
        let asked = statements.iter().map(|(_, statement, parameters)| -> ServerAnswer<'_, Vec<Row>> {
            Box::pin(async move { client.query(statement, parameters).await.map(Some) })
        });
        let mut answers = [const { Vec::new() }; N];
        for ((at, ..), answer) in statements.iter().zip(self.fly(&unsent, asked)?) {
            answers[*at] = answer;
        }
        Ok(answers)
    }

    pub(super) fn query(&mut self, sql: &str, parameters: &[SqlParameter<'_>]) -> Result<Vec<Row>, ServerFailure> {
        let [rows] = self.query_all([(sql, parameters)])?;
        Ok(rows)
    }

    pub(super) fn query_one(&mut self, sql: &str, parameters: &[SqlParameter<'_>]) -> Result<Row, ServerFailure> {
        let none = || Error::Statement("a question that has an answer had none".into()).into();
        self.query_opt(sql, parameters)?.ok_or_else(none)
    }

    pub(super) fn query_opt(
        &mut self,
        sql: &str,
        parameters: &[SqlParameter<'_>],
    ) -> Result<Option<Row>, ServerFailure> {
        Ok(self.query(sql, parameters)?.into_iter().next())
    }

    pub(super) fn execute(&mut self, sql: &str, parameters: &[SqlParameter<'_>]) -> Result<u64, ServerFailure> {
        let statement = self.statement(sql)?;
        let (unsent, client) = (std::mem::take(&mut self.unsent), &self.client);
        let asked: ServerAnswer<'_, u64> = Box::pin(async { client.execute(&statement, parameters).await.map(Some) });
        Ok(self.fly(&unsent, [asked])?.into_iter().sum())
    }

    /// Adds many rows by `COPY`, in this order. The server writes them to its log by the page.
    pub(super) fn copy_rows<const N: usize>(
        &mut self,
        sql: &str,
        types: &[Type; N],
        rows: &[[SqlParameter<'_>; N]],
    ) -> Result<(), ServerFailure> {
        let statement = self.statement(sql)?;
        let (unsent, client) = (std::mem::take(&mut self.unsent), &self.client);
        let asked: ServerAnswer<'_, u64> = Box::pin(async {
            let mut out = pin!(BinaryCopyInWriter::new(client.copy_in(&statement).await?, types));
            for row in rows {
                out.as_mut().write(row).await?;
            }
            out.finish().await.map(Some)
        });
        self.fly(&unsent, [asked]).map(drop)
    }

    /// Opens a cursor when it is asked for its first rows. Its statement is not kept prepared.
    pub(super) fn open_cursor(
        &mut self,
        sql: &str,
        parameters: &[(SqlParameter<'_>, Type)],
    ) -> Result<(), ServerFailure> {
        self.unsent.push(Unsent::once(sql, parameters)?);
        Ok(())
    }

    /// Reads the next rows of a cursor. The statement is not kept prepared: it would have the types
    /// of the cursor that was open then.
    pub(super) fn fetch(&mut self, count: usize, cursor: &str) -> Result<Vec<Row>, ServerFailure> {
        let sql = format!("FETCH {count} FROM {cursor}");
        let (unsent, client) = (std::mem::take(&mut self.unsent), &self.client);
        let asked: ServerAnswer<'_, Vec<Row>> = Box::pin(async { client.query_typed(&sql, &[]).await.map(Some) });
        Ok(self.fly(&unsent, [asked])?.into_iter().flatten().collect())
    }

    /// Runs statements without parameters, such as `BEGIN`.
    pub(super) fn run(&mut self, sql: &str) -> Result<(), ServerFailure> {
        self.run_later(sql);
        let unsent = std::mem::take(&mut self.unsent);
        self.fly::<()>(&unsent, []).map(drop)
    }

    /// Numbers for new instance groups. A transaction that fails leaves a gap.
    pub(super) fn new_group_ids(&mut self, count: usize) -> Result<Vec<i64>, ServerFailure> {
        if let Some(missing) = count.checked_sub(self.group_ids.len()).filter(|missing| *missing > 0) {
            let taken = i64::try_from(missing.max(GROUP_IDS_AT_ONCE)).unwrap_or(i64::MAX);
            let sql = "SELECT nextval(pg_get_serial_sequence('shelf', 'id')) FROM generate_series(1, $1::bigint)";
            for row in self.query(sql, &[&taken])? {
                self.group_ids.push(row.try_get(0)?);
            }
        }
        Ok(self.group_ids.drain(..count.min(self.group_ids.len())).collect())
    }

    /// Has a transaction that only reads begin with the next statement that is asked.
    pub(super) fn begin_reading(&mut self) {
        self.run_later(BEGIN_READING);
    }

    /// Ends a transaction that only reads. Nobody waits until the server has done it: the next
    /// statement comes after it.
    pub(super) fn end_reading(&mut self) {
        let begins = |unsent: Unsent| matches!(unsent, Unsent::Text(sql) if sql == BEGIN_READING);
        if !self.unsent.drain(..).any(begins) {
            let mut ended = pin!(self.client.batch_execute("ROLLBACK"));
            // The driver sends it now, and passes over the answer if nobody waits.
            let _later = ended.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Ends a transaction without its changes.
    pub(super) fn roll_back(&mut self) -> Result<(), ServerFailure> {
        self.unsent.clear();
        self.run("ROLLBACK")
    }

    /// Commits. If the connection is gone then, nobody knows whether the server has done it.
    pub(super) fn commit(&mut self) -> Result<(), ServerFailure> {
        self.run("COMMIT")?;
        // A test loses the answer of the server here.
        fail_point!(&format!("committed {}", self.server.config.get_dbname().unwrap_or_default()), |_| Err(
            ServerFailure::Gone("the answer was lost".into())
        ));
        Ok(())
    }

    /// Whether the database has a table that came after this version of the tables. One that only
    /// an older program has written lacks it.
    pub(super) fn has_table(&mut self, table: &'static str) -> Result<bool, ServerFailure> {
        if !self.more_tables.contains(table) {
            let row = self.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])?;
            if !row.try_get::<_, bool>(0)? {
                return Ok(false);
            }
            self.more_tables.insert(table);
        }
        Ok(true)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.socket.is_closed() || self.client.is_closed()
    }

    /// Cancels the statement that the server runs for this connection. `None` if the connection
    /// changes the index.
    pub(super) fn canceller(&self) -> Option<Canceller> {
        let SocketRuntime::Shared(runtime) = self.socket.runtime else { return None };
        Some(Canceller { runtime, token: self.client.cancel_token(), tls: self.server.tls.clone() })
    }
}

/// Cancels the statement of a connection from another thread.
#[derive(Clone)]
pub(super) struct Canceller {
    runtime: &'static Runtime,
    token: CancelToken,
    tls: ServerTls,
}

impl Canceller {
    /// Asks the server to cancel, and does not wait for it.
    pub(super) fn cancel(&self) {
        let (token, tls) = (self.token.clone(), self.tls.clone());
        self.runtime.spawn(async move {
            // If the server is gone, its statement is gone too.
            let _gone = token.cancel_query(tls).await;
        });
    }
}
