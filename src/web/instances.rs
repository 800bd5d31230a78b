//! WADO-RS instances (PS3.18 10.4.1.1.1): whole objects, in parts or one by itself. They are read
//! as for C-GET.

use std::sync::Arc;

use hyper::Response;
use hyper::header::ACCEPT;
use tokio::task::spawn_blocking;

use super::all_bulk_data::{Which, send_all};
use super::body::{Body, Outlet};
use super::forms::{self, AcceptedSyntaxes, DICOM, InstanceForm, Wrapping};
use super::multipart::Parts;
use super::negotiate::{Accept, not_acceptable};
use super::object_reader::lost;
use super::piece_buffers::PieceBuffers;
use super::problem::{Problem, breaks_off};
use super::ranges::{Selected, Window, add_range, selected_by};
use super::wado_target::{Listed, Target, typed};
use crate::archive::Archives;
use crate::db::Search as _;
use crate::deliver::error::DeliverError;
use crate::deliver::framing::{Framing, ObjectForm, SentForm};
use crate::deliver::object::{DataSet, Identity, ObjectError, StoredObject};
use crate::deliver::read_ahead::ReadAhead;
use crate::deliver::sending::{Piece, Sending};
use crate::encoding::syntax::NativeSyntax;
use crate::qr::{Instances, ObjectKind, RetrievedInstance};
use crate::shares::{CountedPeer, PeerMemory, Share};
use crate::store::FileMeta;
use crate::web::http_state::{Call, HttpState};

/// Answers with the instances of a study or a series, or with one instance.
pub(super) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let target = Target::of(call)?;
    let mut listed = target.instances(server, call).await?;
    let stored = listed.transfer_syntaxes()?;
    let Some((form, wanted)) = forms::objects(&accept, &stored, listed.instances.len()) else {
        return Err(not_as_wanted(&stored, listed.instances.len()));
    };
    let wrapping = match form {
        InstanceForm::Values => return send_all(server, call, (&target, listed), (wanted, Which::BulkData)).await,
        InstanceForm::File(wrapping) => wrapping,
    };
    listed.leave_out(|stored| wanted.object(stored).is_some());
    match wrapping {
        Wrapping::Single => by_itself(server, call, listed, wanted).await,
        Wrapping::Multipart => read_ahead(server, call, listed, (wanted, Some(Parts::new()))).await,
    }
}

