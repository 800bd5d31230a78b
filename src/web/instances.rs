//! WADO-RS instances (PS3.18 10.4.1.1.1): whole objects, in parts or one by itself, read by the road of C-GET.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::header::{ACCEPT, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::{Response, StatusCode};
use tokio::task::spawn_blocking;

use super::access::single;
use super::body::{Body, Outlet};
use super::forms::{self, DICOM, Wish, Wrapping, sent_syntax};
use super::multipart::Parts;
use super::negotiate::{Accept, not_acceptable};
use super::problem::Problem;
use super::ranges::{Selected, selected};
use super::resource::SERVICE;
use super::search::warn;
use super::target::{Listed, Target};
use crate::archive::Archives;
use crate::db::Search as _;
use crate::deliver::error::DeliverError;
use crate::deliver::framing::{Framing, ObjectForm};
use crate::deliver::object::{DataSet, Identity, ObjectError, StoredObject};
use crate::deliver::read_ahead::ReadAhead;
use crate::deliver::sending::{Piece, Sending};
use crate::qr::{ObjectKind, RetrievedInstance};
use crate::shares::{PeerMemory, Share};
use crate::store::FileMeta;
use crate::web::call::{Answering, Call};

/// Bytes of an object that go out together where it is sent by itself.
const PIECE_BYTES: usize = 256 << 10;

/// The instances of a study or a series, or one.
pub(super) async fn answer(answering: &Arc<Answering>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let target = Target::of(call)?;
    let listed = target.instances(answering, call).await?;
    let at_hand = |instance: &RetrievedInstance<'_>| !listed.unavailable.contains(instance.sop_instance_uid);
    let kinds: BTreeSet<&str> =
        listed.instances.iter_from(0).filter(at_hand).map(|instance| instance.kind.transfer_syntax.as_str()).collect();
    if kinds.is_empty() {
        return Err(Problem::not_found(
            "the index knows it, and its objects are not at hand: they are kept elsewhere, or their files are gone",
        ));
    }
    let kinds: Vec<_> = kinds.into_iter().collect();
    let Some((wrapping, wish)) = forms::objects(&accept, &kinds, listed.instances.len()) else {
        return Err(not_as_wanted(&kinds));
    };
    match wrapping {
        Wrapping::Single => by_itself(answering, call, &listed, wish).await,
        Wrapping::Multipart => in_parts(answering, call, listed, wish).await,
    }
}

