//! One object for sending. It is found at a location, compared with the index, and read as a data
//! set: byte for byte, or rewritten to another transfer syntax.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder, ZlibDecoder};

use super::decoders::DecodingFor;
use super::decompress::{DecompressError, DecompressedObject};
use crate::archive::Archives;
use crate::db::CorrectedValues;
use crate::deliver::rewrite::{RewriteError, Rewriter};
use crate::encoding::syntax::{Encoding, NativeSyntax, is_deflated, is_of_standard};
use crate::encoding::walk::{Input, Walk};
use crate::files::FileMark;
use crate::ingest::Wanted;
use crate::ingest::limits::MAX_DEPTH;
use crate::ingest::parse_stream;
use crate::ingest::{Parsed, Verdict};
use crate::model::checksum::{Checksum, ChecksumBuilder};
use crate::model::location::Location;
use crate::store::{self, Soundness, Source, Verified};

/// Bytes of a data set that are checked at a time. There are few, because the rest of a long value
/// is skipped.
const CHECK_READ: usize = 8 << 10;

/// Sequences of an object that hold something other than items, and become empty if it is
/// rewritten. For each of them the object is read once more.
const MAX_EMPTIED: usize = 8;

/// Bytes of a data set that are rewritten at a time.
const REWRITE_READ: usize = 64 << 10;

/// The expected identity of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// SOP Instance UID.
    pub sop_instance_uid: &'a str,
    /// SOP Class UID. `None` if it does not matter.
    pub sop_class_uid: Option<&'a str>,
    /// The transfer syntax. `None` if it does not matter.
    pub transfer_syntax: Option<&'a str>,
}

/// Without the SOP Instance UID, which must not appear in a log above debug level.
impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("sop_class_uid", &self.sop_class_uid).finish_non_exhaustive()
    }
}

