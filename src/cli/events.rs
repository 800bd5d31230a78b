//! `dcmdex events` shows what the node recorded, follows it, and deals with dead letters.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{Audience, Escaped};
use crate::cli::Exit;
use crate::cli::context::{Context, IndexArgs};
use crate::db::open::{Reader, Writer};
use crate::db::{Admin as _, EventChanges as _, EventKind, EventRecording, EventSearch as _, IndexEvent, WaitingEvent};
use crate::events::{EventSource, message};
use crate::model::calendar::{DAY_MS, moment_text};
use crate::model::clock::Clock;

/// Events that one query reads.
const PAGE: usize = 256;

/// Pause between two looks for new events.
const POLL: Duration = Duration::from_millis(200);

/// Time for which a dead letter is tried again, if its receiver is not among the settings. As
/// long as receivers try by default.
const RETRY_MS: i64 = 3 * DAY_MS;

const EXAMPLES: &str = "\
Examples:
  dcmdex events --json                          all events that are kept
  dcmdex events --follow --json --since 4711    those after number 4711, and then each new one
  dcmdex events --kind conflict --kind damaged
  dcmdex events failed                          what receivers did not take
  dcmdex events retry --receiver ris            try dead letters again";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct EventsArgs {
    #[command(subcommand)]
    command: Option<EventsCommand>,
    #[command(flatten)]
    list: EventListArgs,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// List the events that receivers did not take: dead letters, and those that are tried again
    Failed(FailedArgs),
    /// Have dead letters delivered again by the node
    Retry(RetryArgs),
}

#[derive(Debug, Args)]
struct EventListArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Only events after this number
    #[arg(long, value_name = "N")]
    since: Option<i64>,
    /// Only events of this kind. May be repeated
    #[arg(long, value_name = "KIND")]
    kind: Vec<EventKind>,
    /// Go on with new events. Without --since, begin with those that come now
    #[arg(long)]
    follow: bool,
    /// Write one JSON object per line, as receivers get it (docs/events.md)
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct FailedArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Write one JSON object per line (docs/events.md)
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RetryArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Only those of this receiver
    #[arg(long, value_name = "NAME")]
    receiver: Option<String>,
    /// Numbers of events. Without one, all dead letters are tried again
    #[arg(value_name = "EVENT")]
    events: Vec<i64>,
}

pub(super) fn run(arguments: EventsArgs, context: &mut Context) -> anyhow::Result<Exit> {
    match arguments.command {
        None => list(&arguments.list, context),
        Some(EventsCommand::Failed(arguments)) => failed(&arguments, context),
        Some(EventsCommand::Retry(arguments)) => retry(arguments, context),
    }
}

fn list(arguments: &EventListArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    let mut reader = Reader::open(&config.index)?;
    let source = EventSource { index: reader.index_id()?.unwrap_or_default(), node: config.node.ae_title.to_string() };
    if config.events.recording == EventRecording::Off {
        context.tell("the settings record no events; hint: `event_log.enabled = true`, or a receiver [[events]]");
    }
    let mut after = match arguments.since {
        Some(since) => since,
        None if arguments.follow => reader.last_event()?,
        None => 0,
    };
    loop {
        let events = reader.events_after(after, PAGE)?;
        for event in &events {
            after = event.id;
            let is_wanted = arguments.kind.is_empty() || arguments.kind.iter().any(|kind| kind.as_str() == event.kind);
            if is_wanted && show(event, &source, arguments.json, context)? == Audience::Gone {
                return Ok(Exit::Done);
            }
        }
        if events.len() == PAGE {
            continue;
        }
        if !arguments.follow || context.output.flush()? == Audience::Gone {
            return Ok(Exit::Done);
        }
        thread::sleep(POLL);
    }
}

fn show(event: &IndexEvent, source: &EventSource, json: bool, context: &mut Context) -> anyhow::Result<Audience> {
    let shown = match json {
        true => context.output.line(message(event, source, None)),
        false => context.output.line(format_args!(
            "{:>8}  {}  {:<15}  {}",
            event.id,
            moment_text(event.at_ms),
            event.kind,
            Escaped(&in_words(event))
        )),
    };
    shown.context("cannot write to standard output")
}

/// The study of an event, and its counts.
fn in_words(event: &IndexEvent) -> String {
    let content: Value = serde_json::from_str(&event.content).unwrap_or_default();
    let counts = content.as_object().into_iter().flatten().filter_map(|(name, value)| match value {
        Value::Number(number) => Some(format!("{name} {number}")),
        Value::String(text) if name == "conflict" => Some(text.clone()),
        _ => None,
    });
    let study = Some(event.study_instance_uid.clone()).filter(|uid| !uid.is_empty());
    study.into_iter().chain(counts).collect::<Vec<_>>().join("  ")
}

fn failed(arguments: &FailedArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    let waiting = Reader::open(&config.index)?.failed_events()?;
    for one in &waiting {
        let WaitingEvent { receiver, event, attempts, next_ms, failure, is_dead, .. } = one;
        if arguments.json {
            context.output.line(json!({
                "receiver": receiver,
                "event": event.id,
                "kind": event.kind,
                "time_ms": event.at_ms,
                "study_instance_uid": event.study_instance_uid,
                "attempts": attempts,
                "failure": failure,
                "dead": is_dead,
                "next_ms": (!is_dead).then_some(next_ms),
            }))?;
        } else {
            let state = match is_dead {
                true => "dead letter".to_owned(),
                false => format!("tried again at {}", moment_text(*next_ms)),
            };
            context.output.line(format_args!(
                "{}  {}  {}  {}  {attempts} attempts: {}  ({state})",
                Escaped(receiver),
                event.id,
                event.kind,
                Escaped(&event.study_instance_uid),
                Escaped(failure)
            ))?;
        }
    }
    let has_dead = waiting.iter().any(|one| one.is_dead);
    Ok(if has_dead { Exit::Partly } else { Exit::Done })
}

fn retry(arguments: RetryArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    let waiting = Reader::open(&config.index)?.failed_events()?;
    if let Some(name) = &arguments.receiver
        && !config.events.receivers.iter().any(|receiver| receiver.name == *name)
        && !waiting.iter().any(|event| event.receiver == *name)
    {
        bail!("there is no receiver {name} in the settings, and no event waits for one; hint: `dcmdex events failed`");
    }
    let chosen = |name: &str| arguments.receiver.as_deref().is_none_or(|receiver| receiver == name);
    let receivers = config.events.receivers.iter().filter(|receiver| chosen(&receiver.name));
    let give_up = receivers.map(|receiver| receiver.give_up).max();
    let give_up_ms = give_up.map_or(RETRY_MS, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    let now_ms = Clock::System.now_ms();
    let until_ms = now_ms.saturating_add(give_up_ms);
    let revived = writer.handle().retry_events(arguments.receiver, arguments.events, now_ms, until_ms)?;
    writer.close()?;
    if revived == 0 {
        context.output.line("there are no dead letters to try again")?;
        return Ok(Exit::Partly);
    }
    context.output.line(format_args!("{revived} dead letters are tried again while the node runs"))?;
    Ok(Exit::Done)
}
