//! STOW-RS (PS3.18 10.5): objects in parts, or one by itself. Each is stored while it arrives, as
//! for C-STORE.
//!
//! No part is gathered. Its bytes go to the header reader and to the disk as they arrive. The
//! answer goes out when every row is durable, so several objects wait for one commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use dicom_dictionary_std::tags;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::access::single;
use super::audited;
use super::body::Body;
use super::forms::DICOM;
use super::multipart::{MultipartError, MultipartReader, PartEvent};
use super::negotiate::{Accept, MediaRange, not_acceptable};
use super::problem::Problem;
use super::query::decode;
use super::resource::SERVICE;
use crate::db::ReceivedFrom;
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::tag_number;
use crate::ingest::{HeaderParser, Verdict, Wanted};
use crate::model::status::Status;
use crate::model::uid::is_acceptable_uid;
use crate::qr::encoded_uid;
use crate::receive::arriving::{Announced, Arrived, Arriving};
use crate::receive::error::{ReceiveError, ReceiveErrorKind};
use crate::receive::storage::Storage;
use crate::shares::PeerMemory;
use crate::web::http_state::{Call, HttpState};

/// Media types of an answer, the default first.
pub(super) const MEDIA_TYPES: [&str; 2] = ["application/dicom+json", "application/json"];

/// Maximum number of objects of one request that wait for their row at a time. Larger: more of them
/// share a commit. Smaller: less work goes on after the client has gone.
const UNDER_WAY: usize = 32;

/// Maximum number of parts of one request. A study has some thousand instances.
const MAX_PARTS: usize = 200_000;

/// Maximum length of the File Meta Information, in bytes.
const MAX_META: usize = 64 << 10;

/// Number of bytes of a data set that are examined together with the File Meta Information.
const HEAD_BYTES: usize = 4 << 10;

/// Stores the objects of a request.
pub(super) async fn answer(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    let Some(storage) = &server.storage else {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this node stores nothing"));
    };
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let media_type = accept.choose(&MEDIA_TYPES).ok_or_else(|| not_acceptable(&MEDIA_TYPES))?;
    let form = form(call)?;
    let study = match call.route.parameter("study") {
        "" => None,
        raw => {
            let uid = decode(raw).filter(|uid| is_acceptable_uid(uid));
            Some(uid.ok_or_else(|| Problem::bad_request("a UID of the path is not valid"))?.into_owned())
        }
    };
    let storing = Storing {
        storage: Arc::clone(storage),
        memory: PeerMemory::new(&server.memory, &call.peer),
        sender: Arc::new(ReceivedFrom { calling_ae_title: String::new(), address: Some(call.address) }),
        study,
        under_way: JoinSet::new(),
        outcomes: Vec::new(),
        parts: 0,
    };
    let outcomes = storing.run(form, body, server.options.read_timeout).await?;
    if server.audit.is_on() {
        let objects = outcomes.iter().filter_map(|outcome| {
            let stored = outcome.result.as_ref().ok()?;
            Some((stored.study.clone(), stored.patient_id.clone(), outcome.sop_class_uid.clone()))
        });
        let by = audited::participant(call.user.to_owned(), call.address);
        if let Some(event) = audited::stored(by, objects) {
            server.audit.note(event);
        }
    }
    let service = format!("{}{SERVICE}", call.base);
    Ok(response(&outcomes, media_type, storage.objects.is_some().then_some(service.as_str())))
}

/// Form of the body of a request.
enum RequestForm {
    Multipart(Box<MultipartReader>),
    Single,
}

fn form(call: &Call<'_>) -> Result<RequestForm, Problem> {
    let unsupported = |why: &str| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    let encoding = call.headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim().to_owned());
    if encoding.is_some_and(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")) {
        return Err(unsupported("bodies with a Content-Encoding are not taken"));
    }
    let content_type = single(call.headers, &CONTENT_TYPE).and_then(MediaRange::parse);
    let content_type = content_type.ok_or_else(|| unsupported("no Content-Type that can be read"))?;
    match (content_type.essence.0.as_str(), content_type.essence.1.as_str()) {
        ("application", "dicom") => Ok(RequestForm::Single),
        ("multipart", "related") => {
            // Clients leave out the type of the parts, or write it without quotation marks.
            let is_dicom = content_type.parameter("type").is_none_or(|kind| kind.eq_ignore_ascii_case(DICOM));
            if !is_dicom {
                return Err(unsupported(
                    "the parts have to be application/dicom; metadata with bulk data are not taken",
                ));
            }
            let boundary = content_type.parameter("boundary").unwrap_or_default();
            let reader = MultipartReader::new(boundary).map_err(|error| Problem::bad_request(error.to_string()))?;
            Ok(RequestForm::Multipart(Box::new(reader)))
        }
        _ => Err(unsupported(
            "the body has to be multipart/related with parts of application/dicom, or application/dicom",
        )),
    }
}