/// The reason why an object cannot be read from a location. The texts name no paths and no values.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The location keeps no bytes.
    #[error("only its metadata are kept")]
    NotKept,
    /// The object is gone or not accessible.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The object cannot be read.
    #[error("an object could not be read")]
    Read(#[source] io::Error),
    /// The location has another instance, or the instance in another form.
    #[error("the location in the index has another object: {0}")]
    Changed(&'static str),
    /// The object is one of our own, and its bytes are not those that were received.
    #[error("the object is damaged")]
    Damaged,
    /// The object has another SOP Class.
    #[error("another SOP Class UID than that of the object")]
    OtherClass,
    /// The object cannot be rewritten to the requested transfer syntax.
    #[error("cannot be rewritten: {0}")]
    Rewrite(#[from] RewriteError),
    /// The object cannot be decompressed.
    #[error("not decompressed: {0}")]
    Decompress(DecompressError),
}

impl From<DecompressError> for ObjectError {
    fn from(error: DecompressError) -> Self {
        match error {
            DecompressError::Read(error) => Self::Read(error),
            other => Self::Decompress(other),
        }
    }
}

impl ObjectError {
    /// Whether the object is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let Self::Store(store::Error::Object { source, .. }) = self else { return false };
        matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
    }

    /// Whether the object can be sent only in another form than the wanted one.
    #[must_use]
    pub fn is_of_form(&self) -> bool {
        matches!(self, Self::Rewrite(_) | Self::Decompress(_))
    }
}

/// An open object, with its expected identity.
#[derive(Debug)]
pub struct StoredObject {
    source: Source,
    data_set_offset: u64,
    /// Something in front of its data set, or in its head, is faulty.
    is_odd: bool,
    /// It has the File Meta Information of PS3.10 7.1, with the UIDs of its data set.
    has_own_meta: bool,
    sop_instance_uid: String,
    transfer_syntax: String,
    /// Encoding of the data set, whatever its transfer syntax says.
    encoding: Encoding,
    check: ChecksumState,
    corrected: Option<Arc<CorrectedValues>>,
}

/// Whether the bytes must be compared with a checksum.
#[derive(Debug)]
enum ChecksumState {
    /// There is no checksum.
    None,
    /// They were compared, and the file is unchanged since.
    Done,
    /// They must be compared.
    Due(DueCheck),
}

/// A checksum in progress.
#[derive(Debug)]
struct DueCheck {
    sop_instance_uid: String,
    checksum: ChecksumBuilder,
    expected: Checksum,
    mark: FileMark,
    verified: Arc<Verified>,
}

impl DueCheck {
    /// Compares the checksum at the end of the bytes.
    fn end(self) -> Result<(), ObjectError> {
        let is_sound = self.checksum.finish() == self.expected;
        let soundness = if is_sound { Soundness::Sound } else { Soundness::Damaged };
        self.verified.note(&self.sop_instance_uid, self.mark, self.expected, soundness);
        if is_sound { Ok(()) } else { Err(ObjectError::Damaged) }
    }
}

impl StoredObject {
    /// Opens the object at a location, and reads its head to check its identity. `archives`
    /// remembers the archive of the object before.
    ///
    /// # Errors
    /// When the location has no object, or another one.
    pub fn open(location: &Location, identity: &Identity<'_>, archives: &Archives) -> Result<Self, ObjectError> {
        let mut source = Source::open(location, archives)?.ok_or(ObjectError::NotKept)?;
        let mut parsed = head(&mut source).map_err(ObjectError::Read)?;
        if parsed.verdict() != Verdict::Object {
            return Err(ObjectError::Changed("no instance"));
        }
        let (class, instance) = parsed.sop_uids();
        if instance != identity.sop_instance_uid {
            return Err(ObjectError::Changed("another SOP Instance UID"));
        }
        if identity.sop_class_uid.is_some_and(|expected| expected != class) {
            return Err(ObjectError::OtherClass);
        }
        if identity.transfer_syntax.is_some_and(|expected| expected != parsed.transfer_syntax()) {
            return Err(ObjectError::Changed("another transfer syntax"));
        }
        if let Some(what) = source.is_not_as_known() {
            return Err(ObjectError::Changed(what));
        }
        let has_own_meta = parsed.has_preamble()
            && parsed.media_storage_sop_class_uid() == class
            && parsed.media_storage_sop_instance_uid() == instance;
        let data_set_offset = parsed.data_set_offset();
        let transfer_syntax = parsed.transfer_syntax().to_owned();
        let (encoding, is_odd) = (parsed.encoding(), !parsed.faults().is_empty());
        Ok(Self {
            source,
            data_set_offset,
            is_odd,
            has_own_meta,
            transfer_syntax,
            encoding,
            sop_instance_uid: instance,
            check: ChecksumState::None,
            corrected: None,
        })
    }

    /// Sets what corrections replace in the data set.
    #[must_use]
    pub fn corrected(self, corrected: Option<Arc<CorrectedValues>>) -> Self {
        Self { corrected, ..self }
    }

    /// Sets the expected checksum of the data set. The bytes are compared with it before the last
    /// of them are returned. This is skipped if it was done before and the file is unchanged.
    ///
    /// # Errors
    /// When the object is known to be damaged.
    pub fn expecting(mut self, expected: Option<Checksum>, verified: &Arc<Verified>) -> Result<Self, ObjectError> {
        let (Some(expected), Some(mark)) = (expected, self.source.mark()) else { return Ok(self) };
        let check = match verified.known(&mark, expected) {
            Some(Soundness::Damaged) => return Err(ObjectError::Damaged),
            Some(Soundness::Sound) => ChecksumState::Done,
            None => {
                let checksum = self.checksum_before_data_set().map_err(ObjectError::Read)?;
                let verified = Arc::clone(verified);
                let sop_instance_uid = std::mem::take(&mut self.sop_instance_uid);
                ChecksumState::Due(DueCheck { sop_instance_uid, checksum, expected, mark, verified })
            }
        };
        Ok(Self { check, ..self })
    }

    /// Begins a checksum with what was received in front of the data set. Such elements are skipped
    /// if they are in another encoding, but the checksum includes them.
    fn checksum_before_data_set(&mut self) -> io::Result<ChecksumBuilder> {
        let mut checksum = ChecksumBuilder::default();
        if !self.is_odd {
            return Ok(checksum);
        }
        let Some(start) = self.source.go_behind_our_meta()? else { return Ok(checksum) };
        let mut before = self.source.by_ref().take(self.data_set_offset.saturating_sub(start));
        let mut buffer = [0; 1024];
        loop {
            match before.read(&mut buffer) {
                Ok(0) => return Ok(checksum),
                Ok(read) => checksum.update(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns its bytes, and the offset of its data set, for callers that read single elements.
    pub(crate) fn into_source(self) -> (Source, u64) {
        (self.source, self.data_set_offset)
    }

    /// Returns the transfer syntax of its bytes.
    #[must_use]
    pub fn transfer_syntax(&self) -> &str {
        &self.transfer_syntax
    }

    /// Whether its file has the File Meta Information of PS3.10 7.1, with the UIDs of its data set.
    /// A file of a file-set needs it.
    #[must_use]
    pub fn has_own_meta(&self) -> bool {
        self.has_own_meta
    }

    /// Begins a walk over its elements. Corrections replace their values.
    ///
    /// # Errors
    /// As [`Self::rewritten`] or [`Self::as_stored`].
    pub(crate) fn walk(self) -> Result<Walk<DataSet>, ObjectError> {
        let (data_set, explicit) = match NativeSyntax::of_uid(&self.transfer_syntax) {
            Some(_) => (self.rewritten(NativeSyntax::ExplicitLittle)?, true),
            None => {
                let explicit = self.encoding_as_stored().is_explicit();
                (self.as_stored()?, explicit)
            }
        };
        Ok(Walk::new(data_set, 0, explicit, MAX_DEPTH))
    }

    /// Returns how its elements are encoded. For a deflated data set it is the encoding after
    /// inflating.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Returns how the elements of [`Self::as_stored`] are encoded.
    pub(crate) fn encoding_as_stored(&self) -> Encoding {
        if self.is_misencoded() { Encoding::ExplicitLittle } else { self.encoding }
    }

    /// Whether it is compressed and in implicit VR, which PS3.5 A.4 forbids. Receivers would read
    /// it as explicit VR. A private transfer syntax may allow it.
    fn is_misencoded(&self) -> bool {
        let is_private = !is_of_standard(&self.transfer_syntax);
        let is_native = NativeSyntax::of_uid(&self.transfer_syntax).is_some() || is_deflated(&self.transfer_syntax);
        self.encoding == Encoding::ImplicitLittle && !is_native && !is_private
    }

    /// Reads it to its end, to check every byte. This is skipped if it was done before (see
    /// [`Self::expecting`]).
    ///
    /// # Errors
    /// When a byte is missing or wrong.
    pub fn read_to_end(self) -> Result<(), ObjectError> {
        self.read_to_end_with(&mut |_| ControlFlow::Continue(()))
    }

    /// Works as [`Self::read_to_end`]. It reports the number of bytes after each read, and stops
    /// when told to.
    ///
    /// # Errors
    /// When a byte is missing or wrong.
    pub fn read_to_end_with(mut self, on_read: &mut dyn FnMut(usize) -> ControlFlow<()>) -> Result<(), ObjectError> {
        match self.check {
            ChecksumState::Done => Ok(()),
            ChecksumState::None | ChecksumState::Due(_) => self.read_all(on_read),
        }
    }

    /// Reads the whole data set and compares its checksum.
    fn read_all(&mut self, on_read: &mut dyn FnMut(usize) -> ControlFlow<()>) -> Result<(), ObjectError> {
        let mut check = std::mem::replace(&mut self.check, ChecksumState::Done);
        let mut buffer = vec![0; REWRITE_READ];
        self.source.go_to(self.data_set_offset).map_err(ObjectError::Read)?;
        loop {
            match self.source.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    if let ChecksumState::Due(due) = &mut check {
                        due.checksum.update(buffer.get(..read).unwrap_or_default());
                    }
                    if on_read(read).is_break() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ObjectError::Read(error)),
            }
        }
        match check {
            ChecksumState::Due(due) => due.end(),
            ChecksumState::None | ChecksumState::Done => Ok(()),
        }
    }

    /// Returns its data set byte for byte. If the length is odd, a NUL is added. Corrections
    /// replace their values. A compressed object in implicit VR comes in Explicit VR Little Endian,
    /// if its elements can be read.
    ///
    /// # Errors
    /// When it cannot be read, or not be corrected.
    pub fn as_stored(mut self) -> Result<DataSet, ObjectError> {
        if self.corrected.is_some() {
            let from = if is_deflated(&self.transfer_syntax) { NativeSyntax::Deflated } else { self.encoding.into() };
            let to = if self.is_misencoded() { NativeSyntax::ExplicitLittle } else { from };
            return self.passed_through(from, to);
        }
        let (from, to) = (NativeSyntax::ImplicitLittle, NativeSyntax::ExplicitLittle);
        match self.is_misencoded().then(|| self.emptied(from, to)) {
            Some(Ok(emptied)) => self.rewriting(from, to, emptied),
            Some(Err(error @ ObjectError::Damaged)) => Err(error),
            Some(Err(_)) | None => self.unchanged(),
        }
    }

    /// Returns its data set byte for byte, with an even length.
    fn unchanged(mut self) -> Result<DataSet, ObjectError> {
        self.source.go_to(self.data_set_offset).map_err(ObjectError::Read)?;
        let bytes = match self.source.left() {
            Some(_) => ObjectBytes::Sized(self.source),
            None => ObjectBytes::Streamed(BufReader::with_capacity(REWRITE_READ, Box::new(self.source))),
        };
        let check = match self.check {
            ChecksumState::Due(due) => Some(due),
            ChecksumState::None | ChecksumState::Done => None,
        };
        Ok(DataSet { bytes, filled: 0, check })
    }

    /// Returns its data set in another transfer syntax. The whole data set is checked first, so
    /// that no error can appear after the first byte was sent. Values are skipped for that, if the
    /// bytes can be skipped.
    ///
    /// # Errors
    /// When it is compressed or damaged, or cannot be read.
    pub fn rewritten(self, to: NativeSyntax) -> Result<DataSet, ObjectError> {
        let from = NativeSyntax::of_uid(&self.transfer_syntax)
            .ok_or(ObjectError::Rewrite(RewriteError::Encapsulated(0x7FE0_0010)))?;
        self.passed_through(from, to)
    }

    /// Returns its whole file, as it is outside of the data set. Corrections replace their values.
    ///
    /// # Errors
    /// As [`Self::as_stored`].
    pub fn whole_file(mut self) -> Result<impl Read + Send, ObjectError> {
        let mut before = Vec::new();
        self.source.keep();
        self.source.go_to(0).map_err(ObjectError::Read)?;
        let offset = self.data_set_offset;
        self.source.by_ref().take(offset).read_to_end(&mut before).map_err(ObjectError::Read)?;
        let data_set = if self.corrected.is_some() { self.as_stored()? } else { self.unchanged()? };
        Ok(io::Cursor::new(before).chain(data_set))
    }

    /// Returns its data set as the rewriter makes it.
    fn passed_through(mut self, from: NativeSyntax, to: NativeSyntax) -> Result<DataSet, ObjectError> {
        let emptied = self.emptied(from, to)?;
        self.rewriting(from, to, emptied)
    }

    /// Checks the whole data set. Returns the positions of sequences that must become empty.
    fn emptied(&mut self, from: NativeSyntax, to: NativeSyntax) -> Result<Vec<u64>, ObjectError> {
        self.check_now()?;
        self.source.keep();
        let mut emptied = Vec::new();
        while let Some(faulty) = self.check_rewriting((from, to), &emptied)? {
            emptied.push(faulty);
        }
        Ok(emptied)
    }

    /// Returns its data set, which was checked, as the rewriter makes it.
    fn rewriting(mut self, from: NativeSyntax, to: NativeSyntax, emptied: Vec<u64>) -> Result<DataSet, ObjectError> {
        self.source.go_to(self.data_set_offset).map_err(ObjectError::Read)?;
        let rewriter = self.rewriter(from, to);
        let source = match from {
            NativeSyntax::Deflated => inflated(self.source).map_err(ObjectError::Read)?,
            NativeSyntax::ImplicitLittle | NativeSyntax::ExplicitLittle | NativeSyntax::ExplicitBig => {
                Box::new(self.source)
            }
        };
        Ok(DataSet::rewriting(source, rewriter.emptying(emptied), to))
    }

    fn rewriter(&self, from: NativeSyntax, to: NativeSyntax) -> Rewriter {
        let rewriter = Rewriter::new(from, to).correcting(self.corrected.clone());
        if self.is_misencoded() { rewriter.keeping_fragments() } else { rewriter }
    }

    /// Rewrites it to its end and keeps nothing. Returns the position of a further sequence that
    /// must become empty, because it holds something other than items.
    fn check_rewriting(
        &mut self,
        (from, to): (NativeSyntax, NativeSyntax),
        emptied: &[u64],
    ) -> Result<Option<u64>, ObjectError> {
        self.source.go_to(self.data_set_offset).map_err(ObjectError::Read)?;
        let mut rewriter = self.rewriter(from, to).emptying(emptied.to_vec());
        let checked = match from {
            NativeSyntax::Deflated => {
                check(&mut inflated(&mut self.source).map_err(ObjectError::Read)?, |_, _| Ok(0), &mut rewriter)
            }
            NativeSyntax::ImplicitLittle | NativeSyntax::ExplicitLittle | NativeSyntax::ExplicitBig => {
                check(&mut self.source, Source::skip, &mut rewriter)
            }
        };
        match checked {
            Ok(()) => Ok(None),
            Err(ObjectError::Rewrite(error)) if emptied.len() < MAX_EMPTIED => {
                rewriter.faulty_sequence(error).map(Some).ok_or(ObjectError::Rewrite(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns its data set without compression, in another transfer syntax. All frames are
    /// decompressed first and the whole data set is checked, so that no error can appear after the
    /// first byte was sent.
    ///
    /// # Errors
    /// When a frame cannot be decompressed, or the object cannot be read.
    pub(crate) fn decompressed(mut self, to: NativeSyntax, decoding: DecodingFor) -> Result<DataSet, ObjectError> {
        self.check_now()?;
        self.source.keep();
        let mut object = DecompressedObject::open(
            self.source,
            (self.data_set_offset, self.encoding),
            &self.transfer_syntax,
            decoding,
        )?;
        let from = NativeSyntax::from(self.encoding);
        let rewriter = || Rewriter::new(from, to).correcting(self.corrected.clone());
        check(&mut object, |object, count| Ok(object.skip(count)), &mut rewriter())?;
        object.rewind();
        Ok(DataSet::rewriting(Box::new(object), rewriter(), to))
    }

    /// Compares its checksum now, if that is due. Who changes the data set need not read the last
    /// bytes of a file.
    fn check_now(&mut self) -> Result<(), ObjectError> {
        match self.check {
            ChecksumState::Due(_) => self.read_all(&mut |_| ControlFlow::Continue(())),
            ChecksumState::None | ChecksumState::Done => Ok(()),
        }
    }
}

/// Reads the head of an object, up to its UIDs.
fn head(source: &mut Source) -> io::Result<Parsed> {
    parse_stream(source, Wanted::sop_uids(), Source::skip)
}

/// Inflates a deflated data set. Some writers use a zlib stream, although PS3.5 A.5 means a raw
/// one.
fn inflated<'s>(source: impl Read + Send + 's) -> io::Result<Box<dyn Read + Send + 's>> {
    let mut source = BufReader::with_capacity(REWRITE_READ, source);
    let is_zlib = source.fill_buf()?.first() == Some(&0x78);
    Ok(if is_zlib { Box::new(ZlibDecoder::new(source)) } else { Box::new(DeflateDecoder::new(source)) })
}

/// Rewrites a data set to its end and keeps nothing of it. `pass` skips up to the requested number
/// of bytes, and returns how many.
fn check<R: Read>(
    source: &mut R,
    pass: impl Fn(&mut R, u64) -> io::Result<u64>,
    rewriter: &mut Rewriter,
) -> Result<(), ObjectError> {
    let mut out = Vec::new();
    let mut buffer = vec![0; CHECK_READ];
    loop {
        let skippable = rewriter.skippable();
        if skippable > 0 {
            rewriter.skip(pass(source, skippable).map_err(ObjectError::Read)?);
        }
        match source.read(&mut buffer) {
            Ok(0) => return rewriter.finish(&mut out).map_err(ObjectError::Rewrite),
            Ok(read) => rewriter.feed(buffer.get(..read).unwrap_or_default(), &mut out)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(ObjectError::Read(error)),
        }
        out.clear();
    }
}

/// A data set that is being read. If its length is odd, a NUL is added. Every fragment has an even
/// length (PS3.8 E.1), and DCMTK aborts the association over an odd one. Writers forget to pad
/// values (PS3.5 7.1.1) and deflated data sets (A.5).
#[derive(Debug)]
pub struct DataSet {
    bytes: ObjectBytes,
    /// Number of bytes returned so far.
    filled: u64,
    /// The checksum that they must have.
    check: Option<DueCheck>,
}

enum ObjectBytes {
    /// The number of remaining bytes is known.
    Sized(Source),
    /// The end is known only when it is reached.
    Streamed(BufReader<Box<dyn Read + Send>>),
}

impl fmt::Debug for ObjectBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sized(_) => "Sized",
            Self::Streamed(_) => "Streamed",
        })
    }
}

/// The result of [`DataSet::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Number of bytes. They fill the buffer, unless the data set ended.
    pub count: usize,
    /// Whether these were the last.
    pub is_last: bool,
}

impl DataSet {
    /// Returns a data set that is rewritten while it is read.
    fn rewriting(source: Box<dyn Read + Send>, rewriter: Rewriter, to: NativeSyntax) -> Self {
        let input = vec![0; REWRITE_READ];
        let rewriting = Rewriting { source, rewriter, input, out: Vec::new(), at: 0, ended: false };
        let rewritten: Box<dyn Read + Send> = match to {
            NativeSyntax::Deflated => Box::new(DeflateEncoder::new(rewriting, Compression::default())),
            NativeSyntax::ImplicitLittle | NativeSyntax::ExplicitLittle | NativeSyntax::ExplicitBig => {
                Box::new(rewriting)
            }
        };
        let bytes = ObjectBytes::Streamed(BufReader::with_capacity(REWRITE_READ, rewritten));
        Self { bytes, filled: 0, check: None }
    }

    /// Returns the number of remaining bytes, if it is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match &self.bytes {
            ObjectBytes::Sized(source) => source.left().map(|left| left + u64::from((self.filled + left) % 2 == 1)),
            ObjectBytes::Streamed(_) => None,
        }
    }

    /// Fills a buffer with the next bytes.
    ///
    /// # Errors
    /// When they cannot be read, or when the checksum at the end is wrong.
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Filled> {
        let mut count = 0;
        while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
            let read = match &mut self.bytes {
                ObjectBytes::Sized(source) => source.read(rest),
                ObjectBytes::Streamed(source) => source.read(rest),
            };
            match read {
                Ok(0) => break,
                Ok(read) => {
                    if let Some(check) = &mut self.check {
                        check.checksum.update(rest.get(..read).unwrap_or_default());
                    }
                    count += read;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut is_last = match &mut self.bytes {
            ObjectBytes::Sized(source) => source.left() == Some(0),
            ObjectBytes::Streamed(source) => source.fill_buf()?.is_empty(),
        };
        if is_last && let Some(check) = self.check.take() {
            check.end().map_err(io::Error::other)?;
        }
        self.filled += count as u64;
        if is_last && self.filled % 2 == 1 {
            match buffer.get_mut(count) {
                Some(place) => {
                    *place = 0;
                    count += 1;
                    self.filled += 1;
                }
                // It has no room here and comes with the next bytes.
                None => is_last = false,
            }
        }
        Ok(Filled { count, is_last })
    }
}

impl Input for DataSet {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        io::copy(&mut self.take(count), &mut io::sink())
    }
}

