//! A limit on the log lines about peers that are turned away.
//!
//! One client that tries again without a pause made 34 GB of log in a day. The first lines about a peer say what there is
//! to know; of the others a line each minute says how many there were. Metrics count all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

/// Time over which the lines about one peer are counted. Larger: the log says later how often a peer was turned away.
/// Smaller: it grows faster.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// Lines about one peer and one reason in a period. Larger: more log from peers in a loop. Smaller: different titles or
/// certificates behind one address are seen later.
const LINES: u32 = 10;

/// Peers and reasons that are told apart, some 100 bytes each. What comes beyond them in a period is counted together.
const MAX_KEYS: usize = 4096;

/// Who is turned away, and why; without an address those for whom there was no room.
type Key = (Option<IpAddr>, String);

/// What the log had of one peer in this period.
#[derive(Debug)]
struct Told {
    since: Instant,
    lines: u32,
    held_back: u64,
}

/// The lines that were written, and those that were not.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<HashMap<Key, Told>>);

/// Lines that were held back.
#[derive(Debug, PartialEq, Eq)]
struct HeldBack {
    address: Option<IpAddr>,
    reason: String,
    count: u64,
}

impl LogLimit {
    /// Whether a line about this peer is written. If not, it is counted for [`Self::tell`].
    pub(super) fn allows(&self, address: IpAddr, reason: &str) -> bool {
        self.allows_at(address, reason, Instant::now())
    }

    fn allows_at(&self, address: IpAddr, reason: &str, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (Some(address), reason.to_owned());
        if all.len() >= MAX_KEYS && !all.contains_key(&key) {
            key = (None, String::new());
        }
        let told = all.entry(key).or_insert(Told { since: now, lines: 0, held_back: 0 });
        if told.lines < LINES {
            told.lines += 1;
            return true;
        }
        told.held_back += 1;
        false
    }

    /// Writes what was held back in periods that are over. To be called about once in a [`PERIOD`].
    pub(super) fn tell(&self) {
        write(self.over(Instant::now(), PERIOD));
    }

    /// Writes all that was held back: the node ends.
    pub(super) fn tell_all(&self) {
        write(self.over(Instant::now(), Duration::ZERO));
    }

    /// Ends the periods that are this old.
    fn over(&self, now: Instant, age: Duration) -> Vec<HeldBack> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut over = Vec::new();
        all.retain(|(address, reason), told| {
            if now.saturating_duration_since(told.since) < age {
                return true;
            }
            if told.held_back > 0 {
                over.push(HeldBack { address: *address, reason: reason.clone(), count: told.held_back });
            }
            false
        });
        // So that the log does not depend on the order of a hash map.
        over.sort_by(|one, other| (one.address, &one.reason).cmp(&(other.address, &other.reason)));
        over
    }
}

fn write(over: Vec<HeldBack>) {
    for HeldBack { address, reason, count } in over {
        match address {
            Some(address) => info!(peer.addr = %address, count, "{count} more not logged in the last minute: {reason}"),
            None => info!(count, "{count} more from other peers not logged in the last minute"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn what_is_not_logged_is_counted_and_told() {
        let limit = LogLimit::default();
        let begun = Instant::now();
        let lines = (0..1000).filter(|_| limit.allows_at(PEER, "no title", begun)).count();
        assert_eq!(lines, LINES as usize);
        assert!(limit.allows_at(PEER, "no certificate", begun), "another reason");
        assert!(limit.allows_at(OTHER, "no title", begun), "another peer");
        assert_eq!(limit.over(begun + PERIOD / 2, PERIOD), []);
        let held_back = HeldBack { address: Some(PEER), reason: "no title".to_owned(), count: 1000 - u64::from(LINES) };
        assert_eq!(limit.over(begun + PERIOD, PERIOD), [held_back]);
        assert!(limit.allows_at(PEER, "no title", begun + PERIOD), "a new period");
        assert_eq!(limit.over(begun + 3 * PERIOD, PERIOD), [], "told once");
    }

    #[test]
    fn many_peers_take_no_more_than_so_much_memory_and_none_is_lost() {
        let limit = LogLimit::default();
        let begun = Instant::now();
        let mut written = 0;
        for number in 0..20_000_u32 {
            written += u64::from(limit.allows_at(IpAddr::V4(number.into()), "no title", begun));
        }
        assert!(limit.0.lock().unwrap().len() <= MAX_KEYS + 1);
        let told: u64 = limit.over(begun, Duration::ZERO).iter().map(|held_back| held_back.count).sum();
        assert_eq!(written + told, 20_000);
    }
}
