//! `multipart/related` (RFC 2387, RFC 2046 5.1, PS3.18 8.6.1.2): heads of parts, and a reader for
//! parts while they arrive.

use data_encoding::HEXLOWER;
use memchr::memmem;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Maximum length of the head of a part, in bytes. Clients send some hundred.
const MAX_PART_HEAD: usize = 16 << 10;

/// Maximum length of an accepted boundary. RFC 2046 5.1.1 allows 70, and Orthanc sends 73.
const MAX_BOUNDARY: usize = 256;

/// Writes the delimiters and heads of the parts of one response.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    boundary: String,
}

impl Parts {
    /// Returns parts with a random boundary. An object has it only by a chance of 2^-128.
    pub(super) fn new() -> Self {
        let mut random = [0; 16];
        // A boundary that can be guessed still works.
        let _ = SystemRandom::new().fill(&mut random);
        Self { boundary: HEXLOWER.encode(&random) }
    }

    /// Returns parts with a boundary that is the same for the same content.
    pub(super) fn of_hash(hash: u128) -> Self {
        Self { boundary: format!("{hash:032x}") }
    }

    /// Returns the media type of the response.
    pub(super) fn content_type(&self, of_parts: &str) -> String {
        format!("multipart/related; type=\"{of_parts}\"; boundary={}", self.boundary)
    }

    /// Returns the text before the bytes of a part. Clients look for the first empty line, and some
    /// for Content-Type as the first header. So it stays short.
    pub(super) fn head(&self, content_type: &str, length: Option<u64>) -> String {
        let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
        format!("\r\n--{}\r\nContent-Type: {content_type}\r\n{length}\r\n", self.boundary)
    }

    /// Returns the same for a part whose value has a URI of its own.
    pub(super) fn located_head(&self, content_type: &str, length: u64, location: &str) -> String {
        format!(
            "\r\n--{}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nContent-Location: {location}\r\n\r\n",
            self.boundary
        )
    }

    /// Returns the text after the last part.
    pub(super) fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

/// Errors of a body of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// The boundary of the Content-Type is missing or not valid.
    #[error("the Content-Type has no boundary of 1 to {MAX_BOUNDARY} characters")]
    Boundary,
    /// The head of a part is too long.
    #[error("the head of a part is longer than {MAX_PART_HEAD} bytes")]
    HeadTooLong,
    /// The head of a part cannot be read.
    #[error("the head of a part cannot be read")]
    Head,
    /// A boundary is followed neither by the end nor by a new line.
    #[error("a boundary is followed by something else than a line end or two hyphens")]
    AfterBoundary,
    /// The body ends before the closing boundary.
    #[error("the body ends before its closing boundary")]
    Truncated,
}

/// Events of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartEvent {
    /// A part begins.
    Begin {
        /// The value of Content-Type. It is empty if there is none.
        content_type: String,
        /// Whether Content-Encoding or Content-Transfer-Encoding say that the bytes are encoded.
        is_encoded: bool,
    },
    /// Bytes of the part.
    Bytes(Vec<u8>),
    /// The part has ended.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ParserState {
    /// Before the first boundary.
    Preamble,
    /// After a boundary.
    AfterBoundary,
    /// In the head of a part.
    Head,
    /// Before the first byte of a part.
    PartStart,
    /// In a part.
    Part,
    /// After the closing boundary.
    Epilogue,
}

/// Parser for a body that arrives in pieces of any size. It holds one head, or as many bytes as a
/// boundary has.
#[derive(Debug)]
pub struct MultipartReader {
    /// `\r\n--` and the boundary.
    delimiter: Vec<u8>,
    state: ParserState,
    /// Bytes that were not used yet.
    carry: Vec<u8>,
}

