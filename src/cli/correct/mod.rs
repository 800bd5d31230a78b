//! `dcmdex correct` makes rules that correct what objects say of their patient. It says first what
//! it would do, and a rule can be undone.

pub(super) mod kept;

use anyhow::bail;
use clap::{ArgGroup, Args};
use serde_json::json;

use super::output::{Grouped, Shown};
use crate::audit::AuditedStudy;
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::context::{Context, StorageArgs};
use crate::config::Config;
use crate::db::open::{Reader, Writer};
use crate::db::{Correction, CorrectionChange, CorrectionEffect};
use crate::model::attribute::{Attribute, AttributeId};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;
use crate::qr;

#[derive(Debug, Args)]
#[command(after_long_help = CORRECT_HELP)]
#[command(group(ArgGroup::new("work").required(true).args(["keys", "list", "undo"]).multiple(false)))]
pub(super) struct CorrectArgs {
    #[command(flatten)]
    settings: StorageArgs,
    /// The right value. KEY="" takes the value away
    #[arg(long, value_name = "KEY=VALUE", requires = "keys")]
    set: Vec<String>,
    /// Do it. Without this option, the command says what it would do
    #[arg(long)]
    yes: bool,
    /// List the corrections
    #[arg(long)]
    list: bool,
    /// End the correction with this number
    #[arg(long, value_name = "N")]
    undo: Option<i64>,
    /// Write one JSON object per line (docs/json.md)
    #[arg(long)]
    json: bool,
    /// Whose objects are wrong: StudyInstanceUID, SeriesInstanceUID or PatientID, and more keys of
    /// the patient. KEY="" stands for objects without a value
    #[arg(value_name = "KEY=VALUE")]
    keys: Vec<String>,
}

const CORRECT_HELP: &str = "\
A correction is a rule in the index. Answers have the corrected values, and so have objects that are \
sent or copied. Objects that come later, or are scanned again, are corrected as well. No file is changed. \
Keys are compared with what objects say, after the corrections that were made before. All keys must match.

Examples:
  dcmdex correct PatientID=4711 --set PatientID=4712               what would be corrected
  dcmdex correct PatientID=4711 --set PatientID=4712 --yes         does it
  dcmdex correct StudyInstanceUID=1.2.3 --set PatientID=4712 --set 'PatientName=SMITH^ANNE' --yes
  dcmdex correct PatientID=1 'IssuerOfPatientID=\"\"' --set IssuerOfPatientID=HOSPITAL --yes
  dcmdex correct --list                                            the corrections with their numbers
  dcmdex correct --undo 3 --yes                                    ends number 3";

pub(super) fn run(arguments: &CorrectArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.settings.configure(context)?;
    let mut reader = Reader::open(&config.index)?;
    if arguments.list {
        return list(&reader.corrections()?, arguments.json, context);
    }
    let now_ms = Clock::System.now_ms();
    let change = match arguments.undo {
        Some(number) => CorrectionChange::Undo { correction: known(&mut reader, &config, number)?, undone_ms: now_ms },
        None => {
            let made = (now_ms, config.node.ae_title.to_string());
            CorrectionChange::Make(Correction::new(values(&arguments.keys)?, values(&arguments.set)?, made)?)
        }
    };
    let planned = reader.plan_correction(&change)?;
    drop(reader);
    if arguments.yes {
        apply(arguments, &config, change, &planned, context)
    } else {
        tell(arguments, &change, &planned, context)
    }
}

/// Reads keys with their values.
fn values(texts: &[String]) -> anyhow::Result<Vec<(AttributeId, String)>> {
    let value = |text: &String| {
        let Some((name, value)) = text.split_once('=') else { bail!("`{text}` has no value: write KEY=VALUE") };
        let tag = qr::keys::tag(name.trim())?;
        let Some(attribute) = Attribute::by_tag(tag) else {
            bail!("{} is no identifier of a patient", qr::keys::keyword(tag));
        };
        match value.trim() {
            "" => bail!("{name} has no value; {name}=\"\" stands for none"),
            "\"\"" => Ok((attribute.id, String::new())),
            value => Ok((attribute.id, value.to_owned())),
        }
    };
    texts.iter().map(value).collect()
}

/// The correction with this number, while it holds.
fn known(reader: &mut Reader, config: &Config, number: i64) -> anyhow::Result<Correction> {
    let found = reader.corrections()?.into_iter().find(|known| known.number == number);
    match found {
        Some(known) if known.undone_ms.is_none() => Ok(known),
        Some(_) => bail!("correction {number} was undone already"),
        None => {
            bail!("there is no correction {number} in {}; `dcmdex correct --list` lists them", Shown(&config.index))
        }
    }
}

