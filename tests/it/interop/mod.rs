//! The node and the library beside software of others: DCMTK, pynetdicom, Orthanc, GDCM, vtk-dicom. A
//! peer that is not installed is reported as skipped.

mod access;
mod compare;
mod find;
mod query;
mod retrieve;
mod scanned_or_received;
mod storage;
mod verification;
mod web;
