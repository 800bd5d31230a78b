//! The pixels of an object: where its frames lie, how they are decompressed, and how they are meant
//! to be shown. It reads no files by itself: a walk over an object gives it the elements.
//!
//! - `frames` finds the frames in the bytes of an object.
//! - [`codec`] decompresses a frame.
//! - [`transforms`] holds windows, look-up tables and palettes.

pub mod codec;
pub(crate) mod frames;
pub mod transforms;