/// Result for a part.
struct PartOutcome {
    /// Its number among the parts.
    at: usize,
    sop_class_uid: String,
    sop_instance_uid: String,
    result: Result<StoredPart, Refused>,
}

struct StoredPart {
    study: String,
    series: String,
    patient_id: String,
    /// Whether its URL leads to another object of the instance, or nowhere.
    is_other: bool,
}

struct Refused {
    reason: Status,
    kind: ReceiveErrorKind,
    /// For the log.
    why: String,
}

impl Refused {
    /// No `_` arm: a new error has to be given its reason here (PS3.18 table 10.5.3-2, PS3.4 table
    /// B.2-1).
    fn of(error: &ReceiveError) -> Self {
        let reason = match error {
            ReceiveError::InvalidInstanceUid => Status::INVALID_SOP_INSTANCE,
            ReceiveError::OtherInstance | ReceiveError::OtherClass | ReceiveError::OtherStudy => {
                Status::DATA_SET_DOES_NOT_MATCH_SOP_CLASS
            }
            ReceiveError::NotUnderstood(_) | ReceiveError::MissingUid(_) => Status::CANNOT_UNDERSTAND,
            ReceiveError::Duplicate => Status::DUPLICATE_SOP_INSTANCE,
            ReceiveError::Object(_)
            | ReceiveError::Index(_)
            | ReceiveError::ThreadEnded
            | ReceiveError::TooMuchAtOnce => Status::OUT_OF_RESOURCES,
        };
        Self { reason, kind: error.kind(), why: error.comment() }
    }

    fn not_understood() -> Self {
        let why = "a part is no object of DICOM".to_owned();
        Self { reason: Status::CANNOT_UNDERSTAND, kind: ReceiveErrorKind::NotUnderstood, why }
    }
}

/// Returns the Failure Reasons of answers in the order of their numbers, for the conformance
/// statement. Each has an example of a cause.
pub(super) fn reasons() -> Vec<(Status, String)> {
    let errors = [
        ReceiveError::Duplicate,
        ReceiveError::InvalidInstanceUid,
        ReceiveError::TooMuchAtOnce,
        ReceiveError::OtherInstance,
        ReceiveError::OtherClass,
        ReceiveError::OtherStudy,
        ReceiveError::MissingUid(Vec::new()),
        ReceiveError::NotUnderstood("the object is damaged, or is none".to_owned()),
    ];
    errors.iter().map(|error| (Refused::of(error).reason, error.comment())).collect()
}

/// One request that is being stored.
struct Storing {
    storage: Arc<Storage>,
    memory: PeerMemory,
    sender: Arc<ReceivedFrom>,
    /// The study of the path.
    study: Option<String>,
    /// Objects that are being stored. Each goes on to its end after the request has gone. An object
    /// with a place gets its row, or is removed.
    under_way: JoinSet<PartOutcome>,
    outcomes: Vec<PartOutcome>,
    parts: usize,
}

/// A part that is arriving.
enum StorePart {
    /// Its first bytes, until they show what it is.
    Beginning(Vec<u8>),
    Arriving(Box<Arriving>, Arc<Announced>),
    /// It failed. The rest of it is ignored.
    Failed(String, String, Refused),
}

