//! The order in which instances are sent.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use super::sending::Sending;
use crate::archive::{Archives, WantedMembers};
use crate::db::Search;
use crate::db::open::Reader;
use crate::model::location::Place;

/// Instances whose places are looked up before their turn, where the order in which they lie in an archive counts: they are
/// read in two passes of it at most, and some 500 bytes are kept of each.
const LOOK_AHEAD: usize = 4096;

/// In which order instances are sent: that of the list, but for members of an archive whose bytes can only be had in their
/// order. The order of sub-operations is free (PS3.4 C.4.2.3.1, C.4.3.3.1).
pub(crate) struct SendOrder {
    sending: Arc<Sending>,
    over: Vec<bool>,
    /// The first one that may still be to be sent.
    next: usize,
    /// The one before.
    last: Option<usize>,
    /// Up to where it is known which members of the archive at hand are wanted.
    looked_up: usize,
    members: HashMap<OsString, usize>,
    wanted: WantedMembers,
}

impl SendOrder {
    pub(crate) fn new(sending: &Arc<Sending>) -> Self {
        let mut over = sending.over.clone();
        over.resize(sending.instances.len(), false);
        let (members, wanted) = (HashMap::new(), WantedMembers::default());
        Self { sending: Arc::clone(sending), over, next: 0, last: None, looked_up: 0, members, wanted }
    }

    pub(crate) fn next(&mut self, archives: &Archives, reader: Option<&mut Reader>) -> Option<usize> {
        let at = match self.next_member(archives, reader) {
            Some(at) => at,
            None => {
                self.next = (self.next..self.over.len()).find(|&at| self.is_to_send(at))?;
                self.next
            }
        };
        self.last = Some(at);
        if let Some(over) = self.over.get_mut(at) {
            *over = true;
        }
        Some(at)
    }

    fn is_to_send(&self, at: usize) -> bool {
        let is_over = self.over.get(at).copied().unwrap_or(true);
        let only = self.sending.only.as_ref();
        !is_over && self.sending.instances.get(at).is_some_and(|instance| only.is_none_or(|only| only(instance.kind)))
    }

    /// The next one in the archive at hand, where its members lie in an order.
    fn next_member(&mut self, archives: &Archives, reader: Option<&mut Reader>) -> Option<usize> {
        if self.members.is_empty() && archives.have_an_order() && self.next >= self.looked_up {
            self.look_up(reader?)?;
        }
        let member = archives.next_of(&self.wanted);
        let at = member.and_then(|member| {
            self.wanted.remove(&member);
            self.members.remove(&member)
        });
        if at.is_none() {
            // None of them is where the index says: each is looked for by itself.
            self.members.clear();
            self.wanted = WantedMembers::default();
        }
        at
    }

    /// Which of the next instances lie in the archive of the one before.
    fn look_up(&mut self, reader: &mut Reader) -> Option<()> {
        let mut member = |at: usize| {
            let instance = self.sending.instances.get(at)?;
            let locations = reader.locations(instance.sop_instance_uid).ok()?;
            locations.into_iter().next().filter(|location| location.place == Place::Archive)
        };
        let archive = member(self.last?)?.directory;
        let end = self.over.len().min(self.next.saturating_add(LOOK_AHEAD));
        for at in self.next..end {
            if self.is_to_send(at)
                && let Some(location) = member(at)
                && location.directory == archive
            {
                self.wanted.add(&location.file_name);
                self.members.insert(location.file_name, at);
            }
        }
        self.looked_up = end;
        Some(())
    }
}
