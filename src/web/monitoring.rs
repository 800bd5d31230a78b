//! Requests of a supervisor: whether the node is up, and its metrics as Prometheus reads them.

use std::fmt::Write as _;

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::body::Body;
use crate::telemetry::metrics::{ALL, BUCKET_SECONDS, Cell, Metric};

/// Says that the node answers. A stranger learns nothing else.
pub(super) fn health() -> Response<Body> {
    text("ok\n".to_owned(), "text/plain; charset=utf-8")
}

/// All metrics, for callers who may read.
pub(super) fn metrics() -> Response<Body> {
    text(metrics_text(), METRICS_TYPE)
}

/// The media type of [`metrics_text`].
pub(super) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics in the text format of Prometheus, version 0.0.4.
pub(super) fn metrics_text() -> String {
    let mut out = String::new();
    let mut last = "";
    for metric in ALL {
        if metric.name != last {
            let kind = match metric.cell {
                Cell::Counter(_) => "counter",
                Cell::Gauge(_) | Cell::Seconds(_) => "gauge",
                Cell::Histogram(_) => "histogram",
            };
            let _ = write!(out, "# HELP {} {}\n# TYPE {} {kind}\n", metric.name, metric.help, metric.name);
            last = metric.name;
        }
        rows(&mut out, metric);
    }
    out
}

fn rows(out: &mut String, metric: &Metric) {
    let name = metric.name;
    let label = metric.label.map(|(label, value)| format!("{{{label}=\"{value}\"}}")).unwrap_or_default();
    // Writing to a text does not fail.
    let _ = match metric.cell {
        Cell::Counter(counter) => writeln!(out, "{name}{label} {}", counter.value()),
        Cell::Gauge(gauge) => writeln!(out, "{name}{label} {}", gauge.value()),
        Cell::Seconds(seconds) => writeln!(out, "{name}{label} {}", seconds.value()),
        Cell::Histogram(histogram) => {
            let counts = histogram.cumulative();
            for (bound, count) in BUCKET_SECONDS.iter().zip(counts) {
                let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
            }
            let total = counts.last().copied().unwrap_or(0);
            let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}");
            writeln!(out, "{name}_sum {}\n{name}_count {total}", histogram.sum_seconds())
        }
    };
}

fn text(text: String, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