/// 406, with the transfer syntaxes that there are.
pub(super) fn not_as_wanted(kinds: &[&str]) -> Problem {
    let mut offers = vec!["multipart/related; type=\"application/dicom\"; transfer-syntax=*".to_owned()];
    offers.extend(kinds.iter().map(|uid| format!("{DICOM}; transfer-syntax={uid}")));
    not_acceptable(&offers.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Why an object cannot be had, as a status.
pub(super) fn lost(error: &ObjectError) -> Problem {
    match error {
        ObjectError::NotKept => Problem::not_found("the index knows it, and its object is not kept here"),
        ObjectError::Changed(_) | ObjectError::OtherClass => {
            Problem::not_found("another object lies where the index says; the next scan corrects the index")
        }
        ObjectError::Rewrite(_) => {
            Problem::new(StatusCode::NOT_ACCEPTABLE, "the object cannot be brought into that transfer syntax")
        }
        ObjectError::Store(_) if error.is_gone() => Problem::not_found("the index knows it, and its file is gone"),
        ObjectError::Store(_) | ObjectError::Read(_) | ObjectError::Damaged => Problem::ours(),
    }
}

/// How objects are written as the parts of a response.
struct AsParts {
    parts: Parts,
    wish: Wish,
}

impl Framing for AsParts {
    fn choose(&self, kind: &ObjectKind) -> Result<ObjectForm, DeliverError> {
        let rewrite = self.wish.rewriting(&kind.transfer_syntax).ok_or(DeliverError::NotAccepted)?;
        Ok(ObjectForm { context_id: 0, rewrite })
    }

    fn begin(&self, form: ObjectForm, instance: &RetrievedInstance<'_>, _number: usize, out: &mut Vec<u8>) {
        let transfer_syntax = sent_syntax(&instance.kind.transfer_syntax, form.rewrite);
        let content_type = format!("{DICOM}; transfer-syntax={transfer_syntax}");
        out.extend_from_slice(self.parts.head(&content_type, None).as_bytes());
        out.extend_from_slice(&meta(instance, transfer_syntax));
    }
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

async fn in_parts(
    answering: &Arc<Answering>,
    call: &Call<'_>,
    listed: Listed,
    wish: Wish,
) -> Result<Response<Body>, Problem> {
    let Listed { instances, unavailable, share } = listed;
    let parts = Parts::new();
    let over = instances.iter_from(0).map(|instance| unavailable.contains(instance.sop_instance_uid)).collect();
    let sending = Sending {
        delivery: Arc::clone(answering.delivery()),
        instances,
        over,
        only: None,
        framing: Arc::new(AsParts { parts: parts.clone(), wish }),
        memory: PeerMemory::new(&answering.memory, &call.peer),
    };
    let mut ahead = ReadAhead::start(sending);
    // Before the head is out a failure still has a status of its own.
    let first = match ahead.next().await {
        Ok(Some(Piece::Failed { error: DeliverError::Object(error), .. })) => return Err(lost(&error)),
        Ok(Some(Piece::Failed { .. } | Piece::Broken(_)) | None) | Err(_) => return Err(Problem::ours()),
        Ok(Some(piece)) => piece,
    };
    let (outlet, body) = Body::pieces(answering.options.write_timeout);
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_str(&parts.content_type(DICOM)).map_err(|_| Problem::ours())?;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    if !unavailable.is_empty() {
        let count = unavailable.len();
        let text = format!("{count} instances are left out: their objects are not at hand");
        warn(response.headers_mut(), &format!("{}{SERVICE}", call.base), &text);
    }
    tokio::spawn(send(ahead, first, parts, outlet, share));
    Ok(response)
}

/// Sends what is read ahead. An object that cannot be read to its end breaks the body off.
async fn send(mut ahead: ReadAhead, first: Piece, parts: Parts, mut outlet: Outlet, _listed: Share) {
    let mut next = Some(first);
    while let Some(piece) = next {
        let bytes = match piece {
            Piece::Begin { bytes, .. } | Piece::More { bytes, .. } => bytes,
            Piece::Failed { error, .. } => {
                tracing::warn!(%error, "a retrieval over HTTP breaks off: an object cannot be had");
                return;
            }
            Piece::Broken(error) => {
                tracing::warn!(%error, "a retrieval over HTTP breaks off: an object cannot be read to its end");
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
                tracing::warn!("a retrieval over HTTP breaks off: the file system gives nothing");
                return;
            }
        };
    }
    if outlet.put(parts.end().into_bytes()).await.is_continue() {
        outlet.finish().await;
    }
}

/// An object that is sent by itself: what stands before its data set, and that.
struct Whole {
    meta: Vec<u8>,
    data_set: DataSet,
}

impl Whole {
    /// Bytes of it all, where that is known.
    fn length(&self) -> Option<u64> {
        self.data_set.left().map(|left| left + self.meta.len() as u64)
    }
}

/// An object by itself, or a part of it.
pub(super) async fn by_itself(
    answering: &Arc<Answering>,
    call: &Call<'_>,
    listed: &Listed,
    wish: Wish,
) -> Result<Response<Body>, Problem> {
    let turn = answering.turn(&call.peer).await?;
    let (delivery, instances) = (Arc::clone(answering.delivery()), Arc::clone(&listed.instances));
    let opened = spawn_blocking(move || {
        let _until_its_end = turn;
        let instance = instances.get(0).ok_or_else(Problem::ours)?;
        let rewriting = wish.rewriting(&instance.kind.transfer_syntax).ok_or_else(Problem::ours)?;
        let mut reader = delivery.readers.take()?;
        let mut failure = ObjectError::NotKept;
        let known = reader.known_locations(instance.sop_instance_uid).map_err(|_| Problem::ours())?;
        for known in known.iter().filter(|known| !known.differs) {
            let identity = Identity {
                sop_instance_uid: instance.sop_instance_uid,
                sop_class_uid: &instance.kind.sop_class_uid,
                transfer_syntax: Some(&instance.kind.transfer_syntax),
            };
            let opened = StoredObject::open(&known.location, &identity, &Archives::default())
                .and_then(|object| object.expecting(known.checksum, delivery.verified()))
                .and_then(|object| match rewriting {
                    None => object.as_stored(),
                    Some(to) => object.rewritten(to),
                });
            match opened {
                Ok(data_set) => {
                    delivery.readers.give_back(reader);
                    let transfer_syntax = sent_syntax(&instance.kind.transfer_syntax, rewriting);
                    let whole = Whole { meta: meta(&instance, transfer_syntax), data_set };
                    return Ok((whole, transfer_syntax.to_owned()));
                }
                Err(error) if matches!(failure, ObjectError::NotKept) => failure = error,
                Err(_) => {}
            }
        }
        delivery.readers.give_back(reader);
        Err(lost(&failure))
    });
    let (whole, transfer_syntax) = opened.await.map_err(|_| Problem::ours())??;
    let content_type = format!("{DICOM}; transfer-syntax={transfer_syntax}");
    let length = whole.length();
    let part = match length {
        Some(length) => selected(single(call.headers, &RANGE), length)?,
        None => Selected::All,
    };
    let (mut outlet, body) = Body::pieces(answering.options.write_timeout);
    let mut response = Response::new(body);
    add_range(&mut response, part, length);
    let content_type = HeaderValue::from_str(&content_type).map_err(|_| Problem::ours())?;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    spawn_blocking(move || {
        if write(whole, part, &mut outlet).is_ok() {
            outlet.end();
        }
    });
    Ok(response)
}

/// What the head says of the part that is sent.
pub(super) fn add_range(response: &mut Response<Body>, part: Selected, length: Option<u64>) {
    let Some(length) = length else { return };
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let sent = match part {
        Selected::All => length,
        Selected::Part { first, last } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            if let Ok(range) = HeaderValue::from_str(&format!("bytes {first}-{last}/{length}")) {
                response.headers_mut().insert(CONTENT_RANGE, range);
            }
            last - first + 1
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(sent));
}

/// Sends an object, or a part of it. An error breaks the body off.
fn write(whole: Whole, part: Selected, outlet: &mut Outlet) -> Result<(), ()> {
    let Whole { meta, mut data_set } = whole;
    let mut window = Window::of(part);
    let mut stopped = false;
    let mut send = |bytes: &[u8]| {
        let bytes = window.cut(bytes);
        stopped = !bytes.is_empty() && outlet.send(bytes.to_vec()).is_break();
        if stopped { Err(()) } else { Ok(window.is_over()) }
    };
    if send(&meta)? {
        return Ok(());
    }
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let filled = data_set.fill(&mut buffer).map_err(|error| {
            tracing::warn!(%error, "a retrieval over HTTP breaks off: an object cannot be read to its end");
        })?;
        if send(buffer.get(..filled.count).unwrap_or_default())? || filled.is_last {
            return Ok(());
        }
    }
}

/// The part of a stream of bytes that is sent.
pub(super) struct Window {
    position: u64,
    first: u64,
    /// The first byte that is not sent any more.
    end: u64,
}

impl Window {
    pub(super) fn of(part: Selected) -> Self {
        match part {
            Selected::All => Self { position: 0, first: 0, end: u64::MAX },
            Selected::Part { first, last } => Self { position: 0, first, end: last + 1 },
        }
    }

    /// What of the next bytes is sent.
    pub(super) fn cut<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (start, after) = (self.position, self.position + bytes.len() as u64);
        self.position = after;
        let from = self.first.clamp(start, after) - start;
        let to = self.end.clamp(start, after) - start;
        bytes.get(from as usize..to as usize).unwrap_or_default()
    }

    /// Whether nothing more is sent.
    pub(super) fn is_over(&self) -> bool {
        self.position >= self.end
    }
}
