//! The words of the domain: pure data, without I/O, SQL or sockets.
//!
//! In reading order:
//!
//! - [`level`]: the levels and models of a query.
//! - [`attribute`]: the table of what the index keeps.
//! - [`record`]: one instance, as read.
//! - [`location`]: the location of its object.
//! - [`find`]: a query.
//! - [`matching`]: PS3.4 C.2.2.2.
//!
//! [`uid`], [`ae_title`], [`peer`], [`datetime`], [`person_name`], [`metaphone`], [`checksum`],
//! [`value`], [`clock`], [`local_time`], [`written_time`] and [`calendar`] are the vocabulary of
//! these. `dicom_json` writes elements in the DICOM JSON Model.

pub mod ae_title;
pub mod answer_values;
pub mod attribute;
pub mod availability;
pub mod calendar;
pub mod checksum;
pub mod clock;
pub mod datetime;
pub mod declaration;
pub mod declared;
pub(crate) mod dicom_json;
pub mod file_system;
pub mod find;
pub mod implementation;
pub mod level;
pub mod local_time;
pub mod location;
pub mod matching;
pub mod metaphone;
pub mod peer;
pub mod person_name;
pub mod record;
pub mod record_key;
pub mod sop_class;
pub mod status;
pub mod uid;
pub mod value;
pub mod written_time;
