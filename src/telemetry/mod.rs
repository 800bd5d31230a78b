//! What the program says about itself: log lines on standard error, and the one table of metrics.
//!
//! Log lines are readable alone and carry their figures as fields, with the unit in the field's name. Neither log lines nor
//! metrics hold patient data: no names, no IDs, no query values; UIDs at debug level only.

pub mod metrics;

use std::fmt;
use std::str::FromStr;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for people.
    #[default]
    Text,
    /// One JSON object on a line, for log collectors.
    Json,
}

impl LogFormat {
    /// The names that settings use.
    pub const NAMES: [&'static str; 2] = ["text", "json"];
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownLogFormat),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A log format that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log format is `text` or `json`")]
pub struct UnknownLogFormat;

/// How the program logs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The form of the lines.
    pub format: LogFormat,
    /// Which lines: directives as in `info,dcmdex::scp=debug`.
    pub filter: String,
    /// Whether a terminal reads along and wants colours.
    pub colour: bool,
    /// What happens when whoever reads the lines does not keep up.
    pub when_unread: WhenUnread,
}

/// What happens when whoever reads the log lines does not keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnread {
    /// The program waits: of what a tool has to say nothing may be lost.
    #[default]
    Wait,
    /// Lines are lost when [`WAITING_LINES`] wait already: a collector that has stopped may not stop a service.
    Drop,
}

/// Lines that wait for a reader that does not keep up; each takes some 300 bytes.
pub const WAITING_LINES: usize = 8192;

/// What has to live as long as lines are to be written. Dropping it writes those that wait, as long as somebody reads.
#[derive(Debug)]
#[must_use]
pub struct Logging {
    _writer: Option<WorkerGuard>,
}

/// What can go wrong when logging starts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not in the syntax of `tracing_subscriber::EnvFilter`.
    #[error("log filter `{filter}` cannot be understood")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was started before in this process.
    #[error("logging has been started already")]
    Started(#[from] TryInitError),
}

/// Checks a log filter without starting anything.
///
/// # Errors
/// [`Error::Filter`] when it cannot be understood.
pub fn check_filter(filter: &str) -> Result<(), Error> {
    parse_filter(filter).map(drop)
}

/// Starts logging to standard error for the whole process.
///
/// # Errors
/// When the filter cannot be understood, or when logging was started before.
pub fn start(options: &Options) -> Result<Logging, Error> {
    let registry = tracing_subscriber::registry().with(parse_filter(&options.filter)?);
    let (writer, guard) = match options.when_unread {
        WhenUnread::Wait => (BoxMakeWriter::new(std::io::stderr), None),
        WhenUnread::Drop => {
            let writer = NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true);
            let (writer, guard) = writer.thread_name("log").finish(std::io::stderr());
            (BoxMakeWriter::new(writer), Some(guard))
        }
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    match options.format {
        LogFormat::Text => registry.with(lines.with_ansi(options.colour)).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init()?,
    }
    Ok(Logging { _writer: guard })
}

fn parse_filter(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder().parse(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_names_are_read_back_as_written() {
        for name in LogFormat::NAMES {
            assert_eq!(name.parse::<LogFormat>().unwrap().to_string(), name);
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        assert!(check_filter("info,dcmdex::scp=debug").is_ok());
        let error = check_filter("dcmdex=loud").unwrap_err();
        assert!(error.to_string().contains("dcmdex=loud"), "{error}");
    }
}