impl Read for DataSet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(buffer).map(|filled| filled.count)
    }
}

/// A data set that goes through a [`Rewriter`].
struct Rewriting {
    source: Box<dyn Read + Send>,
    rewriter: Rewriter,
    input: Vec<u8>,
    /// Rewritten bytes. The first `at` of them are read.
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Rewriting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.out.len() && !self.ended {
            self.out.clear();
            self.at = 0;
            let rewritten = match self.source.read(&mut self.input)? {
                0 => {
                    self.ended = true;
                    self.rewriter.finish(&mut self.out)
                }
                read => self.rewriter.feed(self.input.get(..read).unwrap_or_default(), &mut self.out),
            };
            // It was checked before, so the file has changed since.
            rewritten.map_err(io::Error::other)?;
        }
        let rest = self.out.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::location::Place;
    use crate::store::FileMeta;

    const CLASS: &str = "1.2.840.10008.5.1.4.1.1.2";

    /// An element of group 0002 that a sender left in front of its data set.
    const META: &[u8] = b"\x02\0\x10\0UI\x12\x001.2.840.10008.1.2\0";

    /// A command set that a sender left in front of its data set.
    const COMMAND: &[u8] = b"\0\0\0\0\x04\0\0\0\x0A\0\0\0\0\0\0\x01\x02\0\0\0\x01\0";

