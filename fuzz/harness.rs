//! What is done with the bytes of a fuzzer, and what has to hold whatever they are. The test suite
//! runs the same functions over the regression corpus.

#![allow(dead_code, reason = "each target uses one of these")]

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::panic;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once, mpsc};

use dcmdex::access::peers::SharedPeers;
use dcmdex::access::policy::{AccessPolicy, CalledAeTitle};
use dcmdex::archive::{
    self, ArchiveKind, ArchiveProblem, Archives, KIND_BYTES, Member, MemberAction, MemberBytes, MemberKind, MemberSink,
    OnRead,
};
use dcmdex::db::open::{Reader, Writer, WriterOptions};
use dcmdex::db::{
    Arrivals, PerformedStep, Received, WorklistAsked, WorklistBy, WorklistChanges, WorklistColumn, WorklistProblem,
    WorklistRow, WorklistSource, WorklistState, WorklistTables, WorklistWork,
};
use dcmdex::dimse::command_set::CommandSet;
use dcmdex::dimse::message::{DataSetPresence, DimseRequest, RequestError};
use dcmdex::dimse::pdata::{FragmentOutcome, MessageAssembler, Pdv};
use dcmdex::dimse::{Response, command_set};
use dcmdex::encoding::syntax::Encoding;
use dcmdex::ingest::{HeaderParser, Need, Outcome, Wanted, read_references, read_stream, read_stream_with};
use dcmdex::model::attribute::{ATTRIBUTES, AttributeId};
use dcmdex::model::clock::Clock;
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::model::location::{Location, Place};
use dcmdex::model::status::Status;
use dcmdex::pixels::codec::{CODECS, FrameShape};
use dcmdex::pixels::transforms::{Function, Greys, Lut, PixelTransforms, VoiWindow};
use dcmdex::qr::{self, Identifier, NegotiatedOptions, QueryStop, ResponseWriter};
use dcmdex::scanner::check_dicomdir;
use dcmdex::scp::negotiation::{Answer, HeldSyntaxes, Policy, answer};
use dcmdex::scp::service_classes;
use dcmdex::store::FileMeta;
use dcmdex::ul::tls::Transport;
use dcmdex::web::multipart::{MultipartError, MultipartReader, PartEvent};
use dcmdex::web::negotiate::Accept;
use dcmdex::web::picture::{self, Native, PictureFormat, PictureRequest, SampleKind};
use dcmdex::web::query::{Scope, SearchQuery, pairs};
use dcmdex::worklist::{Hl7Intake, Hl7Map, Intake, IntakeOptions, Message};
use dicom_ul::pdu::{Pdu, PresentationContextResultReason as ContextResult, read_pdu};

