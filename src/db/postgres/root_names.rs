//! Files that the index would have under two names, because of how nodes name roots
//! (docs/adr/0055).
//!
//! A root may be named after a scan, and a node may have a root inside of another one that no other
//! node has. The same file then has two paths in the index. A scan would enter it twice, and a file
//! that is gone would stay under one of them. So such a scan is refused.

use std::path::{Path, PathBuf};

use super::changer::IndexChanger;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{path_from, place_number};
use super::roots::{NamedRoots, shown_kept};
use crate::db::Error;
use crate::db::paths::range_below;
use crate::model::location::Place;

/// Directories at another name of a root that are looked for on this machine. Entries of another
/// machine may have the same path by chance.
const LOOKED_FOR: i64 = 50;

/// Refuses a scan that would enter files a second time.
pub(super) fn refuse_second_names(changer: &mut IndexChanger, roots: &NamedRoots) -> Result<(), ServerFailure> {
    match second_names(changer, roots)?.into_iter().next() {
        Some(detail) => Err(Error::SecondName { detail }.into()),
        None => Ok(()),
    }
}

/// Says in words which files have, or would get, a second name. Notes the roots that lie in others.
pub(super) fn second_names(changer: &mut IndexChanger, roots: &NamedRoots) -> Result<Vec<String>, ServerFailure> {
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    changer.transaction(|connection, _| {
        note_nested(connection, roots)?;
        let mut found = unnamed_here(connection, roots)?;
        for (root, other) in roots.other_names() {
            if has_files_here(connection, roots, &other)? {
                let local = roots.local(&root);
                let old = if local == other { local.display() } else { other.display() };
                found.push(format!(
                    "the index has files at {} that now are at {}; hint: run `dcmdex relocate {old} {}`",
                    shown_kept(&other),
                    shown_kept(&root),
                    local.display()
                ));
            }
        }
        Ok(found)
    })
}

/// Notes which roots lie in others on this node, for nodes that do not name them.
fn note_nested(connection: &mut ServerConnection, roots: &NamedRoots) -> Result<(), ServerFailure> {
    for (root, inside) in roots.nested() {
        let sql = "INSERT INTO nested_root VALUES ($1, $2) ON CONFLICT (root) DO UPDATE SET path = excluded.path \
                   WHERE nested_root.path <> excluded.path";
        let [root, inside] = [&root, &inside].map(|path| path.as_os_str().as_encoded_bytes());
        connection.execute(sql, &[&root, &inside])?;
    }
    Ok(())
}

/// Directories of this node that another node has as a root, and this one does not.
fn unnamed_here(connection: &mut ServerConnection, roots: &NamedRoots) -> Result<Vec<String>, ServerFailure> {
    let mut found = Vec::new();
    for row in connection.query("SELECT root, path FROM nested_root ORDER BY root", &[])? {
        let (root, inside) = (path_from(row.try_get(0)?), path_from(row.try_get(1)?));
        let local = roots.local(&inside).into_owned();
        if local != inside && local.is_dir() && roots.kept(&local) != root {
            found.push(format!(
                "another node has {} at {}; hint: name it here too, as a [[root]] with the path {}",
                shown_kept(&root),
                shown_kept(&inside),
                local.display()
            ));
        }
    }
    Ok(found)
}

/// Whether the index has scanned files at or below a name that this node does not use. One of their
/// directories has to be there on this machine.
fn has_files_here(connection: &mut ServerConnection, roots: &NamedRoots, name: &Path) -> Result<bool, ServerFailure> {
    let (own, (from, to)) = (name.as_os_str().as_encoded_bytes(), range_below(name));
    let places = [place_number(Place::InPlace), place_number(Place::Archive)];
    let sql = "SELECT path FROM directory WHERE place = ANY($1) AND (path = $2 OR path > $3 AND path < $4) LIMIT $5";
    let rows = connection.query(sql, &[&places.as_slice(), &own, &from, &to, &LOOKED_FOR])?;
    let paths =
        rows.iter().map(|row| Ok(path_from(row.try_get(0)?))).collect::<Result<Vec<PathBuf>, ServerFailure>>()?;
    Ok(paths.iter().any(|path| roots.local(path).exists()))
}
