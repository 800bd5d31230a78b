//! QIDO-RS (PS3.18 10.6): a query to the index on a thread of its own, with its results as they
//! come.
//!
//! The status and the headers go out before the results. So a thread first finds out whether there
//! is any result, and whether there are more than the client asked for.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dicom_core::VR;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue, WARNING};
use hyper::{HeaderMap, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::body::{Body, Outlet};
use super::multipart::Parts;
use super::native_model;
use super::negotiate::{Accept, not_acceptable};
use super::problem::Problem;
use super::query::{QueryError, Scope, SearchQuery};
use super::resource::SERVICE;
use crate::db::open::Reader;
use crate::model::attribute::{ATTRIBUTES, KeyType};
use crate::model::find::{FindAnswer, ReturnKey};
use crate::model::level::QueryRetrieveLevel;
use crate::model::matching::MatchingError;
use crate::qr::{self, FindError, JsonWriter, Query, QueryControl, QueryStop, StopOrder, keys};
use crate::web::http_state::{Call, HttpState};

/// Media types of the results, the default first.
const MEDIA_TYPES: [&str; 3] =
    ["application/dicom+json", "application/json", "multipart/related; type=\"application/dicom+xml\""];

/// Number of bytes of results that go out together.
const PIECE_BYTES: usize = 64 << 10;

/// Maximum number of bytes of results that are gathered before the head goes out, if the head has
/// to say whether there are more. OHIF asks for 101 studies, which are 80 KB.
const GATHERED_BYTES: usize = 1 << 20;

/// Time for counting results that the client did not ask for. After it, the Warning says how many
/// there are at least.
const COUNTING: Duration = Duration::from_millis(50);

/// Number of results that are counted besides the requested ones. Larger: a search for the first
/// page of a large archive takes longer. Smaller: clients learn less of what else there is.
const MAX_COUNTED: u64 = 1_000;

/// Pause between two orders to stop a search. SQLite only notices an order while a statement runs.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// Answers with the results of a search.
pub(super) async fn answer(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    level: QueryRetrieveLevel,
) -> Result<Response<Body>, Problem> {
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let media_type = accept.choose(&MEDIA_TYPES).ok_or_else(|| not_acceptable(&MEDIA_TYPES))?;
    let scope = Scope { level, study: call.route.parameter("study"), series: call.route.parameter("series") };
    let search = SearchQuery::parse(&scope, call.query, &server.options.query)
        .map_err(|error| Problem::bad_request(in_words(error)))?;
    let page = Page::of(&search, server.options.max_results);
    let mut query = search.query;
    query.request.offset = page.offset;
    query.request.limit = page.limit.map(|limit| limit.saturating_add(1));

    let turn = server.turn(&call.peer).await?;
    let (outlet, body) = Body::pieces(server.options.write_timeout);
    let outlet = outlet.with_backlog(&server.spools);
    let timer = SearchTimer::start(server.options.query_time_limit, outlet.closed());
    let (head, told) = oneshot::channel();
    let service = format!("{}{SERVICE}", call.base);
    let parts = media_type.starts_with("multipart").then(Parts::new);
    let content_type = match &parts {
        Some(parts) => {
            HeaderValue::from_str(&parts.content_type(native_model::MEDIA_TYPE)).map_err(|_| Problem::ours())?
        }
        None => HeaderValue::from_static(media_type),
    };
    {
        let server = Arc::clone(server);
        spawn_blocking(move || {
            let results = Results {
                writer: JsonWriter::new(&query, &service),
                outlet,
                head: Some(head),
                text: String::from(if parts.is_some() { "" } else { "[" }),
                parts,
                count: 0,
                page,
            };
            results.find(&server, &query, &timer);
            drop(turn);
        });
    }
    // Without a head, the thread panicked. Its own log line says so.
    let head = told.await.map_err(|_| Problem::ours())??;
    let mut response = response(head, body, content_type, call);
    if !search.ignored.is_empty() {
        let tags: Vec<_> = search.ignored.iter().map(|tag| format!("{:04X}{:04X}", tag.0, tag.1)).collect();
        let text = format!(
            "These keys were not matched, because the index has nothing to match them with: {}",
            tags.join(" ")
        );
        warn(response.headers_mut(), &service_name(call), &text);
    }
    Ok(response)
}

/// Returns the response to a search, as far as its results are known.
fn response(head: Head, body: Body, content_type: HeaderValue, call: &Call<'_>) -> Response<Body> {
    match head {
        Head::Nothing => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Head::Results(more) => {
            let mut response = Response::new(body);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            if let Some(text) = more.warning() {
                warn(response.headers_mut(), &service_name(call), &text);
            }
            response
        }
    }
}

/// Says what is wrong with a search, and what to write instead.
fn in_words(error: QueryError) -> String {
    let QueryError::Find(FindError::InvalidKey(tag, cause)) = error else { return error.to_string() };
    let keyword = keys::keyword(tag);
    match cause {
        MatchingError::InvalidRange(VR::DA) => {
            format!("{keyword}: write a date as 20040131, or a range as 20040131-20051231")
        }
        MatchingError::InvalidRange(VR::TM) => format!("{keyword}: write a time as 1030, or a range as 1030-1200"),
        cause => format!("{keyword}: {cause}"),
    }
}

/// Returns the name of the service in a Warning (PS3.18 8.5).
fn service_name(call: &Call<'_>) -> String {
    format!("{}{SERVICE}", call.base)
}

/// Adds a Warning 299 (PS3.18 8.5).
pub(super) fn warn(headers: &mut HeaderMap, service: &str, text: &str) {
    // Both parts were checked or are our own. They have no quotation mark, and nothing that a
    // header cannot have.
    if let Ok(value) = HeaderValue::from_str(&format!("299 {service}: {text}")) {
        headers.append(WARNING, value);
    }
}

/// The requested part of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    offset: u64,
    limit: Option<u64>,
}