    fn element(number: u16, text: &str, explicit: bool) -> Vec<u8> {
        let mut out = [&[8, 0][..], &number.to_le_bytes()].concat();
        match explicit {
            true => out.extend([b"UI".as_slice(), &(text.len() as u16).to_le_bytes()].concat()),
            false => out.extend((text.len() as u32).to_le_bytes()),
        }
        out.extend(text.as_bytes());
        out
    }

    /// One of our own objects with this data set.
    fn kept(directory: &tempfile::TempDir, transfer_syntax: &str, data_set: &[u8]) -> Location {
        let (sop_class_uid, sop_instance_uid) = (CLASS, "1.2.3.45");
        let meta = FileMeta { sop_class_uid, sop_instance_uid, transfer_syntax, source_ae_title: "CT" };
        let file = [&meta.encode(), data_set].concat();
        std::fs::write(directory.path().join("object.dcm"), &file).unwrap();
        Location {
            place: Place::Managed,
            directory: directory.path().to_owned(),
            file_name: "object.dcm".into(),
            size: file.len() as u64,
            mtime_ms: 0,
        }
    }

    #[test]
    fn what_a_sender_left_in_front_of_its_data_set_is_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity { sop_instance_uid: "1.2.3.45", sop_class_uid: Some(CLASS), transfer_syntax: None };
        let mut passed_over = 0;
        for (transfer_syntax, explicit) in [("1.2.840.10008.1.2", false), ("1.2.840.10008.1.2.1", true)] {
            for before in [&b""[..], META, COMMAND, &[COMMAND, META].concat()] {
                let class = element(0x16, &format!("{CLASS}\0"), explicit);
                let data_set = [before, &class, &element(0x18, "1.2.3.45", explicit)].concat();
                let location = kept(&directory, transfer_syntax, &data_set);
                let open = |checksum| {
                    let object = StoredObject::open(&location, &identity, &Archives::default()).unwrap();
                    object.expecting(Some(checksum), &Arc::default())
                };
                let sound = open(Checksum::of(&data_set)).unwrap();
                assert!(sound.read_to_end().is_ok(), "{transfer_syntax} {before:?}");
                let mut sent = open(Checksum::of(&data_set)).unwrap().as_stored().unwrap();
                let mut buffer = [0; 1000];
                let filled = sent.fill(&mut buffer).unwrap();
                assert!(filled.is_last && data_set.ends_with(&buffer[..filled.count]));
                passed_over += usize::from(filled.count < data_set.len());
                assert!(matches!(open(Checksum::of(b"other")).unwrap().read_to_end(), Err(ObjectError::Damaged)));
            }
        }
        assert_eq!(passed_over, 4);
    }
}
