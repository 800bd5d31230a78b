//! `dcmdex peer` lists the peers of the settings file, adds one, and asks all of them for a C-ECHO.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::output::Shown;
use crate::cli::Exit;
use crate::cli::context::{Chattiness, Context};
use crate::config::Config;
use crate::files::{UnfinishedFile, with_suffix};
use crate::model::ae_title::AeTitle;
use crate::ul::requestor;
use crate::ul::tls::{PeerRoute, Tls};

#[derive(Debug, Args)]
pub(super) struct PeerArgs {
    #[command(subcommand)]
    action: PeerAction,
}

#[derive(Debug, Subcommand)]
enum PeerAction {
    /// Add a `[[peer]]` to the settings file, and keep its comments
    Add(PeerAddArgs),
    /// List the peers: what each may ask, from where, and where C-MOVE sends
    List,
    /// Ask each peer that has an address for a C-ECHO
    Check,
}

#[derive(Debug, Args)]
struct PeerAddArgs {
    /// Its AE title
    #[arg(value_name = "AET")]
    ae_title: AeTitle,
    /// Host to which C-MOVE sends
    #[arg(long, value_name = "HOST", requires = "port")]
    host: Option<String>,
    /// Port to which C-MOVE sends
    #[arg(long, value_name = "N", requires = "host", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Address or network from which it may call. May be repeated
    #[arg(long = "from", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Services that it may use, with a comma between [default: all]
    #[arg(long, value_name = "SERVICE,...", value_delimiter = ',')]
    services: Vec<String>,
    /// It must use TLS
    #[arg(long)]
    tls: bool,
}

pub(super) fn run(arguments: &PeerArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = context.configure(Vec::new(), Chattiness::Tool)?;
    match &arguments.action {
        PeerAction::Add(arguments) => add(arguments, &config, context),
        PeerAction::List => list(&config, context),
        PeerAction::Check => check(&config, context),
    }
}

fn add(arguments: &PeerAddArgs, config: &Config, context: &mut Context) -> anyhow::Result<Exit> {
    let Some(file) = &config.file else {
        bail!("there is no settings file; hint: `dcmdex config init` writes one");
    };
    let title = arguments.ae_title.as_str();
    if config.peers.table.as_ref().is_some_and(|table| table.contains_key(&arguments.ae_title)) {
        bail!("{} has a peer {title}; change it there", Shown(file));
    }
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut document: DocumentMut = text.parse().with_context(|| format!("cannot read {}", file.display()))?;
    let peers = document.entry("peer").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(peers) = peers.as_array_of_tables_mut() else {
        bail!("peers of {} are not written as [[peer]], one for each", Shown(file));
    };
    peers.push(entry(arguments));
    let mut changed = document.to_string();
    if config.require_end {
        // What followed the last entry may now stand before the new one.
        let lines: Vec<&str> = changed.lines().filter(|line| line.trim() != "# end").collect();
        changed = format!("{}\n\n# end\n", lines.join("\n").trim_end());
    }
    let old_table = config.peers.table.is_some();
    write(file, &changed, context)?;
    context.output.line(format_args!("added {title} to {}", Shown(file)))?;
    if !old_table {
        context
            .output
            .line("note: this is the first [[peer]]; from the next start on, only peers of the table may associate")?;
    }
    context.output.line("hint: SIGHUP (`systemctl reload dcmdex`) has a running node read it")?;
    Ok(Exit::Done)
}

fn entry(arguments: &PeerAddArgs) -> Table {
    let mut table = Table::new();
    table.insert("ae_title", value(arguments.ae_title.as_str()));
    if !arguments.addresses.is_empty() {
        table.insert("addresses", value(arguments.addresses.iter().collect::<toml_edit::Array>()));
    }
    if !arguments.services.is_empty() {
        table.insert("services", value(arguments.services.iter().collect::<toml_edit::Array>()));
    }
    if let (Some(host), Some(port)) = (&arguments.host, arguments.port) {
        table.insert("host", value(host));
        table.insert("port", value(i64::from(port)));
    }
    if arguments.tls {
        table.insert("tls", value(true));
    }
    table
}

/// Replaces the settings file, if the new one is valid. The owner and the permissions stay.
fn write(file: &Path, text: &str, context: &Context) -> anyhow::Result<()> {
    let file = &file.canonicalize().with_context(|| format!("cannot open {}", file.display()))?;
    let new = with_suffix(file, ".new");
    let write = || -> std::io::Result<UnfinishedFile> {
        let former = fs::metadata(file)?;
        let mut written = UnfinishedFile::under(new.clone(), file, former.mode() & 0o7777)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(written.file(), Some(former.uid()), Some(former.gid()))?;
        }
        written.file().set_permissions(former.permissions())?;
        written.write_all(text.as_bytes())?;
        Ok(written)
    };
    let written = write().with_context(|| format!("cannot write {}", new.display()))?;
    let mut sources = context.sources.clone();
    sources.file = Some(new);
    sources.flags = Vec::new();
    let here = std::env::current_dir().context("cannot find the current directory")?;
    let changed = Config::load(&sources, &here).and_then(|config| config.admitted());
    changed.context("the new peer is refused, and nothing was changed")?;
    written.finish().with_context(|| format!("cannot write {}", file.display()))
}

fn list(config: &Config, context: &mut Context) -> anyhow::Result<Exit> {
    for (table, _, fields) in config.entries() {
        if table != "peer" {
            continue;
        }
        let fields: BTreeMap<&str, String> = fields.map(|(name, setting)| (name, setting.value.to_string())).collect();
        let text = |name: &str| fields.get(name).cloned();
        let title = text("ae_title").unwrap_or_default();
        let services = text("services").unwrap_or_else(|| "all services".to_owned());
        let from = text("addresses").unwrap_or_else(|| "any address".to_owned());
        let to = match (text("host"), text("port")) {
            (Some(host), Some(port)) => format!("; C-MOVE sends to {host} port {port}"),
            _ => String::new(),
        };
        context.output.line(format_args!("{title}: {services} from {from}{to}"))?;
    }
    if config.peers.table.is_none() {
        context.output.line("there is no table of peers")?;
    }
    Ok(Exit::Done)
}

fn check(config: &Config, context: &mut Context) -> anyhow::Result<Exit> {
    // The key is read only for TLS, since only the service may have permission to read it.
    let wants_tls = config.peers.destinations.values().any(|destination| destination.tls);
    let tls = config.tls.as_ref().filter(|_| wants_tls).map(Tls::load).transpose()?.map(Arc::new);
    let waits = config.node.waits();
    let mut failed = 0;
    for (title, destination) in &config.peers.destinations {
        let route = PeerRoute { destination: destination.clone(), tls: tls.clone() };
        match requestor::echo(&config.node.ae_title, title, &route, waits) {
            Ok(_) => context.output.line(format_args!("{title}: answers at {}", destination.address))?,
            Err(error) => {
                failed += 1;
                let error = super::context::in_one_line(&anyhow::Error::from(error));
                context.output.line(format_args!("{title}: DOES NOT ANSWER at {}: {error}", destination.address))?
            }
        };
    }
    if config.peers.destinations.is_empty() {
        context.output.line("no peer has an address")?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::Partly })
}
