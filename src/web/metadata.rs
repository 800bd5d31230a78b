//! WADO-RS metadata (PS3.18 10.4.1.1.2): all attributes of all instances, read from the objects.
//!
//! The index alone tells whether anything has changed, so an unchanged answer opens no file.
//! Several threads read objects in batches, and the batches go out in their order. Compressed
//! answers of usual length are made in memory and kept (`metadata_cache`).

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY,
};
use hyper::{HeaderMap, Response, StatusCode};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use xxhash_rust::xxh3::Xxh3;

use super::body::Body;
use super::multipart::Parts;
use super::native_model;
use super::negotiate::{Accept, MediaRange, not_acceptable};
use super::object_json::ObjectJson;
use super::objects::OpenObject;
use super::problem::Problem;
use super::query::{Scope, SearchQuery};
use super::resource::SERVICE;
use super::search::warn;
use super::target::{Listed, Target, bulk_data_base};
use crate::archive::Archives;
use crate::db::Search as _;
use crate::db::open::Reader;
use crate::model::level::QueryRetrieveLevel;
use crate::qr::{self, FindError, JsonWriter, QueryStop, RetrievedInstance, encoded_uid};
use crate::shares::CountedPeer;
use crate::store::is_unchanged;
use crate::web::call::{Answering, Call};

/// Media types of metadata, the default first.
pub(super) const MEDIA_TYPES: [&str; 3] = ["application/dicom+json", "application/json", XML];

/// Media type of the Native DICOM Model, with each instance in a part.
pub(super) const XML: &str = "multipart/related; type=\"application/dicom+xml\"";

/// Number of instances that one thread reads before its text goes out. Larger: the first bytes come
/// later. Smaller: more changes between threads.
const BATCH: usize = 16;

/// Number of bytes that go out together when an answer is inflated.
const PIECE_BYTES: usize = 64 << 10;

/// Maximum number of batches of one response that are read at a time. Each holds the text of its
/// instances.
const AT_ONE_TIME: usize = 4;

/// Version of the text. Another version makes all tags new.
const FORMAT: u64 = 2;

/// Time that a request waits for another one that makes the same answer.
const WAIT_FOR_OTHER: Duration = Duration::from_secs(10);

/// Maximum length of a compressed answer that is made in memory before its head goes out.
const GATHERED_BYTES: usize = 4 << 20;

/// Answers with the metadata of a study, a series or an instance.
pub(super) async fn answer(answering: &Arc<Answering>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let media_type = accept.choose(&MEDIA_TYPES).ok_or_else(|| not_acceptable(&MEDIA_TYPES))?;
    let target = Target::of(call)?;
    let listed = target.instances(answering, call).await?;
    let is_compressed = takes_gzip(call.headers);
    let service = format!("{}{SERVICE}", call.base);
    let known = known(answering, call, &listed, &service, media_type == XML).await?;
    let parts = (media_type == XML).then(|| Parts::of_hash(known.hash));
    let content_type = match &parts {
        Some(parts) => {
            HeaderValue::from_str(&parts.content_type(native_model::MEDIA_TYPE)).map_err(|_| Problem::ours())?
        }
        None => HeaderValue::from_static(media_type),
    };
    let tag = known.tag(media_type, is_compressed)?;
    let count = listed.unavailable.len();
    let mut response = if is_known(call.headers, &tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let body = match (known.body, is_compressed) {
            (Some(body), true) => Body::from(body),
            (Some(body), false) => inflated(answering, body),
            (None, _) => {
                let is_whole = AtomicBool::new(true);
                let service = service.clone();
                let job = Job { answering: Arc::clone(answering), target, service, listed, is_whole, parts };
                Making::begin(job, &call.peer, is_compressed).body(known.hash).await?
            }
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        if is_compressed {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if count > 0 {
            let text =
                format!("Of {count} instances only the indexed attributes are known: their objects are not at hand");
            warn(response.headers_mut(), &service, &text);
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, tag);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=0, must-revalidate"));
    headers.append(VARY, HeaderValue::from_static("accept, accept-encoding, authorization"));
    Ok(response)
}

/// Returns the body for a client that takes no gzip.
fn inflated(answering: &Answering, compressed: Bytes) -> Body {
    let (mut outlet, body) = Body::pieces(answering.options.write_timeout);
    spawn_blocking(move || {
        let mut decoder = GzDecoder::new(compressed.as_ref());
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match decoder.read(&mut piece) {
                Ok(0) => return outlet.end(),
                Ok(read) if outlet.send(piece.get(..read).unwrap_or_default().to_vec()).is_continue() => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "metadata in memory cannot be inflated");
                    return;
                }
            }
        }
    });
    body
}