/// PDUs one after the other: requests for associations are answered, messages put together,
/// commands understood.
pub(crate) fn pdu(bytes: &[u8]) {
    let policy = Policy {
        access: AccessPolicy {
            own_ae_title: "DCMDEX".parse().expect("an AE title"),
            called_ae_title: CalledAeTitle::Any,
            peers: SharedPeers::default(),
        },
        provided: service_classes(),
        preferred_transfer_syntaxes: Vec::new(),
        held: HeldSyntaxes::default(),
    };
    let mut assembler = MessageAssembler::new();
    let mut rest = bytes;
    while let Some((&[kind, _, l0, l1, l2, l3], after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let (body, after) = after.split_at(length.min(after.len()));
        rest = after;
        match kind {
            1 => {
                if let Answer::Accept(agreement, accept) =
                    answer(body, ([127, 0, 0, 1], 104).into(), &Transport::Plain, &policy)
                {
                    let read = read_pdu(accept.as_slice(), 1 << 20, true).expect("our answer is a PDU");
                    let Some(Pdu::AssociationAC(accept)) = read else { panic!("not an A-ASSOCIATE-AC: {read:?}") };
                    let accepted =
                        accept.presentation_contexts.iter().filter(|it| it.reason == ContextResult::Acceptance).count();
                    assert_eq!(accepted, agreement.contexts.len());
                }
            }
            4 if !messages(&mut assembler, body) => return,
            _ => {}
        }
    }
}

/// `false` when the association would be aborted.
fn messages(assembler: &mut MessageAssembler, mut body: &[u8]) -> bool {
    while !body.is_empty() {
        let Ok((pdv, rest)) = Pdv::split_first(body) else { return false };
        body = rest;
        match assembler.accept(&pdv) {
            Ok(FragmentOutcome::Command { command, .. }) => understood(&command),
            Ok(FragmentOutcome::CommandFragment | FragmentOutcome::DataSetFragment { .. }) => {}
            Err(_) => return false,
        }
    }
    true
}

fn understood(command: &CommandSet) {
    let mut encoded = Vec::new();
    command.encode(&mut encoded);
    assert_eq!(CommandSet::decode(&encoded).as_ref(), Ok(command), "what is read can be written and read again");
    let response = match DimseRequest::parse(command) {
        Ok(DimseRequest::Store(request)) => {
            Response::new(command_set::CommandField::C_STORE_RQ, request.message_id, Status::CANNOT_UNDERSTAND)
                .with_sop_class(Some(&request.affected_sop_class_uid))
                .with_sop_instance(&request.affected_sop_instance_uid)
                .with_comment(&request.affected_sop_instance_uid)
        }
        Ok(DimseRequest::Find(request)) => {
            Response::new(command_set::CommandField::C_FIND_RQ, request.message_id, Status::SUCCESS)
                .with_sop_class(Some(&request.affected_sop_class_uid))
        }
        Err(RequestError::Refused(response)) => *response,
        _ => return,
    };
    let mut encoded = Vec::new();
    response.command_set(DataSetPresence::Absent).encode(&mut encoded);
    CommandSet::decode(&encoded).expect("our response is a command set");
}

/// A file, read with what is not needed skipped, and read as a stream: the same comes out.
pub(crate) fn file(bytes: &[u8]) {
    let mut parser = HeaderParser::for_file(Wanted::index());
    let mut at = bytes.len().min(8 << 10);
    let mut need = parser.feed(&bytes[..at]);
    loop {
        match need {
            Need::Done => break,
            Need::More => {}
            Need::Skip(length) => {
                let skipped = length.min((bytes.len() - at) as u64);
                parser.skipped(skipped);
                at += skipped as usize;
            }
        }
        if at == bytes.len() {
            break;
        }
        let end = bytes.len().min(at + (64 << 10));
        need = parser.feed(&bytes[at..end]);
        at = end;
    }
    let skipping = Outcome::of(parser.finish());
    assert_eq!(format!("{skipping:?}"), format!("{:?}", read_stream(bytes, Wanted::index())));
}

const TRANSFER_SYNTAXES: [&str; 6] = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.113619.5.2",
];

/// The data set of a C-STORE. The first byte is the transfer syntax, the second how long fragments
/// are: however it is cut, the same comes out.
pub(crate) fn stream(bytes: &[u8]) {
    let [syntax, step, data_set @ ..] = bytes else { return };
    let syntax = TRANSFER_SYNTAXES[usize::from(*syntax) % TRANSFER_SYNTAXES.len()];
    let read = |step: usize| {
        let mut parser = HeaderParser::for_data_set(Wanted::index(), syntax);
        for fragment in data_set.chunks(step) {
            if parser.feed(fragment) == Need::Done {
                break;
            }
        }
        format!("{:?}", Outcome::of(parser.finish()))
    };
    assert_eq!(read(usize::from(*step) + 1), read(data_set.len().max(1)));
    kept(data_set, syntax);
}

