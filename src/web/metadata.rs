//! WADO-RS metadata (PS3.18 10.4.1.1.2): all attributes of all instances, straight from the objects.
//!
//! Whether anything has changed is told by the index alone: an unchanged answer opens no file. Several
//! threads read objects in batches, and the batches go out in their order.

use std::collections::VecDeque;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY,
};
use hyper::{HeaderMap, Response, StatusCode};
use tokio::task::{JoinHandle, spawn_blocking};
use xxhash_rust::xxh3::Xxh3;

use super::body::{Body, Outlet};
use super::negotiate::{Accept, MediaRange, not_acceptable};
use super::object_json::ObjectJson;
use super::objects::OpenObject;
use super::problem::Problem;
use super::query::{Scope, Search};
use super::resource::SERVICE;
use super::search::warn;
use super::target::{Listed, Target};
use crate::archive::Archives;
use crate::db::Search as _;
use crate::db::open::Reader;
use crate::model::level::QueryRetrieveLevel;
use crate::qr::{self, FindError, JsonWriter, QueryStop, RetrievedInstance, encoded_uid};
use crate::shares::CountedPeer;
use crate::web::call::{Answering, Call};

/// What metadata can be had as, the default first.
pub(super) const MEDIA_TYPES: [&str; 2] = ["application/dicom+json", "application/json"];

/// Instances that one thread reads before its text goes out. Larger: the first bytes come later. Smaller: more hops.
const BATCH: usize = 16;

/// Batches of one response that are read at one time. Each holds the text of its instances.
const AT_ONE_TIME: usize = 4;

/// A change of what is written of the same objects: it makes all tags new.
const FORMAT: u64 = 1;

/// The metadata of a study, a series or an instance.
pub(super) async fn answer(answering: &Arc<Answering>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let media_type = accept.choose(&MEDIA_TYPES).ok_or_else(|| not_acceptable(&MEDIA_TYPES))?;
    let target = Target::of(call)?;
    let listed = target.instances(answering, call).await?;
    let is_compressed = takes_gzip(call.headers);
    let service = format!("{}{SERVICE}", call.base);
    let tag = tag(answering, call, &listed, &service, media_type, is_compressed).await?;
    let mut response = if is_known(call.headers, &tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let (outlet, body) = Body::pieces(answering.options.write_timeout);
        let count = listed.unavailable.len();
        let job = Arc::new(Job { answering: Arc::clone(answering), target, service: service.clone(), listed });
        tokio::spawn(write(job, Arc::clone(&call.peer), outlet, is_compressed));
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
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

/// Whether the client takes gzip (RFC 9110 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        // With a slash it is a media range, whose weight is read the same way.
        let range = MediaRange::parse(&format!("coding/{}", coding.trim()));
        range.is_some_and(|range| matches!(range.essence.1.as_str(), "gzip" | "x-gzip") && range.weight > 0)
    })
}

/// Whether the client has what has this tag.
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let tag = tag.to_str().unwrap_or_default();
    values
        .flat_map(|value| value.split(','))
        .map(|known| known.trim())
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// A tag that changes when anything that is answered may have: which instances there are, and for each place of an object its
/// size and time. Where the objects are, and under which URL, is in it as well.
async fn tag(
    answering: &Arc<Answering>,
    call: &Call<'_>,
    listed: &Listed,
    service: &str,
    media_type: &str,
    is_compressed: bool,
) -> Result<HeaderValue, Problem> {
    let turn = answering.turn(&call.peer).await?;
    let delivery = Arc::clone(answering.delivery());
    let instances = Arc::clone(&listed.instances);
    let mut hash = Xxh3::new();
    hash.update(&FORMAT.to_le_bytes());
    hash.update(service.as_bytes());
    hash.update(media_type.as_bytes());
    hash.update(env!("CARGO_PKG_VERSION").as_bytes());
    hash.update(&[u8::from(is_compressed)]);
    hash.update(&(listed.unavailable.len() as u64).to_le_bytes());
    let hashed = spawn_blocking(move || {
        let _until_its_end = turn;
        let mut reader = delivery.readers.take()?;
        for instance in instances.iter_from(0) {
            hash.update(instance.sop_instance_uid.as_bytes());
            hash.update(instance.kind.transfer_syntax.as_bytes());
            for known in reader.known_locations(instance.sop_instance_uid).map_err(FindError::Index)? {
                hash.update(known.location.directory.as_os_str().as_bytes());
                hash.update(known.location.file_name.as_bytes());
                hash.update(&known.location.size.to_le_bytes());
                hash.update(&known.location.mtime_ms.to_le_bytes());
                hash.update(&[u8::from(known.differs)]);
            }
        }
        delivery.readers.give_back(reader);
        Ok::<_, FindError>(hash.digest128())
    });
    let hash = hashed.await.map_err(|_| Problem::ours())??;
    HeaderValue::from_str(&format!("\"{hash:032x}\"")).map_err(|_| Problem::ours())
}

