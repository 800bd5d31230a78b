//! Capabilities of the service (PS3.18 8.9), made from the table of resources.

use std::fmt::Write as _;

use hyper::Response;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use serde_json::json;

use super::body::Body;
use super::negotiate::{Accept, not_acceptable};
use super::problem::Problem;
use super::resource::{CAPABILITIES, RESOURCES, SERVICE};
use crate::web::http_state::Call;

/// Returns the description in the requested form.
pub(super) fn answer(call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let media_type = accept.choose(CAPABILITIES).ok_or_else(|| not_acceptable(CAPABILITIES))?;
    let base = call.base.to_string();
    let text = if media_type == "application/json" { as_json(&base) } else { as_wadl(&base) };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

/// Returns the paths of the service below its base, with their resources.
fn resources() -> impl Iterator<Item = (&'static str, &'static super::resource::Resource)> {
    RESOURCES.iter().filter_map(|resource| {
        let path = resource.template.strip_prefix(SERVICE)?.strip_prefix('/')?;
        (!path.is_empty()).then_some((path, resource))
    })
}

fn as_json(base: &str) -> String {
    let resources: Vec<_> = resources()
        .map(|(path, resource)| {
            json!({
                "path": path,
                "methods": resource.methods,
                "transaction": resource.what,
                "mediaTypes": resource.media_types,
            })
        })
        .collect();
    let description = json!({ "base": format!("{base}{SERVICE}"), "resources": resources });
    format!("{description:#}\n")
}

/// Writes Web Application Description Language, the default of PS3.18 8.9.3. No text here has a
/// character that XML must escape. Templates are our own, and the base was checked.
fn as_wadl(base: &str) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out.push_str("<application xmlns=\"http://wadl.dev.java.net/2009/02\">\n");
    let _ = writeln!(out, "  <resources base=\"{base}{SERVICE}\">");
    for (path, resource) in resources() {
        let _ = writeln!(out, "    <resource path=\"{path}\">");
        let parameters = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters = parameters.map(|name| name.trim_start_matches('*'));
        for parameter in parameters {
            let _ = writeln!(out, "      <param name=\"{parameter}\" style=\"template\" required=\"true\"/>");
        }
        for method in resource.methods {
            let _ = writeln!(out, "      <method name=\"{method}\">");
            let _ = writeln!(out, "        <doc>{}</doc>\n        <response>", resource.what);
            for media_type in resource.media_types {
                let media_type = media_type.replace('"', "&quot;");
                let _ = writeln!(out, "          <representation mediaType=\"{media_type}\"/>");
            }
            out.push_str("        </response>\n      </method>\n");
        }
        out.push_str("    </resource>\n");
    }
    out.push_str("  </resources>\n</application>\n");
    out
}