impl Page {
    fn of(search: &SearchQuery, most: Option<u64>) -> Self {
        let limit = match (search.limit, most) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        };
        Self { offset: search.offset, limit }
    }
}

/// Facts for the head of the response.
enum Head {
    Nothing,
    Results(More),
}

/// Number of results besides the answered ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    None,
    Exactly(u64),
    AtLeast(u64),
    /// The time did not suffice to find out.
    Perhaps,
}

impl More {
    /// Returns the warning of PS3.18 8.3.4.4.
    fn warning(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Exactly(count) => Some(format!("There are {count} additional results that can be requested")),
            Self::AtLeast(count) => {
                Some(format!("There are at least {count} additional results that can be requested"))
            }
            Self::Perhaps => Some("There may be additional results that can be requested".to_owned()),
        }
    }
}

/// Results that are being sent.
struct Results {
    writer: JsonWriter,
    outlet: Outlet,
    /// Channel for the head, until it was sent.
    head: Option<oneshot::Sender<Result<Head, Problem>>>,
    text: String,
    /// The parts, for XML.
    parts: Option<Parts>,
    count: u64,
    page: Page,
}

impl Results {
    fn find(mut self, server: &HttpState, query: &Query, timer: &SearchTimer) {
        let found = self.ask(server, query, timer);
        timer.ended.cancel();
        match found {
            Ok(more) => self.end(more),
            Err(error) => {
                // If the head is out already, the body breaks off, because the outlet is dropped
                // without an end.
                self.tell(Err(Problem::from(error)));
            }
        }
    }

    fn ask(&mut self, server: &HttpState, query: &Query, timer: &SearchTimer) -> Result<More, FindError> {
        let mut reader = server.readers.take()?;
        let stop = timer.begin(&reader);
        let mut failure = None;
        let mut is_full = false;
        let asked = qr::run(&mut reader, query, stop, |answer| {
            if self.page.limit == Some(self.count) {
                is_full = true;
                return ControlFlow::Break(());
            }
            if let Err(error) = self.write(&answer) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            self.count += 1;
            if self.text.len() < PIECE_BYTES && (self.head.is_none() || self.page.limit.is_some()) {
                return ControlFlow::Continue(());
            }
            if self.head.is_some() {
                let more = match self.page.limit {
                    None => More::None,
                    Some(_) if self.text.len() < GATHERED_BYTES => return ControlFlow::Continue(()),
                    Some(limit) => match remaining(server, query, self.page.offset, limit) {
                        Ok(more) => more,
                        Err(error) => {
                            failure = Some(error);
                            return ControlFlow::Break(());
                        }
                    },
                };
                self.tell(Ok(Head::Results(more)));
            }
            timer.pause(|| self.outlet.send(std::mem::take(&mut self.text)))
        });
        match asked {
            Ok(_) => {}
            Err(FindError::Cancelled) if is_full => {}
            // The reader may be the cause of the failure, so it is not kept.
            Err(error) => return Err(failure.unwrap_or(error)),
        }
        server.readers.give_back(reader);
        match self.page.limit {
            Some(limit) if is_full && self.head.is_some() => {
                match remaining(server, query, self.page.offset, limit)? {
                    // One further result was seen.
                    More::None | More::Perhaps => Ok(More::AtLeast(1)),
                    more => Ok(more),
                }
            }
            Some(_) | None => Ok(More::None),
        }
    }