/// What was received is, as a file, the same object in the same transfer syntax.
fn kept(data_set: &[u8], transfer_syntax: &str) {
    let mut parser = HeaderParser::for_data_set(Wanted::index(), transfer_syntax);
    parser.feed(data_set);
    let Outcome::Instance(received) = Outcome::of(parser.finish()) else { return };
    let meta = FileMeta {
        sop_class_uid: received.value(AttributeId::SOPClassUID),
        sop_instance_uid: received.value(AttributeId::SOPInstanceUID),
        transfer_syntax,
        source_ae_title: "FUZZER",
    };
    let file = [meta.encode(), data_set.to_vec()].concat();
    let Outcome::Instance(scanned) = read_stream(file.as_slice(), Wanted::index()) else {
        panic!("what was received as an instance is none when it is read again")
    };
    for attribute in ATTRIBUTES {
        assert_eq!(scanned.value(attribute.id), received.value(attribute.id), "{}", attribute.keyword);
    }
}

/// The Identifier of a C-FIND. The first byte is model, transfer syntax and what was negotiated;
/// the query is run against a small index.
pub(crate) fn identifier(bytes: &[u8]) {
    let [how, data_set @ ..] = bytes else { return };
    let encodings = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"];
    let encoding = Encoding::of_uid(encodings[usize::from(how & 3) % 3]).expect("one of ours");
    let models = [InformationModel::StudyRoot, InformationModel::PatientRoot, InformationModel::PatientStudyOnly];
    let model = models[usize::from((how >> 2) & 3) % 3];
    let flag = |bit: u8| (how >> bit) & 1;
    let negotiated = NegotiatedOptions::of_bytes(&[flag(4), flag(5), flag(6), 0, 0, flag(7), flag(5)]);
    let options = qr::Options::default();
    let Ok(identifier) = Identifier::decode(data_set, encoding, &options.assumed_character_set) else { return };
    let Ok(query) = qr::parse(model, &identifier, negotiated, &options) else { return };
    INDEX.with_borrow_mut(|index| {
        let reader = index.get_or_insert_with(small_index);
        let stop = QueryStop::new(reader);
        let mut writer = ResponseWriter::new(&query, encoding, "");
        let ran = qr::run(reader, &query, &stop, |answer| {
            let written = writer.write(&answer);
            Identifier::decode(written, encoding, "").expect("our answer is an Identifier");
            ControlFlow::Continue(())
        });
        // No key, however odd, is an error of the index.
        ran.expect("the query runs");
    });
}

thread_local! {
    static INDEX: RefCell<Option<Reader>> = const { RefCell::new(None) };
}

/// The index of a few real objects.
fn small_index() -> Reader {
    let directory = tempfile::tempdir().expect("a directory for the index").keep();
    let index = directory.join("index.db");
    let writer = Writer::open(&index, WriterOptions::default()).expect("a new index");
    let real = PathBuf::from(env!("CARGO_MANIFEST_DIR")).ancestors().find_map(|it| {
        let real = it.join("fixtures/real");
        real.is_dir().then_some(real)
    });
    let (done, stored) = mpsc::channel();
    for folder in ["modalities", "charsets"] {
        for entry in real.as_ref().expect("the fixtures").join(folder).read_dir().expect("a folder of objects") {
            let path = entry.expect("an entry").path();
            let Outcome::Instance(record) =
                read_stream(std::fs::read(&path).expect("an object").as_slice(), Wanted::index())
            else {
                continue;
            };
            let file_name = path.file_name().expect("a file has a name").to_owned();
            let location =
                Location { place: Place::InPlace, directory: PathBuf::from("/"), file_name, size: 1, mtime_ms: 0 };
            let done = done.clone();
            let on_done = move |result: Result<_, _>| done.send(result.is_ok()).expect("somebody waits");
            writer.handle().store(Received::new(record, location), Box::new(on_done));
            assert!(stored.recv().expect("an answer"));
        }
    }
    writer.close().expect("the index is written");
    Reader::open(&index).expect("the index can be read")
}