impl Storing {
    async fn run(
        mut self,
        form: RequestForm,
        mut body: Incoming,
        time_limit: std::time::Duration,
    ) -> Result<Vec<PartOutcome>, Problem> {
        let mut part = None;
        let reader = match form {
            RequestForm::Multipart(reader) => Some(reader),
            RequestForm::Single => {
                part = Some(StorePart::Beginning(Vec::new()));
                None
            }
        };
        let damage = self.read_parts(reader, &mut part, &mut body, time_limit).await.err();
        match damage {
            None => self.end(&mut part).await,
            // A part without its end is not a whole object. Where the body ends between two parts,
            // those that did not come are missing as well.
            Some(_) => self.fail(String::new(), String::new(), Refused::not_understood()),
        }
        while let Some(ended) = self.under_way.join_next().await {
            self.take(ended);
        }
        let has_stored = self.outcomes.iter().any(|outcome| outcome.result.is_ok());
        match damage {
            // The client must learn of stored objects.
            Some(problem) if !has_stored => return Err(problem),
            _ if self.outcomes.is_empty() => return Err(Problem::bad_request("the body has no parts")),
            _ => {}
        }
        self.outcomes.sort_by_key(|outcome| outcome.at);
        Ok(self.outcomes)
    }

    /// Reads the body to its end. `part` is the part that is arriving.
    ///
    /// # Errors
    /// If the body is cut off, or is not of its form.
    async fn read_parts(
        &mut self,
        mut reader: Option<Box<MultipartReader>>,
        part: &mut Option<StorePart>,
        body: &mut Incoming,
        time_limit: std::time::Duration,
    ) -> Result<(), Problem> {
        let damaged = |error: MultipartError| Problem::bad_request(error.to_string());
        let mut events = Vec::new();
        loop {
            let frame = match timeout(time_limit, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break,
                // The client has gone, so nobody reads an answer.
                Ok(Some(Err(_))) => return Err(Problem::bad_request("the body was cut off")),
                Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body comes too slowly")),
            };
            let Ok(bytes) = frame.into_data() else { continue };
            let Some(reader) = &mut reader else {
                self.bytes(part, &bytes).await;
                continue;
            };
            let fed = reader.feed(&bytes, &mut events);
            for event in events.drain(..) {
                self.event(part, event).await;
            }
            fed.map_err(damaged)?;
            if self.parts > MAX_PARTS {
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "more than 200,000 parts"));
            }
        }
        reader.map_or(Ok(()), |reader| reader.finish().map_err(damaged))
    }

    fn take(&mut self, ended: Result<PartOutcome, tokio::task::JoinError>) {
        match ended {
            Ok(outcome) => self.outcomes.push(outcome),
            Err(_) => {
                let why = "a defect ended the work on it".to_owned();
                let refused = Refused { reason: Status::OUT_OF_RESOURCES, kind: ReceiveErrorKind::OutOfResources, why };
                self.fail(String::new(), String::new(), refused);
            }
        }
    }

    async fn event(&mut self, part: &mut Option<StorePart>, event: PartEvent) {
        match event {
            PartEvent::Begin { content_type, is_encoded } => {
                let kind = MediaRange::parse(&content_type).map(|range| range.essence);
                // A part without a type is identified by its bytes.
                let is_dicom = content_type.is_empty()
                    || kind.is_some_and(|(kind, subkind)| kind == "application" && subkind == "dicom");
                *part = Some(if is_dicom && !is_encoded {
                    StorePart::Beginning(Vec::new())
                } else {
                    StorePart::Failed(String::new(), String::new(), Refused::not_understood())
                });
            }
            PartEvent::Bytes(bytes) => self.bytes(part, &Bytes::from(bytes)).await,
            PartEvent::End => self.end(part).await,
        }
    }

    async fn bytes(&mut self, part: &mut Option<StorePart>, bytes: &Bytes) {
        match part {
            Some(StorePart::Beginning(beginning)) => {
                beginning.extend_from_slice(bytes);
                if is_enough(beginning) {
                    let beginning = std::mem::take(beginning);
                    *part = Some(self.begin(&beginning).await);
                }
            }
            Some(StorePart::Arriving(arriving, _)) => arriving.accept(bytes).await,
            Some(StorePart::Failed(..)) | None => {}
        }
    }

    /// Begins to store a part after its first bytes have shown what it is.
    async fn begin(&self, beginning: &[u8]) -> StorePart {
        let Some((announced, offset)) = announced(beginning, self.study.clone()) else {
            return StorePart::Failed(String::new(), String::new(), Refused::not_understood());
        };
        let announced = Arc::new(announced);
        match Arriving::begin(&self.storage, Arc::clone(&announced), &self.sender, &self.memory) {
            Ok(mut arriving) => {
                arriving.accept(beginning.get(offset..).unwrap_or_default()).await;
                StorePart::Arriving(Box::new(arriving), announced)
            }
            Err(error) => StorePart::Failed(
                announced.sop_class_uid.clone(),
                announced.sop_instance_uid.clone(),
                Refused::of(&error),
            ),
        }
    }

    async fn end(&mut self, part: &mut Option<StorePart>) {
        let ended = match part.take() {
            Some(StorePart::Beginning(beginning)) => Some(self.begin(&beginning).await),
            other => other,
        };
        match ended {
            Some(StorePart::Arriving(arriving, announced)) => {
                let at = self.parts;
                self.parts += 1;
                let log = (Arc::clone(&self.storage), Arc::clone(&self.sender));
                self.under_way.spawn(finish(at, *arriving, announced, log));
                while self.under_way.len() >= UNDER_WAY
                    && let Some(ended) = self.under_way.join_next().await
                {
                    self.take(ended);
                }
            }
            Some(StorePart::Failed(class, instance, refused)) => self.fail(class, instance, refused),
            Some(StorePart::Beginning(_)) | None => {}
        }
    }

    /// Counts a part that did not reach the store. What reached it has its line in the log already.
    fn fail(&mut self, sop_class_uid: String, sop_instance_uid: String, refused: Refused) {
        if refused.kind != ReceiveErrorKind::OutOfResources {
            self.storage.log_refused(&self.sender, &sop_instance_uid, &refused.why);
        }
        self.outcomes.push(PartOutcome { at: self.parts, sop_class_uid, sop_instance_uid, result: Err(refused) });
        self.parts += 1;
    }
}

