//! Objects that are sent.

mod sent_as_stored;
