//! Log lines on standard error, and the table of metrics.
//!
//! A log message can be understood alone. It carries its figures as fields, with the unit in the
//! field's name. Neither log lines nor metrics hold patient data: no names, no IDs, no query
//! values. UIDs appear only at debug level.

pub(crate) mod log_limit;
pub mod metrics;

use std::fmt;
use std::str::FromStr;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for people.
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

impl LogFormat {
    /// The names in the configuration.
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

/// An unknown log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log format is `text` or `json`")]
pub struct UnknownLogFormat;

/// Settings of logging.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The format of the lines.
    pub format: LogFormat,
    /// Directives for the lines to write, such as `info,dcmdex::scp=debug`.
    pub filter: String,
    /// Whether to use colours, because a terminal shows the lines.
    pub colour: bool,
    /// Action if the reader of the lines is too slow.
    pub when_unread: WhenUnread,
}

/// Action if the reader of the log lines is too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnread {
    /// The program waits. A command line tool must not lose a line.
    #[default]
    Wait,
    /// If [`WAITING_LINES`] already wait, further lines are lost. A stopped log collector must not
    /// stop a service.
    Drop,
}

/// Maximum lines that wait for a slow reader. Each takes some 300 bytes.
pub const WAITING_LINES: usize = 8192;

/// Keeps logging alive. Dropping it writes the waiting lines, as long as somebody reads.
#[derive(Debug)]
#[must_use]
pub struct Logging {
    _writer: Option<WorkerGuard>,
}

/// Errors when logging starts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not follow the syntax of `tracing_subscriber::EnvFilter`.
    #[error("the syntax of the log filter `{filter}` is wrong")]
    Filter {
        /// The filter as given.
        filter: String,
        /// The syntax error.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A part of the filter is neither a level nor a directive with one.
    #[error(
        "the log filter `{filter}` has `{part}`, which is no level; hint: use error, warn, info, debug, trace or off, or name \
         a part of the program with a level, as in dcmdex::scp=debug"
    )]
    Level {
        /// The filter as given.
        filter: String,
        /// The part without a level.
        part: String,
    },
    /// This process has already started logging.
    #[error("logging is already started")]
    Started(#[from] TryInitError),
}

/// Checks the syntax of a log filter.
///
/// # Errors
/// [`Error::Filter`] if the syntax is wrong.
pub fn check_filter(filter: &str) -> Result<(), Error> {
    parse_filter(filter).map(drop)
}

/// Starts logging to standard error for the whole process.
///
/// # Errors
/// If the syntax of the filter is wrong, or logging was already started.
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

/// h2 writes what a client sent into its messages: a malformed target with its query, for example.
/// So it never writes into the log.
const SILENT: &str = "h2=off";

/// dicom_ul warns of each part of an association request that it does not know. A peer that is
/// rejected could fill the disk with thousands of them in each request.
const SILENT_UNLESS_NAMED: (&str, &str) = ("dicom_ul", "dicom_ul=off");

fn parse_filter(filter: &str) -> Result<EnvFilter, Error> {
    // A word without a level is the name of a crate to tracing, and would silence everything else.
    let is_level = |part: &str| part.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let without_level = |part: &&str| !part.is_empty() && !part.contains(['=', '[']) && !is_level(part);
    if let Some(part) = filter.split(',').map(str::trim).find(without_level) {
        return Err(Error::Level { filter: filter.to_owned(), part: part.to_owned() });
    }
    let parsed = EnvFilter::builder().parse(filter);
    let parsed = parsed.map_err(|source| Error::Filter { filter: filter.to_owned(), source })?;
    let parsed = parsed.add_directive(SILENT.parse().expect("a directive"));
    let (library, silent) = SILENT_UNLESS_NAMED;
    if filter.contains(library) {
        return Ok(parsed);
    }
    Ok(parsed.add_directive(silent.parse().expect("a directive")))
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
        assert!(check_filter("").is_ok() && check_filter("WARN").is_ok() && check_filter("off").is_ok());
        assert!(check_filter("infos").unwrap_err().to_string().contains("`infos`, which is no level"));
        let error = check_filter("dcmdex=loud").unwrap_err();
        assert!(error.to_string().contains("dcmdex=loud"), "{error}");
    }
}
