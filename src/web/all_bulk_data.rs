//! All bulk data, or all pixel data, of a study, a series or an instance (PS3.18 CP-2040).
//!
//! Each value is a part with its URI as Content-Location. Compressed pixel data have one part for
//! each frame, in the order of the frames.

use std::collections::VecDeque;
use std::sync::Arc;

use hyper::Response;
use hyper::header::ACCEPT;
use tokio::task::spawn_blocking;

use super::body::{Body, Outlet};
use super::forms::{self, AcceptedSyntaxes, OCTETS};
use super::frame_source::{Runs, no_pixels};
use super::http_state::{Call, HttpState};
use super::multipart::Parts;
use super::negotiate::{Accept, not_acceptable};
use super::object_json::{BulkValue, ObjectJson, ValuePlace};
use super::object_reader::{OpenObject, lost};
use super::pixel_cache::PixelsKey;
use super::problem::{Problem, breaks_off};
use super::resource::SERVICE;
use super::wado_target::{Listed, Target, alone, bulk_data_base, typed};
use crate::archive::Archives;
use crate::encoding::syntax::EXPLICIT_VR_LITTLE_ENDIAN;
use crate::model::location::Location;
use crate::pixels::frames::{PixelError, Pixels};
use crate::qr::{Instances, RetrievedInstance};

/// Values that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// All values that metadata give by URI.
    BulkData,
    /// Pixel Data, Float Pixel Data and Double Float Pixel Data.
    PixelData,
}

/// Values of one instance.
struct InstanceValues {
    runs: Runs,
    parts: Vec<ValuePart>,
}

/// One part of the response.
struct ValuePart {
    location: String,
    media_type: String,
    /// Runs of its bytes, in order.
    ranges: Vec<(u64, u64)>,
}

/// Answers with all values of a study, a series or an instance.
pub(super) async fn answer(server: &Arc<HttpState>, call: &Call<'_>, which: Which) -> Result<Response<Body>, Problem> {
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let target = Target::of(call)?;
    let listed = target.instances(server, call).await?;
    let Some(wanted) = forms::all_values(&accept, &listed.transfer_syntaxes()?) else {
        return Err(not_acceptable(&["multipart/related; type=\"application/octet-stream\"; transfer-syntax=*"]));
    };
    send_all(server, call, (&target, listed), (wanted, which)).await
}

/// Sends the values of all instances of a list that have an accepted transfer syntax.
pub(super) async fn send_all(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    (target, mut listed): (&Target, Listed),
    (wanted, which): (AcceptedSyntaxes, Which),
) -> Result<Response<Body>, Problem> {
    listed.leave_out(|stored| wanted.takes_values(stored));
    let service = format!("{}{SERVICE}", call.base);
    let one = |instance: RetrievedInstance<'_>| {
        (alone(&instance), bulk_data_base(&service, target, instance.sop_instance_uid))
    };
    let rest: VecDeque<_> = listed.at_hand().filter(|instance| listed.is_sent(instance)).map(one).collect();
    let (first, rest) = first_values(server, call, rest, which).await?;
    let parts = Parts::new();
    let (outlet, body) = server.written_body(&call.peer).await?;
    let mut response = typed(body, &parts.content_type(OCTETS))?;
    listed.tell_left_out(&mut response, call);
    let shared = Arc::clone(server);
    spawn_blocking(move || {
        let _listed = listed.share;
        send(&shared, first, rest, which, &parts, outlet);
    });
    Ok(response)
}

/// Instances whose values come later, each as a list with the start of the URIs of its values.
type Later = VecDeque<(Arc<Instances>, String)>;

/// Finds the values of the first instance that has some. Returns them with the instances after it.
/// Until the head is out, a failure can still have a status of its own.
async fn first_values(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    mut rest: Later,
    which: Which,
) -> Result<(InstanceValues, Later), Problem> {
    let turn = server.turn(&call.peer).await?;
    let shared = Arc::clone(server);
    let first = spawn_blocking(move || {
        let _until_its_end = turn;
        while let Some((instances, bulk)) = rest.pop_front() {
            let values = values(&shared, instances, &bulk, which)?;
            if !values.parts.is_empty() {
                return Ok(Some((values, rest)));
            }
        }
        Ok::<_, Problem>(None)
    });
    let none = || Problem::not_found("these instances have no such data");
    first.await.map_err(|_| Problem::ours())??.ok_or_else(none)
}

