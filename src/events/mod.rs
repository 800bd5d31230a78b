//! Reports of the index to other programs: a log of events, and receivers that get them.
//!
//! The index records what happens ([`crate::db::IndexEvent`]). A thread adds the studies that are
//! quiet and the objects that are damaged. Each receiver has a thread of its own: it posts events
//! to a web server, or gives them to a command. Events come at least once, and those of one study
//! in their order (docs/adr/0042).

mod command;
mod courier;
mod delivery_failure;
mod error;
mod lease;
mod message;
mod quiet;
mod receiver;
mod recorder;
mod signing;
mod telling;
mod webhook;

pub use error::Error;
pub use message::{EventSource, message};
pub use receiver::{EventReceiver, EventTarget, WebhookTarget, WebhookUrl, WebhookUrlError};
pub use recorder::RecorderOptions;
pub use signing::SigningKeyError;
pub use telling::{EventOptions, Telling};
