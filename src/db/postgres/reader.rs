//! Questions to an index in PostgreSQL.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio_postgres::Row;

use super::address::PostgresAddress;
use super::away::{self, NodePlaces};
use super::connection::{ServerConnection, ServerSession, waiting_for_server};
use super::corrections::read_rules;
use super::error::ServerFailure;
use super::find;
use super::keys::{from_column, to_u64};
use super::load::{self, flags};
use super::question::QuestionState;
use super::roots::NamedRoots;
use super::schema;
use crate::db::mounts::{LOOKED_AT_SETS, MountLook, roots_of};
use crate::db::view::description_of;
use crate::db::{CorrectedValues, Corrections, Error, Interrupt, KnownLocation, Search};
use crate::model::attribute::AttributeId;
use crate::model::declared::DeclaredSet;
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::record::InstanceRecord;

/// A connection that asks. Each thread that asks has its own.
pub struct PostgresReader {
    address: PostgresAddress,
    connection: Option<ServerConnection>,
    pub(super) declared: Arc<DeclaredSet>,
    state: Arc<QuestionState>,
    mounts: MountLook,
    /// Whether it asks a copy that is not finished.
    is_of_copy: bool,
}

impl PostgresReader {
    /// Connects to an index that exists.
    ///
    /// # Errors
    /// Fails with [`Error::Missing`] if there is none: see [`Error`].
    pub fn open(address: &PostgresAddress) -> Result<Self, Error> {
        let mut this = Self::of(address, false);
        this.connection()?;
        Ok(this)
    }

    /// Connects to a copy that is being made.
    pub(super) fn open_copy(address: &PostgresAddress) -> Result<Self, Error> {
        let mut this = Self::of(address, true);
        this.connection()?;
        Ok(this)
    }

    fn of(address: &PostgresAddress, is_of_copy: bool) -> Self {
        let (declared, state) = (Arc::clone(DeclaredSet::none()), Arc::default());
        Self { address: address.clone(), connection: None, declared, state, mounts: MountLook::default(), is_of_copy }
    }

    /// Sets what is declared.
    #[must_use]
    pub fn with_declared(self, declared: Arc<DeclaredSet>) -> Self {
        Self { declared, ..self }
    }

    /// The server and database, without secrets.
    #[must_use]
    pub fn server(&self) -> &str {
        self.address.shown()
    }

    /// Places of the roots of the index on this node.
    pub(super) fn roots(&self) -> Arc<NamedRoots> {
        Arc::clone(self.address.roots())
    }

    /// The connection, which is made again if it was lost.
    pub(super) fn connection(&mut self) -> Result<&mut ServerConnection, Error> {
        if self.connection.as_ref().is_none_or(ServerConnection::is_closed) {
            self.connection = None;
            let mut connection = ServerConnection::open(&self.address, ServerSession::Reads)?;
            if !self.is_of_copy {
                schema::check(&mut connection, &self.address).map_err(|failure| failure.of(self.address.shown()))?;
            }
            self.connection = Some(connection);
        }
        let gone = || ServerFailure::Gone("it closed the connection".into()).of(self.address.shown());
        self.connection.as_mut().ok_or_else(gone)
    }

    /// Asks in one statement, or in several that need not be of one moment. If the server has
    /// closed the connection meanwhile, it is asked again.
    pub(super) fn ask<T>(
        &mut self,
        mut question: impl FnMut(&mut ServerConnection) -> Result<T, ServerFailure>,
    ) -> Result<T, Error> {
        match question(self.connection()?) {
            Err(ServerFailure::Gone(_)) => {
                self.connection = None;
                question(self.connection()?).map_err(|failure| failure.of(self.address.shown()))
            }
            asked => asked.map_err(|failure| failure.of(self.address.shown())),
        }
    }

    /// Asks a table that came after this version of the tables. A database that only an older
    /// program has written lacks it.
    pub(super) fn ask_of_table<T: Default>(
        &mut self,
        table: &'static str,
        mut question: impl FnMut(&mut ServerConnection) -> Result<T, ServerFailure>,
    ) -> Result<T, Error> {
        self.ask(|connection| if connection.has_table(table)? { question(connection) } else { Ok(T::default()) })
    }

    /// Asks in a transaction that sees the index of one moment.
    pub(super) fn ask_at_once<T>(
        &mut self,
        mut question: impl FnMut(&mut ServerConnection) -> Result<T, ServerFailure>,
    ) -> Result<T, Error> {
        let asked = self.ask(|connection| {
            connection.begin_reading();
            question(connection)
        });
        self.end_transaction();
        asked
    }

    /// Asks for a scan, which waits for a server that is gone.
    pub(super) fn ask_for_scan<T>(
        &mut self,
        mut question: impl FnMut(&mut ServerConnection) -> Result<T, ServerFailure>,
    ) -> Result<T, Error> {
        let is_gone = |error: &Error| matches!(error, Error::ServerGone { .. });
        waiting_for_server(|| self.ask_at_once(&mut question), is_gone)
    }

    /// Looks at the mounts again if the last look is old.
    fn look_at_mounts(&mut self) -> Result<(), Error> {
        let (mut mounts, roots) = (std::mem::take(&mut self.mounts), self.roots());
        let read = |connection: &mut ServerConnection| {
            let mount_points = away::mount_points(connection, &roots)?;
            let sql = "SELECT roots FROM scan GROUP BY roots ORDER BY max(id) DESC LIMIT $1";
            let mut roots = BTreeSet::new();
            for row in connection.query(sql, &[&(LOOKED_AT_SETS as i64)])? {
                roots.extend(roots_of(row.try_get(0)?)?);
            }
            Ok((mount_points, roots))
        };
        let looked = mounts.again(|| self.ask(read));
        self.mounts = mounts;
        looked
    }

