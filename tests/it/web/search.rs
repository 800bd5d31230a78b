//! QIDO-RS.

use serde_json::Value;

use super::*;
use crate::util::objects;

/// Returns the Study Instance UIDs of an answer, in its order.
fn studies(answer: &Answer) -> Vec<String> {
    if answer.status == 204 {
        return Vec::new();
    }
    let json = answer.json();
    json.as_array().unwrap().iter().map(|study| value(study, "0020000D").as_str().unwrap().to_owned()).collect()
}

fn count(answer: &Answer) -> usize {
    studies(answer).len()
}

#[test]
fn all_studies_have_the_default_attributes() {
    let web = TestWeb::start();
    let answer = web.get("/studies").expect(200);
    assert_eq!(answer.header("content-type"), "application/dicom+json");
    let json = answer.json();
    let all = json.as_array().unwrap();
    assert_eq!(all.len(), 6);
    for study in all {
        // PS3.18 table 10.6.3-3, and (0008,0005).
        for tag in [
            "00080005", "00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00080201", "00081190",
            "00100010", "00100020", "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208",
        ] {
            assert!(study.get(tag).is_some_and(|element| element["vr"].is_string()), "{tag} of {study}");
        }
        assert!(study.get("00080060").is_none(), "an attribute of a series");
        let url = value(study, "00081190").as_str().unwrap();
        assert_eq!(
            url,
            format!("http://{}/dicom-web/studies/{}", web.address, value(study, "0020000D").as_str().unwrap())
        );
    }
}

#[test]
fn names_are_found_in_every_script_and_without_accents() {
    let web = TestWeb::start();
    for (query, found) in [
        ("PatientName=M%C3%BCller*", 2),
        ("PatientName=mueller*", 0),
        ("PatientName=MULLER%5EANNE*", 2),
        ("PatientName=*%E5%A4%AA%E9%83%8E", 1),
        ("00100010=Yamada*", 1),
        ("PatientName=hong*", 2),
        ("PatientName=Nobody", 0),
        ("PatientName=O%27Brien", 0),
        ("PatientName=%22%27%29%3B--%25_", 0),
    ] {
        let answer = web.get(&format!("/studies?{query}"));
        assert_eq!(answer.status, if found == 0 { 204 } else { 200 }, "{query}");
        assert_eq!(count(&answer), found, "{query}");
    }
}

#[test]
fn nothing_found_is_204_without_a_body() {
    let web = TestWeb::start();
    let answer = web.get("/studies?PatientID=nobody").expect(204);
    assert!(answer.body.is_empty());
}

#[test]
fn all_six_searches_answer_with_their_ancestors() {
    let web = TestWeb::start();
    let study = studies(&web.get("/studies?ModalitiesInStudy=CT"))[0].clone();
    let all_series = web.get("/series").expect(200).json();
    assert!(all_series.as_array().unwrap().iter().all(|series| {
        ["00100010", "0020000D", "0020000E", "00080060", "00201209"].iter().all(|tag| series.get(tag).is_some())
    }));
    let series = web.get(&format!("/studies/{study}/series")).expect(200).json();
    let series = series.as_array().unwrap();
    assert_eq!(series.len(), 2);
    assert!(series[0].get("00100010").is_none(), "the path names the study");
    assert_eq!(value(&series[0], "0020000D"), &Value::from(study.clone()));
    let uid = value(&series[1], "0020000E").as_str().unwrap();
    let instances = web.get(&format!("/studies/{study}/series/{uid}/instances")).expect(200).json();
    for instance in instances.as_array().unwrap() {
        for tag in ["00080016", "00080018", "0020000D", "0020000E", "00200013", "00280010", "00280011", "00280100"] {
            assert!(instance.get(tag).is_some(), "{tag}");
        }
        let url = value(instance, "00081190").as_str().unwrap();
        assert!(url.contains(&format!("/studies/{study}/series/{uid}/instances/")), "{url}");
    }
    let of_study = web.get(&format!("/studies/{study}/instances")).expect(200).json();
    assert_eq!(of_study.as_array().unwrap().len(), 11);
    assert!(of_study[0].get("00080060").is_some(), "of which series is not in the path");
    let all = web.get("/instances").expect(200).json();
    assert_eq!(all.as_array().unwrap().len(), 33);
    web.get(&format!("/studies/{study}/series/1.2.3/instances")).expect(204);
    web.get("/studies/1.2.3/series").expect(204);
}

#[test]
fn a_keyword_in_other_case_is_not_ignored() {
    let web = TestWeb::start();
    for name in ["patientname", "patientID", "requestattributessequence.00400009"] {
        // Refused, or compared with what the studies have.
        let status = web.get(&format!("/studies?{name}=ZZZ")).status;
        assert!([204, 400].contains(&status), "{name}: {status}");
    }
    web.get("/studies?token=ZZZ").expect(200);
}