    /// Appends one result.
    fn write(&mut self, answer: &FindAnswer) -> Result<(), FindError> {
        let Some(parts) = &self.parts else {
            if self.count > 0 {
                self.text.push(',');
            }
            self.writer.write(&mut self.text, answer);
            return Ok(());
        };
        let mut json = String::new();
        self.writer.write(&mut json, answer);
        self.text.push_str(&parts.head(native_model::MEDIA_TYPE, None));
        native_model::push(&mut self.text, &json).map_err(|error| {
            tracing::error!(%error, "a result cannot be written as XML");
            FindError::AnswersLost
        })
    }

    fn tell(&mut self, head: Result<Head, Problem>) {
        if let Some(sender) = self.head.take() {
            // A client that has gone needs no head.
            let _ = sender.send(head);
        }
    }

    fn end(mut self, more: More) {
        let is_nothing = self.count == 0 && more == More::None && self.page.limit != Some(0);
        self.tell(Ok(if is_nothing { Head::Nothing } else { Head::Results(more) }));
        match &self.parts {
            Some(parts) => self.text.push_str(&parts.end()),
            None => self.text.push(']'),
        }
        if self.outlet.send(std::mem::take(&mut self.text)).is_continue() {
            self.outlet.end();
        }
    }
}

/// Counts the results after a page, up to [`MAX_COUNTED`] and as far as possible in [`COUNTING`].
fn remaining(server: &HttpState, query: &Query, offset: u64, limit: u64) -> Result<More, FindError> {
    let mut query = query.clone();
    let request = &mut query.request;
    let is_own = |attribute: &&crate::model::attribute::Attribute| {
        attribute.key == KeyType::Unique && attribute.level == request.level
    };
    request.return_keys = ATTRIBUTES
        .iter()
        .filter(is_own)
        .map(|attribute| ReturnKey { attribute: attribute.id, items: Vec::new() })
        .collect();
    for key in &mut request.declared {
        key.is_answered = false;
    }
    request.offset = offset.saturating_add(limit);
    request.limit = Some(MAX_COUNTED);
    let mut reader = server.readers.take()?;
    let timer = SearchTimer::start(COUNTING, std::future::pending());
    let stop = timer.begin(&reader);
    let mut count = 0;
    let counted = qr::run(&mut reader, &query, stop, |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    timer.ended.cancel();
    match counted {
        Ok(0) => Ok(More::None),
        Ok(MAX_COUNTED) => Ok(More::AtLeast(MAX_COUNTED)),
        Ok(count) => Ok(More::Exactly(count)),
        Err(FindError::TimeLimit | FindError::Cancelled) if count > 0 => Ok(More::AtLeast(count)),
        Err(FindError::TimeLimit | FindError::Cancelled) => Ok(More::Perhaps),
        Err(error) => Err(error),
    }
}

/// Stops a search that takes too long, or that nobody waits for any more.
pub(super) struct SearchTimer {
    shared: Arc<TimerState>,
    /// The search is over.
    ended: CancellationToken,
}

#[derive(Default)]
struct TimerState {
    control: QueryControl,
    /// Time that the search waited for its client, and the start of the present wait.
    waited: Mutex<(Duration, Option<Instant>)>,
}

impl SearchTimer {
    /// Returns a timer over a search that begins now. `limit` is the time that it may work. When
    /// `gone` is ready, nobody waits for it.
    pub(super) fn start(limit: Duration, gone: impl Future<Output = ()> + Send + 'static) -> Self {
        let (shared, ended) = (Arc::new(TimerState::default()), CancellationToken::new());
        let (state, over) = (Arc::clone(&shared), ended.clone());
        let begun = Instant::now();
        tokio::runtime::Handle::current().spawn(async move {
            let out_of_time = async {
                loop {
                    let worked = begun.elapsed().saturating_sub(state.waited());
                    let Some(left) = limit.checked_sub(worked).filter(|left| !left.is_zero()) else { return };
                    sleep(left).await;
                }
            };
            let order = tokio::select! {
                () = over.cancelled() => return,
                () = gone => StopOrder::Cancel,
                () = out_of_time => StopOrder::TimeOut,
            };
            state.control.stop(order);
            while !over.is_cancelled() {
                sleep(TELL_AGAIN).await;
                state.control.repeat();
            }
        });
        Self { shared, ended }
    }

    /// Notes that the query of this reader begins. An order that came before still holds.
    pub(super) fn begin(&self, reader: &Reader) -> &QueryStop {
        self.shared.control.begin(reader)
    }

    /// Runs a wait of the search for its client. This time does not count.
    fn pause<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.shared.lock().1 = Some(Instant::now());
        let result = wait();
        let mut waited = self.shared.lock();
        if let Some(since) = waited.1.take() {
            waited.0 += since.elapsed();
        }
        result
    }
}

/// A search that has ended in any way is not stopped any more.
impl Drop for SearchTimer {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl TimerState {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Duration, Option<Instant>)> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waited(&self) -> Duration {
        let waited = self.lock();
        waited.0 + waited.1.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