impl MultipartReader {
    /// Returns a parser for the boundary of a Content-Type.
    ///
    /// # Errors
    /// [`MultipartError::Boundary`].
    pub fn new(boundary: &str) -> Result<Self, MultipartError> {
        let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
        let is_boundary = !boundary.is_empty() && boundary.len() <= MAX_BOUNDARY && !boundary.ends_with(' ');
        if !is_boundary || !boundary.bytes().all(is_char) {
            return Err(MultipartError::Boundary);
        }
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The line end before the first boundary may be missing. The parser acts as if there were
        // one.
        Ok(Self { delimiter, state: ParserState::Preamble, carry: b"\r\n".to_vec() })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are no such body.
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<PartEvent>) -> Result<(), MultipartError> {
        self.carry.extend_from_slice(bytes);
        while self.step(events)? {}
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`MultipartError::Truncated`] before the closing boundary.
    pub fn finish(self) -> Result<(), MultipartError> {
        if self.state == ParserState::Epilogue { Ok(()) } else { Err(MultipartError::Truncated) }
    }

    /// Uses the bytes that it can. Returns whether to go on.
    fn step(&mut self, events: &mut Vec<PartEvent>) -> Result<bool, MultipartError> {
        match self.state {
            ParserState::Epilogue => {
                self.carry.clear();
                Ok(false)
            }
            ParserState::PartStart => Ok(self.part_start(events)),
            ParserState::Preamble | ParserState::Part => Ok(self.until_boundary(events)),
            ParserState::AfterBoundary => self.after_boundary(),
            ParserState::Head => self.head(events),
        }
    }

    /// Some writers use the empty line of an empty part as the line end before its boundary too.
    fn part_start(&mut self, events: &mut Vec<PartEvent>) -> bool {
        let boundary = self.delimiter.get(2..).unwrap_or_default();
        if self.carry.starts_with(boundary) {
            self.carry.drain(..boundary.len());
            events.push(PartEvent::End);
            self.state = ParserState::AfterBoundary;
            return true;
        }
        let may_be_one = boundary.starts_with(&self.carry);
        if !may_be_one {
            self.state = ParserState::Part;
        }
        !may_be_one
    }

    fn until_boundary(&mut self, events: &mut Vec<PartEvent>) -> bool {
        let is_part = self.state == ParserState::Part;
        let found = memmem::find(&self.carry, &self.delimiter);
        // The last bytes may be the start of a boundary.
        let used = found.unwrap_or(self.carry.len().saturating_sub(self.delimiter.len() - 1));
        let bytes: Vec<u8> = self.carry.drain(..used).collect();
        if is_part && !bytes.is_empty() {
            events.push(PartEvent::Bytes(bytes));
        }
        if found.is_none() {
            return false;
        }
        self.carry.drain(..self.delimiter.len());
        if is_part {
            events.push(PartEvent::End);
        }
        self.state = ParserState::AfterBoundary;
        true
    }

    fn after_boundary(&mut self) -> Result<bool, MultipartError> {
        if self.carry.starts_with(b"--") {
            self.state = ParserState::Epilogue;
            return Ok(true);
        }
        // RFC 2046 5.1.1 allows white space here.
        let padding = self.carry.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match self.carry.get(padding..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {
                self.carry.drain(..padding + 2);
                self.state = ParserState::Head;
                Ok(true)
            }
            [] | [b'\r'] | [b'-'] if padding < MAX_BOUNDARY => Ok(false),
            _ => Err(MultipartError::AfterBoundary),
        }
    }

