//! A watched directory, as `status` and the port for supervisors show it.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::output::{Grouped, Shown};
use crate::db::WatchEntry;
use crate::model::calendar::moment_text;
use crate::watch::{LookFigures, WatchState};

/// A watched directory, with its state.
pub(super) struct WatchReport {
    pub(super) paths: Vec<String>,
    pub(super) state: WatchState,
}

impl WatchReport {
    pub(super) fn of(entry: &WatchEntry) -> anyhow::Result<Self> {
        let paths =
            serde_json::from_str(&entry.roots).context("the index names a watched directory in no way known")?;
        let state =
            WatchState::from_json(&entry.state).context("the index has no readable state of a watched directory")?;
        Ok(Self { paths, state })
    }

    pub(super) fn as_json(&self, now_ms: i64) -> Value {
        let Self { paths, state } = self;
        json!({
            "paths": paths,
            "by": state.by,
            "plan": state.plan,
            "events": state.events,
            "last": state.last,
            "last_success_ms": state.last_success_ms,
            "next_due_ms": state.next_due_ms,
            "overdue": state.is_overdue(now_ms),
            "slow": state.is_slow,
            "pending": state.pending,
            "indexed_since": state.indexed_since,
        })
    }

    pub(super) fn as_text(&self, now_ms: i64) -> String {
        let state = &self.state;
        let paths: Vec<_> = self.paths.iter().map(|path| Shown(path.as_ref()).to_string()).collect();
        let events = if state.events.is_empty() { String::new() } else { format!(", changes by {}", state.events) };
        let mut text = format!("\n  {}: {}{events}", paths.join(", "), state.plan);
        match &state.last {
            None => text.push_str("\n    not looked at yet"),
            Some(LookFigures { error: Some(error), started_ms, .. }) => {
                text.push_str(&format!("\n    last look {} failed: {error}", moment_text(*started_ms)));
            }
            Some(last) => text.push_str(&format!(
                "\n    last look {} ({:.1} s{}): found {}, indexed {}, updated {}, removed {}, failed {}",
                moment_text(last.started_ms),
                last.elapsed_seconds,
                if last.interrupted { ", interrupted" } else { "" },
                Grouped(last.found),
                Grouped(last.indexed),
                Grouped(last.updated),
                Grouped(last.removed),
                Grouped(last.failed),
            )),
        }
        if state.indexed_since > 0 {
            text.push_str(&format!("; indexed since {}", Grouped(state.indexed_since)));
        }
        if state.is_slow {
            text.push_str("\n    it took far longer than those before");
        }
        if let Some(due) = state.next_due_ms {
            let late = if state.is_overdue(now_ms) { " (overdue: is the node running?)" } else { "" };
            text.push_str(&format!("\n    next look due {}{late}", moment_text(due)));
        }
        text
    }
}
