//! Questions of a page to the index, on a thread that may wait.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::entity::Entity;
use crate::db::open::Reader;
use crate::model::attribute::AttributeId;
use crate::qr::{self, FindError};
use crate::web::http_state::{Call, HttpState};
use crate::web::problem::Problem;
use crate::web::query::{Scope, SearchQuery};
use crate::web::search::SearchTimer;

/// The index, for one page.
pub(super) struct Asking<'a> {
    pub(super) reader: Reader,
    server: &'a HttpState,
    /// The browser is gone: somebody typed on, or closed the page.
    gone: CancellationToken,
}

/// Part of the results of a search that a page shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Asking<'_> {
    /// Results of a search of QIDO-RS with the attributes of `shown`, as far as the query returns
    /// them.
    pub(super) fn search(
        &mut self,
        scope: &Scope<'_>,
        query: &str,
        part: Part,
        shown: &[AttributeId],
    ) -> Result<Vec<Entity>, FindError> {
        let options = &self.server.options;
        // A date that is none, or a text that no value can have, matches nothing.
        let Ok(mut search) = SearchQuery::parse(scope, query, &options.query) else { return Ok(Vec::new()) };
        let request = &mut search.query.request;
        request.offset = part.offset as u64;
        request.limit = Some(part.limit as u64);
        request.return_keys.retain(|key| shown.contains(&key.attribute));
        let keys = Arc::new(request.return_keys.iter().map(|key| key.attribute).collect::<Vec<_>>());
        let timer = SearchTimer::start(options.query_time_limit, self.gone.clone().cancelled_owned());
        let mut found = Vec::new();
        let stop = timer.begin(&self.reader);
        qr::run(&mut self.reader, &search.query, stop, |answer| {
            found.push(Entity { keys: Arc::clone(&keys), values: answer.values });
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

/// Asks the index. The question ends early when the browser is gone.
pub(super) async fn ask<T: Send + 'static>(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    question: impl FnOnce(&mut Asking<'_>) -> Result<T, FindError> + Send + 'static,
) -> Result<T, Problem> {
    let turn = server.turn(&call.peer).await?;
    let server = Arc::clone(server);
    let gone = CancellationToken::new();
    // hyper drops this future with the connection of HTTP/1.1, or with the stream of HTTP/2.
    let _while_waited_for = gone.clone().drop_guard();
    let asked = spawn_blocking(move || {
        let _until_its_end = turn;
        let reader = server.readers.take()?;
        let mut asking = Asking { reader, server: &server, gone };
        let answer = question(&mut asking)?;
        // A reader that failed is not kept.
        server.readers.give_back(asking.reader);
        Ok::<T, FindError>(answer)
    });
    Ok(asked.await.map_err(|_| Problem::ours())??)
}