/// Says what would be corrected.
fn tell(
    arguments: &CorrectArgs,
    change: &CorrectionChange,
    effect: &CorrectionEffect,
    context: &mut Context,
) -> anyhow::Result<Exit> {
    if arguments.json {
        context.output.line(in_json(None, change, effect))?;
    } else if effect.instances == 0 {
        context.output.line("nothing in the index changes; --yes does it for what comes later")?;
    } else {
        let verb = match change {
            CorrectionChange::Make(_) => "would correct",
            CorrectionChange::Undo { .. } => "would no longer correct",
        };
        let (instances, studies) = (Grouped(effect.instances), Grouped(effect.studies.len() as u64));
        context.output.line(format_args!("{verb} {instances} instances of {studies} studies"))?;
        tell_values(effect, context)?;
        context.output.line("nothing was changed; --yes does it")?;
    }
    Ok(if effect.instances == 0 { Exit::Partly } else { Exit::Done })
}

fn tell_values(effect: &CorrectionEffect, context: &mut Context) -> anyhow::Result<()> {
    for (id, both) in &effect.values {
        let [before, after] = both.each_ref().map(|values| {
            let shown: Vec<&str> = values.iter().map(|value| if value.is_empty() { "(none)" } else { value }).collect();
            shown.join(", ")
        });
        context.output.line(format_args!("  {id}: {before} becomes {after}"))?;
    }
    Ok(())
}

fn apply(
    arguments: &CorrectArgs,
    config: &Config,
    change: CorrectionChange,
    planned: &CorrectionEffect,
    context: &mut Context,
) -> anyhow::Result<Exit> {
    let studies: Vec<AuditedStudy> = planned
        .studies
        .iter()
        .map(|(uid, patient_id)| AuditedStudy {
            study_instance_uid: uid.clone(),
            patient_id: patient_id.clone(),
            ..AuditedStudy::default()
        })
        .collect();
    // Before it is done. A correction that then fails is noted all the same.
    CommandAudit::open(config, "correct")?.corrected(in_words(&change), &studies)?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    let (number, effect) = writer.handle().correct(change.clone())?;
    writer.close()?;
    tracing::info!(correction = number, instances = effect.instances, "a correction was made or undone");
    kept::write(config)?;
    if arguments.json {
        context.output.line(in_json(Some(number), &change, &effect))?;
        return Ok(Exit::Done);
    }
    let (instances, studies) = (Grouped(effect.instances), Grouped(effect.studies.len() as u64));
    match change {
        CorrectionChange::Make(_) => {
            context.output.line(format_args!("correction {number}: {instances} instances of {studies} studies"))?;
            tell_values(&effect, context)?;
            context.output.line(format_args!("`dcmdex correct --undo {number} --yes` ends it"))?;
        }
        CorrectionChange::Undo { .. } => {
            context.output.line(format_args!(
                "correction {number} was undone: {instances} instances of {studies} studies are as before"
            ))?;
        }
    }
    Ok(Exit::Done)
}

/// The change as the audit trail has it.
fn in_words(change: &CorrectionChange) -> Vec<String> {
    let Correction { number, keys, values, .. } = change.correction();
    let undone = matches!(change, CorrectionChange::Undo { .. }).then(|| format!("undone={number}"));
    let keys = keys.iter().map(|(id, value)| format!("{id}={value}"));
    undone.into_iter().chain(keys).chain(values.iter().map(|(id, value)| format!("set {id}={value}"))).collect()
}

fn in_json(number: Option<i64>, change: &CorrectionChange, effect: &CorrectionEffect) -> serde_json::Value {
    json!({
        "event": "corrected",
        "correction": number,
        "dry_run": number.is_none(),
        "undone": matches!(change, CorrectionChange::Undo { .. }),
        "studies": effect.studies.len(),
        "instances": effect.instances,
    })
}

/// Lists the corrections.
fn list(corrections: &[Correction], as_json: bool, context: &mut Context) -> anyhow::Result<Exit> {
    for correction in corrections {
        if as_json {
            let mut line = json!({ "event": "correction", "correction": correction.number });
            if let (Some(line), Some(rule)) = (line.as_object_mut(), kept::in_json(correction).as_object_mut()) {
                line.append(rule);
            }
            context.output.line(line)?;
            continue;
        }
        let Correction { number, made_ms, keys, values, undone_ms, .. } = correction;
        let in_words = |values: &[(AttributeId, String)]| {
            let texts = values.iter().map(|(id, value)| match value.as_str() {
                "" => format!("{id}=\"\""),
                value => format!("{id}={value}"),
            });
            texts.collect::<Vec<_>>().join(" ")
        };
        let mut text = format!("{number}: {}, {} becomes {}", moment_text(*made_ms), in_words(keys), in_words(values));
        if let Some(undone) = undone_ms {
            text.push_str(&format!("; undone {}", moment_text(*undone)));
        }
        context.output.line(text)?;
    }
    if corrections.is_empty() && !as_json {
        context.output.line("nothing is corrected")?;
    }
    Ok(Exit::Done)
}
