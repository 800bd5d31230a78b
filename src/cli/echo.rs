//! `dcmdex echo` checks that a peer answers (C-ECHO, PS3.4 annex A).

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::cli::Exit;
use crate::cli::context::{Chattiness, Context};
use crate::cli::peer_name::configured_peer;
use crate::ul::requestor::{self, RejectionReason, ScuError};

const EXAMPLES: &str = "\
Examples:
  dcmdex echo PACS=10.1.2.3:104
  dcmdex echo CT1               a [[peer]] with host and port, or a line of [peers]

Exit codes: 0 Success; 1 another status; 2 no answer.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EchoArgs {
    /// AE title of a configured peer, or AET=HOST:PORT. Only a configured one can be called by TLS
    #[arg(value_name = "PEER")]
    peer: String,
    /// Write one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &EchoArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = context.configure(Vec::new(), Chattiness::Tool)?;
    let (ae_title, route) = configured_peer(&arguments.peer, &config)?;
    let address = route.destination.address.clone();
    let is_tls = route.tls.is_some();
    let waits = config.node.waits();
    let echoed = requestor::echo(&config.node.ae_title, &ae_title, &route, waits);
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    if arguments.json {
        let mut object = json!({
            "peer": ae_title.as_str(),
            "address": address.to_string(),
            "calling_ae_title": config.node.ae_title.as_str(),
            "answered": echoed.is_ok(),
        });
        match &echoed {
            Ok(echoed) => {
                object["status"] = echoed.status.to_string().into();
                object["association_ms"] = milliseconds(echoed.associated_after).into();
                object["response_ms"] = milliseconds(echoed.answered_after).into();
            }
            Err(error) => object["error"] = error.to_string().into(),
        }
        context.output.line(object)?;
    } else if let Ok(echoed) = &echoed {
        context.output.line(format_args!(
            "{ae_title} at {address} answers {} (association {:.1} ms, response {:.1} ms)",
            echoed.status,
            milliseconds(echoed.associated_after),
            milliseconds(echoed.answered_after)
        ))?;
    }
    match echoed {
        Ok(echoed) if echoed.status.0 == 0 => Ok(Exit::Done),
        Ok(_) => Ok(Exit::Partly),
        Err(_) if arguments.json => Ok(Exit::Failed),
        Err(error) => {
            let hint = hint(&error, is_tls).map_or_else(String::new, |hint| format!("; hint: {hint}"));
            bail!("{ae_title} at {address}, called by {}: {error}{hint}", config.node.ae_title)
        }
    }
}

/// Hint on what to do about a peer that does not answer.
fn hint(error: &ScuError, is_tls: bool) -> Option<&'static str> {
    match error {
        ScuError::SpeaksTls => {
            Some("name its port without TLS, or write a [[peer]] for it with host, port and `tls = true`, and [tls]")
        }
        ScuError::SpeaksNoTls => Some("name its port for TLS, or leave `tls` and `certificates` out of its [[peer]]"),
        ScuError::Tls(_) => is_tls.then_some("`dcmdex config check` tries the certificates"),
        ScuError::Rejected(rejection) => match rejection.reason {
            RejectionReason::CalledAeTitle => Some("the peer has another AE title"),
            RejectionReason::CallingAeTitle => {
                Some("the peer has to know the AE title of this node (ae_title), and its address")
            }
            RejectionReason::Other => None,
        },
        ScuError::Connect(_)
        | ScuError::Slow
        | ScuError::Aborted
        | ScuError::NothingAccepted
        | ScuError::Read(_)
        | ScuError::Write(_)
        | ScuError::NoResponse
        | ScuError::Status(_)
        | ScuError::Unexpected => None,
    }
}
