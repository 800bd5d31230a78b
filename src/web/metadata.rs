//! WADO-RS metadata (PS3.18 10.4.1.1.2): all attributes of all instances, read from the objects.
//!
//! The index alone tells whether anything has changed, so an unchanged answer opens no file. While
//! the index is unchanged, it is not asked again (`recalled`). Several threads read objects in
//! batches, and the batches go out in their order. Answers of usual length are kept
//! (`metadata_cache`).

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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

use super::body::{Body, Outlet};
use super::metadata_cache::BodyKey;
use super::multipart::Parts;
use super::native_model;
use super::negotiate::{Accept, MediaRange, not_acceptable};
use super::object_json::ObjectJson;
use super::object_reader::OpenObject;
use super::problem::Problem;
use super::query::{Scope, SearchQuery};
use super::recalled_answers::FromIndex;
use super::resource::SERVICE;
use super::search::warn;
use super::wado_target::{Listed, Target, bulk_data_base};
use crate::archive::Archives;
use crate::db::Search as _;
use crate::db::open::Reader;
use crate::model::level::QueryRetrieveLevel;
use crate::qr::readers::IndexVersion;
use crate::qr::{self, FindError, JsonWriter, QueryStop, RetrievedInstance, encoded_uid};
use crate::shares::CountedPeer;
use crate::store::is_unchanged;
use crate::web::http_state::{Call, HttpState};

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

/// Maximum length of a compressed answer that is made in memory before its head goes out. Larger:
/// more heads tell of objects that cannot be read. Smaller: the first bytes come earlier.
const GATHERED_BYTES: usize = 4 << 20;

/// The same for a plain answer, which is some ten times as long.
const GATHERED_PLAIN_BYTES: usize = 16 << 20;

/// Answers with the metadata of a study, a series or an instance.
pub(super) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let media_type = accept.choose(&MEDIA_TYPES).ok_or_else(|| not_acceptable(&MEDIA_TYPES))?;
    let service = format!("{}{SERVICE}", call.base);
    let request = MetadataRequest { target: Target::of(call)?, service, is_xml: media_type == XML };
    let form = MetadataForm { media_type, is_compressed: takes_gzip(call.headers) };
    let (state, recalled) = recalled(server, call, &request).await?;
    if let Some(known) = recalled {
        if let Some(shown) = call.shown {
            let _ = shown.set(known.studies.to_vec());
        }
        if is_known(call.headers, &form.tag(known.hash)?) {
            return response(None, &form, &request, &known);
        }
        if let Some(body) = kept(server, call, (&known, form.is_compressed)).await? {
            return response(Some((body, UnreadCount::default())), &form, &request, &known);
        }
    }
    let listed = request.target.instances(server, call).await?;
    let known = ask(server, call, &listed, (request.clone(), state)).await?;
    if is_known(call.headers, &form.tag(known.hash)?) {
        return response(None, &form, &request, &known);
    }
    if let Some(body) = kept(server, call, (&known, form.is_compressed)).await? {
        return response(Some((body, UnreadCount::default())), &form, &request, &known);
    }
    let MetadataRequest { target, service, is_xml } = request.clone();
    let parts = is_xml.then(|| Parts::of_hash(known.hash));
    let job = Job { server: Arc::clone(server), target, service, listed, unread: Unread::default(), parts };
    let (body, unread) = Making::begin(job, &call.peer, form.is_compressed).body(known.hash).await?;
    response(Some((body, unread)), &form, &request, &known)
}

/// A request for metadata, as far as its answer depends on it.
#[derive(Clone, Debug)]
struct MetadataRequest {
    target: Target,
    /// URL of the service, which URIs of bulk data begin with.
    service: String,
    is_xml: bool,
}

impl MetadataRequest {
    /// Returns its text. It has no part that another one could have across a space.
    fn key(&self) -> String {
        let Target { study, series, instance } = &self.target;
        format!("{} {study} {series} {instance} {}", self.service, self.is_xml)
    }
}

/// Form in which metadata are sent.
struct MetadataForm {
    media_type: &'static str,
    is_compressed: bool,
}

impl MetadataForm {
    /// Returns the tag of metadata with this hash in this form.
    fn tag(&self, hash: u128) -> Result<HeaderValue, Problem> {
        let at = MEDIA_TYPES.iter().position(|own| *own == self.media_type).unwrap_or(0);
        let coding = if self.is_compressed { "z" } else { "" };
        HeaderValue::from_str(&format!("\"{hash:032x}-{at}{coding}\"")).map_err(|_| Problem::ours())
    }
}