/// An archive file. Its members are the same for every reader. Each member that was read can be
/// opened by its path, with the same content.
pub(crate) fn archive(bytes: &[u8]) {
    let kind = match ArchiveKind::of(bytes.get(..KIND_BYTES).unwrap_or(bytes)) {
        Ok(Some(kind)) => kind,
        // As if it were called .zip.
        Ok(None) => ArchiveKind::Zip,
        Err(_unsupported) => return,
    };
    SCRATCH.with_borrow_mut(|scratch| {
        let file = scratch.get_or_insert_with(scratch_file);
        file.set_len(0).expect("a file can be cut");
        file.write_all_at(bytes, 0).expect("a file can be written");
        let members = members_of(file, kind, 1, bytes.len());
        let by_several = members_of(file, kind, 2, bytes.len());
        assert_eq!(members, by_several);
        let mut paths = HashSet::new();
        for Found { path, outcome } in &members {
            if outcome.is_some() {
                assert!(!path.is_empty() && path.len() <= archive::limits::MAX_NAME && !path.contains(&0), "{path:?}");
                assert!(paths.insert(path), "{path:?} twice");
            }
        }
        // Each on its own begins from the start: not more of them than a fuzzer has time for, and
        // not always the same.
        let read: Vec<_> = members.iter().filter_map(|it| Some((it.path.as_slice(), it.outcome.as_deref()?))).collect();
        let step = read.len().div_ceil(MOST_OPENED).max(1);
        for (path, outcome) in read.iter().skip(bytes.len() % step).step_by(step) {
            opens(&Archives::default(), file, path, outcome);
        }
        // All of them along one way through the archive, in the order in which they lie where there
        // is one.
        let archives = Archives::default();
        let mut wanted = archive::WantedMembers::default();
        read.iter().for_each(|(path, _)| wanted.add(OsStr::from_bytes(path)));
        let mut left: HashMap<_, _> = read.iter().copied().collect();
        while let Some(&path) = left.keys().min() {
            let mut next = OsStr::from_bytes(path).to_owned();
            loop {
                wanted.remove(&next);
                let outcome = left.remove(next.as_bytes()).expect("one that is wanted, once");
                opens(&archives, file, next.as_bytes(), outcome);
                let Some(met) = archives.next_of(&wanted) else { break };
                next = met;
            }
        }
    });
}

/// A member that was read can be opened by its path, and is the same then.
fn opens(archives: &Archives, file: &File, path: &[u8], outcome: &str) {
    let mut object = match archives.open(file.try_clone().expect("a file has handles enough"), OsStr::from_bytes(path))
    {
        Ok(object) => object,
        Err(ArchiveProblem::Inflation) => return,
        Err(problem) => panic!("{path:?} was read and cannot be opened: {problem}"),
    };
    let reread = read_stream(&mut object, Wanted::index());
    // What the end of a member gives away is not known when its head is read.
    let is_sound = std::io::copy(&mut object, &mut std::io::sink()).is_ok();
    if is_sound && !outcome.starts_with("Unreadable") {
        assert_eq!(format!("{reread:?}"), outcome, "{path:?}");
    }
}

/// Members of one archive that are opened each on its own.
const MOST_OPENED: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Option<File>> = const { RefCell::new(None) };
}

fn scratch_file() -> File {
    tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).expect("a file")
}

/// A member that was read, or refused.
#[derive(Debug, PartialEq)]
struct Found {
    path: Vec<u8>,
    outcome: Option<String>,
}

#[derive(Default)]
struct Members {
    found: Vec<Found>,
}

impl MemberSink<String> for Members {
    fn action_for(&mut self, member: &Member) -> MemberAction {
        match member.kind {
            MemberKind::File | MemberKind::SingleFile => MemberAction::Read,
            MemberKind::Link | MemberKind::Special => MemberAction::Skip,
        }
    }

    fn replaces(&self, _value: &String) -> bool {
        true
    }

