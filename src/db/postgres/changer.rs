//! Transactions that change instances.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::address::PostgresAddress;
use super::connection::{ServerConnection, ServerSession};
use super::corrections::begin_change;
use super::directories;
use super::error::{MOST_ATTEMPTS, ServerFailure};
use super::event_rows::{ToldChange, insert_events};
use super::held_unit::HeldUnit;
use super::keys::{DirectoryIds, place_number, to_column};
use super::load::{self, PartNeeds};
use super::promises;
use super::remembered::RememberedRows;
use super::roots::NamedRoots;
use super::save::{self, Unsaved};
use super::schema;
use crate::db::arrival::{ArrivalSource, OpenArrivals, SourceOfInstances};
use crate::db::contents::{Contents, kind};
use crate::db::event_notes::EventNotes;
use crate::db::{Durability, Error};
use crate::model::declared::DeclaredSet;
use crate::model::location::Place;

/// Writers that count in one row. Two that share a row wait for each other.
const SLOTS: u128 = 256;

/// A connection that changes an index.
pub(super) struct IndexChanger {
    address: PostgresAddress,
    session: ServerSession,
    declared: Arc<DeclaredSet>,
    connection: Option<ServerConnection>,
    remembered: RememberedRows,
    /// The arrivals that may go on.
    arrivals: OpenArrivals,
    slot: i32,
    /// Name of this writer among all others.
    name: String,
    /// The unit of a shared scan that its transactions are for.
    held: Option<HeldUnit>,
    /// Whether a commit was sent whose answer was lost.
    pub(super) is_in_doubt: bool,
}

impl IndexChanger {
    /// Connects, and makes the tables if there are none.
    pub(super) fn open(
        address: &PostgresAddress,
        session: ServerSession,
        declared: &Arc<DeclaredSet>,
    ) -> Result<Self, Error> {
        let mut connection = ServerConnection::open(address, session)?;
        connection.declared = Arc::clone(declared);
        connection.refuse_shared_session(address).map_err(|failure| failure.of(address.shown()))?;
        schema::prepare(&mut connection, address)?;
        if session == ServerSession::Writes(Durability::Full) {
            let broken = promises::broken(&mut connection).map_err(|failure| failure.of(address.shown()))?;
            for promise in broken {
                tracing::warn!(server = address.shown(), "durability is full, but the server is not: {promise}");
            }
        }
        Ok(Self::of(address, session, declared, connection))
    }

    /// Connects to a database that a copy is made in. Whoever opens it is told so until
    /// [`schema::end_copy`].
    pub(super) fn for_copy(address: &PostgresAddress) -> Result<Self, Error> {
        let session = ServerSession::Writes(Durability::Full);
        let mut connection = ServerConnection::open(address, session)?;
        schema::begin_copy(&mut connection, address)?;
        connection.refuse_shared_session(address).map_err(|failure| failure.of(address.shown()))?;
        Ok(Self::of(address, session, DeclaredSet::none(), connection))
    }

    fn of(
        address: &PostgresAddress,
        session: ServerSession,
        declared: &Arc<DeclaredSet>,
        connection: ServerConnection,
    ) -> Self {
        let seed = [std::process::id().to_le_bytes().to_vec(), format!("{:p}", &raw const connection).into_bytes()];
        let started = format!("{:?}", std::time::Instant::now()).into_bytes();
        let name = xxhash_rust::xxh3::xxh3_128(&[seed.concat(), started].concat());
        Self {
            address: address.clone(),
            session,
            declared: Arc::clone(declared),
            connection: Some(connection),
            remembered: RememberedRows::default(),
            arrivals: OpenArrivals::default(),
            // Writers of one process need different ones too.
            slot: (name % SLOTS) as i32,
            name: format!("{name:032x}"),
            held: None,
            is_in_doubt: false,
        }
    }