/// Returns the response with this body, or 304 without one.
fn response(
    body: Option<(Body, UnreadCount)>,
    form: &MetadataForm,
    request: &MetadataRequest,
    known: &FromIndex,
) -> Result<Response<Body>, Problem> {
    let (body, unread) = body.map_or_else(|| (Body::empty(), None), |(body, unread)| (body, Some(unread)));
    let mut response = Response::new(body);
    let mut may_be_kept = true;
    if let Some(UnreadCount { gone, cut }) = unread {
        let content_type = match request.is_xml {
            true => Parts::of_hash(known.hash).content_type(native_model::MEDIA_TYPE),
            false => form.media_type.to_owned(),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(&content_type).map_err(|_| Problem::ours())?);
        if form.is_compressed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let gone = gone.max(known.unavailable);
        may_be_kept = gone == 0;
        if gone > 0 {
            let text =
                format!("Of {gone} instances only the indexed attributes are known: their objects are not at hand");
            warn(headers, &request.service, &text);
        }
        if cut > 0 {
            let text = format!("Of {cut} instances attributes are missing: their objects end early or are damaged");
            warn(headers, &request.service, &text);
        }
    } else {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    // An object that is not at hand may be back at once, and the index does not notice. So a client
    // must not keep the answer (RFC 9110 8.8.1).
    if may_be_kept {
        headers.insert(ETAG, form.tag(known.hash)?);
    }
    let keeping = if may_be_kept { "private, max-age=0, must-revalidate" } else { "no-store" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keeping));
    headers.append(VARY, HeaderValue::from_static("accept, accept-encoding, authorization"));
    Ok(response)
}

/// Returns this body for a client that takes no gzip, and writes it.
fn inflated((mut outlet, body): (Outlet, Body), compressed: Bytes) -> Body {
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

/// Returns the state of the index, and what it said for the same request in this state.
async fn recalled(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    request: &MetadataRequest,
) -> Result<(IndexVersion, Option<FromIndex>), Problem> {
    let turn = server.turn(&call.peer).await?;
    let (server, request) = (Arc::clone(server), request.clone());
    let recalled = spawn_blocking(move || {
        let _until_its_end = turn;
        let state = server.readers.version()?;
        Ok::<_, FindError>((state, server.recalled.get(&request.key(), state, Instant::now())))
    });
    Ok(recalled.await.map_err(|_| Problem::ours())??)
}

/// Asks the index where the objects lie, and keeps what it says. It had this state before it was
/// asked for the instances.
async fn ask(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    listed: &Listed,
    (request, state): (MetadataRequest, IndexVersion),
) -> Result<FromIndex, Problem> {
    let turn = server.turn(&call.peer).await?;
    let server = Arc::clone(server);
    let (instances, unavailable) = (Arc::clone(&listed.instances), listed.unavailable.len());
    let studies = call.shown.and_then(|shown| shown.get()).cloned().unwrap_or_default().into();
    let known = spawn_blocking(move || {
        let _until_its_end = turn;
        let mut hash = Xxh3::new();
        hash.update(&FORMAT.to_le_bytes());
        hash.update(request.service.as_bytes());
        hash.update(env!("CARGO_PKG_VERSION").as_bytes());
        hash.update(&(unavailable as u64).to_le_bytes());
        // Bulk data URIs of a study have another form than those of a series.
        hash.update(&[u8::from(request.target.series.is_empty()), u8::from(request.is_xml)]);
        let readers = &server.delivery().readers;
        let mut reader = readers.take()?;
        let mut locations = Vec::with_capacity(instances.len());
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
                if let Some(corrected) = &known.corrected {
                    hash.update(format!("{corrected:?}").as_bytes());
                }
            }
            locations.extend(known.into_iter().find(|known| !known.differs).map(|known| known.location));
        }
        readers.give_back(reader);
        let known = FromIndex { hash: hash.digest128(), unavailable, locations: locations.into(), studies };
        server.recalled.put(request.key(), state, known.clone(), Instant::now());
        Ok::<_, FindError>(known)
    });
    Ok(known.await.map_err(|_| Problem::ours())??)
}

