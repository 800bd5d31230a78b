//! Warnings for an operator at a start, and after new settings.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::hl7::WorklistControl;
use crate::access::peers::{Grant, Security};
use crate::cli::correct::kept;
use crate::cli::unindexed;
use crate::config::Config;
use crate::db::ScanLedger as _;
use crate::db::host_name;
use crate::db::open::{Reader, WriterHandle, may_exist};
use crate::model::location::Place;
use crate::scp::Plain;
use crate::store::Objects;
use crate::ul::tls::ClientCertificates;

/// Warns about an index that does not exist. That is the sign of a wrong path, or of a disk that is
/// not mounted.
pub(super) fn warn_of_new_index(config: &Config) {
    if !may_exist(&config.index) {
        tracing::warn!(
            index = %config.shown_index().display(),
            "there is no index, so the node makes a new one that knows nothing. If there was one, its disk may not be \
             mounted: end the node, mount it, and start again"
        );
    }
}

/// Warns of what this node has in common with another one that uses the same database. Also warns
/// of a clock that differs from that of the server.
pub(super) fn warn_of_other_nodes(
    config: &Config,
    objects: Option<&Arc<Objects>>,
    writer: &WriterHandle,
) -> anyhow::Result<()> {
    let storage = objects.map(|objects| objects.root());
    for common in writer.announce(&config.node.ae_title.to_string(), &host_name(), storage)? {
        tracing::warn!("{common}");
    }
    Ok(())
}

/// Warns the operator about a node that is more open than it may seem.
pub(super) fn warn_when_open(config: &Config) {
    if !config.is_reachable_from_outside() {
        return;
    }
    let address = config.node.bind;
    // A client without a certificate of our authorities cannot associate.
    let guarded = config.tls.as_ref().map(|tls| tls.client_certificates) == Some(ClientCertificates::Required)
        && config.node.plain == Plain::Refuse;
    let Some(table) = config.peers.table.as_ref() else {
        if guarded {
            return;
        }
        tracing::warn!(
            %address,
            "other machines can reach this address, and anyone may associate (access): they can store and query"
        );
        return;
    };
    let open = |grant: &&Grant| grant.addresses.is_empty() && grant.security == Security::Any;
    let from_anywhere = table.values().filter(open).count();
    if from_anywhere > 0 && !guarded {
        tracing::warn!(
            %address,
            peers = from_anywhere,
            "other machines can reach this address, and some peers may call from any address: their AE title is enough"
        );
    }
}

/// Warns about instances that were indexed before an attribute was declared.
pub(super) fn warn_of_lacking(config: &Config) -> anyhow::Result<()> {
    if config.declared.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::open(&config.index)?.with_declared(Arc::clone(&config.declared));
    let mut lacking = |place| reader.without_declared_below(place, Path::new(""));
    let (in_place, managed, metadata) =
        (lacking(Place::InPlace)? + lacking(Place::Archive)?, lacking(Place::Managed)?, lacking(Place::MetadataOnly)?);
    if in_place + managed > 0 {
        tracing::warn!(
            instances = in_place + managed,
            "instances lack declared attributes, because they were indexed earlier; `dcmdex scan` of their directories adds them"
        );
    }
    if metadata > 0 {
        tracing::warn!(
            instances = metadata,
            "instances can never get declared attributes, because their objects are not kept (metadata only)"
        );
    }
    Ok(())
}

/// Warns about objects that the index lacks, as far as a short look finds them.
pub(super) fn warn_of_strays(objects: &Objects, config: &Config) -> anyhow::Result<()> {
    if !config.start_check {
        return Ok(());
    }
    let found = unindexed::count_some(&mut Reader::open(&config.index)?, objects.root())?;
    if found.objects > 0 {
        tracing::warn!(
            objects = found.objects,
            "the storage directory holds objects that the index lacks; end the node and run `dcmdex rebuild` to index them"
        );
    }
    Ok(())
}

/// Compares the corrections of the index with those that lie beside the objects. An index that was
/// lost, or put back from an older copy, may lack rules, and so answer with the wrong patient.
pub(super) fn compare_corrections(objects: &Objects, config: &Config) {
    let compare = || {
        let mut reader = Reader::open(&config.index)?;
        if reader.files().len() > 1 {
            // Each file has rules of its own.
            return Ok(());
        }
        let lacking = kept::lacking(&mut reader, objects.root())?.len();
        if lacking > 0 {
            tracing::warn!(
                corrections = lacking,
                "the index lacks corrections that lie beside the received objects, so it may answer with the wrong \
                 patient. End the node and run `dcmdex rebuild`, which brings them back"
            );
        }
        if kept::write_missing(config, objects.root())? {
            tracing::info!("corrections of the index that the file beside the received objects lacked are there now");
        }
        anyhow::Ok(())
    };
    // The causes may hold values of patients.
    if let Err(error) = compare() {
        tracing::warn!(%error, "cannot compare the corrections beside the received objects with those of the index");
    }
}

/// Logs the changed settings that need a restart.
pub(super) fn warn_of_restart(old: &Config, new: &Config, has_tls: bool) {
    /// The settings that SIGHUP reads again, besides the peers.
    const CERTIFICATES: [&str; 4] = ["tls.certificate", "tls.key", "tls.authorities", "tls.client_certificates"];
    // Otherwise a port would have to open or close.
    let certificates_taken = has_tls == new.tls.is_some();
    let before: HashMap<_, _> = old.settings().map(|(path, setting)| (path, &setting.value)).collect();
    let changed = new.settings().filter(|(path, setting)| before.get(path) != Some(&&setting.value));
    let is_taken = |path: &str| {
        // `AccessHistory::take` has already decided who may associate.
        path == "access"
            || path.starts_with("peers.")
            || WorklistControl::SETTINGS.contains(&path)
            || certificates_taken && CERTIFICATES.contains(&path)
    };
    let mut later: Vec<_> = changed.map(|(path, _)| path).filter(|path| !is_taken(path)).collect();
    if old.events.receivers != new.events.receivers {
        later.push("events");
    }
    if !later.is_empty() {
        tracing::warn!(
            settings = later.join(", "),
            "changed settings that a running node does not take over; restart the node"
        );
    }
}