    /// Ends the connection. The next change makes a new one.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.forget_rows();
    }

    /// Reads the numbers of directories and the instance groups of studies again when they are
    /// needed.
    pub(super) fn forget_rows(&mut self) {
        self.remembered = RememberedRows::default();
    }

    pub(super) const fn address(&self) -> &PostgresAddress {
        &self.address
    }

    /// Places of the roots of the index on this node.
    pub(super) fn roots(&self) -> &Arc<NamedRoots> {
        self.address.roots()
    }

    /// Has transactions from now on be for this unit, or for none.
    pub(super) fn hold(&mut self, held: Option<HeldUnit>) {
        self.held = held;
    }

    pub(super) fn held(&self) -> Option<&HeldUnit> {
        self.held.as_ref()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn server(&self) -> &str {
        self.address.shown()
    }

    /// The connection, which is made again if it was lost.
    pub(super) fn connection(&mut self) -> Result<&mut ServerConnection, ServerFailure> {
        if self.connection.as_ref().is_none_or(ServerConnection::is_closed) {
            self.disconnect();
            let mut connection = ServerConnection::open(&self.address, self.session).map_err(|error| match error {
                // A standby may be about to take over.
                Error::ServerGone { detail, .. } | Error::ReadOnlyServer { detail } => ServerFailure::Gone(detail),
                other => ServerFailure::Other(other),
            })?;
            schema::check(&mut connection, &self.address)?;
            schema::keep_numbers_growing(&mut connection)?;
            connection.declared = Arc::clone(&self.declared);
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or(ServerFailure::Gone(String::new()))
    }

    /// Runs `work` in one transaction. If others are in its way, it begins again.
    pub(super) fn transaction<T>(
        &mut self,
        mut work: impl FnMut(&mut ServerConnection, &mut RememberedRows) -> Result<T, ServerFailure>,
    ) -> Result<T, ServerFailure> {
        for _ in 0..MOST_ATTEMPTS {
            match self.attempt(&mut work) {
                Err(ServerFailure::Again) => {}
                done => return done,
            }
        }
        Err(ServerFailure::Again)
    }

    fn attempt<T>(
        &mut self,
        work: &mut impl FnMut(&mut ServerConnection, &mut RememberedRows) -> Result<T, ServerFailure>,
    ) -> Result<T, ServerFailure> {
        let (slot, held) = (self.slot, self.held.clone());
        self.connection()?;
        let mut remembered = std::mem::take(&mut self.remembered);
        remembered.limit();
        let connection = self.connection()?;
        let begun = begin_change(connection);
        let is_held = begun.and_then(|()| held.as_ref().map_or(Ok(()), |held| held.renew(connection)));
        let done = is_held.and_then(|()| work(connection, &mut remembered)).and_then(|done| {
            connection.later(
                "INSERT INTO writer_slot VALUES ($1, 1) ON CONFLICT (slot) DO UPDATE SET changes = writer_slot.changes + 1",
                &[&slot],
            )?;
            held.as_ref().map_or(Ok(()), |held| held.renew_at_end(connection))?;
            Ok(done)
        });
        match done {
            Ok(done) => match connection.commit() {
                Ok(()) => {
                    // Only now these rows are sure to be there.
                    self.remembered = remembered;
                    Ok(done)
                }
                Err(failure) => {
                    self.is_in_doubt |= matches!(failure, ServerFailure::Gone(_));
                    Err(failure)
                }
            },
            Err(failure) => {
                if connection.roll_back().is_err() {
                    self.connection = None;
                }
                Err(failure)
            }
        }
    }

    /// Runs a statement about something else than the content of the index, whose version stays.
    pub(super) fn without_change(&mut self, sql: &str, id: &str) -> Result<(), ServerFailure> {
        self.connection()?.execute(sql, &[&id]).map(drop)
    }

    /// Loads a part of the index, changes it, and writes back what differs.
    pub(super) fn change<T>(
        &mut self,
        needs: &PartNeeds,
        mut change: impl FnMut(&mut Contents) -> T,
    ) -> Result<(T, Contents), ServerFailure> {
        let mut more = BTreeSet::new();
        let mut open = std::mem::take(&mut self.arrivals);
        let mut arrivals = NewArrivals { open: &mut open, begun: Vec::new() };
        let done = self.change_with(needs, &mut more, &mut arrivals, &mut change);
        if done.is_ok() {
            arrivals.keep(needs.now_ms);
        }
        self.arrivals = open;
        done
    }

    fn change_with<T>(
        &mut self,
        needs: &PartNeeds,
        more: &mut BTreeSet<String>,
        arrivals: &mut NewArrivals<'_>,
        change: &mut impl FnMut(&mut Contents) -> T,
    ) -> Result<(T, Contents), ServerFailure> {
        for _ in 0..MOST_ATTEMPTS {
            let done = self.transaction(|connection, remembered| {
                match changed(connection, (&mut *remembered, &mut *arrivals), (needs, &*more), &mut *change) {
                    Ok(done) => Ok(Some(done)),
                    Err(Unsaved::Studies(studies)) => {
                        more.extend(studies);
                        // Nothing is to be committed, and no new row is there.
                        *remembered = RememberedRows::default();
                        connection.roll_back()?;
                        begin_change(connection)?;
                        Ok(None)
                    }
                    Err(Unsaved::Failure(failure)) => Err(failure),
                }
            })?;
            if let Some(done) = done {
                return Ok(done);
            }
        }
        Err(ServerFailure::Again)
    }
}

/// The arrivals of a transaction.
struct NewArrivals<'o> {
    open: &'o mut OpenArrivals,
    /// Arrivals that have begun with it.
    begun: Vec<(SourceOfInstances, i64)>,
}