#[test]
fn a_plus_sign_is_a_space_unless_it_begins_a_time_zone() {
    let web = TestWeb::start();
    for query in [
        "AcquisitionDateTime=19000101+-+20240201",
        "AcquisitionDateTime=1900+-+2024",
        "AcquisitionDateTime=19000101+0100-20240201+0100",
        "StudyDate=19000101+-+20240201",
    ] {
        let status = web.get(&format!("/instances?{query}")).status;
        assert!([200, 204].contains(&status), "{query}: {status}");
    }
}

// PS3.18 8.3.4.4.
#[test]
fn pages_put_together_are_the_whole_in_its_order() {
    let web = TestWeb::start();
    let whole = studies(&web.get("/studies"));
    for size in 1..=7 {
        let mut pages = Vec::new();
        let mut offset = 0;
        loop {
            let answer = web.get(&format!("/studies?limit={size}&offset={offset}"));
            let page = studies(&answer);
            let left = whole.len().saturating_sub(offset + page.len());
            let warning = answer.header("warning");
            if left > 0 {
                // Counting has its time limit, and a busy machine reaches it.
                let mut expected = vec![format!("There are {left} additional results that can be requested")];
                expected.extend(
                    (1..=left).map(|n| format!("There are at least {n} additional results that can be requested")),
                );
                let is_told = expected.iter().any(|text| warning.ends_with(text));
                assert!(warning.starts_with("299 ") && is_told, "{warning}");
            } else {
                assert_eq!(warning, "");
            }
            if page.is_empty() {
                break;
            }
            offset += page.len();
            pages.extend(page);
        }
        assert_eq!(pages, whole, "in pages of {size}");
    }
    assert_eq!(web.get("/studies?limit=0").expect(200).json(), serde_json::json!([]));
}

