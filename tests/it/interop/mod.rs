//! The node and the library beside software of others: DCMTK, pynetdicom, Orthanc, GDCM, vtk-dicom.
//! A peer that is not installed is reported as skipped.

mod access;
mod browser;
pub(crate) mod compare;
mod find;
mod http_clients;
mod orthanc_dicomweb;
mod query;
mod repository_query;
mod retrieve;
mod scanned_or_received;
mod storage;
mod verification;
mod worklist;
