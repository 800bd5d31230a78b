//! Identification of this implementation on the network and in files.

/// The Implementation Class UID (PS3.7 D.3.3.2). It is made from a UUID (PS3.5 B.2).
///
/// It appears in association negotiation and in the File Meta Information of written files (PS3.10
/// 7.1).
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.176238581281776334348388682451579759623";

/// The Implementation Version Name (PS3.7 D.3.3.2), at most 16 characters.
pub const IMPLEMENTATION_VERSION_NAME: &str = concat!("DCMDEX_", env!("CARGO_PKG_VERSION"));

// VR SH (PS3.5 table 6.2-1) and PS3.7 D.3.3.2 both allow at most 16 characters.
const _: () = assert!(IMPLEMENTATION_VERSION_NAME.len() <= 16);
