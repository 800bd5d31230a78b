//! The next answers of several files.

use super::streams::FileStream;
use crate::db::Error;
use crate::model::find::{AnswerKey, FindAnswer};

/// The next answer of a file, and those after it.
pub(super) struct StreamHead {
    pub(super) next: Option<FindAnswer>,
    stream: FileStream<FindAnswer>,
}

impl StreamHead {
    pub(super) fn new(mut stream: FileStream<FindAnswer>) -> Result<Self, Error> {
        Ok(Self { next: stream.next()?, stream })
    }

    /// The next answer, if its key is like this.
    pub(super) fn take_if(&mut self, is_wanted: impl Fn(&AnswerKey) -> bool) -> Result<Option<FindAnswer>, Error> {
        let Some(answer) = self.next.take_if(|next| next.key.as_deref().is_some_and(&is_wanted)) else {
            return Ok(None);
        };
        self.next = self.stream.next()?;
        Ok(Some(answer))
    }
}

/// The number of the file whose next answer comes first. Of two that sort alike, that of the first
/// file does.
pub(super) fn first_of(heads: &[StreamHead]) -> Option<(usize, &AnswerKey)> {
    let keys = heads.iter().enumerate().filter_map(|(at, head)| Some((at, head.next.as_ref()?.key.as_deref()?)));
    keys.min_by(|(_, one), (_, other)| one.order.cmp(&other.order))
}
