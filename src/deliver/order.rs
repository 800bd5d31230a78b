//! The order in which instances are sent.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use super::sending::Sending;
use crate::archive::{Archives, WantedMembers};
use crate::db::Search;
use crate::db::open::Reader;
use crate::model::location::Place;

/// Number of instances whose locations are looked up ahead of their turn, to read members of an
/// archive in stored order. Such an archive is read in two passes at most. Each instance takes some
/// 500 bytes.
const LOOK_AHEAD: usize = 4096;

/// The order in which instances are sent. It is that of the list, except for members of an archive
/// that can only be read in stored order. The order of sub-operations is free (PS3.4 C.4.2.3.1,
/// C.4.3.3.1).
pub(crate) struct SendOrder {
    sending: Arc<Sending>,
    over: Vec<bool>,
    /// The first instance that may still have to be sent.
    next: usize,
    /// The instance before.
    last: Option<usize>,
    /// Position up to which the wanted members of the current archive are known.
    looked_up: usize,
    members: HashMap<OsString, usize>,
    wanted: WantedMembers,
}

impl SendOrder {
    /// Makes the order of the instances that are to be sent.
    pub(crate) fn new(sending: &Arc<Sending>) -> Self {
        let mut over = sending.over.clone();
        over.resize(sending.instances.len(), false);
        let (members, wanted) = (HashMap::new(), WantedMembers::default());
        Self { sending: Arc::clone(sending), over, next: 0, last: None, looked_up: 0, members, wanted }
    }

    /// Returns the place of the instance that comes next. `None` means that none is left. Without a
    /// `reader` the members of archives are not looked up, and come in the order of the list.
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

    /// Returns the next instance in the current archive, if its members have an order.
    fn next_member(&mut self, archives: &Archives, reader: Option<&mut Reader>) -> Option<usize> {
        if self.members.is_empty() && archives.is_forward_only() && self.next >= self.looked_up {
            self.look_up(reader?)?;
        }
        let member = archives.next_of(&self.wanted);
        let at = member.and_then(|member| {
            self.wanted.remove(&member);
            self.members.remove(&member)
        });
        if at.is_none() {
            // None of them is at its location in the index, so each is looked up separately.
            self.members.clear();
            self.wanted = WantedMembers::default();
        }
        at
    }

    /// Finds which of the next instances are in the archive of the one before.
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
