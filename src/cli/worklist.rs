//! `dcmdex worklist` shows, adds and removes items of the modality worklist.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{Escaped, Shown};
use crate::cli::Exit;
use crate::cli::context::{Context, IndexArgs, in_one_line, make_directory_of};
use crate::config::Config;
use crate::db::open::{Reader, Writer, may_exist};
use crate::db::{
    PerformedStep, WorklistAsked, WorklistColumn, WorklistProblem, WorklistRequest, WorklistRow, WorklistSearch,
    WorklistSource,
};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;
use crate::worklist::{Intake, MAX_ITEM_LENGTH, OrderFacts, PutOutcome, complete, read_items};

#[derive(Debug, Args)]
pub(super) struct WorklistArgs {
    #[command(subcommand)]
    command: WorklistCommand,
}

#[derive(Debug, Subcommand)]
enum WorklistCommand {
    /// Add items, or change those of the same order
    Add(AddArgs),
    /// List items
    List(ListArgs),
    /// Show all attributes of an item, in the DICOM JSON Model
    Show(ShowArgs),
    /// List the performed procedure steps that modalities reported
    Steps(StepsArgs),
    /// Remove items for good
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Files: Part 10, a bare data set, DICOM JSON, or JSON with keywords. `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Also list items that are done, cancelled or expired
    #[arg(long)]
    all: bool,
    /// List the files and messages that could not become items instead
    #[arg(long, conflicts_with = "all")]
    problems: bool,
    /// Write one JSON object per line (docs/json.md)
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Number of the item in `dcmdex worklist list`
    item: i64,
}

#[derive(Debug, Args)]
struct StepsArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Write one JSON object per line (docs/json.md)
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Numbers of the items in `dcmdex worklist list`
    #[arg(required = true, value_name = "ITEM")]
    items: Vec<i64>,
}

pub(super) fn run(arguments: WorklistArgs, context: &mut Context) -> anyhow::Result<Exit> {
    match arguments.command {
        WorklistCommand::Add(arguments) => add(&arguments, context),
        WorklistCommand::List(arguments) => list(&arguments, context),
        WorklistCommand::Show(arguments) => show(&arguments, context),
        WorklistCommand::Steps(arguments) => steps(&arguments, context),
        WorklistCommand::Remove(arguments) => remove(&arguments, context),
    }
}

fn add(arguments: &AddArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    make_directory_of(&config.index)?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    let intake = Intake::new(Box::new(writer.handle()), config.worklist.intake.clone());
    let mut exit = Exit::Done;
    for file in &arguments.files {
        if let Err(error) = add_file(file, &intake, &config, context) {
            tracing::error!("{}: {}", Shown(file), in_one_line(&error));
            exit = Exit::Partly;
        }
    }
    writer.close()?;
    if !config.worklist.enabled {
        tracing::warn!("peers cannot ask for the worklist: `worklist.enabled` is false");
    }
    Ok(exit)
}

/// Adds the items of one file: all of them, or none.
fn add_file(file: &Path, intake: &Intake, config: &Config, context: &mut Context) -> anyhow::Result<()> {
    let items = read_items(&bytes_of(file)?, &config.find.assumed_character_set)?;
    let now_ms = Clock::System.now_ms();
    let facts = OrderFacts {
        source: WorklistSource::Command,
        origin: String::new(),
        order_keys: Vec::new(),
        message_time: String::new(),
        now_ms,
    };
    let drafts: Vec<_> =
        items.into_iter().map(|item| complete(item, facts.clone(), &intake.options())).collect::<Result<_, _>>()?;
    let notes: Vec<_> = drafts.iter().map(|draft| (draft.generated(), draft.warnings().to_vec())).collect();
    let outcomes = intake.put(drafts)?;
    for (outcome, (generated, warnings)) in outcomes.into_iter().zip(notes) {
        for warning in warnings {
            tracing::warn!("{}: {warning}", Shown(file));
        }
        let word = match outcome {
            PutOutcome::New => "added",
            PutOutcome::Changed => "changed",
            PutOutcome::Unchanged => "was there already",
            PutOutcome::StaysCancelled => "stays cancelled",
            PutOutcome::Outdated => "is newer already",
        };
        let made = if generated.is_empty() { String::new() } else { format!("; made here: {}", generated.join(", ")) };
        context.output.line(format_args!("{}: {word}{made}", Shown(file)))?;
    }
    Ok(())
}

/// Reads a file up to the longest that is an item, and a byte more.
fn bytes_of(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = MAX_ITEM_LENGTH as u64 + 1;
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)).context("cannot be read")?;
    }
    Ok(bytes)
}

fn list(arguments: &ListArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    let mut reader = Reader::open(&config.index)?;
    if arguments.problems {
        return list_problems(&mut reader, arguments.json, context);
    }
    let now_ms = Clock::System.now_ms();
    let asked: HashMap<i64, WorklistAsked> =
        reader.worklist_asked()?.into_iter().map(|asked| (asked.item, asked)).collect();
    let open_at = (!arguments.all).then_some(now_ms);
    let request = WorklistRequest { open_at, conditions: Vec::new() };
    let (mut count, mut written) = (0_u64, Ok(()));
    reader.worklist(&request, &mut |row| {
        count += 1;
        let asked = asked.get(&row.id);
        let line = if arguments.json { as_json(&row, asked, now_ms).to_string() } else { as_text(&row, asked, now_ms) };
        written = context.output.line(line).map(drop);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    Ok(match count {
        0 if arguments.all => nothing(context, "the worklist is empty; hint: `dcmdex worklist add` adds items"),
        0 => nothing(context, "the worklist has no open items; hint: --all lists the others as well"),
        _ => Exit::Done,
    })
}

/// Says on standard error that a list has nothing.
fn nothing(context: &Context, why: &str) -> Exit {
    context.tell(why);
    Exit::Partly
}

/// The state of an item as a word. One that nobody started in time has expired.
fn state_word(row: &WorklistRow, now_ms: i64) -> &'static str {
    if row.state.is_open() && row.expires_ms <= now_ms { "expired" } else { row.state.as_str() }
}

fn as_json(row: &WorklistRow, asked: Option<&WorklistAsked>, now_ms: i64) -> Value {
    let value = |column| Value::from(row.value(column));
    json!({
        "item": row.id,
        "state": state_word(row, now_ms),
        "start_date": value(WorklistColumn::StartDate),
        "start_time": value(WorklistColumn::StartTime),
        "modality": value(WorklistColumn::Modality),
        "station_ae_title": value(WorklistColumn::StationAeTitle),
        "patient_id": value(WorklistColumn::PatientId),
        "patient_name": value(WorklistColumn::PatientName),
        "accession_number": value(WorklistColumn::AccessionNumber),
        "study_instance_uid": value(WorklistColumn::StudyInstanceUid),
        "scheduled_procedure_step_id": value(WorklistColumn::StepId),
        "source": row.source.as_str(),
        "origin": row.origin,
        "generated": row.generated,
        "warnings": row.warnings,
        "received_ms": row.received_ms,
        "changed_ms": row.changed_ms,
        "expires_ms": row.expires_ms,
        "asked_by": asked.map(|asked| asked.ae_title.as_str()),
        "asked_ms": asked.map(|asked| asked.asked_ms),
    })
}

fn as_text(row: &WorklistRow, asked: Option<&WorklistAsked>, now_ms: i64) -> String {
    let value = |column| match row.value(column) {
        "" => "-".to_owned(),
        text => Escaped(text).to_string(),
    };
    let time = value(WorklistColumn::StartTime).chars().take(6).collect::<String>();
    let asked = asked.map_or_else(
        || "nobody asked".to_owned(),
        |asked| format!("asked by {} {}", Escaped(&asked.ae_title), moment_text(asked.asked_ms)),
    );
    let origin = if row.origin.is_empty() { String::new() } else { format!(" {}", Escaped(&row.origin)) };
    let warnings: String = row.warnings.iter().map(|warning| format!("\n        ! {warning}")).collect();
    format!(
        "{:>6}  {:<12}  {} {:<6}  {:<4}  {:<16}  {}  {}  {}  {}{origin}  {asked}{warnings}",
        row.id,
        state_word(row, now_ms),
        value(WorklistColumn::StartDate),
        time,
        value(WorklistColumn::Modality),
        value(WorklistColumn::StationAeTitle),
        value(WorklistColumn::AccessionNumber),
        value(WorklistColumn::PatientId),
        value(WorklistColumn::PatientName),
        row.source.as_str(),
    )
}

fn list_problems(reader: &mut Reader, as_json: bool, context: &mut Context) -> anyhow::Result<Exit> {
    let problems = reader.worklist_problems()?;
    for WorklistProblem { source, origin, reason, noted_ms } in &problems {
        let (source, noted) = (source.as_str(), moment_text(*noted_ms));
        if as_json {
            let line = json!({ "source": source, "origin": origin, "reason": reason, "noted_ms": noted_ms });
            context.output.line(line)?;
        } else {
            context.output.line(format_args!("{noted}  {source} {}: {}", Escaped(origin), Escaped(reason)))?;
        }
    }
    Ok(if problems.is_empty() { nothing(context, "no order had a problem") } else { Exit::Done })
}

fn show(arguments: &ShowArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    let Some(row) = Reader::open(&config.index)?.worklist_row(arguments.item)? else {
        bail!("there is no item {} in the worklist", arguments.item);
    };
    let item: Value = serde_json::from_str(&row.item).context("the index does not hold a valid item there")?;
    context.output.line(serde_json::to_string_pretty(&item)?)?;
    Ok(Exit::Done)
}

fn steps(arguments: &StepsArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    let steps = Reader::open(&config.index)?.performed_steps()?;
    for step in &steps {
        let PerformedStep { sop_instance_uid, status, station_ae_title, sender, created_ms, changed_ms, .. } = step;
        if arguments.json {
            let attributes: Value = serde_json::from_str(&step.attributes).unwrap_or(Value::Null);
            context.output.line(json!({
                "sop_instance_uid": sop_instance_uid,
                "status": status,
                "station_ae_title": station_ae_title,
                "sender": sender,
                "created_ms": created_ms,
                "changed_ms": changed_ms,
                "attributes": attributes,
            }))?;
        } else {
            let (created, changed) = (moment_text(*created_ms), moment_text(*changed_ms));
            let (status, station, sender) = (Escaped(status), Escaped(station_ae_title), Escaped(sender));
            let uid = Escaped(sop_instance_uid);
            context.output.line(format_args!("{created}  {changed}  {status}  {station}  from {sender}  {uid}"))?;
        }
    }
    Ok(if steps.is_empty() { nothing(context, "no modality has reported a step") } else { Exit::Done })
}

fn remove(arguments: &RemoveArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    if !may_exist(&config.index) {
        bail!("there is no index at {}", config.index.display());
    }
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    let intake = Intake::new(Box::new(writer.handle()), config.worklist.intake.clone());
    let items = arguments.items.clone();
    let removed: Vec<bool> =
        intake.change(move |tables| items.into_iter().map(|item| tables.remove(item)).collect())?;
    writer.close()?;
    let mut exit = Exit::Done;
    for (item, removed) in arguments.items.iter().zip(removed) {
        if removed {
            context.output.line(format_args!("{item}: removed"))?;
        } else {
            tracing::error!("there is no item {item} in the worklist");
            exit = Exit::Partly;
        }
    }
    Ok(exit)
}
