//! The dashboard and the alert rules name metrics that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use dcmdex::telemetry::metrics::{ALL, Cell};

const RULES: &str = "packaging/prometheus/dcmdex.rules.yml";
const DASHBOARD: &str = "packaging/grafana/dcmdex.json";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Names of all series, as Prometheus has them.
fn series() -> BTreeSet<String> {
    ALL.iter()
        .flat_map(|metric| {
            match metric.cell {
                Cell::Histogram(_) => vec!["_bucket", "_sum", "_count"],
                Cell::Counter(_) | Cell::Gauge(_) | Cell::Seconds(_) => vec![""],
            }
            .into_iter()
            .map(|suffix| format!("{}{suffix}", metric.name))
        })
        .collect()
}

/// Words of a text that begin as our metrics do, each with what follows it.
fn metrics_in(text: &str) -> Vec<(&str, &str)> {
    text.match_indices("dcmdex_")
        .map(|(at, _)| {
            let rest = &text[at..];
            rest.split_at(rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len()))
        })
        .collect()
}

#[test]
fn the_dashboard_and_the_rules_name_metrics_and_labels_that_exist() {
    let series = series();
    for path in [RULES, DASHBOARD, "packaging/prometheus/dcmdex.rules.test.yml"] {
        let text = read(path);
        let named = metrics_in(&text);
        assert!(named.len() > 10, "{path}");
        for (name, _) in named {
            assert!(series.contains(name), "{path}: {name}");
        }
    }
    // A value of a label that no row has matches nothing, for ever.
    for text in [read(RULES), read(DASHBOARD).replace("\\\"", "\"")] {
        for (name, after) in metrics_in(&text) {
            let Some((labels, _)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) else { continue };
            for matcher in labels.split(',').filter(|matcher| !matcher.starts_with("instance")) {
                let (label, values) = matcher.split_once('=').unwrap();
                for value in values.trim_matches(['~', '"']).split('|') {
                    let has =
                        |of: &dcmdex::telemetry::metrics::Metric| of.name == name && of.label == Some((label, value));
                    assert!(ALL.iter().any(has), "{name}{{{matcher}}}");
                }
            }
        }
    }
}

#[test]
fn each_panel_of_the_dashboard_has_a_place_of_its_own() {
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in of("x")..of("x") + of("w") {
            for y in of("y")..of("y") + of("h") {
                assert!(x < 24 && taken.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}

#[test]
fn prometheus_takes_the_rules_and_each_alert_fires() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    for arguments in [["check", "rules", "dcmdex.rules.yml"], ["test", "rules", "dcmdex.rules.test.yml"]] {
        let Ok(output) = Command::new("/usr/bin/promtool").args(arguments).current_dir(&directory).output() else {
            println!("skipped: promtool is not installed (scripts/peers)");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