/// One answer that is being made.
struct Job {
    answering: Arc<Answering>,
    target: Target,
    service: String,
    listed: Listed,
}

/// Reads batches ahead of the client, and hands them over in their order.
async fn write(job: Arc<Job>, peer: CountedPeer, mut outlet: Outlet, is_compressed: bool) {
    let instances = &job.listed.instances;
    let mut sink = if is_compressed { Sink::gzip() } else { Sink::Plain(Vec::new()) };
    let mut batches = (0..instances.len()).step_by(BATCH);
    let mut under_way: VecDeque<JoinHandle<Result<String, FindError>>> = VecDeque::new();
    sink.put(b"[");
    loop {
        while under_way.len() < AT_ONE_TIME
            && let Some(first) = batches.next()
        {
            let turn = job.answering.readers.turns().take(&peer).await;
            let job = Arc::clone(&job);
            under_way.push_back(spawn_blocking(move || {
                let _until_its_end = turn;
                job.batch(first)
            }));
        }
        let Some(next) = under_way.pop_front() else { break };
        match next.await {
            Ok(Ok(text)) => sink.put(text.as_bytes()),
            Ok(Err(error)) => {
                tracing::error!(%error, "metadata could not be answered to their end");
                return;
            }
            // A defect, which its own log line tells. The outlet goes without an end.
            Err(_) => return,
        }
        if outlet.put(sink.take()).await.is_break() {
            return;
        }
    }
    sink.put(b"]");
    if outlet.put(sink.finish()).await.is_continue() {
        outlet.finish().await;
    }
}

impl Job {
    fn batch(&self, first: usize) -> Result<String, FindError> {
        let readers = &self.answering.readers;
        let mut reader = readers.take()?;
        let archives = Archives::default();
        let mut out = String::new();
        for (at, instance) in self.listed.instances.iter_from(first).take(BATCH).enumerate() {
            if first + at > 0 {
                out.push(',');
            }
            self.instance(&mut reader, &instance, &archives, &mut out)?;
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
        let uid = encoded_uid(instance.sop_instance_uid);
        let bulk = if self.target.series.is_empty() {
            format!("{}/instances/{uid}/bulkdata/", self.service)
        } else {
            let (study, series) = (encoded_uid(&self.target.study), encoded_uid(&self.target.series));
            format!("{}/studies/{study}/series/{series}/instances/{uid}/bulkdata/", self.service)
        };
        match OpenObject::open(reader, instance, archives) {
            Ok(OpenObject { mut walk, transfer_syntax, .. }) => {
                if let Err(error) = ObjectJson::write(out, &mut walk, &transfer_syntax, &bulk) {
                    tracing::debug!(
                        instance = crate::model::uid::for_log(instance.sop_instance_uid),
                        "an object ends early: {error}"
                    );
                }
                Ok(())
            }
            Err(_) => as_indexed(reader, instance, &self.answering.options.query, &self.service, out),
        }
    }
}

/// What the index knows of an instance whose object is not at hand: never a missing object without a word.
fn as_indexed(
    reader: &mut Reader,
    instance: &RetrievedInstance<'_>,
    options: &qr::Options,
    service: &str,
    out: &mut String,
) -> Result<(), FindError> {
    let scope = Scope { level: QueryRetrieveLevel::Image, study: "", series: "" };
    let query = format!("includefield=all&SOPInstanceUID={}", encoded_uid(instance.sop_instance_uid));
    let Ok(search) = Search::parse(&scope, &query, options) else {
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
        // Dropped from the index since it was asked.
        out.push_str("{}");
    }
    Ok(())
}

/// Text on its way, compressed or not.
enum Sink {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Sink {
    fn gzip() -> Self {
        // Metadata shrink to a tenth at the lowest level.
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