#[test]
fn further_results_are_counted_up_to_a_thousand() {
    let folder = tempfile::TempDir::new().unwrap();
    for number in 1..=1_010 {
        crate::util::objects::write(&folder.path().join(format!("{number}.dcm")), 1, 1, number);
    }
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let warning = web.get("/instances?limit=2").expect(200).header("warning");
    // Counting has its time limit, and a busy machine reaches it.
    let least = warning.split("at least ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(least.is_some_and(|least| least <= 1_000) || warning.contains("may be"), "{warning}");
}

#[test]
fn a_limit_of_the_node_is_told() {
    let web = TestWeb::with(&archive(), |options| options.max_results = Some(4), None);
    let answer = web.get("/studies?limit=100").expect(200);
    assert_eq!(count(&answer), 4);
    assert!(
        answer.header("warning").contains("additional results that can be requested"),
        "{}",
        answer.header("warning")
    );
    assert_eq!(count(&web.get("/studies?offset=4")), 2);
}

#[test]
fn a_key_that_is_not_kept_is_told_and_an_unknown_one_refused() {
    let web = TestWeb::start();
    let answer = web.get("/studies?RequestingPhysician=X").expect(200);
    assert!(answer.header("warning").contains("00321032"), "{}", answer.header("warning"));
    let refused = web.get("/studies?PatientNam=SECRET").expect(400);
    assert!(refused.text().contains("did you mean `PatientName`?") && !refused.text().contains("SECRET"));
    web.get("/studies?limit=-1").expect(400);
    let date = web.get("/studies?StudyDate=2004-x").expect(400);
    assert_eq!(date.text().trim(), "StudyDate: write a date as 20040131, or a range as 20040131-20051231");
    // The same forms as in C-FIND.
    web.get("/studies?StudyDate=2004-01-01").expect(204);
    web.get("/studies?PatientID=1&PatientID=2").expect(400);
}

// PS3.18 8.3.4.1.
#[test]
fn one_attribute_is_matched_once_however_it_is_spelt() {
    let web = TestWeb::start();
    for query in [
        "PatientID=A&PatientID=B",
        "PatientID=A&00100020=B",
        "00100020=B&PatientID=A",
        "PatientID=A&patientid=B",
        "PatientID=A&(0010,0020)=B",
        "RequestAttributesSequence.RequestedProcedureID=A&00400275.00401001=B",
    ] {
        let refused = web.get(&format!("/studies?{query}")).expect(400).text();
        assert!(refused.contains("twice"), "{query}: {refused}");
    }
    for query in ["includefield=PatientID%3Dnobody", "PatientID%3Dnobody=x", "PatientID=A&includefield=00100020%3DA"] {
        web.get(&format!("/studies?{query}")).expect(400);
    }
    let study = &studies(&web.get("/studies?ModalitiesInStudy=CT"))[0];
    web.get(&format!("/studies/{study}/series?StudyInstanceUID={study}&studyinstanceuid=")).expect(200);
    for other in ["studyinstanceuid=1.2", &format!("StudyInstanceUID={study}&0020000D=1.2")] {
        web.get(&format!("/studies/{study}/series?{other}")).expect(400);
    }
}

#[test]
fn what_ohif_weasis_and_people_send_is_answered() {
    let web = TestWeb::start();
    let ohif = "/studies?limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060";
    let answer = web.get_with(ohif, &[("Accept", "application/dicom+json")]).expect(200);
    assert!(answer.json()[0].get("00081030").is_some());
    assert_eq!(answer.header("warning"), "", "Modality at study level is left out without a word");
    assert_eq!(count(&web.get("/studies?PatientName=*mit*&limit=101")), 1);
    assert_eq!(count(&web.get("/studies?ModalitiesInStudy=CT,MR")), 2);
    assert_eq!(count(&web.get("/studies?&includefield=StudyDescription&")), 6);
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    web.get_with("/studies", &[("Accept", browser)]).expect(200);
    web.get_with("/studies", &[("Accept", "application/dicom+xml")]).expect(406);
    let all = studies(&web.get("/studies"));
    let list = format!("/studies?StudyInstanceUID={}%5C{}", all[0], all[1]);
    assert_eq!(count(&web.get(&list)), 2);
}

#[test]
fn fuzzy_empty_and_multiple_values_are_matched() {
    let web = TestWeb::start();
    assert_eq!(count(&web.get("/studies?PatientName=smyth&fuzzymatching=true")), 1);
    assert_eq!(count(&web.get("/studies?PatientName=smyth")), 0);
    let both = web.get("/studies?ModalitiesInStudy=RTPLAN%5CRTDOSE&multiplevaluematching=true");
    assert_eq!(count(&both), 1);
    assert_eq!(count(&web.get("/studies?ModalitiesInStudy=RTPLAN%5CCT&multiplevaluematching=true")), 0);
    let none = web.get("/studies?AccessionNumber=%22%22&emptyvaluematching=true");
    let all = web.get("/studies").json();
    let without = all.as_array().unwrap().iter().filter(|study| study["00080050"].get("Value").is_none()).count();
    assert_eq!(count(&none), without);
}

#[test]
fn a_date_and_a_time_are_one_range_from_one_moment_to_another() {
    let folder = TempDir::new().unwrap();
    for (number, date, time) in [(1, "20240101", "100000"), (2, "20240102", "050000"), (3, "20240103", "100000")] {
        let file = objects::file_with(number, &[(0x0008, 0x0020, b"DA", date), (0x0008, 0x0030, b"TM", time)]);
        std::fs::write(folder.path().join(format!("{number}.dcm")), file).unwrap();
    }
    let web = TestWeb::with(folder.path(), |_| {}, None);
    // As two ranges the second study, at five, would not match.
    let answer = web.get("/studies?StudyDate=20240101-20240103&StudyTime=0900-0930");
    assert_eq!(studies(&answer), ["1.2.2", "1.2.1"]);
}

#[test]
fn many_results_come_in_pieces_and_whole() {
    let folder = TempDir::new().unwrap();
    for series in 0..20 {
        for instance in 0..100 {
            let path = folder.path().join(format!("{series}/{instance}.dcm"));
            objects::write(&path, series % 3 + 1, series + 1, instance + 1);
        }
    }
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let answer = web.get("/instances?includefield=all").expect(200);
    assert!(answer.is_whole && answer.body.len() > 1 << 20);
    assert_eq!(answer.json().as_array().unwrap().len(), 2000);
    // More than is gathered before the head goes out.
    let most = web.get("/instances?includefield=all&limit=1999").expect(200);
    assert_eq!(most.json().as_array().unwrap().len(), 1999);
    assert!(most.header("warning").contains("additional results"), "{}", most.header("warning"));
}

#[test]
fn metadata_of_objects_that_are_gone_have_no_url() {
    let folder = TempDir::new().unwrap();
    objects::write(&folder.path().join("1.dcm"), 1, 1, 1);
    let directory = TempDir::new().unwrap();
    let index = directory.path().join("index.db");
    index_of(folder.path(), &index);
    std::fs::remove_file(folder.path().join("1.dcm")).unwrap();
    index_of(folder.path(), &index);
    let web = TestWeb::with(folder.path(), |_| {}, None);
    web.get("/instances").expect(204);
}
