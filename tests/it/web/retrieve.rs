//! WADO-RS: metadata, instances, frames and bulk data, of files, members of archives and missing
//! objects.

use std::fs;

use dcmdex::web::multipart::{MultipartReader, PartEvent};
use dcmdex::web::negotiate::MediaRange;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject, open_file};
use serde_json::Value;

use super::*;
use crate::util::objects;

/// An instance of an index with its UIDs.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    study: String,
    series: String,
    instance: String,
}

impl Instance {
    pub(super) fn path(&self) -> String {
        format!("/studies/{}/series/{}/instances/{}", self.study, self.series, self.instance)
    }
}

fn text(object: &InMemDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_end_matches(['\0', ' ']).to_owned()
}

pub(super) fn of(object: &DefaultDicomObject) -> Instance {
    Instance {
        study: text(object, tags::STUDY_INSTANCE_UID),
        series: text(object, tags::SERIES_INSTANCE_UID),
        instance: text(object, tags::SOP_INSTANCE_UID),
    }
}

/// Reads a file of the fixtures. Returns its object and its UIDs.
fn fixture(path: &str) -> (DefaultDicomObject, Instance) {
    let object = open_file(archive().join(path)).unwrap();
    let instance = of(&object);
    (object, instance)
}

const CT: &str = "mueller-aenne/ct-chest/axial/2.25.222357566655179818184128349088455852959.1.1.dcm";
const BIG_ENDIAN: &str = "yamada-tarou/mr-head/t1/IM0001";
const IMPLICIT: &str = "yamada-tarou/mr-head/t2/1.dcm";
const ENCAPSULATED: &str = "hong-gildong/us-abdomen/US1.dcm";
const TWO_FRAMES: &str = "mueller-aenne/rt/RTDOSE.dcm";
const DEFLATED: &str = "hong-gildong/sr/report.dcm";

/// Returns the type and bytes of each part of a response.
#[track_caller]
pub(super) fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    assert!(answer.is_whole, "{answer:?}");
    let content_type = MediaRange::parse(&answer.header("content-type")).unwrap();
    assert_eq!(content_type.essence, ("multipart".into(), "related".into()));
    let mut reader = MultipartReader::new(content_type.parameter("boundary").unwrap()).unwrap();
    let mut events = Vec::new();
    reader.feed(&answer.body, &mut events).unwrap();
    reader.finish().unwrap();
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    for event in events {
        match event {
            PartEvent::Begin { content_type, .. } => parts.push((content_type, Vec::new())),
            PartEvent::Bytes(bytes) => parts.last_mut().unwrap().1.extend(bytes),
            PartEvent::End => {}
        }
    }
    parts
}

/// Parses a complete file that came over HTTP.
fn object(bytes: &[u8]) -> DefaultDicomObject {
    dicom_object::from_reader(bytes.get(128..).unwrap()).unwrap()
}

/// Returns the tags of all elements of an object and its items that the metadata must have.
fn all_tags(object: &InMemDicomObject) -> Vec<String> {
    let mut found: Vec<_> = object
        .iter()
        .map(|element| element.header().tag)
        .filter(|tag| tag.element() != 0)
        .map(|tag| format!("{:04X}{:04X}", tag.0, tag.1))
        .collect();
    for own in ["00080005", "00083002"] {
        if !found.iter().any(|tag| tag == own) {
            found.push(own.into());
        }
    }
    found.sort();
    found
}

#[test]
fn metadata_have_every_attribute_of_every_kind_of_object() {
    let web = TestWeb::start();
    for path in [CT, BIG_ENDIAN, IMPLICIT, ENCAPSULATED, TWO_FRAMES, DEFLATED, "mueller-aenne/rt/RTPLAN.dcm"] {
        let (object, instance) = fixture(path);
        let answer = web.get(&format!("{}/metadata", instance.path())).expect(200);
        assert_eq!(answer.header("content-type"), "application/dicom+json");
        let json = answer.json();
        let metadata = &json.as_array().unwrap()[0];
        let tags: Vec<_> = metadata.as_object().unwrap().keys().cloned().collect();
        assert_eq!(tags, all_tags(&object), "{path}");
        assert!(tags.is_sorted());
        for element in object.iter().filter(|element| element.header().tag.element() != 0) {
            let tag = element.header().tag;
            let key = format!("{:04X}{:04X}", tag.0, tag.1);
            let json = &metadata[key.as_str()];
            if tag == tags::PIXEL_DATA {
                let uri = json["BulkDataURI"].as_str().unwrap();
                assert!(uri.ends_with(&format!("{}/bulkdata/7FE00010", instance.path())), "{uri}");
                continue;
            }
            assert_eq!(json["vr"], element.header().vr.to_string(), "{key} of {path}");
            match element.header().vr {
                VR::UI | VR::CS | VR::DA | VR::TM | VR::SH => {
                    let expected = element.to_multi_str().unwrap().first().cloned().unwrap_or_default();
                    let expected = expected.trim_matches([' ', '\0']).to_owned();
                    if tag != tags::SPECIFIC_CHARACTER_SET {
                        assert_eq!(json["Value"][0].as_str().unwrap_or_default(), expected, "{key} of {path}");
                    }
                }
                VR::US => assert_eq!(json["Value"][0], element.to_int::<u64>().unwrap(), "{key} of {path}"),
                _ => {}
            }
        }
    }
}

#[test]
fn names_are_in_utf_8_whatever_the_object_is_written_in() {
    let web = TestWeb::start();
    let (_, instance) = fixture(BIG_ENDIAN);
    let json = web.get(&format!("{}/metadata", instance.path())).expect(200).json();
    assert_eq!(json[0]["00100010"]["Value"][0]["Ideographic"], "山田^太郎");
    assert_eq!(json[0]["00080005"]["Value"][0], "ISO_IR 192");
}

