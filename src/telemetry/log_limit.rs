//! Limits the log lines about peers that are turned away, or whose objects are.
//!
//! One client that tried again without a pause made 34 GB of log in a day. The first lines about a
//! peer have all that there is to know. For the others, one line each minute has their number.
//! Metrics count all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

/// Time over which the lines about one peer are counted. Larger: the log says later how often a
/// peer was turned away. Smaller: the log grows faster.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);

/// Maximum lines about one peer and one reason in a period. Larger: the log gets more lines from
/// peers in a loop. Smaller: the log shows other titles or certificates of the same address later.
const LINES: u32 = 10;

/// Maximum pairs of peer and reason that are counted separately. Each takes some 100 bytes. The
/// lines of further pairs in a period are counted together.
const MAX_KEYS: usize = 4096;

/// The address of a peer that is turned away, and the reason. Pairs above the limit have no
/// address.
type RefusalKey = (Option<IpAddr>, String);

/// The log lines about one peer in this period.
#[derive(Debug)]
struct Told {
    since: Instant,
    lines: u32,
    held_back: u64,
}

/// Number of lines that were written, and of lines that were not.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<HashMap<RefusalKey, Told>>);

/// Lines that were held back.
#[derive(Debug, PartialEq, Eq)]
struct HeldBack {
    address: Option<IpAddr>,
    reason: String,
    count: u64,
}

impl LogLimit {
    /// Whether a line about this peer is written. A period of a peer ends when [`Self::tell`] finds
    /// it over. If not, it is counted for [`Self::tell`].
    pub(crate) fn allows(&self, address: IpAddr, reason: &str) -> bool {
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

    /// Writes the counts of periods that are over. It should be called about once in a [`PERIOD`].
    pub(crate) fn tell(&self) {
        write(self.over(Instant::now(), PERIOD));
    }

    /// Writes all counts, when the node ends.
    pub(crate) fn tell_all(&self) {
        write(self.over(Instant::now(), Duration::ZERO));
    }

    /// Ends the periods of at least this age.
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
        // The log must not depend on the order of a hash map.
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
