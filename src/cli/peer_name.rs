//! The name of a peer on the command line.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::config::Config;
use crate::model::ae_title::AeTitle;
use crate::model::peer::{Peer, PeerAddress};
use crate::ul::destination::Destination;
use crate::ul::tls::{PeerRoute, Tls};

/// Finds a peer by the AE title of a configured one, or by `AET=HOST:PORT`.
pub(super) fn configured_peer(text: &str, config: &Config) -> anyhow::Result<(AeTitle, PeerRoute)> {
    let (ae_title, destination) = if text.contains('=') {
        let peer: Peer = text.parse()?;
        (peer.ae_title, Destination::plain(peer.address))
    } else {
        if text.parse::<PeerAddress>().is_ok() {
            bail!("{text} has no AE title; hint: name the peer as AET={text}");
        }
        let ae_title: AeTitle = text.parse()?;
        let known = config.peers.destinations.get(&ae_title).cloned();
        let destination = known.with_context(|| {
            format!("the peer {ae_title} has no configured address; hint: name it as {ae_title}=HOST:PORT")
        })?;
        (ae_title, destination)
    };
    // The key is read only for TLS, since only the service may have permission to read it.
    let tls = config.tls.as_ref().filter(|_| destination.tls).map(Tls::load).transpose()?.map(Arc::new);
    Ok((ae_title, PeerRoute { destination, tls }))
}
