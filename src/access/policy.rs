//! Who may associate: one decision, in one place.

use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderPresentationReason as PresentationReason,
    AssociationRJServiceUserReason as UserReason, AssociationRJSource,
};

use crate::access::peers::{Admission, PeerRefusal, SharedPeers};
use crate::model::ae_title::AeTitle;
use crate::ul::associate::AssociationRequest;

/// The rules by which associations are accepted.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    /// The AE title that has to be called.
    pub own_ae_title: AeTitle,
    /// Whether any other called AE title does as well.
    pub called_ae_title: CalledAeTitle,
    /// Who may call.
    pub peers: SharedPeers,
}

/// A rejection, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What the peer is told.
    pub pdu: AssociationRJ,
    /// What the log is told, where that is more.
    pub refused: Option<PeerRefusal>,
}

/// Which called AE titles are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CalledAeTitle {
    /// Only our own.
    #[default]
    OwnOnly,
    /// Whatever the peer calls us.
    Any,
}

impl AccessPolicy {
    /// Accepts a request, or says with which result, source and reason it is rejected (PS3.8 table 9-21).
    ///
    /// # Errors
    /// The rejection to send.
    pub fn decide(&self, request: &AssociationRequest<'_>) -> Result<Admission, Rejection> {
        let permanent = |reason| AssociationRJ {
            result: AssociationRJResult::Permanent,
            source: AssociationRJSource::ServiceUser(reason),
        };
        match self.called_ae_title {
            CalledAeTitle::Any => {}
            CalledAeTitle::OwnOnly if request.called_ae_title == self.own_ae_title.as_str() => {}
            CalledAeTitle::OwnOnly => {
                return Err(Rejection { pdu: permanent(UserReason::CalledAETitleNotRecognized), refused: None });
            }
        }
        // A right title from a wrong address is told the same: nobody outside learns which titles there are.
        let peers = self.peers.current();
        peers.admit(request.calling_ae_title, request.peer.ip(), request.transport).map_err(|refused| Rejection {
            pdu: permanent(UserReason::CallingAETitleNotRecognized),
            refused: Some(refused),
        })
    }
}

/// The rejection when all associations, or all of one peer, are taken: worth trying again later (PS3.8 table 9-21, source 3, reason 2).
#[must_use]
pub(crate) fn local_limit_exceeded() -> AssociationRJ {
    AssociationRJ {
        result: AssociationRJResult::Transient,
        source: AssociationRJSource::ServiceProviderPresentation(PresentationReason::LocalLimitExceeded),
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
            let rejection = policy.decide(&request(other)).unwrap_err().pdu;
            assert_eq!(rejection.result, AssociationRJResult::Permanent);
            assert_eq!(rejection.source, AssociationRJSource::ServiceUser(UserReason::CalledAETitleNotRecognized));
        }
        policy.called_ae_title = CalledAeTitle::Any;
        assert!(policy.decide(&request("ANYTHING")).is_ok());
    }
}