#[test]
fn metadata_of_series_and_study_are_those_of_their_instances_in_order() {
    let web = TestWeb::start();
    let (_, instance) = fixture(CT);
    let series =
        web.get(&format!("/studies/{}/series/{}/metadata", instance.study, instance.series)).expect(200).json();
    let numbers: Vec<_> = series.as_array().unwrap().iter().map(|it| value(it, "00200013").as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let study = web.get(&format!("/studies/{}/metadata", instance.study)).expect(200).json();
    assert_eq!(study.as_array().unwrap().len(), 11);
    let one = web.get(&format!("{}/metadata", instance.path())).expect(200).json();
    assert_eq!(one[0], series[0]);
    assert!(web.get("/studies/1.2.3/metadata").expect(404).text().contains("no such study"));
    web.get(&format!("/studies/{}/series/1.2/metadata", instance.study)).expect(404);
    web.get(&format!("/studies/1.2/series/{}/metadata", instance.series)).expect(404);
    web.get("/studies/%00/metadata").expect(400);
}

#[test]
fn what_has_not_changed_is_told_without_opening_a_file() {
    let folder = TempDir::new().unwrap();
    objects::write(&folder.path().join("1.dcm"), 1, 1, 1);
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let path = "/studies/1.2.1/metadata";
    let first = web.get(path).expect(200);
    let tag = first.header("etag");
    assert!(tag.starts_with('"') && first.header("cache-control").contains("must-revalidate"));
    // Nothing to open is left, and nothing has to be.
    fs::remove_file(folder.path().join("1.dcm")).unwrap();
    let same = web.get_with(path, &[("If-None-Match", &tag)]).expect(304);
    assert!(same.body.is_empty() && same.header("etag") == tag);
    let packed = web.get_with(path, &[("If-None-Match", &tag), ("Accept-Encoding", "gzip")]).expect(200);
    assert_ne!(packed.header("etag"), tag, "another form has another tag");
}

#[test]
fn metadata_are_compressed_where_that_is_wanted() {
    let web = TestWeb::start();
    let (_, instance) = fixture(CT);
    let path = format!("/studies/{}/metadata", instance.study);
    let plain = web.get(&path).expect(200);
    let packed = web.get_with(&path, &[("Accept-Encoding", "gzip")]).expect(200);
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed.body.as_slice()), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain.text());
    assert!(packed.body.len() * 4 < plain.body.len());
}

#[test]
fn an_object_that_is_gone_is_answered_as_the_index_knows_it() {
    let folder = TempDir::new().unwrap();
    for number in 1..=3 {
        objects::write(&folder.path().join(format!("{number}.dcm")), 1, 1, number);
    }
    let web = TestWeb::with(folder.path(), |_| {}, None);
    fs::remove_file(folder.path().join("2.dcm")).unwrap();
    let answer = web.get("/studies/1.2.1/series/1.2.1.1/metadata").expect(200);
    let json = answer.json();
    let all = json.as_array().unwrap();
    assert_eq!(all.len(), 3);
    assert!(answer.header("warning").contains("1 instances"), "{}", answer.header("warning"));
    // The object may be back before the index changes.
    assert_eq!((answer.header("etag"), answer.header("cache-control")), (String::new(), "no-store".to_owned()));
    let gone = all.iter().find(|it| value(it, "00080018") == "1.2.1.1.2").unwrap();
    assert_eq!(value(gone, "00080056"), "UNAVAILABLE");
    assert_eq!(gone["00100010"]["Value"][0]["Alphabetic"], "Test^Person");
    assert!(gone.get("00081190").is_none());
    // What breaks in the middle is no whole answer.
    let broken = web.get("/studies/1.2.1/series/1.2.1.1");
    assert!(broken.status == 404 || !broken.is_whole, "{broken:?}");
    web.get("/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.2").expect(404);
    // Once a scan has seen it, it is told before.
    index_of(folder.path(), &web.index());
    let told = web.get("/studies/1.2.1/series/1.2.1.1/metadata").expect(200);
    assert!(told.header("warning").contains("1 instances"), "{}", told.header("warning"));
    // PS3.18 table 10.4.3-1.
    let rest = web.get("/studies/1.2.1/series/1.2.1.1").expect(206);
    assert_eq!(parts(&rest).len(), 2);
    assert!(rest.header("warning").contains("1 instances are left out"));
    assert_eq!(rest.header("content-range"), "");
}

#[test]
fn metadata_tell_of_objects_that_cannot_be_read_to_their_ends() {
    let folder = TempDir::new().unwrap();
    let odd = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real/odd");
    objects::write(&folder.path().join("whole.dcm"), 1, 1, 1);
    // One ends inside a sequence, the other inside its pixel data.
    for name in ["rtplan_truncated.dcm", "MR_truncated.dcm"] {
        fs::copy(odd.join(name), folder.path().join(name)).unwrap();
    }
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let cut = "Of 1 instances attributes are missing: their objects end early or are damaged";
    let xml = ("Accept", "multipart/related; type=\"application/dicom+xml\"");
    let all = web.get("/instances?includefield=StudyInstanceUID").expect(200).json();
    for object in all.as_array().unwrap() {
        let study = value(object, "0020000D").as_str().unwrap();
        let path = format!("/studies/{study}/metadata");
        // The second time, the answer may be kept.
        for _ in 0..2 {
            for headers in [&[][..], &[("Accept-Encoding", "gzip")], &[xml], &[xml, ("Accept-Encoding", "gzip")]] {
                let warning = web.get_with(&path, headers).expect(200).header("warning");
                assert_eq!(warning.contains(cut), study != "1.2.1", "{study} {headers:?}: {warning}");
            }
        }
    }
    assert_eq!(all.as_array().unwrap().len(), 3);
}