    fn needs_size(&self, _value: &String) -> bool {
        true
    }

    fn replaced(&mut self, path: Vec<u8>) -> ControlFlow<()> {
        // Only what was met before, and is a file.
        assert!(self.found.iter().any(|found| found.path == path), "{path:?} was replaced before it was met");
        ControlFlow::Continue(())
    }

    fn read(&mut self, member: Member, value: String) -> ControlFlow<()> {
        self.found.push(Found { path: member.path, outcome: Some(value) });
        ControlFlow::Continue(())
    }

    fn refused(&mut self, path: Vec<u8>, _problem: ArchiveProblem) -> ControlFlow<()> {
        self.found.push(Found { path, outcome: None });
        ControlFlow::Continue(())
    }
}

fn members_of(file: &File, kind: ArchiveKind, threads: usize, length: usize) -> Vec<Found> {
    let mut members = Members::default();
    let bytes_read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&bytes_read);
    let on_read: OnRead = Arc::new(move |bytes| {
        counter.fetch_add(bytes, Relaxed);
    });
    let read = |bytes: &mut dyn MemberBytes, size: Option<u64>| {
        let length = size.unwrap_or(u64::MAX);
        format!("{:?}", read_stream_with(bytes, length, Wanted::index(), |bytes, count| bytes.skip(count)))
    };
    let file = file.try_clone().expect("a file has handles enough");
    // Whether it is sound to its end does not matter here.
    let _ended = archive::walk(file, OsStr::new("archive.gz"), kind, threads, on_read, &read, &mut members);
    // However members overlap and archives lie in each other: no more work than a few times what
    // there is.
    let most = 32 * length as u64 + (1 << 20);
    assert!(bytes_read.load(Relaxed) <= most, "{} bytes read of {length}", bytes_read.load(Relaxed));
    members.found
}

/// A DICOMDIR, held against a small folder.
pub(crate) fn dicomdir(bytes: &[u8]) {
    let references = read_references(bytes).expect("bytes can be read");
    // An element has eight bytes at least.
    assert!(references.file_ids.len() <= bytes.len() / 8);
    let in_pieces = read_references(BufReader::with_capacity(7, bytes)).expect("bytes can be read");
    assert_eq!(references, in_pieces);
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(small_folder);
        let path = folder.join("DICOMDIR");
        std::fs::write(&path, bytes).expect("a file can be written");
        for (name, finding) in check_dicomdir(&path).expect("a DICOMDIR that can be read") {
            let named = Path::new(&name);
            match finding.reason {
                "dicomdir-damaged" => assert_eq!(name, "(records)"),
                "dicomdir-bad-reference" => assert!(!name.as_bytes().iter().any(u8::is_ascii_control), "{name:?}"),
                "dicomdir-file-missing" => {
                    assert!(named.components().all(|it| matches!(it, Component::Normal(_))), "{name:?}");
                    assert!(!folder.join(named).is_file(), "{name:?} is there");
                }
                "dicomdir-unlisted" => assert!(INSTANCES.iter().any(|it| named == Path::new(it)), "{name:?}"),
                other => panic!("{other}: {finding:?}"),
            }
        }
    });
}

