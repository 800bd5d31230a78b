//! The way from a request to its response. The rules hold for all resources, in this order.
//!
//! First comes the name and the page that a request comes from, then the caller, then the resource.
//! The log has the method, the template of the path, the status and the time. It never has a target
//! or a value.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, RANGE,
    REFERRER_POLICY, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use tracing::{debug, info};

use super::access::{Caller, Claims, claimed_name};
use super::all_bulk_data::Which;
use super::audited::{SeenRequest, ShownStudies, WRONG_PASSWORD};
use super::body::Body;
use super::host::{Arrival, RequestTarget, add_preflight};
use super::http_state::{Call, HttpState};
use super::page::{self, document, document::shown};
use super::problem::Problem;
use super::resource::{Kind, Needs, Route};
use super::{all_bulk_data, capabilities, frames, instances, metadata, monitoring, search, store, viewer, wado_uri};
use crate::access::users::Rights;
use crate::model::peer::CountedAs;
use crate::telemetry::metrics;

/// Returns the response to a request.
pub(super) async fn answer(server: &Arc<HttpState>, request: Request<Incoming>, arrival: Arrival) -> Response<Body> {
    let begun = Instant::now();
    let method = request.method().clone();
    let is_chunked = request.version() < Version::HTTP_2 && request.headers().contains_key(TRANSFER_ENCODING);
    let (mut response, template) = match RequestTarget::of(&request, arrival, &server.options) {
        Ok(target) => {
            let (mut response, template) = to_target(server, request, arrival, &target).await;
            target.add_cors(response.headers_mut());
            (response, template)
        }
        Err(problem) => (problem.into_response(), "(refused)"),
    };
    finish(&mut response, &method);
    if is_chunked {
        // A proxy in front of the node that goes by Content-Length would read the rest of such a
        // request as the next one.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    count(status);
    metrics::HTTP_SECONDS.observe(begun.elapsed());
    // An invented method name stays out of the log.
    let method = if is_common(&method) { method.as_str() } else { "(other)" };
    debug!(
        method,
        route = template,
        status = status.as_u16(),
        elapsed_ms = begun.elapsed().as_millis(),
        "HTTP request"
    );
    response
}

fn is_common(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

fn count(status: StatusCode) {
    match status.as_u16() {
        ..400 => metrics::HTTP_ANSWERED.increment(),
        401 | 403 | 421 => metrics::HTTP_DENIED.increment(),
        400..500 => metrics::HTTP_REFUSED.increment(),
        _ => metrics::HTTP_FAILED.increment(),
    }
}

/// Adds the headers that every response has, unless it has its own.
fn finish(response: &mut Response<Body>, method: &Method) {
    const ALL: [(HeaderName, &str); 4] = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in ALL {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    if method == Method::HEAD {
        // The length is that of what GET would give.
        if let Some(length) = response.body().length() {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = Body::empty();
    }
}

/// Returns the response, and the template of the path for the log.
async fn to_target(
    server: &Arc<HttpState>,
    request: Request<Incoming>,
    arrival: Arrival,
    target: &RequestTarget,
) -> (Response<Body>, &'static str) {
    if target.is_preflight(&request) {
        let mut response = no_content();
        add_preflight(response.headers_mut());
        return (response, "(preflight)");
    }
    let (mut head, body) = request.into_parts();
    // RFC 9110 14.2: Range is ignored for other methods.
    if head.method != Method::GET {
        head.headers.remove(RANGE);
    }
    let route = Route::of(head.uri.path());
    let needs = match &head.method {
        // A POST always stores.
        method if *method == Method::POST => Needs::Store,
        _ => route.as_ref().map_or(Needs::Read, |route| route.resource.needs),
    };
    let template = route.as_ref().map_or("(none)", |route| route.resource.template);
    let peer = Arc::new(CountedAs::address(target.client));
    let claims = Claims {
        headers: &head.headers,
        address: arrival.address,
        peer: &peer,
        trusted_proxies: &server.options.trusted_proxies,
        user_header: server.user_header.as_ref(),
    };
    let seen = server.audit.is_on().then(|| SeenRequest::of(&head, route.as_ref(), target.client));
    let shown = ShownStudies::default();
    let (user, may) = caller(server, &claims, target.client, needs).await;
    let answered = async {
        // An unknown caller does not learn which paths exist.
        may?;
        let route = route.ok_or_else(|| Problem::not_found("there is no such resource"))?;
        if let Some(response) = allowed_methods(&route, &head.method)? {
            return Ok(response);
        }
        let query = head.uri.query().unwrap_or_default();
        let (headers, base) = (&head.headers, &target.base);
        let (path, address, user) = (head.uri.path(), target.client, user.as_str());
        let shown = seen.as_ref().map(|_| &shown);
        let call = Call { route, path, query, headers, base, address, user, peer, shown };
        if head.method == Method::POST {
            store::answer(server, &call, body).await
        } else {
            dispatch(server, call).await
        }
    };
    let response = answered.await.unwrap_or_else(Problem::into_response);
    if let Some(seen) = seen {
        seen.note(&server.audit, user, response.status(), shown);
    }
    (response, template)
}

/// Returns the name of the user who asks, and whether this caller may do what the request needs.
/// The name of one who may not is only claimed.
async fn caller(
    server: &HttpState,
    claims: &Claims<'_>,
    client: IpAddr,
    needs: Needs,
) -> (String, Result<(), Problem>) {
    if needs == Needs::Nothing {
        return (String::new(), Ok(()));
    }
    match server.users.caller(claims).await {
        Ok(Caller::Known(rights, name)) => (name, check(needs, rights)),
        Ok(Caller::Anyone) => (String::new(), check(needs, server.options.anyone)),
        Err(problem) if problem.status == StatusCode::UNAUTHORIZED => {
            let name = claimed_name(claims.headers);
            if !name.is_empty() && server.refusals.allows(client, WRONG_PASSWORD) {
                info!(peer.addr = %client, "a request over HTTP was denied: {WRONG_PASSWORD}");
            }
            (name, Err(problem))
        }
        Err(problem) => (String::new(), Err(problem)),
    }
}

/// Returns the response to a request for the methods of a resource. `None` for any other request
/// whose method the resource has.
fn allowed_methods(route: &Route<'_>, method: &Method) -> Result<Option<Response<Body>>, Problem> {
    let allow = || HeaderValue::from_str(&route.resource.allow()).unwrap_or(HeaderValue::from_static("GET"));
    if *method == Method::OPTIONS && route.resource.kind != Kind::Capabilities {
        let mut response = no_content();
        response.headers_mut().insert(ALLOW, allow());
        return Ok(Some(response));
    }
    if *method != Method::OPTIONS && !route.resource.takes(method) {
        let why = "this resource does not have that method";
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, why).with(ALLOW, allow()));
    }
    Ok(None)
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn check(needs: Needs, rights: Rights) -> Result<(), Problem> {
    let may = match needs {
        Needs::Nothing => true,
        Needs::Read => rights.read,
        Needs::Store => rights.store,
    };
    if may { Ok(()) } else { Err(Problem::new(StatusCode::FORBIDDEN, "these credentials do not give that right")) }
}

async fn dispatch(server: &Arc<HttpState>, call: Call<'_>) -> Result<Response<Body>, Problem> {
    match call.route.resource.kind {
        Kind::Capabilities => capabilities::answer(&call),
        Kind::Search(level) => search::answer(server, &call, level).await,
        Kind::Metadata => metadata::answer(server, &call).await,
        Kind::Instances => instances::answer(server, &call).await,
        Kind::Frames => frames::answer(server, &call).await,
        Kind::BulkData => frames::bulk_data(server, &call).await,
        Kind::AllBulkData => all_bulk_data::answer(server, &call, Which::BulkData).await,
        Kind::AllPixelData => all_bulk_data::answer(server, &call, Which::PixelData).await,
        #[cfg(feature = "render")]
        Kind::Rendered => super::render::answer(server, &call, false).await,
        #[cfg(feature = "render")]
        Kind::Thumbnail => super::render::answer(server, &call, true).await,
        #[cfg(not(feature = "render"))]
        Kind::Rendered | Kind::Thumbnail => {
            Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "this program was built without rendering"))
        }
        Kind::WadoUri => wado_uri::answer(server, &call).await,
        Kind::Page => Ok(shown(page::studies::answer(server, &call).await)),
        Kind::PageOfStudy => Ok(shown(page::study::answer(server, &call).await)),
        Kind::PageOfSeries => Ok(shown(page::series::answer(server, &call).await)),
        Kind::PageOfIndex => Ok(shown(page::status::answer(server, &call).await)),
        Kind::PageOfFailures => Ok(shown(page::status::failures(server, &call).await)),
        Kind::PageOfConflicts => Ok(shown(page::status::conflicts(server, &call).await)),
        Kind::Style => Ok(document::style()),
        Kind::Script => Ok(document::script()),
        Kind::Icon => Ok(document::icon()),
        Kind::Ohif => viewer::answer(server, &call).await,
        Kind::Health => Ok(monitoring::health()),
        Kind::Metrics => Ok(monitoring::metrics()),
    }
}