#[test]
fn instances_come_as_whole_files_in_explicit_little_endian_or_as_they_lie() {
    let web = TestWeb::start();
    for (path, sent) in [
        (CT, "1.2.840.10008.1.2.1"),
        (BIG_ENDIAN, "1.2.840.10008.1.2.1"),
        (IMPLICIT, "1.2.840.10008.1.2.1"),
        (DEFLATED, "1.2.840.10008.1.2.1"),
        (ENCAPSULATED, "1.2.840.10008.1.2.4.50"),
    ] {
        let (stored, instance) = fixture(path);
        let sent = if path == ENCAPSULATED { stored.meta().transfer_syntax().to_owned() } else { sent.to_owned() };
        let dicom = [("Accept", "multipart/related; type=\"application/dicom\"")];
        let answer = web.get_with(&instance.path(), &dicom).expect(200);
        let parts = parts(&answer);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].0, format!("application/dicom; transfer-syntax={}", sent.trim_end_matches('\0')), "{path}");
        let received = object(&parts[0].1);
        assert_eq!(received.meta().transfer_syntax().trim_end_matches('\0'), sent.trim_end_matches('\0'));
        assert_eq!(all_tags(&received), all_tags(&stored), "{path}");
        if let (Ok(one), Ok(other)) = (received.element(tags::PIXEL_DATA), stored.element(tags::PIXEL_DATA)) {
            assert_eq!(one.value(), other.value(), "{path}");
        }
        // By itself, with a length, and in pieces.
        let whole = web.get_with(&instance.path(), &[("Accept", "application/dicom")]).expect(200);
        assert_eq!(whole.body, parts[0].1, "{path}");
        if whole.header("accept-ranges") == "bytes" {
            let middle = [("Accept", "application/dicom"), ("Range", "bytes=100-299")];
            let middle = web.get_with(&instance.path(), &middle).expect(206);
            assert_eq!(middle.body, whole.body[100..300]);
            assert_eq!(middle.header("content-range"), format!("bytes 100-299/{}", whole.body.len()));
            // RFC 9110 14.2.
            let target = format!("/dicom-web{}", instance.path());
            let head = [("Accept", "application/dicom"), ("Range", "bytes=100-299")];
            let head = http::request(web.address, "HEAD", &target, &head, b"").expect(200);
            assert_eq!(head.header("content-length"), whole.body.len().to_string());
            // RFC 9110 13.1.5: nobody can tell whether it is still the object that the client
            // began.
            let changed = [("Accept", "application/dicom"), ("Range", "bytes=100-299"), ("If-Range", "\"old\"")];
            assert_eq!(web.get_with(&instance.path(), &changed).expect(200).body, whole.body);
            let behind = [("Accept", "application/dicom"), ("Range", "bytes=99999999-")];
            web.get_with(&instance.path(), &behind).expect(416);
        }
    }
}

#[test]
fn frames_are_rendered_or_it_is_said_why_not() {
    let web = TestWeb::start();
    let picture =
        |path: &str, query: &str, accept: &str| web.get_with(&format!("{path}{query}"), &[("Accept", accept)]);
    for path in [CT, BIG_ENDIAN, IMPLICIT] {
        let (stored, instance) = fixture(path);
        let answer = picture(&format!("{}/rendered", instance.path()), "", "image/png").expect(200);
        let shown = image::load_from_memory(&answer.body).unwrap().into_luma8();
        let number = |tag| u32::from(stored.element(tag).unwrap().to_int::<u16>().unwrap());
        assert_eq!(shown.dimensions(), (number(tags::COLUMNS), number(tags::ROWS)), "{path}");
        // PS3.18 table 8.7.4-1. A GIF has all greys.
        let gif = picture(&format!("{}/rendered", instance.path()), "", "image/gif").expect(200);
        assert_eq!(gif.header("content-type"), "image/gif");
        assert!(image::load_from_memory(&gif.body).unwrap().into_luma8() == shown, "{path}");
        let small = picture(&format!("{}/thumbnail", instance.path()), "?viewport=4,4", "*/*").expect(200);
        assert_eq!(small.header("content-type"), "image/jpeg");
        assert!(image::load_from_memory(&small.body).unwrap().into_luma8().dimensions().0 <= 4);
    }
    let (_, ct) = fixture(CT);
    let series = format!("/studies/{}/series/{}/rendered", ct.study, ct.series);
    picture(&series, "", "image/*").expect(200);
    let rendered = format!("{}/rendered", ct.path());
    for bad in ["?viewport=100000,100000", "?viewport=0,0", "?window=1", "?quality=0"] {
        picture(&rendered, bad, "*/*").expect(400);
    }
    // PS3.18 8.3.5.1.1: what is not drawn is told.
    for (annotation, told) in [("technique%2Cpatient", "patient,technique"), ("patient", "patient"), ("SECRET", "all")]
    {
        let answer = picture(&rendered, &format!("?annotation={annotation}"), "*/*").expect(200);
        let warning = format!("/dicom-web: The following annotation values are not supported: {told}");
        assert!(answer.header("warning").ends_with(&warning), "{}", answer.header("warning"));
    }
    assert_eq!(picture(&rendered, "?annotation=", "*/*").expect(200).header("warning"), "");
    for other in ["video/mp4", "image/jp2"] {
        picture(&rendered, "", other).expect(406);
    }
    picture(&format!("{}/frames/2/rendered", ct.path()), "", "*/*").expect(404);
    picture(&format!("{}/frames/1/rendered", ct.path()), "", "*/*").expect(200);
    let (_, report) = fixture(DEFLATED);
    // PS3.18 8.6.3: the report is there, and has no picture.
    for resource in ["rendered", "thumbnail"] {
        let refused = web.get(&format!("{}/{resource}", report.path())).expect(406);
        assert_eq!(refused.text(), "not rendered: the object has no pixel data\n");
    }
    let (_, compressed) = fixture(ENCAPSULATED);
    let answer = picture(&format!("{}/rendered", compressed.path()), "?viewport=10,10", "*/*");
    assert!(answer.status == 200 || answer.status == 406 && answer.text().starts_with("not rendered"), "{answer:?}");
}