/// Waits until an object has its row, or was refused.
async fn finish(
    at: usize,
    arriving: Arriving,
    announced: Arc<Announced>,
    (storage, sender): (Arc<Storage>, Arc<ReceivedFrom>),
) -> PartOutcome {
    let result = match arriving.finish().await {
        // The proof of commit is in it.
        Ok(Arrived { committed: _, is_other, study_instance_uid: study, series_instance_uid: series, patient_id }) => {
            Ok(StoredPart { study, series, patient_id, is_other })
        }
        Err(error) => {
            if error.is_ours() {
                storage.log_failed_over_http(&sender, &error);
            }
            Err(Refused::of(&error))
        }
    };
    let (sop_class_uid, sop_instance_uid) = (announced.sop_class_uid.clone(), announced.sop_instance_uid.clone());
    PartOutcome { at, sop_class_uid, sop_instance_uid, result }
}

/// Whether the first bytes of a file hold its File Meta Information (PS3.10 7.1) and some of its
/// data set.
fn is_enough(beginning: &[u8]) -> bool {
    let meta = match beginning.get(128..) {
        Some(behind) => behind.strip_prefix(b"DICM"),
        None => return false,
    };
    let needed = match meta {
        // Without a preamble, or with something else in its place, this many bytes suffice.
        None => HEAD_BYTES,
        Some(meta) => match meta_length(meta) {
            Some(length) => 128 + 4 + length.min(MAX_META) + HEAD_BYTES,
            None => MAX_META + HEAD_BYTES,
        },
    };
    beginning.len() >= needed
}

/// Length of File Meta Information, as its group length (0002,0000) says it. `None` if it does not
/// begin with that.
fn meta_length(meta: &[u8]) -> Option<usize> {
    let header = Encoding::ExplicitLittle.header(meta).ok()?;
    let is_group_length = (header.tag, header.length) == (tag_number(tags::FILE_META_INFORMATION_GROUP_LENGTH), 4);
    let value = meta.get(header.size..)?.first_chunk::<4>().filter(|_| is_group_length)?;
    Some(header.size + value.len() + u32::from_le_bytes(*value) as usize)
}