/// Returns a body that is kept in memory, if no file has changed since.
async fn kept(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    (known, is_compressed): (&FromIndex, bool),
) -> Result<Option<Body>, Problem> {
    let hash = known.hash;
    let of = |is_compressed| BodyKey { hash, is_compressed };
    let Some((body, is_inflated)) = [is_compressed, true]
        .into_iter()
        .find_map(|form| server.metadata.get(of(form)).map(|body| (body, form != is_compressed)))
    else {
        return Ok(None);
    };
    let turn = server.turn(&call.peer).await?;
    let locations = Arc::clone(&known.locations);
    let unchanged = spawn_blocking(move || {
        let _until_its_end = turn;
        locations.iter().all(is_unchanged)
    });
    if !unchanged.await.map_err(|_| Problem::ours())? {
        [true, false].into_iter().for_each(|form| server.metadata.remove(of(form)));
        return Ok(None);
    }
    Ok(Some(if is_inflated { inflated(server.written_body(&call.peer).await?, body) } else { Body::from(body) }))
}

/// An answer that is being made.
struct Job {
    server: Arc<HttpState>,
    target: Target,
    service: String,
    listed: Listed,
    unread: Unread,
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
            let turn = self.job.server.readers.turns().take(&self.peer).await;
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

    /// Returns the body, and the objects that were not read to their ends. A body of usual length
    /// is made in memory and kept. A longer one goes out while it is made. Its head cannot tell of
    /// objects that come later.
    async fn body(mut self, hash: u128) -> Result<(Body, UnreadCount), Problem> {
        let server = Arc::clone(&self.job.server);
        let cache = &server.metadata;
        let key = BodyKey { hash, is_compressed: matches!(self.sink, Some(Sink::Gzip(_))) };
        let limit = if key.is_compressed { GATHERED_BYTES } else { GATHERED_PLAIN_BYTES };
        let lock = cache.lock_of(key);
        let held = timeout(WAIT_FOR_OTHER, lock.lock()).await;
        if let (Ok(_), Some(body)) = (&held, cache.get(key)) {
            return Ok((Body::from(body), UnreadCount::default()));
        }
        let mut memory = server.memory_of_metadata.take(&self.peer, 0);
        let mut gathered = Vec::new();
        while let Some(piece) = self.next().await {
            let piece = piece?;
            gathered.extend_from_slice(&piece);
            let is_granted = memory.as_mut().is_some_and(|memory| memory.grow(piece.len()));
            if gathered.len() > limit || !is_granted {
                let unread = self.job.unread.count();
                return Ok((self.streamed(gathered), unread));
            }
        }
        let (body, unread) = (Bytes::from(gathered), self.job.unread.count());
        if unread == UnreadCount::default() {
            cache.put(key, body.clone());
        }
        let body = Body::from(body);
        Ok((memory.into_iter().fold(body, Body::holding), unread))
    }

    /// Returns a body that goes out while it is made. It begins with these bytes.
    fn streamed(mut self, begun: Vec<u8>) -> Body {
        let (mut outlet, body) = Body::pieces(self.job.server.options.write_timeout);
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

/// Objects that were not read to their ends.
#[derive(Debug, Default)]
struct Unread {
    /// They are not at hand.
    gone: AtomicUsize,
    /// They end early, or are damaged.
    cut: AtomicUsize,
}

impl Unread {
    fn count(&self) -> UnreadCount {
        UnreadCount { gone: self.gone.load(Ordering::Relaxed), cut: self.cut.load(Ordering::Relaxed) }
    }
}

/// Numbers of objects that were not read to their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct UnreadCount {
    gone: usize,
    cut: usize,
}

impl Job {
    fn batch(&self, first: usize) -> Result<String, FindError> {
        let readers = &self.server.readers;
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
        match OpenObject::open_corrected(reader, self.server.delivery().verified(), instance, archives) {
            Ok(OpenObject { mut walk, transfer_syntax, .. }) => {
                if let Err(error) = ObjectJson::write(out, &mut walk, &transfer_syntax, &bulk) {
                    self.unread.cut.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(
                        instance = crate::model::uid::for_log(instance.sop_instance_uid),
                        "an object ends early: {error}"
                    );
                }
                Ok(())
            }
            Err(_) => {
                self.unread.gone.fetch_add(1, Ordering::Relaxed);
                as_indexed(reader, instance, &self.server.options.query, &self.service, out)
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