thread_local! {
    static FOLDER: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// The instances of the folder; another one lies beside it.
const INSTANCES: [&str; 3] = ["IM1", "IMAGES/IM2", "IMAGES/im3.dcm"];

fn small_folder() -> PathBuf {
    let parent = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder").keep();
    let folder = parent.join("disc");
    // With a preamble, Implicit VR Little Endian for want of a transfer syntax, and the UIDs that
    // make an instance.
    let mut instance = [&[0; 128], b"DICM".as_slice()].concat();
    for (group, element, uid) in
        [(8_u16, 0x16_u16, b"1.2\0"), (8, 0x18, b"1.3\0"), (0x20, 0xD, b"1.4\0"), (0x20, 0xE, b"1.5\0")]
    {
        instance.extend([group.to_le_bytes(), element.to_le_bytes()].concat());
        instance.extend(4_u32.to_le_bytes());
        instance.extend(uid);
    }
    std::fs::create_dir_all(folder.join("IMAGES")).expect("a folder");
    for name in INSTANCES.into_iter().chain(["../OUTSIDE"]) {
        std::fs::write(folder.join(name), &instance).expect("a file can be written");
    }
    std::fs::write(folder.join("README.TXT"), "no instance").expect("a file can be written");
    folder
}

/// The query of a DICOMweb search, at each level: an error that repeats no value, or a question
/// with all that every answer has.
pub(crate) fn query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let options = qr::Options::default();
    for level in [QueryRetrieveLevel::Study, QueryRetrieveLevel::Series, QueryRetrieveLevel::Image] {
        for (study, series) in [("", ""), ("1.2.3", "1.2.3.4"), (&*text, "")] {
            let scope = Scope { level, study, series };
            if let Ok(search) = SearchQuery::parse(&scope, &text, &options) {
                let request = &search.query.request;
                assert_eq!(request.level, level);
                let returned: HashSet<_> = request.return_keys.iter().map(|key| key.attribute).collect();
                assert!(returned.contains(&AttributeId::StudyInstanceUID), "every answer names its study");
                assert!(search.query.limit.is_none(), "a limit of C-FIND is an error there, and none here");
            }
        }
    }
    for (name, value) in pairs(&text) {
        assert!(name.len() <= text.len() && value.len() <= text.len());
    }
}

/// An Accept header and a query: whatever is chosen is among what there is.
pub(crate) fn accept(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (header, query) = text.split_once('\n').unwrap_or((&text, ""));
    let accept = Accept::parse([header], query);
    let offers = ["application/dicom+json", "application/json", "multipart/related; type=\"application/dicom\""];
    for count in 0..=offers.len() {
        let offers = &offers[..count];
        if let Some(chosen) = accept.choose(offers) {
            assert!(offers.contains(&chosen));
        }
    }
    for range in accept.groups().into_iter().flatten() {
        assert!(range.weight <= 1000 && !range.essence.0.is_empty() && !range.essence.1.is_empty());
    }
}

/// Lets panics of the decoders of others pass: the codec catches them. All others end the program.
fn forgive_decoders() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |location| location.file());
            if !file.contains("jpeg-decoder") && !file.contains("hayro-jpeg2000") {
                others(info);
            }
        }));
    });
}