// PS3.18 9.
#[test]
fn wado_uri_gives_one_object() {
    let web = TestWeb::start();
    let (_, Instance { study, series, instance }) = fixture(CT);
    let ask = |more: &str| {
        let target = format!("/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}{more}");
        http::request(web.address, "GET", &target, &[], b"")
    };
    let answer = ask("&contentType=application%2Fdicom").expect(200);
    assert!(answer.header("content-type").starts_with("application/dicom"));
    assert_eq!(text(&object(&answer.body), tags::SOP_INSTANCE_UID), instance);
    // PS3.18 table 8.7.4-1, 8.7.5.
    let header = |accept: &str| {
        let target = format!("/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}");
        http::request(web.address, "GET", &target, &[("Accept", accept)], b"").expect(200)
    };
    for (accept, kind) in [
        ("*/*", "image/jpeg"),
        ("image/avif,image/*,*/*;q=0.8", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/gif", "image/gif"),
        ("application/dicom", "application/dicom"),
    ] {
        assert!(header(accept).header("content-type").starts_with(kind), "{accept}");
    }
    assert!(ask("").expect(200).header("content-type").starts_with("image/jpeg"));
    assert_eq!(header("application/dicom").body, answer.body);
    let picture = |more: &str| ask(&format!("&contentType=image%2Fjpeg{more}"));
    let shown =
        picture("&rows=20&columns=10&windowCenter=50&windowWidth=400&imageQuality=80&frameNumber=1").expect(200);
    assert_eq!(shown.header("content-type"), "image/jpeg");
    assert_eq!(image::load_from_memory(&shown.body).unwrap().into_luma8().dimensions(), (10, 10));
    let rendered = web.get(&format!("/studies/{study}/series/{series}/instances/{instance}/rendered")).expect(200);
    assert!(picture("").expect(200).body == rendered.body);
    for bad in ["&rows=0", "&windowCenter=1", "&region=0,0,1,1", "&frameNumber=x", "&imageQuality=0"] {
        picture(bad).expect(400);
    }
    picture("&presentationSeriesUID=1.2&presentationUID=1.2.3").expect(400);
    for anonymize in ["&anonymize=yes", "&contentType=application/dicom&anonymize=yes"] {
        let refused = ask(anonymize).expect(400);
        assert!(refused.text().contains("anonymize is not supported"), "an identified object is not sent instead");
    }
    picture("&frameNumber=2").expect(404);
    ask("&contentType=video%2Fmp4").expect(406);
    ask("&contentType=application/dicom&transferSyntax=1.2.840.10008.1.2.4.90").expect(406);
    ask("&studyUID=1").expect(400);
    let none = format!("/dicom-web/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID=1.2.3");
    http::request(web.address, "GET", &none, &[], b"").expect(404);
    http::request(web.address, "GET", "/wado?requestType=WADO&studyUID=1", &[], b"").expect(400);
}

#[test]
fn what_cannot_be_had_as_wanted_is_406_and_says_what_there_is() {
    let web = TestWeb::start();
    let (stored, instance) = fixture(ENCAPSULATED);
    let jpeg = "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.4.50";
    let refused = web.get_with(&instance.path(), &[("Accept", jpeg)]).expect(406);
    assert!(refused.text().contains(stored.meta().transfer_syntax().trim_end_matches('\0')));
    web.get_with(&instance.path(), &[("Accept", "image/jpeg")]).expect(406);
    web.get_with(&format!("/studies/{}", instance.study), &[("Accept", "application/dicom")]).expect(406);
}

/// Writes the study 1.2.1 with one native object and one that says it is JPEG Baseline, both with
/// Pixel Data.
fn write_mixed(folder: &Path) {
    let name = |number| folder.join(format!("{number}.dcm"));
    for number in 1..=2 {
        objects::write(&name(number), 1, 1, number);
    }
    let mut native = fs::read(name(1)).unwrap();
    native.extend(b"\xe0\x7f\x10\0OB\0\0\x06\0\0\0native");
    fs::write(name(1), native).unwrap();
    let mut lossy = in_syntax(&fs::read(name(2)).unwrap(), "1.2.840.10008.1.2.4.50");
    lossy.extend(in_fragments(tags::PIXEL_DATA, &[b"lossy!"]));
    fs::write(name(2), lossy).unwrap();
}

// PS3.18 table 10.4.3-1.
#[test]
fn objects_that_cannot_be_had_as_wanted_do_not_hide_the_others() {
    let folder = TempDir::new().unwrap();
    write_mixed(folder.path());
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let (explicit, jpeg) = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50");
    let of = |kind: &str, uid: &str| format!("multipart/related; type=\"{kind}\"; transfer-syntax={uid}");
    for (path, kind) in [
        ("/studies/1.2.1", "application/dicom"),
        ("/studies/1.2.1", "application/octet-stream"),
        ("/studies/1.2.1/series/1.2.1.1/bulkdata", "application/octet-stream"),
        ("/studies/1.2.1/pixeldata", "application/octet-stream"),
    ] {
        for uid in [explicit, jpeg] {
            let some = web.get_with(path, &[("Accept", &of(kind, uid))]).expect(206);
            let found = parts(&some);
            assert_eq!(found.len(), 1, "{path} {uid}");
            assert_eq!(found[0].0, format!("{kind}; transfer-syntax={uid}"), "{path}");
            assert!(some.header("warning").contains("1 instances are left out"), "{}", some.header("warning"));
        }
        let both = format!("{}, {};q=0.5", of(kind, explicit), of(kind, jpeg));
        assert_eq!(parts(&web.get_with(path, &[("Accept", &both)]).expect(200)).len(), 2, "{path}");
        web.get_with(path, &[("Accept", &of(kind, "1.2.840.10008.1.2.4.90"))]).expect(406);
    }
    let value = |number| format!("/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.{number}/bulkdata/7FE00010");
    let octets = |uid: &str| format!("application/octet-stream; transfer-syntax={uid}");
    for (number, uid, status) in [(1, explicit, 200), (1, jpeg, 406), (2, jpeg, 200), (2, explicit, 406)] {
        web.get_with(&value(number), &[("Accept", &octets(uid))]).expect(status);
    }
}

// PS3.18 table 10.4.4-1.
#[test]
fn instances_as_octets_are_their_bulk_data() {
    let web = TestWeb::start();
    let (_, ct) = fixture(CT);
    let octets = [("Accept", "multipart/related; type=\"application/octet-stream\"")];
    let series = format!("/studies/{}/series/{}", ct.study, ct.series);
    for path in [format!("/studies/{}", ct.study), series, ct.path()] {
        let bulk = parts(&web.get(&format!("{path}/bulkdata")).expect(200));
        assert!(parts(&web.get_with(&path, &octets).expect(200)) == bulk, "{path}");
    }
    let less = [("Accept", "multipart/related; type=\"application/octet-stream\";q=0.5, */*;q=0.9")];
    assert!(parts(&web.get_with(&ct.path(), &less).expect(200))[0].0.starts_with("application/dicom;"));
}

// RFC 9110 12.5.1.
#[test]
fn a_type_that_is_refused_by_name_is_not_sent_for_a_wildcard() {
    let web = TestWeb::start();
    let (_, instance) = fixture(ENCAPSULATED);
    let get = |path: &str, accept: &str| web.get_with(&format!("{}{path}", instance.path()), &[("Accept", accept)]);
    get("", "application/dicom;q=0, */*").expect(406);
    get("/bulkdata", "application/octet-stream;q=0, */*;q=0.5").expect(406);
    let frame = get("/frames/1", "application/octet-stream;q=0, */*;q=0.5").expect(200);
    assert!(parts(&frame)[0].0.starts_with("image/dicom-rle"));
    let (_, ct) = fixture(CT);
    let refused = [("Accept", "application/octet-stream;q=0, application/*")];
    web.get_with(&format!("{}/bulkdata/7FE00010", ct.path()), &refused).expect(406);
}

#[test]
fn a_study_comes_whole_with_its_kinds_mixed() {
    let web = TestWeb::start();
    let (_, instance) = fixture(ENCAPSULATED);
    let any = [("Accept", "multipart/related; type=application/dicom; transfer-syntax=*")];
    let answer = web.get_with(&format!("/studies/{}", instance.study), &any).expect(200);
    assert_eq!(parts(&answer).len(), 3);
    let all: usize = web
        .get("/studies")
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|study| {
            parts(&web.get(&format!("/studies/{}", value(study, "0020000D").as_str().unwrap())).expect(200)).len()
        })
        .sum();
    assert_eq!(all, 33);
}

