//! Standard output, for the results of a command.

use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::Value;

/// Whether anybody reads the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// The reader is there.
    Listening,
    /// The reader has closed its end, as `head` does. That is no error, and the command can stop.
    Gone,
}

/// Buffered standard output. After the reader has gone, writes do nothing.
#[derive(Debug)]
pub(super) struct Output<W: Write> {
    writer: BufWriter<W>,
    audience: Audience,
}

impl<W: Write> Output<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer: BufWriter::with_capacity(32 * 1024, writer), audience: Audience::Listening }
    }

    /// Writes a line.
    pub(super) fn line(&mut self, line: impl fmt::Display) -> io::Result<Audience> {
        self.with(|writer| writeln!(writer, "{line}"))
    }

    /// Writes bytes unchanged.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<Audience> {
        self.with(|writer| writer.write_all(bytes))
    }

    /// Flushes the buffer.
    pub(super) fn flush(&mut self) -> io::Result<Audience> {
        self.with(Write::flush)
    }

    fn with(&mut self, write: impl FnOnce(&mut BufWriter<W>) -> io::Result<()>) -> io::Result<Audience> {
        if self.audience == Audience::Listening {
            match write(&mut self.writer) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.audience = Audience::Gone,
                Err(error) => return Err(error),
            }
        }
        Ok(self.audience)
    }
}

/// Refuses to write over the index, which a slip of the keyboard names as the output.
///
/// # Errors
/// If the path leads to the index.
pub(super) fn check_is_not_index(path: &Path, index: &Path) -> anyhow::Result<()> {
    check_is_not(path, index, "the index")
}

/// Refuses to write over `other`, which is `what`.
pub(super) fn check_is_not(path: &Path, other: &Path, what: &str) -> anyhow::Result<()> {
    let is_other = match (path.canonicalize(), other.canonicalize()) {
        (Ok(path), Ok(other)) => path == other,
        // A file that is not there yet is no other one.
        _ => false,
    };
    if is_other {
        anyhow::bail!("{} is {what}; hint: name another file", path.display());
    }
    Ok(())
}

/// Number of columns of the terminal. `None` if it does not say, or if this is no terminal.
pub(super) fn terminal_width(terminal: &impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Escapes text for one line of output. Values and file names may hold anything, also line breaks
/// and control sequences.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Escapes a path for one line of output, like [`Escaped`]. Bytes that are not UTF-8 become `\xff`,
/// and a backslash is doubled.
pub(super) struct Shown<'a>(pub(super) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.as_os_str().as_bytes().utf8_chunks() {
            write!(f, "{}", Escaped(&part.valid().replace('\\', "\\\\")))?;
            for byte in part.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Adds a path to a JSON object as `path`. If the path is not UTF-8, `path` has U+FFFD for the
/// invalid bytes, and `path_hex` has all bytes.
pub(super) fn put_path(object: &mut serde_json::Map<String, Value>, path: &Path) {
    object.insert("path".into(), path.to_string_lossy().into());
    if let Some(hex) = path_hex(path) {
        object.insert("path_hex".into(), hex.into());
    }
}

/// All bytes of a path in hexadecimal digits, if it is not UTF-8.
pub(super) fn path_hex(path: &Path) -> Option<String> {
    path.to_str().is_none().then(|| HEXLOWER.encode(path.as_os_str().as_bytes()))
}

/// Formats a number with its digits in groups of three.
pub(super) struct Grouped(pub(super) u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_leaves_is_no_error() {
        let mut output = Output::new(Closed(io::ErrorKind::BrokenPipe));
        assert_eq!(output.line("x").unwrap(), Audience::Listening);
        assert_eq!(output.flush().unwrap(), Audience::Gone);
        assert_eq!(output.line("y").unwrap(), Audience::Gone);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut output = Output::new(Closed(io::ErrorKind::StorageFull));
        output.line("x").unwrap();
        assert_eq!(output.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn paths_stay_on_their_line_and_are_told_without_loss() {
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"a\n\x1b[31m\\\xffM\xc3\xbcller"));
        assert_eq!(Shown(odd).to_string(), "a\\n\\u{1b}[31m\\\\\\xffMüller");
        let mut object = serde_json::Map::new();
        put_path(&mut object, odd);
        assert_eq!(object["path"], "a\n\u{1b}[31m\\\u{fffd}Müller");
        assert_eq!(object["path_hex"], "610a1b5b33316d5cff4dc3bc6c6c6572");
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(Grouped(number).to_string(), text);
        }
        assert_eq!(format!("{:>7}", Grouped(1000)), "  1,000");
    }
}
