//! Decides who may associate.

use crate::access::peers::{Admission, PeerRefusal, SharedPeers};
use crate::model::ae_title::AeTitle;
use crate::ul::associate::AssociationRequest;

/// The rules for associations.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    /// The AE title of this node.
    pub own_ae_title: AeTitle,
    /// Whether any other called AE title is accepted too.
    pub called_ae_title: CalledAeTitle,
    /// The peers that may call.
    pub peers: SharedPeers,
}

/// The reason why an association is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The peer called another AE title than ours.
    #[error("the called AE title is not that of this node")]
    CalledAeTitle,
    /// The table of peers does not let the calling AE title in.
    #[error(transparent)]
    CallingAeTitle(#[from] PeerRefusal),
}

impl Denied {
    /// The refusal by the table of peers, if that was the reason.
    #[must_use]
    pub fn peer_refusal(self) -> Option<PeerRefusal> {
        match self {
            Self::CalledAeTitle => None,
            Self::CallingAeTitle(refused) => Some(refused),
        }
    }
}

/// Called AE titles that are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CalledAeTitle {
    /// Only that of this node.
    #[default]
    OwnOnly,
    /// Any AE title.
    Any,
}

impl AccessPolicy {
    /// Decides whether a peer may associate, and for what.
    ///
    /// # Errors
    /// The reason why it may not. The protocol turns it into its own answer.
    pub fn decide(&self, request: &AssociationRequest<'_>) -> Result<Admission, Denied> {
        match self.called_ae_title {
            CalledAeTitle::Any => {}
            CalledAeTitle::OwnOnly if request.called_ae_title == self.own_ae_title.as_str() => {}
            CalledAeTitle::OwnOnly => return Err(Denied::CalledAeTitle),
        }
        let peers = self.peers.current();
        Ok(peers.admit(request.calling_ae_title, request.peer.ip(), request.transport)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ul::tls::Transport;

    fn request(called: &str) -> AssociationRequest<'_> {
        let peer = ([127, 0, 0, 1], 1).into();
        AssociationRequest { calling_ae_title: "PEER", called_ae_title: called, peer, transport: &Transport::Plain }
    }

    #[test]
    fn only_our_own_title_is_accepted_unless_any_is() {
        let own_ae_title: AeTitle = "DCMDEX".parse().unwrap();
        let peers = SharedPeers::default();
        let mut policy = AccessPolicy { own_ae_title, called_ae_title: CalledAeTitle::OwnOnly, peers };
        assert!(policy.decide(&request("DCMDEX")).is_ok());
        for other in ["dcmdex", "DCMDEX2", ""] {
            assert_eq!(policy.decide(&request(other)), Err(Denied::CalledAeTitle));
        }
        policy.called_ae_title = CalledAeTitle::Any;
        assert!(policy.decide(&request("ANYTHING")).is_ok());
    }
}