/// A frame, compressed or not, with what its object states. The result is a frame of the stated
/// size and a picture that fits into its viewport, or a refusal.
pub(crate) fn render(bytes: &[u8]) {
    forgive_decoders();
    let Some((head, rest)) = bytes.split_first_chunk::<12>() else { return };
    let [codec, columns, rows, samples, bits, flags, bits_stored, high_bit, photometric, first, window, length] = *head;
    let (query, stream) = rest.split_at_checked(usize::from(length)).unwrap_or((rest, &[]));
    let shape = FrameShape {
        columns: u32::from(columns),
        rows: u32::from(rows),
        samples: usize::from(samples),
        bits_allocated: u16::from(bits),
        is_planar: flags & 1 == 1,
    };
    let native = match CODECS.get(usize::from(codec)) {
        Some(codec) => {
            let Ok(frame) = codec.decompress(stream, &shape) else { return };
            let in_bits = usize::from(columns) * usize::from(rows) * shape.samples * usize::from(bits);
            let expected = in_bits.div_ceil(8);
            assert_eq!(frame.len(), expected, "a frame has the size that the object states");
            frame
        }
        None => stream.to_vec(),
    };
    let names = ["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422"];
    let photometric = names.get(usize::from(photometric)).copied().unwrap_or_default();
    let lut = |number: u16| Lut::new([u16::from(first), number, 8 + u16::from(flags >> 4)], flags & 2 == 2, stream);
    let looks = PixelTransforms {
        photometric: photometric.to_owned(),
        bits_stored: u16::from(bits_stored),
        high_bit: u16::from(high_bit),
        is_signed: flags & 2 == 2,
        padding: (flags & 4 == 4).then_some(u16::from(first)),
        modality_lut: lut(1).filter(|_| flags & 8 == 8),
        voi_lut: lut(0).filter(|_| first > 0),
        palette: lut(0).map(|lut| Box::new([lut.clone(), lut.clone(), lut])),
        greys: Greys {
            slope: f64::from(first) - 100.0,
            intercept: -f64::from(window),
            window: VoiWindow::new(f64::from(window), f64::from(first), Function::Sigmoid),
        },
        greys_of_frames: Vec::new(),
    };
    let Ok(wanted) = PictureRequest::of(&String::from_utf8_lossy(query)) else { return };
    let kind = if flags & 0x40 == 0x40 {
        Ok(SampleKind::Float { bytes: if flags & 1 == 1 { 8 } else { 4 }, is_inverse: false })
    } else {
        SampleKind::of(photometric, u16::from(samples), u16::from(bits), shape.is_planar)
    };
    let Ok(kind) = kind else { return };
    let frame = Native { bytes: &native, columns: shape.columns, rows: shape.rows, kind };
    if let Ok(picture) = picture::render(&frame, &looks, 1, &wanted, PictureFormat::Png) {
        let side = |at: usize| picture[at..at + 4].iter().fold(0, |side, byte| side << 8 | u32::from(*byte));
        let most = wanted.viewport.unwrap_or((shape.columns, shape.rows));
        // The sizes in the first chunk of a PNG.
        assert!((1..=most.0).contains(&side(16)) && (1..=most.1).contains(&side(20)), "a picture fits");
    }
}

/// A multipart body, in pieces of different sizes: the same parts, or the same error.
pub(crate) fn multipart(bytes: &[u8]) {
    let parts = |piece: usize| -> Result<Vec<(String, Vec<u8>)>, MultipartError> {
        let mut reader = MultipartReader::new("b")?;
        let mut events = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.feed(piece, &mut events)?;
        }
        reader.finish()?;
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        let mut is_open = false;
        for event in events {
            match event {
                PartEvent::Begin { content_type, .. } => {
                    assert!(!is_open, "a part begins where the one before ended");
                    is_open = true;
                    parts.push((content_type, Vec::new()));
                }
                PartEvent::Bytes(bytes) => {
                    assert!(is_open);
                    parts.last_mut().expect("a part has begun").1.extend(bytes);
                }
                PartEvent::End => is_open = false,
            }
        }
        assert!(!is_open);
        Ok(parts)
    };
    let whole = parts(bytes.len().max(1));
    for piece in [1, 3, 64] {
        assert_eq!(parts(piece), whole, "in pieces of {piece}");
    }
}

/// A worklist in memory, for [`hl7`].
#[derive(Clone, Default)]
struct WorklistInMemory(Arc<std::sync::Mutex<Vec<WorklistRow>>>);

impl WorklistChanges for WorklistInMemory {
    fn change_worklist(&self, work: WorklistWork) -> Result<(), dcmdex::db::Error> {
        work(&mut self.clone())
    }
}

