//! A stop of the process (Ctrl-Z) that waits for the end of a transaction.
//!
//! A process that stops in the middle of a transaction keeps the index locked as long as it is
//! stopped.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A gate between the transactions of a writer and a stop of its process.
#[derive(Clone, Debug, Default)]
pub struct Suspension(Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    /// Somebody waits for the end of the transaction.
    asked: bool,
    /// A transaction is under way.
    busy: bool,
}

/// A transaction under way, until it is dropped.
#[derive(Debug)]
pub(in crate::db) struct TransactionUnderWay<'s>(&'s Gate);

impl Suspension {
    /// Calls `stop` between two transactions, or after `at_most` at the latest.
    pub fn between_transactions(&self, at_most: Duration, stop: impl FnOnce()) {
        let mut state = self.0.lock();
        state.asked = true;
        let waited = self.0.changed.wait_timeout_while(state, at_most, |state| state.busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        stop();
        state.asked = false;
        drop(state);
        self.0.changed.notify_all();
    }

    /// Whether somebody waits for the end of the transaction.
    pub(in crate::db) fn is_asked(&self) -> bool {
        self.0.lock().asked
    }

    /// Begins a transaction as soon as nobody waits for the end of one.
    pub(in crate::db) fn begin(&self) -> TransactionUnderWay<'_> {
        let state = self.0.changed.wait_while(self.0.lock(), |state| state.asked);
        state.unwrap_or_else(PoisonError::into_inner).busy = true;
        TransactionUnderWay(&self.0)
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TransactionUnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy = false;
        // It is rare, and waking nobody also costs a system call.
        if state.asked {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{TryRecvError, channel};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_stop_waits_for_the_end_of_a_transaction_and_the_next_one_for_the_stop() {
        let suspension = Suspension::default();
        let transaction = suspension.begin();
        let (stopped, stops) = channel();
        let (go_on, stopped_until) = channel::<()>();
        let stopping = suspension.clone();
        let stopper = thread::spawn(move || {
            stopping.between_transactions(LONG, || {
                stopped.send(()).unwrap();
                stopped_until.recv().unwrap();
            });
        });
        while !suspension.is_asked() {
            thread::yield_now();
        }
        assert_eq!(stops.try_recv(), Err(TryRecvError::Empty));
        drop(transaction);
        stops.recv().unwrap();
        let (begun, begins) = channel();
        let beginning = suspension.clone();
        let next = thread::spawn(move || {
            let _transaction = beginning.begin();
            begun.send(()).unwrap();
        });
        assert_eq!(begins.try_recv(), Err(TryRecvError::Empty));
        go_on.send(()).unwrap();
        begins.recv().unwrap();
        next.join().unwrap();
        stopper.join().unwrap();
    }

    #[test]
    fn a_stop_does_not_wait_for_ever() {
        let suspension = Suspension::default();
        let _transaction = suspension.begin();
        let mut stopped = false;
        suspension.between_transactions(Duration::ZERO, || stopped = true);
        assert!(stopped);
    }
}
