//! Transactions that change instances.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::address::PostgresAddress;
use super::connection::{ServerConnection, ServerSession};
use super::corrections::{begin_change, read_rules};
use super::error::ServerFailure;
use super::event_rows::{ToldChange, insert_events};
use super::held_unit::HeldUnit;
use super::keys::{DirectoryIds, RowKey, place_number, to_column};
use super::load::{self, PartNeeds};
use super::promises;
use super::roots::NamedRoots;
use super::save::{self, Unsaved};
use super::schema;
use crate::db::arrival::{ArrivalSource, OpenArrivals, SourceOfInstances};
use crate::db::contents::{Contents, kind};
use crate::db::event_notes::EventNotes;
use crate::db::{Durability, Error};
use crate::model::declared::DeclaredSet;
use crate::model::location::Place;

/// How often a transaction is tried again because of others. Each of them has then made progress.
const MOST_ATTEMPTS: usize = 20;

/// Directories whose numbers are kept in memory. There may be millions.
const MOST_DIRECTORIES: usize = 100_000;

/// Writers that count in one row. Two that share a row wait for each other.
const SLOTS: u64 = 256;

/// A connection that changes an index.
pub(super) struct IndexChanger {
    address: PostgresAddress,
    session: ServerSession,
    declared: Arc<DeclaredSet>,
    connection: Option<ServerConnection>,
    directories: DirectoryIds,
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
        let slot = xxhash_rust::xxh3::xxh3_64(&seed.concat()) % SLOTS;
        Self {
            address: address.clone(),
            session,
            declared: Arc::clone(declared),
            connection: Some(connection),
            directories: DirectoryIds::new(),
            arrivals: OpenArrivals::default(),
            slot: slot as i32,
            name: format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&[seed.concat(), started].concat())),
            held: None,
            is_in_doubt: false,
        }
    }

    /// Ends the connection. The next change makes a new one.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.directories.clear();
    }

    /// Reads the numbers of directories again when they are needed.
    pub(super) fn forget_directories(&mut self) {
        self.directories.clear();
    }

    pub(super) const fn address(&self) -> &PostgresAddress {
        &self.address
    }

    /// Where this node has the roots of the index.
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
            self.connection = None;
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
        mut work: impl FnMut(&mut ServerConnection, &mut DirectoryIds) -> Result<T, ServerFailure>,
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
        work: &mut impl FnMut(&mut ServerConnection, &mut DirectoryIds) -> Result<T, ServerFailure>,
    ) -> Result<T, ServerFailure> {
        let (slot, held) = (self.slot, self.held.clone());
        let mut directories = std::mem::take(&mut self.directories);
        if directories.len() > MOST_DIRECTORIES {
            directories.clear();
        }
        let connection = self.connection()?;
        begin_change(connection)?;
        let is_held = held.as_ref().map_or(Ok(()), |held| held.renew(connection));
        let done = is_held.and_then(|()| work(connection, &mut directories)).and_then(|done| {
            connection.execute(
                "INSERT INTO writer_slot VALUES ($1, 1) ON CONFLICT (slot) DO UPDATE SET changes = writer_slot.changes + 1",
                &[&slot],
            )?;
            held.as_ref().map_or(Ok(()), |held| held.renew_at_end(connection))?;
            Ok(done)
        });
        match done {
            Ok(done) => match connection.commit() {
                Ok(()) => {
                    // Only now the rows of new directories are sure to be there.
                    self.directories = directories;
                    Ok(done)
                }
                Err(failure) => {
                    self.is_in_doubt |= matches!(failure, ServerFailure::Gone(_));
                    Err(failure)
                }
            },
            Err(failure) => {
                if connection.run("ROLLBACK").is_err() {
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
            let done = self.transaction(|connection, directories| {
                match changed(connection, (&mut *directories, &mut *arrivals), (needs, &*more), &mut *change) {
                    Ok(done) => Ok(Some(done)),
                    Err(Unsaved::Studies(studies)) => {
                        more.extend(studies);
                        // Nothing is to be committed, and no row of a new directory is there.
                        directories.clear();
                        connection.run("ROLLBACK")?;
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
    /// Those that have begun with it.
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
    (directories, arrivals): (&mut DirectoryIds, &mut NewArrivals<'_>),
    (needs, more): (&PartNeeds, &BTreeSet<String>),
    change: &mut impl FnMut(&mut Contents) -> T,
) -> Result<(T, Contents), Unsaved> {
    lock_directories(connection, directories, needs)?;
    let studies = lock_studies(connection, needs.studies.union(more))?;
    let part = load::part(connection, needs, studies)?;
    read_rules(connection)?;
    let mut contents = part.contents();
    contents.arrivals = arrivals.of(connection, needs)?;
    contents.events = EventNotes::new(needs.recording);
    let done = change(&mut contents);
    let found = contents.directories.iter().cloned();
    let removed = part.removed.files.values().chain(contents.removed_files.values()).map(|removed| &removed.file);
    let known = contents.instances.values().flatten().chain(removed).map(|file| &file.location);
    let all = found.chain(known.map(|location| (kind(location.place), location.directory.clone())));
    add_directories(connection, directories, &all.collect())?;
    save::save(connection, &part, &contents, directories)?;
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
    add_directories(connection, directories, &needs.directories)?;
    if needs.files.is_empty() {
        return Ok(());
    }
    let scanned = needs.files.iter().flat_map(|file| {
        let places: &[Place] =
            if file.is_archive { &[Place::Archive] } else { &[Place::InPlace, Place::Managed, Place::MetadataOnly] };
        places.iter().filter_map(|place| directories.get(&(place_number(*place), file.directory.clone())))
    });
    let ids: Vec<i64> = scanned.copied().collect::<BTreeSet<_>>().into_iter().collect();
    connection.query("SELECT id FROM directory WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", &[&ids])?;
    Ok(())
}

fn add_directories(
    connection: &mut ServerConnection,
    directories: &mut DirectoryIds,
    wanted: &BTreeSet<(u8, PathBuf)>,
) -> Result<(), ServerFailure> {
    let mut new: Vec<(RowKey, i16, &PathBuf)> = Vec::new();
    for (place, path) in wanted {
        let place = i16::from(*place);
        if !directories.contains_key(&(place, path.clone())) {
            new.push((RowKey::of_path(path), place, path));
        }
    }
    if new.is_empty() {
        return Ok(());
    }
    new.sort();
    let keys: Vec<RowKey> = new.iter().map(|(key, ..)| *key).collect();
    let places: Vec<i16> = new.iter().map(|(_, place, _)| *place).collect();
    let paths: Vec<&[u8]> = new.iter().map(|(.., path)| path.as_os_str().as_encoded_bytes()).collect();
    connection.execute(
        "INSERT INTO directory (path_key, place, path) SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::bytea[]) \
         ON CONFLICT DO NOTHING",
        &[&keys, &places, &paths],
    )?;
    let sql = "SELECT id, place, path FROM directory WHERE (path_key, place) IN \
               (SELECT * FROM unnest($1::uuid[], $2::smallint[]))";
    for row in connection.query(sql, &[&keys, &places])? {
        directories.insert((row.try_get(1)?, super::keys::path_from(row.try_get(2)?)), row.try_get(0)?);
    }
    Ok(())
}

/// Locks the rows of studies in the order of their keys, and makes those that are missing. Returns
/// their numbers by UID.
fn lock_studies<'u>(
    connection: &mut ServerConnection,
    uids: impl Iterator<Item = &'u String>,
) -> Result<HashMap<String, i64>, ServerFailure> {
    let mut by_key: Vec<(RowKey, &String)> = uids.map(|uid| (RowKey::of_uid(uid), uid)).collect();
    if by_key.is_empty() {
        return Ok(HashMap::new());
    }
    by_key.sort();
    let keys: Vec<RowKey> = by_key.iter().map(|(key, _)| *key).collect();
    let texts: Vec<String> = by_key.iter().map(|(_, uid)| to_column(uid)).collect();
    let rows = connection.query(
        "INSERT INTO study (uid_key, study_instance_uid) SELECT key, uid FROM unnest($1::uuid[], $2::text[]) \
         WITH ORDINALITY AS u(key, uid, at) ORDER BY at \
         ON CONFLICT (uid_key) DO UPDATE SET revision = study.revision + 1 RETURNING uid_key, id",
        &[&keys, &texts],
    )?;
    let uids: HashMap<RowKey, &String> = by_key.into_iter().collect();
    let mut ids = HashMap::new();
    for row in rows {
        if let Some(uid) = uids.get(&row.try_get(0)?) {
            ids.insert((*uid).clone(), row.try_get(1)?);
        }
    }
    Ok(ids)
}