/// Returns what the start of a file says of its data set, and the offset of the data set. `None` if
/// it is not an object.
fn announced(beginning: &[u8], study: Option<String>) -> Option<(Announced, usize)> {
    let mut parser = HeaderParser::for_file(Wanted::sop_uids());
    parser.feed(beginning);
    let mut parsed = parser.finish();
    if parsed.verdict() != Verdict::Object {
        return None;
    }
    let (sop_class_uid, sop_instance_uid) = parsed.sop_uids();
    let announced = Announced {
        sop_class_uid,
        sop_instance_uid,
        transfer_syntax: parsed.transfer_syntax().to_owned(),
        study_instance_uid: study,
    };
    let offset = usize::try_from(parsed.data_set_offset()).ok().filter(|offset| *offset <= beginning.len())?;
    Some((announced, offset))
}

/// Returns status 200, 202, 409 or 503, with the result of each part (PS3.18 10.5.3, annex I).
/// `service` is the URL where the objects can be retrieved.
fn response(outcomes: &[PartOutcome], media_type: &'static str, service: Option<&str>) -> Response<Body> {
    let (mut stored, mut failed, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let mut studies = std::collections::BTreeSet::new();
    let ui = |uid: &str| json!({ "vr": "UI", "Value": [uid] });
    // Retrieve URL is of type 2: where there is none, it is empty.
    let ur = |url: Option<String>| match url {
        Some(url) => json!({ "vr": "UR", "Value": [url] }),
        None => json!({ "vr": "UR" }),
    };
    for outcome in outcomes {
        let mut item = BTreeMap::new();
        let is_known = !outcome.sop_instance_uid.is_empty();
        if is_known {
            item.insert("00081150", ui(&outcome.sop_class_uid));
            item.insert("00081155", ui(&outcome.sop_instance_uid));
        }
        match &outcome.result {
            Ok(StoredPart { study, series, is_other, .. }) => {
                let service = service.filter(|_| !is_other);
                studies.extend(service.map(|_| study.as_str()));
                let uids = [study, series, &outcome.sop_instance_uid].map(|uid| encoded_uid(uid));
                let [study, series, instance] = uids;
                let path = format!("studies/{study}/series/{series}/instances/{instance}");
                item.insert("00081190", ur(service.map(|service| format!("{service}/{path}"))));
                stored.push(json!(item));
            }
            Err(refused) => {
                item.insert("00081197", json!({ "vr": "US", "Value": [refused.reason.0] }));
                if is_known { failed.push(json!(item)) } else { others.push(json!(item)) }
            }
        }
    }
    let refusals = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err());
    let all_are_ours = refusals.clone().all(|refused| refused.kind == ReceiveErrorKind::OutOfResources);
    let status = match (stored.is_empty(), refusals.count()) {
        (_, 0) => StatusCode::OK,
        (false, _) => StatusCode::ACCEPTED,
        (true, _) if all_are_ours => StatusCode::SERVICE_UNAVAILABLE,
        (true, _) => StatusCode::CONFLICT,
    };
    let mut elements = BTreeMap::new();
    let study = service.zip(studies.first()).filter(|_| studies.len() == 1);
    let study = study.map(|(service, study)| format!("{service}/studies/{}", encoded_uid(study)));
    elements.insert("00081190", ur(study));
    for (tag, items) in [("00081198", failed), ("00081199", stored), ("0008119A", others)] {
        if !items.is_empty() {
            elements.insert(tag, json!({ "vr": "SQ", "Value": Value::Array(items) }));
        }
    }
    let mut response = Response::new(Body::from(json!(elements).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_file_is_enough_once_its_meta_information_is_there() {
        let meta = crate::store::FileMeta {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid: "1.2.3.4",
            transfer_syntax: "1.2.840.10008.1.2",
            source_ae_title: "",
        }
        .encode();
        let mut file = meta.clone();
        file.extend(b"\x08\0\x18\0\x08\0\0\x001.2.3.4\0");
        file.resize(meta.len() + HEAD_BYTES, 0);
        assert!(!is_enough(&file[..100]) && !is_enough(&file[..file.len() - 1]) && is_enough(&file));
        let (announced, offset) = announced(&file, None).unwrap();
        assert_eq!((announced.sop_instance_uid.as_str(), offset), ("1.2.3.4", meta.len()));
        assert_eq!(announced.transfer_syntax, "1.2.840.10008.1.2");
        assert!(super::announced(b"no object at all", None).is_none());
        assert!(super::announced(b"", None).is_none());
    }
}