/// Returns the frames of an object as stored in its file.
pub(super) fn stored_frames(object: &DefaultDicomObject, count: usize) -> Vec<Vec<u8>> {
    let value = object.element(tags::PIXEL_DATA).unwrap().value().clone();
    match value.fragments() {
        Some(fragments) => fragments.to_vec(),
        None => {
            let bytes = value.to_bytes().unwrap().into_owned();
            bytes.chunks(bytes.len() / count).map(<[u8]>::to_vec).collect()
        }
    }
}

#[test]
fn frames_come_as_they_are_in_the_order_in_which_they_are_wanted() {
    let web = TestWeb::start();
    let ohif = [("Accept", "multipart/related; type=application/octet-stream; transfer-syntax=*")];
    for (path, count) in [(CT, 1), (BIG_ENDIAN, 1), (IMPLICIT, 1), (TWO_FRAMES, 2), (ENCAPSULATED, 3)] {
        let (stored, instance) = fixture(path);
        let expected = stored_frames(&stored, count);
        for _ in 0..2 {
            for (at, frame) in expected.iter().enumerate() {
                let answer = web.get_with(&format!("{}/frames/{}", instance.path(), at + 1), &ohif).expect(200);
                let parts = parts(&answer);
                assert!(parts.len() == 1 && parts[0].1 == *frame, "frame {} of {path}", at + 1);
                assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            }
        }
        let reversed: Vec<_> = (1..=count).rev().map(|number| number.to_string()).collect();
        let answer = web.get_with(&format!("{}/frames/{}", instance.path(), reversed.join(",")), &ohif).expect(200);
        let received: Vec<_> = parts(&answer).into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(received, expected.iter().rev().cloned().collect::<Vec<_>>(), "{path}");
        web.get(&format!("{}/frames/{}", instance.path(), count + 1)).expect(404);
        web.get(&format!("{}/frames/0", instance.path())).expect(400);
    }
    let (_, report) = fixture(DEFLATED);
    let none = web.get(&format!("{}/frames/1", report.path())).expect(404);
    assert!(none.text().contains("no pixel data"));
}

#[test]
fn the_type_of_frames_is_the_true_one() {
    let web = TestWeb::start();
    let (stored, instance) = fixture(ENCAPSULATED);
    let uid = stored.meta().transfer_syntax().trim_end_matches('\0').to_owned();
    let frame = format!("{}/frames/1", instance.path());
    let any = "application/octet-stream; transfer-syntax=*";
    let octets = web.get_with(&frame, &[("Accept", any)]).expect(200);
    assert_eq!(octets.header("content-type"), format!("application/octet-stream; transfer-syntax={uid}"));
    let part = web.get_with(&frame, &[("Accept", any), ("Range", "bytes=0-3")]).expect(206);
    assert_eq!(part.body, octets.body[..4]);
    let (_, native) = fixture(CT);
    let answer = web.get(&format!("{}/frames/1", native.path())).expect(200);
    assert_eq!(parts(&answer)[0].0, "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1");
    let jpeg = [("Accept", "multipart/related; type=\"image/jpeg\"")];
    web.get_with(&format!("{}/frames/1", native.path()), &jpeg).expect(406);
}

#[test]
fn members_of_archives_are_served_like_files() {
    use crate::util::archives;
    let folder = TempDir::new().unwrap();
    let names = ["a.dcm", "b.dcm"];
    let files: Vec<(String, Vec<u8>)> = names
        .into_iter()
        .zip([ENCAPSULATED, BIG_ENDIAN])
        .map(|(name, path)| (name.to_owned(), fs::read(archive().join(path)).unwrap()))
        .collect();
    let mut zip = archives::Zip::default();
    for (name, bytes) in &files {
        zip.add(name.as_bytes(), bytes, archives::Keep::Deflated);
    }
    fs::write(folder.path().join("all.zip"), zip.finish()).unwrap();
    let tar = archives::tar(&[("a.dcm", files[0].1.as_slice())]);
    fs::write(folder.path().join("other.tar.gz"), archives::gzip(&tar)).unwrap();
    let web = TestWeb::with(folder.path(), |_| {}, None);
    for (path, count) in [(ENCAPSULATED, 3), (BIG_ENDIAN, 1)] {
        let (stored, instance) = fixture(path);
        let json = web.get(&format!("{}/metadata", instance.path())).expect(200).json();
        assert_eq!(json[0].as_object().unwrap().len(), all_tags(&stored).len());
        let expected = stored_frames(&stored, count);
        for at in (0..count).rev() {
            let answer = web.get(&format!("{}/frames/{}", instance.path(), at + 1)).expect(200);
            assert_eq!(parts(&answer)[0].1, expected[at], "frame {} of {path}", at + 1);
        }
        assert_eq!(parts(&web.get(&instance.path()).expect(200)).len(), 1);
    }
}