/// Sends the values of one instance after the other. If one cannot be read, the body breaks off.
fn send(server: &HttpState, first: InstanceValues, mut rest: Later, which: Which, parts: &Parts, mut outlet: Outlet) {
    let mut next = Some(first);
    while let Some(values_of_one) = next {
        if send_one(values_of_one, parts, &mut outlet).is_err() {
            return;
        }
        next = match rest.pop_front().map(|(instances, bulk)| values(server, instances, &bulk, which)) {
            None => None,
            Some(Ok(values)) => Some(values),
            Some(Err(problem)) => {
                breaks_off("an object cannot be read", &problem.why);
                return;
            }
        };
    }
    if outlet.send(parts.end()).is_continue() {
        outlet.end();
    }
}

/// Sends the values of one instance, each as a part.
fn send_one(
    InstanceValues { mut runs, parts: found }: InstanceValues,
    parts: &Parts,
    outlet: &mut Outlet,
) -> Result<(), ()> {
    let mut put = |bytes: Vec<u8>| if outlet.send(bytes).is_break() { Err(()) } else { Ok(()) };
    for ValuePart { location, media_type, ranges } in found {
        let length = ranges.iter().map(|(_, length)| length).sum();
        put(parts.located_head(&media_type, length, &location).into())?;
        for range in ranges {
            runs.read(range, &mut |bytes| put(bytes.to_vec()))?;
        }
    }
    Ok(())
}

/// Finds the values of the only instance of a list.
fn values(server: &HttpState, instances: Arc<Instances>, bulk: &str, which: Which) -> Result<InstanceValues, Problem> {
    let instance = instances.get(0).ok_or_else(Problem::ours)?;
    let mut reader = server.readers.take()?;
    let opened = OpenObject::open(&mut reader, server.delivery().verified(), &instance, &Archives::default());
    server.readers.give_back(reader);
    let OpenObject { mut walk, transfer_syntax, location, .. } = opened.map_err(|error| lost(&error))?;
    let walked = |error| no_pixels(&PixelError::Walk(error));
    let found = ObjectJson::bulk_values(&mut walk, &transfer_syntax, bulk).map_err(walked)?;
    let mut parts = Vec::new();
    let encapsulated = format!("{OCTETS}; transfer-syntax={transfer_syntax}");
    for BulkValue { uri, tag, is_root, place } in found {
        let is_pixel_data = is_root && matches!(tag, 0x7FE0_0008..=0x7FE0_0010);
        if which == Which::PixelData && !is_pixel_data {
            continue;
        }
        let media_type = match &place {
            ValuePlace::Run(_) if is_pixel_data => format!("{OCTETS}; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}"),
            ValuePlace::Run(_) => OCTETS.to_owned(),
            ValuePlace::Fragments(_) | ValuePlace::Frames => encapsulated.clone(),
        };
        let runs_of_parts = match place {
            ValuePlace::Run(range) => vec![vec![range]],
            ValuePlace::Fragments(ranges) => vec![ranges],
            ValuePlace::Frames => frames(server, &instance, &location, &transfer_syntax)?,
        };
        let part = |ranges| ValuePart { location: uri.clone(), media_type: media_type.clone(), ranges };
        parts.extend(runs_of_parts.into_iter().map(part));
    }
    let runs = Runs::open(server, Arc::clone(&instances), location).map_err(|error| lost(&error))?;
    Ok(InstanceValues { runs, parts })
}

/// Returns the runs of each frame of an object.
fn frames(
    server: &HttpState,
    instance: &RetrievedInstance<'_>,
    location: &Location,
    transfer_syntax: &str,
) -> Result<Vec<Vec<(u64, u64)>>, Problem> {
    let key = PixelsKey::of(location);
    let pixels = match server.pixels.get(&key) {
        Some(pixels) => pixels,
        None => {
            let object = OpenObject::at(location.clone(), instance, &Archives::default());
            let mut walk = object.map_err(|error| lost(&error))?.walk;
            let pixels = Arc::new(Pixels::find(&mut walk, transfer_syntax).map_err(|error| no_pixels(&error))?);
            server.pixels.put(key, Arc::clone(&pixels));
            pixels
        }
    };
    let runs = |number| pixels.frame(number).map(|frame| frame.ranges).map_err(|error| no_pixels(&error));
    (1..=pixels.frames()).map(runs).collect()
}
