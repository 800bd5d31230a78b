//! The nodes that use a database, as they tell of themselves.

use std::path::PathBuf;
use std::time::Duration;

use super::changer::IndexChanger;
use super::connection::ServerConnection;
use super::error::ServerFailure;

/// Time between two signs of life of a node.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Time after its last sign of life in which a node counts as running.
pub(super) const ALIVE: Duration = Duration::from_secs(3 * SIGN_OF_LIFE.as_secs());

/// Difference between two clocks that is told. Timestamps of objects and scans are of the nodes.
const MOST_DIFFERENCE_MS: u64 = 60_000;

/// A node, as others see it.
#[derive(Clone, Debug)]
pub(super) struct RunningNode {
    pub(super) ae_title: String,
    pub(super) host: String,
    /// As the index keeps it.
    pub(super) storage: PathBuf,
}

/// Says in words how this clock differs from that of the server.
fn wrong_clock(now_ms: i64, server_ms: i64) -> Option<String> {
    let difference = now_ms.abs_diff(server_ms);
    let side = if now_ms < server_ms { "behind" } else { "ahead of" };
    (difference > MOST_DIFFERENCE_MS).then(|| {
        format!(
            "the clock of this machine is {} s {side} that of the database server, so times of arrivals and scans are not \
             in order; hint: set both by NTP",
            difference / 1000
        )
    })
}

/// By how many milliseconds this clock is ahead of that of the server. 0 if it is behind.
///
/// What is deleted because it is old goes by the earlier of both clocks. So a node whose clock is
/// wrong deletes nothing before its time.
pub(super) fn ahead_ms(connection: &mut ServerConnection, now_ms: i64) -> Result<i64, ServerFailure> {
    Ok(now_ms.saturating_sub(server_ms(connection)?).max(0))
}

fn server_ms(connection: &mut ServerConnection) -> Result<i64, ServerFailure> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    Ok(connection.query_one(sql, &[])?.try_get(0)?)
}

impl RunningNode {
    fn id(&self) -> String {
        let own = if self.storage.as_os_str().is_empty() {
            self.ae_title.as_str().into()
        } else {
            self.storage.to_string_lossy()
        };
        format!("{}:{own}", self.host)
    }

    /// Tells that the node runs. Returns in words what it has in common with others that run, and
    /// whether its clock is wrong.
    pub(super) fn announce(&self, changer: &mut IndexChanger, now_ms: i64) -> Result<Vec<String>, ServerFailure> {
        changer.transaction(|connection, _| {
            connection.run("DELETE FROM node WHERE seen < now() - interval '1 day'")?;
            self.put(connection)?;
            let sql = "SELECT host FROM node WHERE id <> $1 AND ae_title = $2 \
                       AND seen > now() - make_interval(secs => $3) ORDER BY id";
            let alive = ALIVE.as_secs_f64();
            let mut common = Vec::new();
            common.extend(wrong_clock(now_ms, server_ms(connection)?));
            for row in connection.query(sql, &[&self.id(), &self.ae_title, &alive])? {
                let host: &str = row.try_get(0)?;
                common.push(format!(
                    "a node on {host} has the AE title {} too; hint: each node of an index has an AE title of its own",
                    self.ae_title
                ));
            }
            Ok(common)
        })
    }

    /// Tells that the node still runs. Others may have forgotten it, because it was silent for
    /// long.
    pub(super) fn renew(&self, changer: &mut IndexChanger) -> Result<(), ServerFailure> {
        self.put(changer.connection()?)
    }

    fn put(&self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        let sql = "INSERT INTO node (id, ae_title, host, storage) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (id) DO UPDATE SET ae_title = excluded.ae_title, seen = now()";
        let storage = self.storage.as_os_str().as_encoded_bytes();
        connection.execute(sql, &[&self.id(), &self.ae_title, &self.host, &storage]).map(drop)
    }

    /// Tells that it ends.
    pub(super) fn leave(&self, changer: &mut IndexChanger) -> Result<(), ServerFailure> {
        changer.without_change("DELETE FROM node WHERE id = $1", &self.id())
    }
}