/// Whether the client takes gzip (RFC 9110 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        // With a slash it is a media range. Its weight is read in the same way.
        let range = MediaRange::parse(&format!("coding/{}", coding.trim()));
        range.is_some_and(|range| matches!(range.essence.1.as_str(), "gzip" | "x-gzip") && range.weight > 0)
    })
}

/// Whether the client has the answer with this tag.
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let tag = tag.to_str().unwrap_or_default();
    values
        .flat_map(|value| value.split(','))
        .map(|known| known.trim())
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Knowledge of an answer before an object is opened.
struct KnownAnswer {
    /// Hash of everything that may change the answer. These are the instances, the places of their
    /// objects, and size and time of each. The URL of the service is in it as well.
    hash: u128,
    /// The compressed body, if it is kept and no file has changed since.
    body: Option<Bytes>,
}

impl KnownAnswer {
    /// Returns the tag of one of its representations.
    fn tag(&self, media_type: &str, is_compressed: bool) -> Result<HeaderValue, Problem> {
        let at = MEDIA_TYPES.iter().position(|own| *own == media_type).unwrap_or(0);
        let coding = if is_compressed { "z" } else { "" };
        HeaderValue::from_str(&format!("\"{:032x}-{at}{coding}\"", self.hash)).map_err(|_| Problem::ours())
    }
}

async fn known(
    answering: &Arc<Answering>,
    call: &Call<'_>,
    listed: &Listed,
    service: &str,
    is_xml: bool,
) -> Result<KnownAnswer, Problem> {
    let turn = answering.turn(&call.peer).await?;
    let answering = Arc::clone(answering);
    let instances = Arc::clone(&listed.instances);
    let mut hash = Xxh3::new();
    hash.update(&FORMAT.to_le_bytes());
    hash.update(service.as_bytes());
    hash.update(env!("CARGO_PKG_VERSION").as_bytes());
    hash.update(&(listed.unavailable.len() as u64).to_le_bytes());
    // Bulk data URIs of a study have another form than those of a series.
    hash.update(&[u8::from(call.route.parameter("series").is_empty()), u8::from(is_xml)]);
    let known = spawn_blocking(move || {
        let _until_its_end = turn;
        let readers = &answering.delivery().readers;
        let mut reader = readers.take()?;
        let mut locations = Vec::new();
        for instance in instances.iter_from(0) {
            hash.update(instance.sop_instance_uid.as_bytes());
            hash.update(instance.kind.transfer_syntax.as_bytes());
            let known = reader.known_locations(instance.sop_instance_uid).map_err(FindError::Index)?;
            for known in &known {
                hash.update(known.location.directory.as_os_str().as_bytes());
                hash.update(known.location.file_name.as_bytes());
                hash.update(&known.location.size.to_le_bytes());
                hash.update(&known.location.mtime_ms.to_le_bytes());
                hash.update(&[u8::from(known.differs)]);
            }
            locations.extend(known.into_iter().find(|known| !known.differs).map(|known| known.location));
        }
        readers.give_back(reader);
        let hash = hash.digest128();
        let mut body = answering.metadata.get(hash);
        if body.is_some() && !locations.iter().all(is_unchanged) {
            answering.metadata.remove(hash);
            body = None;
        }
        Ok::<_, FindError>(KnownAnswer { hash, body })
    });
    Ok(known.await.map_err(|_| Problem::ours())??)
}