/// Returns status 406 with the available transfer syntaxes.
pub(super) fn not_as_wanted(stored: &[String], count: usize) -> Problem {
    let offers = forms::object_offers(stored, count);
    not_acceptable(&offers.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Writes objects as the parts of a response, or one that is the response.
struct AsFiles {
    parts: Option<Parts>,
    wanted: AcceptedSyntaxes,
}

impl Framing for AsFiles {
    fn choose(&self, kind: &ObjectKind) -> Result<ObjectForm, DeliverError> {
        let sent = self.wanted.object(&kind.transfer_syntax).ok_or(DeliverError::NotAccepted)?;
        Ok(ObjectForm { channel: 0, sent })
    }

    fn begin(&self, form: ObjectForm, instance: &RetrievedInstance<'_>, _number: usize, out: &mut Vec<u8>) {
        let transfer_syntax = form.sent.transfer_syntax(&instance.kind.transfer_syntax);
        if let Some(parts) = &self.parts {
            out.extend_from_slice(parts.head(&content_type(transfer_syntax), None).as_bytes());
        }
        out.extend_from_slice(&meta(instance, transfer_syntax));
    }
}

/// Returns the Content-Type of an object.
fn content_type(transfer_syntax: &str) -> String {
    format!("{DICOM}; transfer-syntax={transfer_syntax}")
}

fn meta(instance: &RetrievedInstance<'_>, transfer_syntax: &str) -> Vec<u8> {
    let meta = FileMeta {
        sop_class_uid: &instance.kind.sop_class_uid,
        sop_instance_uid: instance.sop_instance_uid,
        transfer_syntax,
        source_ae_title: "",
    };
    meta.encode()
}

/// Sends objects that are read ahead of the client: in parts, or one by itself.
async fn read_ahead(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    listed: Listed,
    (wanted, parts): (AcceptedSyntaxes, Option<Parts>),
) -> Result<Response<Body>, Problem> {
    let instances = Arc::clone(&listed.instances);
    let content_type = match &parts {
        Some(parts) => parts.content_type(DICOM),
        None => {
            let stored = instances.get(0).map(|instance| instance.kind.transfer_syntax.as_str()).unwrap_or_default();
            content_type(wanted.object(stored).unwrap_or_default().transfer_syntax(stored))
        }
    };
    let over = instances.iter_from(0).map(|instance| !listed.is_sent(&instance)).collect();
    let sending = Sending {
        delivery: Arc::clone(server.delivery()),
        instances,
        over,
        only: None,
        framing: Arc::new(AsFiles { parts: parts.clone(), wanted }),
        memory: PeerMemory::new(&server.memory, &call.peer),
    };
    let mut ahead = ReadAhead::start(sending);
    // Until the head is out, a failure can still have a status of its own.
    let first = match ahead.next().await {
        Ok(Some(Piece::Failed { error: DeliverError::Object(error), .. })) => return Err(lost(&error)),
        Ok(Some(Piece::Failed { .. } | Piece::Broken(_)) | None) | Err(_) => return Err(Problem::ours()),
        Ok(Some(piece)) => piece,
    };
    let (outlet, body) = Body::pieces(server.options.write_timeout);
    let mut response = typed(body, &content_type)?;
    listed.tell_left_out(&mut response, call);
    tokio::spawn(send(ahead, first, parts, outlet, listed.share));
    Ok(response)
}

/// Sends the objects that were read ahead. If an object cannot be read to its end, the body breaks
/// off.
async fn send(mut ahead: ReadAhead, first: Piece, parts: Option<Parts>, mut outlet: Outlet, _listed: Share) {
    let mut next = Some(first);
    while let Some(piece) = next {
        let bytes = match piece {
            Piece::Begin { bytes, .. } | Piece::More { bytes, .. } => bytes,
            Piece::Failed { error, .. } => {
                breaks_off("an object cannot be read", &error);
                return;
            }
            Piece::Broken(error) => {
                breaks_off("an object cannot be read to its end", &error);
                return;
            }
        };
        if outlet.put(bytes.as_slice().to_vec()).await.is_break() {
            return;
        }
        ahead.give_back(bytes);
        next = match ahead.next().await {
            Ok(next) => next,
            Err(_) => {
                breaks_off("an object cannot be read", &"the file system gives nothing");
                return;
            }
        };
    }
    let end = parts.map(|parts| parts.end()).unwrap_or_default();
    if outlet.put(end.into_bytes()).await.is_continue() {
        outlet.finish().await;
    }
}

/// An object to send: the bytes before its data set, and the data set.
struct Whole {
    meta: Vec<u8>,
    data_set: DataSet,
}

impl Whole {
    /// Returns the whole length, if it is known.
    fn length(&self) -> Option<u64> {
        self.data_set.left().map(|left| left + self.meta.len() as u64)
    }
}

/// Opens the data set of the only instance of a list, at the first place where it can be read.
async fn data_set(
    server: &Arc<HttpState>,
    peer: &CountedPeer,
    instances: &Arc<Instances>,
    rewriting: Option<NativeSyntax>,
) -> Result<DataSet, Problem> {
    let turn = server.turn(peer).await?;
    let (delivery, instances) = (Arc::clone(server.delivery()), Arc::clone(instances));
    let opened = spawn_blocking(move || {
        let _until_its_end = turn;
        let instance = instances.get(0).ok_or_else(Problem::ours)?;
        let mut reader = delivery.readers.take()?;
        let known = reader.known_locations(instance.sop_instance_uid).map_err(|_| Problem::ours())?;
        delivery.readers.give_back(reader);
        let mut failure = ObjectError::NotKept;
        for known in known.iter().filter(|known| !known.differs) {
            let identity = Identity {
                sop_instance_uid: instance.sop_instance_uid,
                sop_class_uid: Some(&instance.kind.sop_class_uid),
                transfer_syntax: Some(&instance.kind.transfer_syntax),
            };
            let opened = StoredObject::open(&known.location, &identity, &Archives::default())
                .and_then(|object| object.expecting(known.checksum, delivery.verified()))
                .map(|object| object.corrected(known.corrected.clone()))
                .and_then(|object| match rewriting {
                    None => object.as_stored(),
                    Some(to) => object.rewritten(to),
                });
            match opened {
                Ok(data_set) => return Ok(data_set),
                Err(error) if matches!(failure, ObjectError::NotKept) => failure = error,
                Err(_) => {}
            }
        }
        Err(lost(&failure))
    });
    opened.await.map_err(|_| Problem::ours())?
}

/// Sends the only object of a list by itself, or a part of it.
pub(super) async fn by_itself(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    listed: Listed,
    wanted: AcceptedSyntaxes,
) -> Result<Response<Body>, Problem> {
    let instance = listed.instances.get(0).ok_or_else(Problem::ours)?;
    let stored = &instance.kind.transfer_syntax;
    let form = wanted.object(stored).ok_or_else(|| not_as_wanted(std::slice::from_ref(stored), 1))?;
    let rewriting = match form {
        SentForm::AsStored => None,
        SentForm::Rewritten(to) => Some(to),
        SentForm::Decompressed(_) => return read_ahead(server, call, listed, (wanted, None)).await,
    };
    let transfer_syntax = form.transfer_syntax(stored);
    let (mut outlet, body) = server.written_body(&call.peer).await?;
    let data_set = data_set(server, &call.peer, &listed.instances, rewriting).await?;
    let whole = Whole { meta: meta(&instance, transfer_syntax), data_set };
    let length = whole.length();
    let part = match length {
        Some(length) => selected_by(call.headers, length)?,
        None => Selected::All,
    };
    let mut response = typed(body, &content_type(transfer_syntax))?;
    add_range(&mut response, part, length);
    let pieces = Arc::clone(&server.pieces);
    spawn_blocking(move || {
        if write(whole, part, &mut outlet, &pieces).is_ok() {
            outlet.end();
        }
    });
    Ok(response)
}

/// Sends an object, or a part of it. An error breaks the body off.
fn write(whole: Whole, part: Selected, outlet: &mut Outlet, pieces: &Arc<PieceBuffers>) -> Result<(), ()> {
    let Whole { meta, mut data_set } = whole;
    let mut window = Window::of(part);
    let mut send = |bytes: &[u8]| {
        let mut rest = window.cut(bytes);
        while !rest.is_empty() {
            let mut piece = PieceBuffers::take(pieces);
            rest = piece.push(rest);
            if outlet.send(piece.into_bytes()).is_break() {
                return Err(());
            }
        }
        Ok(window.is_over())
    };
    if send(&meta)? {
        return Ok(());
    }
    let mut buffer = PieceBuffers::take(pieces);
    loop {
        let space = buffer.space(u64::MAX);
        let filled = data_set.fill(space).map_err(|error| {
            breaks_off("an object cannot be read to its end", &error);
        })?;
        if send(space.get(..filled.count).unwrap_or_default())? || filled.is_last {
            return Ok(());
        }
    }
}
