//! Check of the bytes behind the last wanted element, which finds objects that end too early.
//!
//! Nothing of it is kept, and its faults are not told, except that a wanted element is there. Where
//! it is odd, nothing is known of its end.

use super::*;
use crate::encoding::tag::PIXEL_DATA;
use crate::ingest::parsed::LeastEnd;

impl Core<'_> {
    /// Goes on behind the last wanted element if something is to be read there.
    pub(super) fn pass_last_wanted(&mut self) -> Unusual {
        // The length of an inflated data set is not known without inflating all of it.
        if self.behind == BehindWanted::Nothing || self.inflated {
            self.state = State::Done;
            return Unusual::Stop;
        }
        self.faults_of_wanted = Some(mem::take(&mut self.faults));
        Unusual::Read
    }

    /// Reads a root element behind the last wanted one. An element that cannot be there ends
    /// reading: some writers leave other bytes behind the data set.
    pub(super) fn element_behind(&mut self, tag: u32) -> Unusual {
        // Digital Signatures Sequence and Data Set Trailing Padding.
        let may_follow = matches!(tag >> 16, 0..=PIXEL_DATA_GROUP | 0xFFFA | 0xFFFC);
        if tag <= self.last_tag || !may_follow {
            // A wanted value here is not read. The bytes were at hand, so at least it is told.
            if self.wanted.tags.binary_search(&tag).is_ok()
                && let Some(faults) = &mut self.faults_of_wanted
            {
                faults.add(Fault::UnsortedTags { tag: tag_of(tag) });
            }
            self.state = State::Done;
            return Unusual::Stop;
        }
        Unusual::Read
    }

    /// Whether nothing more is needed, because the last wanted element is behind.
    pub(super) fn is_past_what_is_at_hand(&self) -> bool {
        self.behind == BehindWanted::AtHand && self.faults_of_wanted.is_some()
    }

    /// Ends reading behind the last wanted element. Returns how long the object must be at least.
    pub(super) fn least_end(&mut self) -> Option<LeastEnd> {
        let is_odd = !self.faults.as_slice().is_empty();
        self.faults = self.faults_of_wanted.take()?;
        if is_odd {
            return None;
        }
        let mut here = self.offset;
        let mut end = here;
        if let ValueRest::Skip(length) = self.body {
            here += length;
            // Some writers forget the padding of the last value.
            end = here - 1;
        } else if self.carry.iter().any(|byte| *byte != 0) {
            end += 8.max(self.carry.len() as u64 + 1);
        }
        let mut unended = None;
        for frame in &self.frames {
            if frame.defined {
                end = end.max(frame.end.saturating_sub(1));
            } else if frame.tag == PIXEL_DATA && self.carry.is_empty() {
                unended = Some(tag_of(frame.tag));
            } else {
                end = end.max(self.offset + 8);
            }
        }
        Some(LeastEnd { end, here, unended })
    }
}