/// Overwrites a file with zeros. Its size and time stay.
fn hollow_out(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut &file, &vec![0; metadata.len() as usize]).unwrap();
    file.set_modified(metadata.modified().unwrap()).unwrap();
}

/// Moves the time of a file.
fn touch(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(fs::metadata(path).unwrap().modified().unwrap() + Duration::from_secs(5)).unwrap();
}

#[test]
fn a_member_is_inflated_once_for_its_frames() {
    use crate::util::archives;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("other.tar.gz");
    let tar = archives::tar(&[("a.dcm", fs::read(archive().join(ENCAPSULATED)).unwrap().as_slice())]);
    let packed = archives::gzip(&tar);
    fs::write(&path, &packed).unwrap();
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let (stored, instance) = fixture(ENCAPSULATED);
    let expected = stored_frames(&stored, 3);
    let any = [("Accept", "application/octet-stream; transfer-syntax=*")];
    let frame = |number: u8| web.get_with(&format!("{}/frames/{number}", instance.path()), &any);
    assert!(frame(1).expect(200).body == expected[0]);
    // Nothing in the archive can be read now, and nothing has to be.
    hollow_out(&path);
    assert!(frame(3).expect(200).body == expected[2] && frame(2).expect(200).body == expected[1]);
    // A change of the archive is seen, even before the next scan.
    fs::write(&path, &packed).unwrap();
    touch(&path);
    frame(1).expect(404);
}

#[test]
fn finished_metadata_are_kept_until_something_changes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("1.dcm");
    objects::write(&path, 1, 1, 1);
    objects::write(&folder.path().join("2.dcm"), 1, 1, 2);
    let cached = TestWeb::with(folder.path(), |_| {}, None);
    let plain = TestWeb::with(folder.path(), |_| {}, None);
    let without = TestWeb::with(folder.path(), |options| options.metadata_cache_bytes = 0, None);
    let series = "/studies/1.2.1/series/1.2.1.1/metadata";
    let get = |web: &TestWeb, coding: &str| {
        let answer = web.get_with(series, &[("Accept-Encoding", coding)]).expect(200);
        let mut text = String::new();
        if coding == "gzip" {
            assert_eq!(answer.header("content-encoding"), "gzip");
            let mut decoder = flate2::read::GzDecoder::new(answer.body.as_slice());
            std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
        } else {
            text = answer.text();
        }
        let host = web.address.to_string();
        text.replace(&host, "host")
    };
    let first = get(&cached, "gzip");
    assert_eq!(first, get(&without, "gzip"));
    assert_eq!(first, get(&cached, "identity"));
    assert_eq!(first, get(&plain, "identity"));
    // Nothing can be read of the object now. Whoever has the metadata need not.
    hollow_out(&path);
    assert_eq!(first, get(&cached, "gzip"));
    assert_eq!(first, get(&cached, "identity"));
    assert_eq!(first, get(&plain, "identity"));
    assert!(get(&without, "gzip").contains("UNAVAILABLE"));
    // A file that has changed is seen before the next scan, and what could not be read is not kept.
    touch(&path);
    assert!(get(&cached, "gzip").contains("UNAVAILABLE"));
    objects::write(&path, 1, 1, 1);
    index_of(folder.path(), &cached.index());
    assert_eq!(first, get(&cached, "gzip"));
    // A change of the index is seen as well, also by a client that has the answer from before.
    let tag = cached.get(series).expect(200).header("etag");
    let same = || cached.get_with(series, &[("If-None-Match", &tag)]);
    same().expect(304);
    objects::write(&folder.path().join("3.dcm"), 1, 1, 3);
    index_of(folder.path(), &cached.index());
    same().expect(200);
    assert_eq!(get(&cached, "gzip").matches("1.2.1.1.3").count(), 1);
}