impl WorklistTables for WorklistInMemory {
    fn find(&mut self, by: WorklistBy<'_>) -> Result<Vec<WorklistRow>, dcmdex::db::Error> {
        let is = |row: &WorklistRow, column, value: &str| row.value(column) == value;
        let found = |row: &&WorklistRow| match by {
            WorklistBy::Id(id) => row.id == id,
            WorklistBy::Step(study, step) => {
                is(row, WorklistColumn::StudyInstanceUid, study) && is(row, WorklistColumn::StepId, step)
            }
            WorklistBy::Order(order) => !order.is_empty() && row.order_key == order,
            WorklistBy::Accession(number) => is(row, WorklistColumn::AccessionNumber, number),
            WorklistBy::Study(study) => is(row, WorklistColumn::StudyInstanceUid, study),
            WorklistBy::Origin(source, origin) => row.source == source && row.origin == origin,
            WorklistBy::OpenOfPatient(patient) => row.state.is_open() && is(row, WorklistColumn::PatientId, patient),
        };
        Ok(self.0.lock().expect("one thread").iter().filter(found).cloned().collect())
    }

    fn put(&mut self, row: &WorklistRow) -> Result<i64, dcmdex::db::Error> {
        let mut rows = self.0.lock().expect("one thread");
        let id = if row.id == 0 { rows.iter().map(|row| row.id).max().unwrap_or(0) + 1 } else { row.id };
        rows.retain(|known| known.id != id);
        rows.push(WorklistRow { id, ..row.clone() });
        Ok(id)
    }

    fn remove(&mut self, id: i64) -> Result<bool, dcmdex::db::Error> {
        self.0.lock().expect("one thread").retain(|row| row.id != id);
        Ok(true)
    }

    fn note_problem(&mut self, problem: &WorklistProblem) -> Result<(), dcmdex::db::Error> {
        assert!(!problem.reason.is_empty() && !problem.origin.contains(char::is_control));
        Ok(())
    }

    fn clear_problems(&mut self, _: WorklistSource, _: &str) -> Result<(), dcmdex::db::Error> {
        Ok(())
    }

    fn note_asked(&mut self, _: &[WorklistAsked]) -> Result<(), dcmdex::db::Error> {
        Ok(())
    }

    fn performed_step(&mut self, _: &str) -> Result<Option<PerformedStep>, dcmdex::db::Error> {
        Ok(None)
    }

    fn steps_in_progress(&mut self) -> Result<Vec<PerformedStep>, dcmdex::db::Error> {
        Ok(Vec::new())
    }

    fn put_performed_step(&mut self, _: &PerformedStep) -> Result<(), dcmdex::db::Error> {
        Ok(())
    }

    fn note_arrival(&mut self, _: i64, _: u64, _: i64) -> Result<(), dcmdex::db::Error> {
        Ok(())
    }

    fn set_state(&mut self, _: i64, _: WorklistState, _: i64) -> Result<(), dcmdex::db::Error> {
        Ok(())
    }

    fn file_origins(&mut self) -> Result<Vec<String>, dcmdex::db::Error> {
        Ok(Vec::new())
    }

    fn forget_before(&mut self, _: i64) -> Result<u64, dcmdex::db::Error> {
        Ok(0)
    }
}

/// An HL7 message. Whatever it is, the acknowledgment is a message, and each item that is open has
/// a value in each attribute of type 1.
pub(crate) fn hl7(bytes: &[u8]) {
    let memory = WorklistInMemory::default();
    let intake = Arc::new(Intake::new(Box::new(memory.clone()), IntakeOptions::default()));
    let hl7 = Hl7Intake::new(intake, Hl7Map::default(), Clock::Fixed(1_790_000_000_000));
    let acknowledgment = hl7.take(bytes, "fuzz");
    assert!(acknowledgment.bytes.is_ascii());
    Message::parse(&acknowledgment.bytes).expect("an acknowledgment is a message");
    for row in memory.0.lock().expect("one thread").iter().filter(|row| row.state.is_open()) {
        for column in [
            WorklistColumn::StudyInstanceUid,
            WorklistColumn::StepId,
            WorklistColumn::StationAeTitle,
            WorklistColumn::StartDate,
            WorklistColumn::StartTime,
            WorklistColumn::Modality,
            WorklistColumn::PatientName,
            WorklistColumn::PatientId,
        ] {
            assert!(!row.value(column).is_empty(), "{column:?}");
        }
    }
}
