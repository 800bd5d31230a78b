//! The DICOM Upper Layer (PS3.8): PDUs over TCP and TLS, with a limit on every length and every
//! wait.
//!
//! In reading order:
//!
//! - [`stream`] is a connection.
//! - [`tls`], [`certificates`], `x509` and [`tls_check`] hold PS3.15 B.12.
//! - `pdu_io` reads and writes PDUs.
//! - `items` and [`associate`] hold A-ASSOCIATE.
//! - [`destination`] and [`requestor`] hold associations that this node requests.

pub mod associate;
pub mod certificates;
pub mod destination;
pub(crate) mod items;
pub mod pdu_io;
pub mod query_scu;
pub mod requestor;
pub mod stream;
pub mod tls;
pub mod tls_check;
mod x509;
