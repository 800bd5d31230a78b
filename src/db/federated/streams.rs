//! Answers of several files at once: one thread for each file, and a short queue between it and
//! whoever merges.

use std::ops::ControlFlow;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::db::{Error, Interrupt};

/// Most answers in one message. The first message has one answer, so that it does not wait for
/// others. Each further message has twice as many.
const MOST_IN_MESSAGE: usize = 64;

/// Messages that wait for the merge. Together they bound what the files read ahead.
const WAITING_MESSAGES: usize = 2;

/// Answers of a file that are read without a thread, where each file is likely to have few.
const FEW_ANSWERS: usize = 256;

/// Pause between two interrupts of questions whose answers nobody wants any more. SQLite notices an
/// interrupt only while a statement runs.
const INTERRUPT_PAUSE: Duration = Duration::from_millis(1);

/// Answers of one file, in its order.
pub(super) struct FileStream<T> {
    ready: std::vec::IntoIter<T>,
    more: Option<Receiver<Result<Vec<T>, Error>>>,
}

impl<T> FileStream<T> {
    /// The next answer. `None` if there are no more.
    pub(super) fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(next) = self.ready.next() {
                return Ok(Some(next));
            }
            let Some(more) = &self.more else { return Ok(None) };
            match more.recv() {
                Ok(Ok(answers)) => self.ready = answers.into_iter(),
                Ok(Err(error)) => return Err(error),
                Err(_ended) => self.more = None,
            }
        }
    }
}

/// Question to each file. It calls its last argument with each answer.
pub(super) trait Ask<R, T>:
    Fn(&mut R, &mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), Error> + Sync
{
}

impl<R, T, F: Fn(&mut R, &mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), Error> + Sync> Ask<R, T> for F {}

/// Asks each file in turn for a few answers. `None` if one of them has more.
pub(super) fn few<R, T>(parts: &mut [R], ask: &impl Ask<R, T>) -> Result<Option<Vec<FileStream<T>>>, Error> {
    let mut streams = Vec::with_capacity(parts.len());
    for part in parts {
        let mut answers = Vec::new();
        let mut is_more = false;
        ask(part, &mut |answer| {
            is_more = answers.len() == FEW_ANSWERS;
            if is_more {
                return ControlFlow::Break(());
            }
            answers.push(answer);
            ControlFlow::Continue(())
        })?;
        if is_more {
            return Ok(None);
        }
        streams.push(FileStream { ready: answers.into_iter(), more: None });
    }
    Ok(Some(streams))
}

/// Asks all files at once, and has `merge` take their answers. Files that are still at work when
/// `merge` has enough are interrupted.
pub(super) fn merged<R: Send, T: Send, O>(
    parts: &mut [R],
    interrupts: &[Interrupt],
    ask: &impl Ask<R, T>,
    merge: impl FnOnce(Vec<FileStream<T>>) -> Result<O, Error>,
) -> Result<O, Error> {
    std::thread::scope(|scope| {
        let (at_work, all_done) = bounded::<()>(0);
        let mut streams = Vec::with_capacity(parts.len());
        for part in parts {
            let (send, receive) = bounded(WAITING_MESSAGES);
            let at_work = at_work.clone();
            scope.spawn(move || {
                give(part, &send, ask);
                drop(at_work);
            });
            streams.push(FileStream { ready: Vec::new().into_iter(), more: Some(receive) });
        }
        drop(at_work);
        let merged = merge(streams);
        while let Err(RecvTimeoutError::Timeout) = all_done.recv_timeout(INTERRUPT_PAUSE) {
            interrupts.iter().for_each(Interrupt::interrupt);
        }
        merged
    })
}

/// Sends the answers of one file, until there are no more or nobody takes them.
fn give<R, T>(part: &mut R, send: &Sender<Result<Vec<T>, Error>>, ask: &impl Ask<R, T>) {
    let (mut waiting, mut most) = (Vec::new(), 1);
    let asked = ask(part, &mut |answer| {
        waiting.push(answer);
        if waiting.len() < most {
            return ControlFlow::Continue(());
        }
        most = (most * 2).min(MOST_IN_MESSAGE);
        match send.send(Ok(std::mem::replace(&mut waiting, Vec::with_capacity(most)))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_nobody_left) => ControlFlow::Break(()),
        }
    });
    let last = asked.map(|()| waiting);
    // Nobody may be left to take it.
    let _taken = send.send(last);
}