/// An answer that is being made.
struct Job {
    answering: Arc<Answering>,
    target: Target,
    service: String,
    listed: Listed,
    /// Whether every object was read to its end so far.
    is_whole: AtomicBool,
    /// The parts, for XML.
    parts: Option<Parts>,
}

/// An answer that is being made, piece by piece.
struct Making {
    job: Arc<Job>,
    peer: CountedPeer,
    sink: Option<Sink>,
    batches: std::iter::StepBy<std::ops::Range<usize>>,
    under_way: VecDeque<JoinHandle<Result<String, FindError>>>,
}

impl Making {
    fn begin(job: Job, peer: &CountedPeer, is_compressed: bool) -> Self {
        let batches = (0..job.listed.instances.len()).step_by(BATCH);
        let mut sink = if is_compressed { Sink::gzip() } else { Sink::Plain(Vec::new()) };
        if job.parts.is_none() {
            sink.put(b"[");
        }
        Self { job: Arc::new(job), peer: peer.clone(), sink: Some(sink), batches, under_way: VecDeque::new() }
    }

    /// Returns the next piece, which may be empty. `None` after the last one.
    async fn next(&mut self) -> Option<Result<Vec<u8>, FindError>> {
        let mut sink = self.sink.take()?;
        while self.under_way.len() < AT_ONE_TIME
            && let Some(first) = self.batches.next()
        {
            let turn = self.job.answering.readers.turns().take(&self.peer).await;
            let job = Arc::clone(&self.job);
            self.under_way.push_back(spawn_blocking(move || {
                let _until_its_end = turn;
                job.batch(first)
            }));
        }
        let Some(next) = self.under_way.pop_front() else {
            match &self.job.parts {
                Some(parts) => sink.put(parts.end().as_bytes()),
                None => sink.put(b"]"),
            }
            return Some(Ok(sink.finish()));
        };
        match next.await {
            Ok(Ok(text)) => {
                sink.put(text.as_bytes());
                let piece = sink.take();
                self.sink = Some(sink);
                Some(Ok(piece))
            }
            Ok(Err(error)) => Some(Err(error)),
            // It is a defect, which has a log line of its own.
            Err(_) => Some(Err(FindError::AnswersLost)),
        }
    }

    /// Returns the body. A compressed one of usual length is made in memory and kept. A longer one
    /// goes out while it is made.
    async fn body(mut self, hash: u128) -> Result<Body, Problem> {
        let answering = Arc::clone(&self.job.answering);
        let cache = &answering.metadata;
        let limit = cache.longest().min(GATHERED_BYTES);
        let is_compressed = matches!(self.sink, Some(Sink::Gzip(_)));
        let memory = answering.memory_of_metadata.take(&self.peer, GATHERED_BYTES);
        if !is_compressed || limit == 0 || memory.is_none() {
            return Ok(self.streamed(Vec::new()));
        }
        let lock = cache.lock_of(hash);
        let held = timeout(WAIT_FOR_OTHER, lock.lock()).await;
        if let (Ok(_), Some(body)) = (&held, cache.get(hash)) {
            return Ok(Body::from(body));
        }
        let mut gathered = Vec::new();
        while let Some(piece) = self.next().await {
            gathered.extend(piece?);
            if gathered.len() > limit {
                return Ok(self.streamed(gathered));
            }
        }
        let body = Bytes::from(gathered);
        if self.job.is_whole.load(Ordering::Relaxed) {
            cache.put(hash, body.clone());
        }
        Ok(Body::from(body))
    }

    /// Returns a body that goes out while it is made. It begins with these bytes.
    fn streamed(mut self, begun: Vec<u8>) -> Body {
        let (mut outlet, body) = Body::pieces(self.job.answering.options.write_timeout);
        tokio::spawn(async move {
            if outlet.put(begun).await.is_break() {
                return;
            }
            while let Some(piece) = self.next().await {
                match piece {
                    Ok(piece) => {
                        if outlet.put(piece).await.is_break() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "metadata could not be answered to their end");
                        return;
                    }
                }
            }
            outlet.finish().await;
        });
        body
    }
}