impl NewArrivals<'_> {
    /// The numbers of the arrivals of some sources. Those that do not go on get rows.
    fn of(
        &mut self,
        connection: &mut ServerConnection,
        needs: &PartNeeds,
    ) -> Result<HashMap<SourceOfInstances, i64>, ServerFailure> {
        // Rows of an attempt before were rolled back.
        self.begun.clear();
        let mut numbers = HashMap::new();
        for source in &needs.sources {
            if let Some(id) = self.open.going_on(source, needs.now_ms) {
                numbers.insert(source.clone(), id);
                continue;
            }
            let Some(ArrivalSource { kind, calling_ae_title, address, scan }) = source.told() else { continue };
            let sql = "INSERT INTO arrival (kind, calling_ae_title, address, scan, first_ms) \
                       VALUES ($1, $2, $3, $4, $5) RETURNING id";
            let title = to_column(&calling_ae_title);
            let row = connection.query_one(sql, &[&kind, &title, &address, &scan, &needs.now_ms])?;
            let id = row.try_get(0)?;
            self.begun.push((source.clone(), id));
            numbers.insert(source.clone(), id);
        }
        Ok(numbers)
    }

    /// Notes that the rows were committed.
    fn keep(self, now_ms: i64) {
        for (source, id) in self.begun {
            self.open.begin(source, id, now_ms);
        }
    }
}

fn changed<T>(
    connection: &mut ServerConnection,
    (remembered, arrivals): (&mut RememberedRows, &mut NewArrivals<'_>),
    (needs, more): (&PartNeeds, &BTreeSet<String>),
    change: &mut impl FnMut(&mut Contents) -> T,
) -> Result<(T, Contents), Unsaved> {
    if !needs.files.is_empty() {
        lock_directories(connection, &mut remembered.directories, needs)?;
    }
    let mut part = load::part(connection, remembered, (needs, more))?;
    let mut contents = part.contents();
    contents.arrivals = arrivals.of(connection, needs)?;
    contents.events = EventNotes::new(needs.recording);
    let done = change(&mut contents);
    let found = contents.directories.iter().cloned();
    let removed = part.removed.files.values().chain(contents.removed_files.values()).map(|removed| &removed.file);
    let known = contents.instances.values().flatten().chain(removed).map(|file| &file.location);
    let all = found.chain(known.map(|location| (kind(location.place), location.directory.clone())));
    directories::add(connection, &mut remembered.directories, &all.collect())?;
    save::save(connection, &mut part, &contents, remembered)?;
    let events = contents.events.take().map_err(|error| Error::Statement(error.into()))?;
    insert_events(connection, &events, &ToldChange::Own, needs.now_ms)?;
    Ok((done, contents))
}

/// Makes the rows of directories, and locks those that a scan has looked at. Two scans of one
/// directory then come one after the other.
fn lock_directories(
    connection: &mut ServerConnection,
    directories: &mut DirectoryIds,
    needs: &PartNeeds,
) -> Result<(), ServerFailure> {
    directories::add(connection, directories, &needs.directories)?;
    let scanned = needs.files.iter().flat_map(|file| {
        let places: &[Place] =
            if file.is_archive { &[Place::Archive] } else { &[Place::InPlace, Place::Managed, Place::MetadataOnly] };
        places.iter().filter_map(|place| directories.get(&(place_number(*place), file.directory.clone())))
    });
    let ids: Vec<i64> = scanned.copied().collect::<BTreeSet<_>>().into_iter().collect();
    connection.query("SELECT id FROM directory WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", &[&ids])?;
    Ok(())
}
