//! A connection to the server, for code that waits.
//!
//! The driver is asynchronous. One thread of the process reads and writes the sockets of all
//! connections, and whoever asks waits for the answer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Client, Row, Statement};

use super::address::PostgresAddress;
use super::error::{ServerFailure, chain};
use super::tls::ServerTls;
use crate::db::{Durability, Error};

/// Oldest server that is known to work.
const OLDEST_SERVER: i32 = 15;

/// Most statements that a connection keeps prepared. The server keeps the plan of each in memory.
const MOST_STATEMENTS: usize = 200;

/// A parameter of a statement.
pub(super) type SqlParameter<'p> = &'p (dyn ToSql + Sync);

fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let make = || Builder::new_multi_thread().worker_threads(1).thread_name("postgresql").enable_all().build().ok();
    let none = || Error::Statement("no thread for the connections to the server could be started".into());
    RUNTIME.get_or_init(make).as_ref().ok_or_else(none)
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerSession {
    /// It asks.
    Reads,
    /// It changes the index, and its commits are as durable as this says.
    Writes(Durability),
}

/// A connection. It serves one thread.
pub(super) struct ServerConnection {
    runtime: &'static Runtime,
    client: Client,
    tls: ServerTls,
    statements: HashMap<String, Statement>,
}

impl ServerConnection {
    /// Connects to the first host of the address that takes it.
    pub(super) fn open(address: &PostgresAddress, session: ServerSession) -> Result<Self, Error> {
        let runtime = runtime()?;
        let config = address.config(session != ServerSession::Reads);
        let gone = |detail| Error::ServerGone { server: address.shown().to_owned(), detail };
        let (client, connection) =
            runtime.block_on(config.connect(address.tls().clone())).map_err(|error| gone(chain(&error)))?;
        runtime.spawn(async move {
            // What ended the connection is told to whoever waits for an answer of it.
            let _ended = connection.await;
        });
        let mut this = Self { runtime, client, tls: address.tls().clone(), statements: HashMap::new() };
        this.begin_session(address, session).map_err(|failure| failure.of(address.shown()))?;
        Ok(this)
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
            ServerSession::Writes(Durability::Normal) => "SET synchronous_commit = off;",
            ServerSession::Writes(Durability::Full) => "SET synchronous_commit = on;",
            ServerSession::Reads => "",
        };
        // Compiling a query takes longer than any of ours.
        let sql = format!("SET jit = off; SET standard_conforming_strings = on; {commits}");
        Ok(self.wait(self.client.batch_execute(&sql))?)
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
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

    pub(super) fn query(&mut self, sql: &str, parameters: &[SqlParameter<'_>]) -> Result<Vec<Row>, ServerFailure> {
        let statement = self.statement(sql)?;
        Ok(self.wait(self.client.query(&statement, parameters))?)
    }

    pub(super) fn query_one(&mut self, sql: &str, parameters: &[SqlParameter<'_>]) -> Result<Row, ServerFailure> {
        let statement = self.statement(sql)?;
        Ok(self.wait(self.client.query_one(&statement, parameters))?)
    }

    pub(super) fn query_opt(
        &mut self,
        sql: &str,
        parameters: &[SqlParameter<'_>],
    ) -> Result<Option<Row>, ServerFailure> {
        let statement = self.statement(sql)?;
        Ok(self.wait(self.client.query_opt(&statement, parameters))?)
    }

    pub(super) fn execute(&mut self, sql: &str, parameters: &[SqlParameter<'_>]) -> Result<u64, ServerFailure> {
        let statement = self.statement(sql)?;
        Ok(self.wait(self.client.execute(&statement, parameters))?)
    }

    /// Runs a statement once, without keeping it prepared.
    pub(super) fn execute_typed(
        &mut self,
        sql: &str,
        parameters: &[(SqlParameter<'_>, Type)],
    ) -> Result<(), ServerFailure> {
        let parameters: Vec<_> = parameters.iter().map(|(value, of)| (*value, of.clone())).collect();
        self.wait(self.client.execute_typed(sql, &parameters))?;
        Ok(())
    }

    /// Runs statements without parameters, such as `BEGIN`.
    pub(super) fn run(&mut self, sql: &str) -> Result<(), ServerFailure> {
        Ok(self.wait(self.client.batch_execute(sql))?)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// A function that cancels the statement that the server runs for this connection.
    pub(super) fn canceller(&self) -> Canceller {
        Canceller { runtime: self.runtime, token: self.client.cancel_token(), tls: self.tls.clone() }
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
