//! The lease of a unit, as each transaction for it checks it.

use std::time::Duration;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use crate::db::Error;

/// The unit that a connection works on. Each of its transactions renews the lease, and is refused
/// if there is none.
#[derive(Clone)]
pub(super) struct HeldUnit {
    pub(super) unit: i64,
    pub(super) attempt: i32,
    /// Name of the writer.
    pub(super) owner: String,
    pub(super) lease: Duration,
}

impl HeldUnit {
    /// Renews the lease in the transaction that is open.
    pub(super) fn renew(&self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        let sql = "UPDATE scan_unit SET expires = clock_timestamp() + make_interval(secs => $4) \
                   WHERE id = $1 AND attempt = $2 AND owner = $3 AND NOT is_done";
        let seconds = self.lease.as_secs_f64();
        match connection.execute(sql, &[&self.unit, &self.attempt, &self.owner, &seconds])? {
            0 => Err(Error::LeaseLost.into()),
            _ => Ok(()),
        }
    }

    /// Renews it at the end of the transaction, which may have taken long. Nobody else can have
    /// taken the unit since the beginning. The transaction itself may have left it.
    pub(super) fn renew_at_end(&self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        match self.renew(connection) {
            Err(ServerFailure::Other(Error::LeaseLost)) => Ok(()),
            renewed => renewed,
        }
    }

    /// Gives the unit back, or notes it as done. If somebody else has it meanwhile, nothing
    /// changes.
    pub(super) fn leave(&self, connection: &mut ServerConnection, is_done: bool) -> Result<(), ServerFailure> {
        let sql = "UPDATE scan_unit SET is_done = $4, owner = NULL, expires = '-infinity' \
                   WHERE id = $1 AND attempt = $2 AND owner = $3";
        connection.execute(sql, &[&self.unit, &self.attempt, &self.owner, &is_done]).map(drop)
    }
}