// PS3.18 CP-2040.
#[test]
fn all_pixel_data_and_all_bulk_data_come_in_parts() {
    let web = TestWeb::start();
    let (stored, instance) = fixture(ENCAPSULATED);
    let frames = stored_frames(&stored, 3);
    let answer = web.get(&format!("{}/pixeldata", instance.path())).expect(200);
    let received = parts(&answer);
    assert_eq!(received.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), frames);
    assert!(received.iter().all(|(kind, _)| kind == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.5"));
    let location = format!("Content-Location: http://{}/dicom-web{}/bulkdata/7FE00010", web.address, instance.path());
    assert!(String::from_utf8_lossy(&answer.body).contains(&location));
    let (_, ct) = fixture(CT);
    let series = format!("/studies/{}/series/{}", ct.study, ct.series);
    let pixels = parts(&web.get(&format!("{series}/pixeldata")).expect(200));
    assert_eq!(pixels.len(), 10);
    assert!(pixels.iter().all(|(kind, _)| kind == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"));
    assert!(pixels == parts(&web.get(&format!("{series}/bulkdata")).expect(200)));
    for (path, count) in [(BIG_ENDIAN, 1), (TWO_FRAMES, 1)] {
        let (stored, instance) = fixture(path);
        let pixels = parts(&web.get(&format!("{}/pixeldata", instance.path())).expect(200));
        let expected = stored.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
        assert!(pixels.len() == count && pixels[0].1 == expected, "{path}");
    }
    let (_, report) = fixture(DEFLATED);
    web.get(&format!("{}/pixeldata", report.path())).expect(404);
    web.get_with(&format!("{series}/pixeldata"), &[("Accept", "image/png")]).expect(406);
    web.get(&format!("/studies/{}/pixeldata", ct.study)).expect(200);
    web.get("/studies/1.2.3/bulkdata").expect(404);
}

/// Returns an element of explicit VR with its value in fragments, after an empty offset table.
fn in_fragments(tag: Tag, fragments: &[&[u8]]) -> Vec<u8> {
    let mut element = [tag.group().to_le_bytes(), tag.element().to_le_bytes()].concat();
    element.extend(b"OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\0\0\0\0");
    for fragment in fragments {
        element.extend(b"\xfe\xff\0\xe0");
        element.extend(u32::try_from(fragment.len()).unwrap().to_le_bytes());
        element.extend(*fragment);
    }
    element.extend(b"\xfe\xff\xdd\xe0\0\0\0\0");
    element
}

/// Returns a file of [`objects`] that names another transfer syntax.
fn in_syntax(file: &[u8], transfer_syntax: &str) -> Vec<u8> {
    let explicit = b"1.2.840.10008.1.2.1\0";
    let at = file.windows(explicit.len()).position(|bytes| bytes == explicit).unwrap();
    let mut uid = transfer_syntax.as_bytes().to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    let mut whole = file[..at - 2].to_vec();
    whole.extend(u16::try_from(uid.len()).unwrap().to_le_bytes());
    whole.extend(&uid);
    whole.extend(&file[at + explicit.len()..]);
    let length = u32::from_le_bytes(whole[140..144].try_into().unwrap()) + (uid.len() - explicit.len()) as u32;
    whole[140..144].copy_from_slice(&length.to_le_bytes());
    whole
}

#[test]
fn each_value_in_fragments_is_found_by_its_uri() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("1.dcm");
    objects::write(&path, 1, 1, 1);
    let mut file = in_syntax(&fs::read(&path).unwrap(), "1.2.840.10008.1.2.5");
    let icon = in_fragments(tags::PIXEL_DATA, &[b"icon", b"'s end"]);
    file.extend(b"\x28\0\x08\0IS\x02\x003 ");
    file.extend(b"\x88\0\0\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff");
    file.extend(icon);
    file.extend(b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0");
    file.extend(in_fragments(tags::PIXEL_DATA, &[b"frame1", b"frame2", b"frame3"]));
    file.extend(b"\xe1\x7f\x10\0LO\x04\0ACME");
    file.extend(in_fragments(Tag(0x7FE1, 0x1010), &[b"private!"]));
    fs::write(&path, file).unwrap();
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let json = web.get("/studies/1.2.1/metadata").expect(200).json();
    let target = |element: &Value| {
        let uri = element["BulkDataURI"].as_str().unwrap();
        uri.split_once(&web.address.to_string()).unwrap().1.to_owned()
    };
    let icon = target(&json[0]["00880200"]["Value"][0]["7FE00010"]);
    let get = |target: &str, headers: &[(&str, &str)]| http::request(web.address, "GET", target, headers, b"");
    let octets = "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.5";
    for (target, value) in [(icon.clone(), "icon's end"), (target(&json[0]["7FE11010"]), "private!")] {
        let answer = get(&target, &[]).expect(200);
        assert_eq!((answer.header("content-type").as_str(), answer.text()), (octets, value.into()), "{target}");
    }
    assert_eq!(get(&icon, &[("Range", "bytes=2-5")]).expect(206).text(), "on's");
    let received = parts(&web.get("/studies/1.2.1/bulkdata").expect(200));
    let values: Vec<_> = received.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect();
    assert_eq!(values, ["icon's end", "frame1", "frame2", "frame3", "private!"]);
    assert!(received.iter().all(|(kind, _)| kind == octets));
    assert_eq!(parts(&web.get("/studies/1.2.1/pixeldata").expect(200)).len(), 3);
}

/// Returns each element of a Native DICOM Model: its tag, VR and keyword, in its order.
fn elements(xml: &str) -> Vec<String> {
    let heads = xml.split("<DicomAttribute ").skip(1);
    heads.map(|rest| rest.split_once('>').unwrap().0.to_owned()).collect()
}

// PS3.19 A.1, PS3.18 10.4.4.
#[test]
fn metadata_come_as_xml_too() {
    use crate::util::peers;
    let web = TestWeb::start();
    let xml = [("Accept", "multipart/related; type=\"application/dicom+xml\"")];
    for path in ["mueller-aenne/rt/RTPLAN.dcm", CT] {
        let (_, instance) = fixture(path);
        let answer = web.get_with(&format!("{}/metadata", instance.path()), &xml).expect(200);
        assert!(answer.header("content-type").starts_with("multipart/related; type=\"application/dicom+xml\""));
        let parts = parts(&answer);
        assert_eq!((parts.len(), parts[0].0.as_str()), (1, "application/dicom+xml"));
        let ours = String::from_utf8(parts[0].1.clone()).unwrap();
        let same = web.get_with(&format!("{}/metadata", instance.path()), &[xml[0], ("Accept-Encoding", "gzip")]);
        assert_ne!(same.expect(200).header("etag"), answer.header("etag"));
        let Some(mut dcm2xml) = peers::dcmtk("dcm2xml") else {
            peers::skipped("dcm2xml");
            return;
        };
        dcm2xml.args(["--native-format", "--convert-to-utf8"]).arg(archive().join(path));
        let theirs = peers::run(&mut dcm2xml).expect_success().replace('\n', "");
        let own = ["00083002", "00080005"];
        let known: Vec<_> =
            elements(&ours).into_iter().filter(|head| !own.iter().any(|tag| head.contains(tag))).collect();
        let expected: Vec<_> = elements(&theirs).into_iter().filter(|head| !head.contains("00080005")).collect();
        assert_eq!(known, expected, "{path}");
        let name =
            |xml: &str| xml.split("<PersonName ").nth(1).unwrap().split("</PersonName>").next().unwrap().to_owned();
        assert_eq!(name(&ours), name(&theirs), "{path}");
    }
    let (_, ct) = fixture(CT);
    let series = web.get_with(&format!("/studies/{}/series/{}/metadata", ct.study, ct.series), &xml).expect(200);
    assert_eq!(parts(&series).len(), 10);
}

#[test]
fn searches_come_as_xml_too() {
    let web = TestWeb::start();
    let xml = [("Accept", "multipart/related; type=\"application/dicom+xml\"")];
    let answer = web.get_with("/studies", &xml).expect(200);
    let parts = parts(&answer);
    let json = web.get("/studies").json();
    assert_eq!(parts.len(), json.as_array().unwrap().len());
    for ((kind, model), study) in parts.iter().zip(json.as_array().unwrap()) {
        assert_eq!(kind, "application/dicom+xml");
        let model = String::from_utf8(model.clone()).unwrap();
        let tags: Vec<_> = elements(&model).iter().map(|head| head[5..13].to_owned()).collect();
        assert_eq!(tags, study.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
        let uid = value(study, "0020000D").as_str().unwrap();
        assert!(model.contains(&format!("keyword=\"StudyInstanceUID\"><Value number=\"1\">{uid}</Value>")), "{model}");
    }
    web.get_with("/studies?PatientID=nobody", &xml).expect(204);
    web.get_with("/studies", &[("Accept", "application/dicom+xml")]).expect(406);
}

#[test]
fn bulk_data_are_the_bytes_that_metadata_point_to() {
    let web = TestWeb::start();
    for path in [CT, BIG_ENDIAN, IMPLICIT, TWO_FRAMES] {
        let (stored, instance) = fixture(path);
        let json = web.get(&format!("{}/metadata", instance.path())).expect(200).json();
        let uri = json[0]["7FE00010"]["BulkDataURI"].as_str().unwrap();
        let target = uri.split_once(&web.address.to_string()).unwrap().1;
        let answer = http::request(web.address, "GET", target, &[("Accept", "*/*")], b"").expect(200);
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        let expected = stored.element(tags::PIXEL_DATA).unwrap().value().to_bytes().unwrap().into_owned();
        assert!(answer.body == expected, "{path}");
        let study = web.get(&format!("/studies/{}/metadata", instance.study)).expect(200).json();
        let with_pixels = study.as_array().unwrap().iter().find(|it| it.get("7FE00010").is_some()).unwrap();
        let uri = with_pixels["7FE00010"]["BulkDataURI"].as_str().unwrap();
        assert!(!uri.contains("/series/"), "{uri}");
        let target = uri.split_once(&web.address.to_string()).unwrap().1;
        http::request(web.address, "GET", target, &[], b"").expect(200);
    }
    let (_, instance) = fixture(CT);
    web.get(&format!("{}/bulkdata/00420011", instance.path())).expect(404);
    web.get(&format!("{}/bulkdata/..%2F..", instance.path())).expect(400);
    web.get(&format!("{}/bulkdata/0042001", instance.path())).expect(400);
}

#[test]
fn values_in_items_are_found_by_their_path() {
    let folder = TempDir::new().unwrap();
    let long = "x".repeat(70_000);
    let item = |text: &str| {
        InMemDicomObject::from_element_iter([dicom_core::DataElement::new(
            tags::TEXT_VALUE,
            VR::UT,
            dicom_core::PrimitiveValue::from(text),
        )])
    };
    let sequence = dicom_core::value::DataSetSequence::from(vec![item("short"), item(&long)]);
    let mut object = InMemDicomObject::new_empty();
    for (tag, uid) in [
        (tags::SOP_CLASS_UID, objects::SOP_CLASS),
        (tags::SOP_INSTANCE_UID, "1.2.9.1.1"),
        (tags::STUDY_INSTANCE_UID, "1.2.9"),
        (tags::SERIES_INSTANCE_UID, "1.2.9.1"),
    ] {
        object.put_str(tag, VR::UI, uid);
    }
    object.put(dicom_core::DataElement::new(tags::CONTENT_SEQUENCE, VR::SQ, sequence));
    object.put(dicom_core::DataElement::new(
        tags::ENCAPSULATED_DOCUMENT,
        VR::OB,
        dicom_core::PrimitiveValue::from(vec![b'%'; 5000]),
    ));
    object.put_str(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, VR::LO, "application/pdf");
    let meta = dicom_object::FileMetaTableBuilder::new().transfer_syntax("1.2.840.10008.1.2.1");
    object.with_meta(meta).unwrap().write_to_file(folder.path().join("1.dcm")).unwrap();
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let json = web.get("/studies/1.2.9/metadata").expect(200).json();
    let items = json[0]["0040A730"]["Value"].as_array().unwrap();
    assert_eq!(items[0]["0040A160"]["Value"][0], "short");
    let uri = items[1]["0040A160"]["BulkDataURI"].as_str().unwrap();
    assert!(uri.ends_with("/bulkdata/0040A730/2/0040A160"), "{uri}");
    let get = |path: &str, accept: &str| {
        web.get_with(&format!("/instances/1.2.9.1.1/bulkdata/{path}"), &[("Accept", accept)])
    };
    assert_eq!(get("0040A730/2/0040A160", "*/*").expect(200).text(), long);
    let all = parts(&web.get("/studies/1.2.9/bulkdata").expect(200));
    assert_eq!(all.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [70_000, 5000]);
    assert_eq!(get("0040A730/1/0040A160", "*/*").expect(200).text().trim_end(), "short");
    get("0040A730/3/0040A160", "*/*").expect(404);
    let document = get("00420011", "application/pdf, */*;q=0.1").expect(200);
    assert_eq!((document.header("content-type").as_str(), document.body.len()), ("application/pdf", 5000));
    get("00420011", "image/png").expect(406);
}

#[test]
fn an_object_that_is_damaged_gives_what_stands_before_the_damage() {
    let web = TestWeb::start();
    let answer = web.get("/instances?limit=100").json();
    let cut: Vec<&Value> =
        answer.as_array().unwrap().iter().filter(|it| it["00280010"].get("Value").is_none()).collect();
    assert!(!cut.is_empty());
    for instance in cut {
        let uid = |tag: &str| value(instance, tag).as_str().unwrap().to_owned();
        let path =
            format!("/studies/{}/series/{}/instances/{}/metadata", uid("0020000D"), uid("0020000E"), uid("00080018"));
        let json = web.get(&path).expect(200).json();
        assert_eq!(value(&json[0], "00080018"), value(instance, "00080018"));
    }
}
