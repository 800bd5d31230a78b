//! The node and the library beside software of others: DCMTK, pynetdicom, Orthanc, GDCM, vtk-dicom. A
//! peer that is not installed is reported as skipped.

mod compare;
mod find;
mod retrieve;
mod scanned_or_received;
mod verification;
mod web;
