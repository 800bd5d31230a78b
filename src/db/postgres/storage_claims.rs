//! Paths of storage directories in the index (docs/adr/0048).
//!
//! Two machines may have storage directories at the same path, and a root may get another name. The
//! index would then take objects of one directory for those of another. So each directory has an id
//! of its own, and the index knows the path of each id.

use std::path::{Path, PathBuf};

use super::changer::IndexChanger;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{RowKey, path_from, place_number};
use super::nodes::ALIVE;
use super::roots::{NamedRoots, is_below_root, shown_kept};
use super::writer::PostgresWriterHandle;
use crate::db::Error;
use crate::db::paths::range_below;
use crate::model::location::{Place, STORAGE_ID};

/// A storage directory, as a node claims its path.
#[derive(Debug)]
struct ClaimedStorage {
    /// Id that the directory has noted. Empty if it has noted nothing.
    id: String,
    host: String,
    local: PathBuf,
    /// As the index keeps it.
    kept: PathBuf,
}

impl PostgresWriterHandle {
    /// See [`WriterHandle::claim_storage`](crate::db::open::WriterHandle::claim_storage).
    pub(in crate::db) fn claim_storage(&self, id: String, host: String, storage: &Path) -> Result<String, Error> {
        let (claim, roots) = (self.claimed(id, host, storage), std::sync::Arc::clone(self.roots()));
        self.change_index(move |changer, _| claim.put(changer, &roots))
    }

    /// See [`WriterHandle::check_storage`](crate::db::open::WriterHandle::check_storage).
    pub(in crate::db) fn check_storage(&self, id: String, storage: &Path) -> Result<(), Error> {
        let claim = self.claimed(id, String::new(), storage);
        self.change_index(move |changer, _| changer.transaction(|connection, _| claim.refuse_taken(connection)))
    }

    fn claimed(&self, id: String, host: String, storage: &Path) -> ClaimedStorage {
        ClaimedStorage { id, host, local: storage.to_owned(), kept: self.roots().kept(storage).into_owned() }
    }
}

impl ClaimedStorage {
    /// Notes the path of the directory, and returns its id.
    fn put(&self, changer: &mut IndexChanger, roots: &NamedRoots) -> Result<String, ServerFailure> {
        let (key, path) = (RowKey::of_path(&self.kept), self.kept.as_os_str().as_encoded_bytes());
        changer.transaction(|connection, _| {
            // Two directories that come at once come one after the other.
            connection.run("LOCK TABLE storage_directory IN SHARE ROW EXCLUSIVE MODE")?;
            self.refuse_taken(connection)?;
            self.refuse_another_node(connection)?;
            let sql = "SELECT path FROM storage_directory WHERE id = $1 AND path_key <> $2";
            for row in connection.query(sql, &[&self.id, &key])? {
                let former = path_from(row.try_get(0)?);
                if names_objects(connection, &former)? {
                    self.refuse_another_root(&former, roots)?;
                }
            }
            connection.execute("DELETE FROM storage_directory WHERE id = $1 OR path_key = $2", &[&self.id, &key])?;
            let sql = "INSERT INTO storage_directory (path_key, path, id, host) \
                       VALUES ($1, $2, coalesce(nullif($3::text, ''), gen_random_uuid()::text), $4) RETURNING id";
            Ok(connection.query_one(sql, &[&key, &path, &self.id, &self.host])?.try_get(0)?)
        })
    }

    /// Refuses the path of another directory, as long as the index names objects there, or a node
    /// may begin to store some.
    fn refuse_taken(&self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        let sql = "SELECT id, host, host <> $4 AND claimed > now() - make_interval(secs => $3) \
                   FROM storage_directory WHERE path_key = $1 AND id <> $2";
        let (key, alive) = (RowKey::of_path(&self.kept), ALIVE.as_secs_f64());
        let Some(row) = connection.query_opt(sql, &[&key, &self.id, &alive, &self.host])? else { return Ok(()) };
        let (id, host, is_new): (&str, &str, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let storage = self.local.display();
        let told = format!(
            "another storage directory has the path {} in the index, and {host} has it; hint: if its disk is not mounted \
             here, mount it. If it is that of another machine, use another path with --storage. Or name a directory above \
             it as a [[root]] with a name of its own. If this directory stands for that one, write {id} into {storage}/{}",
            shown_kept(&self.kept),
            STORAGE_ID
        );
        let is_free = !is_new && !names_objects(connection, &self.kept)?;
        if is_free { Ok(()) } else { Err(self.refused(told)) }
    }

    /// Refuses the path of a node of another machine that runs. It may be a copy of this directory.
    fn refuse_another_node(&self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        let sql =
            "SELECT host FROM node WHERE storage = $1 AND host <> $2 AND seen > now() - make_interval(secs => $3)";
        let path = self.kept.as_os_str().as_encoded_bytes();
        let Some(row) = connection.query_opt(&format!("{sql} LIMIT 1"), &[&path, &self.host, &ALIVE.as_secs_f64()])?
        else {
            return Ok(());
        };
        let host: &str = row.try_get(0)?;
        Err(self.refused(format!(
            "a node on {host} has it, or a copy of it; hint: end that node. If it was killed, try again after {} s",
            ALIVE.as_secs()
        )))
    }

    /// Refuses settings with which the index would not find the objects that it has of this
    /// directory.
    fn refuse_another_root(&self, former: &Path, roots: &NamedRoots) -> Result<(), ServerFailure> {
        let is_moved = roots.is_there(former) && !roots.local(former).exists();
        if is_moved || !(is_below_root(former) || is_below_root(&self.kept)) {
            return Ok(());
        }
        Err(self.refused(format!(
            "the index has its objects at {}, and with these settings they would be at {}; hint: name the [[root]] as before, \
             with the path that it has now. For other roots, copy the index with `dcmdex copy-index`",
            shown_kept(former),
            shown_kept(&self.kept)
        )))
    }

    fn refused(&self, detail: String) -> ServerFailure {
        Error::StorageRefused { path: self.local.clone(), detail }.into()
    }
}

/// Whether the index names received objects at or below a path.
fn names_objects(connection: &mut ServerConnection, kept: &Path) -> Result<bool, ServerFailure> {
    let (own, (from, to)) = (kept.as_os_str().as_encoded_bytes(), range_below(kept));
    let sql = "SELECT EXISTS (SELECT FROM directory WHERE place = $1 AND (path = $2 OR path > $3 AND path < $4))";
    Ok(connection.query_one(sql, &[&place_number(Place::Managed), &own, &from, &to])?.try_get(0)?)
}