impl Job {
    fn batch(&self, first: usize) -> Result<String, FindError> {
        let readers = &self.answering.readers;
        let mut reader = readers.take()?;
        let archives = Archives::default();
        let mut out = String::new();
        for (at, instance) in self.listed.instances.iter_from(first).take(BATCH).enumerate() {
            let Some(parts) = &self.parts else {
                if first + at > 0 {
                    out.push(',');
                }
                self.instance(&mut reader, &instance, &archives, &mut out)?;
                continue;
            };
            let mut json = String::new();
            self.instance(&mut reader, &instance, &archives, &mut json)?;
            out.push_str(&parts.head(native_model::MEDIA_TYPE, None));
            if let Err(error) = native_model::push(&mut out, &json) {
                tracing::error!(%error, "metadata cannot be written as XML");
                return Err(FindError::AnswersLost);
            }
        }
        readers.give_back(reader);
        Ok(out)
    }

    fn instance(
        &self,
        reader: &mut Reader,
        instance: &RetrievedInstance<'_>,
        archives: &Archives,
        out: &mut String,
    ) -> Result<(), FindError> {
        let bulk = bulk_data_base(&self.service, &self.target, instance.sop_instance_uid);
        match OpenObject::open(reader, instance, archives) {
            Ok(OpenObject { mut walk, transfer_syntax, .. }) => {
                if let Err(error) = ObjectJson::write(out, &mut walk, &transfer_syntax, &bulk) {
                    self.is_whole.store(false, Ordering::Relaxed);
                    tracing::debug!(
                        instance = crate::model::uid::for_log(instance.sop_instance_uid),
                        "an object ends early: {error}"
                    );
                }
                Ok(())
            }
            Err(_) => {
                self.is_whole.store(false, Ordering::Relaxed);
                as_indexed(reader, instance, &self.answering.options.query, &self.service, out)
            }
        }
    }
}

/// Writes what the index knows of an instance whose object is not at hand. So a missing object is
/// never passed over in silence.
fn as_indexed(
    reader: &mut Reader,
    instance: &RetrievedInstance<'_>,
    options: &qr::Options,
    service: &str,
    out: &mut String,
) -> Result<(), FindError> {
    let scope = Scope { level: QueryRetrieveLevel::Image, study: "", series: "" };
    let query = format!("includefield=all&SOPInstanceUID={}", encoded_uid(instance.sop_instance_uid));
    let Ok(search) = SearchQuery::parse(&scope, &query, options) else {
        out.push_str("{}");
        return Ok(());
    };
    let writer = JsonWriter::new(&search.query, service).for_what_is_gone();
    let stop = QueryStop::new(reader);
    let start = out.len();
    let found = qr::run(reader, &search.query, &stop, |answer| {
        writer.write(out, &answer);
        ControlFlow::Break(())
    });
    match found {
        Ok(_) | Err(FindError::Cancelled) => {}
        Err(error) => return Err(error),
    }
    if out.len() == start {
        // The index dropped the instance after the query.
        out.push_str("{}");
    }
    Ok(())
}

/// Text of an answer, compressed or not.
enum Sink {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Sink {
    fn gzip() -> Self {
        // At the lowest level, metadata shrink to a tenth.
        Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast()))
    }

    fn put(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(out) => out.extend_from_slice(bytes),
            // Writing to memory does not fail.
            Self::Gzip(encoder) => drop(encoder.write_all(bytes)),
        }
    }

    fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Plain(out) => std::mem::take(out),
            Self::Gzip(encoder) => std::mem::take(encoder.get_mut()),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Plain(out) => out,
            Self::Gzip(encoder) => encoder.finish().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_where_it_is_wanted() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_gzip(&headers)
        };
        assert!(takes("gzip") && takes("br, gzip;q=0.5, deflate") && takes("x-gzip"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("") && !takes("identity"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_known_tag_is_recognised_in_a_list() {
        let known = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(value));
            is_known(&headers, &HeaderValue::from_static("\"abc\""))
        };
        assert!(known("\"abc\"") && known("\"x\", \"abc\"") && known("W/\"abc\"") && known("*"));
        assert!(!known("\"ab\"") && !known("abc") && !known(""));
    }
}
