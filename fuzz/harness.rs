//! What is done with the bytes of a fuzzer, and what has to hold whatever they are. The test suite runs the same functions
//! over the regression corpus.

#![allow(dead_code, reason = "each target uses one of these")]

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc;

use dcmdex::db::{Compared, DuplicatePolicy, Reader, Writer, WriterOptions};
use dcmdex::dimse::Status;
use dcmdex::dimse::command_set::CommandSet;
use dcmdex::dimse::message::{DataSetPresence, Request, RequestError};
use dcmdex::dimse::pdata::{Arrival, MessageAssembler, Pdv};
use dcmdex::dimse::{Response, command_set};
use dcmdex::ingest::{HeaderParser, Need, Outcome, Wanted, read_stream};
use dcmdex::model::level::InformationModel;
use dcmdex::model::location::{Location, Place};
use dcmdex::qr::{self, Encoding, Identifier, NegotiatedOptions, ResponseWriter, Stop};
use dcmdex::scp::SharedPeers;
use dcmdex::scp::access::{AccessPolicy, CalledAeTitle};
use dcmdex::scp::negotiation::{Answer, HeldSyntaxes, Policy, Provided, answer};
use dcmdex::scp::peers::Transport;
use dicom_ul::pdu::{Pdu, PresentationContextResultReason as ContextResult, read_pdu};

/// PDUs one after the other: requests for associations are answered, messages put together, commands understood.
pub(crate) fn pdu(bytes: &[u8]) {
    let policy = Policy {
        access: AccessPolicy {
            own_ae_title: "DCMDEX".parse().expect("an AE title"),
            called_ae_title: CalledAeTitle::Any,
            peers: SharedPeers::default(),
        },
        provided: Provided { storage: true, find: true, retrieve: true, commitment: true },
        preferred_transfer_syntaxes: Vec::new(),
        extended_negotiation: |_, bytes| Some(NegotiatedOptions::answer(bytes).1),
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
            Ok(Arrival::Command { command, .. }) => understood(&command),
            Ok(Arrival::CommandFragment | Arrival::DataSetFragment { .. }) => {}
            Err(_) => return false,
        }
    }
    true
}

fn understood(command: &CommandSet) {
    let mut encoded = Vec::new();
    command.encode(&mut encoded);
    assert_eq!(CommandSet::decode(&encoded).as_ref(), Ok(command), "what is read can be written and read again");
    let response = match Request::parse(command) {
        Ok(Request::Store(request)) => {
            Response::new(command_set::CommandField::C_STORE_RQ, request.message_id, Status::CANNOT_UNDERSTAND)
                .with_sop_class(Some(&request.affected_sop_class_uid))
                .with_sop_instance(&request.affected_sop_instance_uid)
                .with_comment(&request.affected_sop_instance_uid)
        }
        Ok(Request::Find(request)) => {
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

/// The data set of a C-STORE. The first byte is the transfer syntax, the second how long fragments are: however it is cut, the same
/// comes out.
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
}

/// The Identifier of a C-FIND. The first byte is model, transfer syntax and what was negotiated; the query is run against a small
/// index.
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
        let stop = Stop::new(reader);
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
            writer.handle().store(record, location, DuplicatePolicy::KeepFirst, Compared::Nothing, move |result| {
                done.send(result.is_ok()).expect("somebody waits");
            });
            assert!(stored.recv().expect("an answer"));
        }
    }
    writer.close().expect("the index is written");
    Reader::open(&index).expect("the index can be read")
}