    fn end_transaction(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.end_reading();
        }
    }

    /// Asks in a transaction that another thread may interrupt. The connection has the rules of
    /// corrections then.
    pub(super) fn interruptibly<T>(
        &mut self,
        question: impl FnOnce(&mut ServerConnection, &QuestionState) -> Result<T, ServerFailure>,
    ) -> Result<T, Error> {
        let state = Arc::clone(&self.state);
        state.begin();
        let asked = self.in_transaction(question);
        if state.end() {
            self.connection = None;
        }
        match asked {
            // The server says of a statement that it was cancelled, and not by whom.
            _ if state.is_interrupted() => Err(Error::Interrupted),
            asked => asked,
        }
    }

    fn in_transaction<T>(
        &mut self,
        question: impl FnOnce(&mut ServerConnection, &QuestionState) -> Result<T, ServerFailure>,
    ) -> Result<T, Error> {
        // That shows whether the connection is still there, before the first answer.
        self.ask(|connection| {
            connection.begin_reading();
            read_rules(connection)
        })?;
        let state = Arc::clone(&self.state);
        let connection = self.connection()?;
        state.set_running(connection.canceller());
        let asked = question(connection, &state);
        state.set_running(None);
        self.end_transaction();
        asked.map_err(|failure| failure.of(self.address.shown()))
    }
}

impl Search for PostgresReader {
    fn find(
        &mut self,
        request: &FindRequest,
        mut on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
    ) -> Result<u64, Error> {
        self.look_at_mounts()?;
        let (roots, mounts) = (self.roots(), std::mem::take(&mut self.mounts));
        let places = NodePlaces { roots: &roots, mounts: &mounts };
        let mut give = |mut answer: FindAnswer| {
            answer.location.iter_mut().for_each(|location| roots.localize(location));
            on_answer(answer)
        };
        let found = self.interruptibly(|connection, state| find::run(connection, request, (state, places), &mut give));
        self.mounts = mounts;
        found
    }

    fn interrupt(&self) -> Interrupt {
        let state = Arc::clone(&self.state);
        Interrupt::new(move || state.interrupt())
    }

    fn known_locations(&mut self, sop_instance_uid: &str) -> Result<Vec<KnownLocation>, Error> {
        let (uids, roots) = (BTreeSet::from([sop_instance_uid.to_owned()]), self.roots());
        self.ask_at_once(|connection| {
            let loaded = load::instances(connection, &uids, Default::default())?;
            let Some(held) = loaded.files.get(sop_instance_uid) else { return Ok(Vec::new()) };
            read_rules(connection)?;
            let corrected = held.first().and_then(|first| corrected_values(&connection.corrections, &first.record));
            let corrected = corrected.map(Arc::new);
            let files = held.iter().map(crate::db::contents::StoredFile::key).collect();
            let marks = super::marks::load(connection, &uids, &files)?;
            let first_is_missing =
                loaded.rows.get(sop_instance_uid).is_some_and(|row| row.flags & flags::FIRST_IS_MISSING != 0);
            let mut found: Vec<(bool, KnownLocation)> = Vec::new();
            let (first, copies) = held.split_at(held.len().min(1));
            let mut copies: Vec<_> = copies.iter().filter(|copy| copy.has_object()).collect();
            copies.sort_by_key(|copy| copy.key());
            for (at, held) in first.iter().chain(copies).enumerate() {
                let missing = if at == 0 { first_is_missing } else { marks.missing.contains(&held.key()) };
                let (mut location, checksum, differs) = (held.location.clone(), held.checksum, held.differs);
                let missing = missing || !roots.is_there(&location.directory);
                roots.localize(&mut location);
                found.push((missing, KnownLocation { location, checksum, differs, corrected: corrected.clone() }));
            }
            found.sort_by_key(|(missing, known)| (known.differs, *missing));
            Ok(found.into_iter().map(|(_, known)| known).collect())
        })
    }

    fn transfer_syntax_counts(&mut self) -> Result<Vec<(String, String, u64)>, Error> {
        let sql = "SELECT sop_class_uid, transfer_syntax_uid, sum(instance_count)::bigint FROM shelf GROUP BY 1, 2";
        self.ask(|connection| {
            let rows = connection.query(sql, &[])?;
            let count = |row: &Row| {
                let (class, syntax) = (from_column(row.try_get(0)?), from_column(row.try_get(1)?));
                Ok((class, syntax, to_u64(row.try_get(2)?)))
            };
            rows.iter().map(count).collect()
        })
    }

    fn version(&mut self) -> Result<i64, Error> {
        let written = self.ask(|connection| {
            let sql = "SELECT coalesce(sum(changes), 0)::bigint FROM writer_slot";
            Ok(connection.query_one(sql, &[])?.try_get::<_, i64>(0)?)
        })?;
        self.look_at_mounts()?;
        Ok(written + self.roots().changes() + self.mounts.changes())
    }

    fn another(&self) -> Result<Self, Error> {
        Ok(Self::open(&self.address)?.with_declared(Arc::clone(&self.declared)))
    }
}

/// Values that the rules replace in an object with this record.
fn corrected_values(corrections: &Corrections, record: &InstanceRecord) -> Option<CorrectedValues> {
    let of = (record.value(AttributeId::StudyInstanceUID), record.value(AttributeId::SeriesInstanceUID));
    corrections.values_for(of, &description_of(record))
}

impl std::fmt::Debug for PostgresReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresReader").field("address", &self.address).finish_non_exhaustive()
    }
}
