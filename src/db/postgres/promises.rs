//! Whether the server keeps what a commit promises.

use super::connection::ServerConnection;
use super::error::ServerFailure;

/// Reasons why acknowledged objects are not durable, in words.
pub(super) fn broken(connection: &mut ServerConnection) -> Result<Vec<String>, ServerFailure> {
    let row = connection.query_one(
        "SELECT current_setting('fsync') = 'off', current_setting('full_page_writes') = 'off', \
         current_setting('synchronous_standby_names') = '', (SELECT count(*) FROM pg_stat_replication)",
        &[],
    )?;
    let mut broken = Vec::new();
    for (at, setting) in [(0, "fsync"), (1, "full_page_writes")] {
        if row.try_get(at)? {
            broken.push(format!("{setting} is off, so a power cut can cost what was acknowledged"));
        }
    }
    let (no_names, standbys): (bool, i64) = (row.try_get(2)?, row.try_get(3)?);
    if no_names && standbys > 0 {
        broken.push(format!(
            "synchronous_standby_names is empty, so none of its {standbys} standbys is sure to have what was acknowledged"
        ));
    }
    Ok(broken)
}