    fn head(&mut self, events: &mut Vec<PartEvent>) -> Result<bool, MultipartError> {
        let (length, behind) = if self.carry.starts_with(b"\r\n") {
            (0, 2)
        } else {
            match memmem::find(&self.carry, b"\r\n\r\n") {
                Some(end) if end <= MAX_PART_HEAD => (end, end + 4),
                None if self.carry.len() <= MAX_PART_HEAD => return Ok(false),
                Some(_) | None => return Err(MultipartError::HeadTooLong),
            }
        };
        let head: Vec<u8> = self.carry.drain(..behind).take(length).collect();
        let head = String::from_utf8(head).map_err(|_| MultipartError::Head)?;
        let mut begin = (String::new(), false);
        for line in head.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(MultipartError::Head)?;
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "content-type" => value.clone_into(&mut begin.0),
                "content-encoding" => begin.1 |= !value.is_empty() && !value.eq_ignore_ascii_case("identity"),
                "content-transfer-encoding" => {
                    let is_plain = ["binary", "8bit", "7bit"].iter().any(|plain| value.eq_ignore_ascii_case(plain));
                    begin.1 |= !is_plain;
                }
                _ => {}
            }
        }
        events.push(PartEvent::Begin { content_type: begin.0, is_encoded: begin.1 });
        self.state = ParserState::PartStart;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Result<Vec<(String, Vec<u8>)>, MultipartError>;

    /// Content types and bytes of the parts, whatever the pieces that they come in.
    fn parts(body: &[u8]) -> Found {
        let mut all: Option<Found> = None;
        for piece in [1, 2, 3, 5, 8, 13, 1 << 20] {
            let found = in_pieces(body, piece);
            assert!(all.as_ref().is_none_or(|known| *known == found), "in pieces of {piece}: {found:?}, {all:?}");
            all = Some(found);
        }
        all.unwrap()
    }

    fn in_pieces(body: &[u8], piece: usize) -> Found {
        let mut reader = MultipartReader::new("b")?;
        let mut events = Vec::new();
        for piece in body.chunks(piece) {
            reader.feed(piece, &mut events)?;
        }
        reader.finish()?;
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        for event in events {
            match event {
                PartEvent::Begin { content_type, .. } => parts.push((content_type, Vec::new())),
                PartEvent::Bytes(bytes) => parts.last_mut().unwrap().1.extend(bytes),
                PartEvent::End => {}
            }
        }
        Ok(parts)
    }

    #[test]
    fn parts_are_found_in_pieces_of_any_size() {
        let body = b"preamble\r\n--b\r\nContent-Type: application/dicom\r\nX: y\r\n\r\nab\r\n--c\r\n--b \t\r\n\r\n\r\n--b--epilogue\r\n--b\r\n";
        let expected = [("application/dicom".to_owned(), b"ab\r\n--c".to_vec()), (String::new(), Vec::new())];
        assert_eq!(parts(body).unwrap(), expected);
        assert_eq!(parts(b"--b\r\ncontent-type:a/b\r\n\r\nx\r\n--b--").unwrap(), [("a/b".to_owned(), b"x".to_vec())]);
        assert_eq!(parts(b"--b--").unwrap(), []);
        let dashes = b"--b\r\nContent-Type: a/b\r\n\r\n\r\n\r\n--\r\n--\r\n--b--";
        assert_eq!(parts(dashes).unwrap(), [("a/b".to_owned(), b"\r\n\r\n--\r\n--".to_vec())]);
    }

    #[test]
    fn what_is_no_such_body_is_told() {
        for (body, error) in [
            (&b""[..], MultipartError::Truncated),
            (b"no boundary", MultipartError::Truncated),
            (b"--b\r\nContent-Type: a/b\r\n\r\nx", MultipartError::Truncated),
            (b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b", MultipartError::Truncated),
            (b"--bx", MultipartError::AfterBoundary),
            (b"--b\r\nno header\r\n\r\nx\r\n--b--", MultipartError::Head),
            (b"--b\r\n\xff: x\r\n\r\nx\r\n--b--", MultipartError::Head),
        ] {
            assert_eq!(parts(body), Err(error), "{}", String::from_utf8_lossy(body));
        }
        let long = [b"--b\r\nX: ".to_vec(), vec![b'a'; MAX_PART_HEAD + 10]].concat();
        assert_eq!(in_pieces(&long, 1000), Err(MultipartError::HeadTooLong));
        for boundary in ["", "a\"b", "a\r\nb", "a ", &"a".repeat(MAX_BOUNDARY + 1)] {
            assert!(MultipartReader::new(boundary).is_err(), "{boundary}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let written = Parts::new();
        let content_type = written.content_type("application/dicom");
        let range = super::super::negotiate::MediaRange::parse(&content_type).unwrap();
        assert_eq!(range.parameter("type"), Some("application/dicom"));
        let boundary = range.parameter("boundary").unwrap();
        let body = format!("{}one{}two{}", written.head("a/b", None), written.head("c/d; e=f", Some(3)), written.end());
        let mut reader = MultipartReader::new(boundary).unwrap();
        let mut events = Vec::new();
        reader.feed(body.as_bytes(), &mut events).unwrap();
        reader.finish().unwrap();
        let types = events.iter().filter(|event| matches!(event, PartEvent::Begin { .. })).count();
        assert_eq!((types, events.contains(&PartEvent::Bytes(b"two".to_vec()))), (2, true));
    }
}
