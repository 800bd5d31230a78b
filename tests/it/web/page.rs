//! The page and OHIF's files, as a browser gets them. `interop::browser` has the tests of the
//! script.

use std::fs;

use dcmdex::access::users::line_with_password;
use dcmdex::web::Ohif;

use super::*;
use crate::util::objects;

fn page(web: &TestWeb, target: &str) -> Answer {
    http::request(web.address, "GET", target, &[("Accept", "text/html,*/*;q=0.8")], b"")
}

/// How many studies a page lists.
fn listed(answer: &Answer) -> usize {
    answer.text().matches("<a class=\"main\" href=\"/study/").count()
}

#[test]
fn the_first_page_lists_studies_and_finds_them_as_one_types() {
    let web = TestWeb::start();
    let first = page(&web, "/").expect(200);
    assert_eq!(first.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(listed(&first), 6);
    for (query, count) in [
        ("q=muller", 2),
        ("q=M%C3%BCl", 2),
        ("q=gildong", 2),
        ("q=%E5%A4%AA%E9%83%8E", 1),
        ("q=smyth", 1),
        ("q=nobody", 0),
        ("q=&modality=CT", 1),
        ("modality=CT&q=yamada", 0),
        ("from=1900-01-01&to=1900-12-31", 0),
        ("from=1900-01-01", 6),
        ("q=%22%27%3B--", 0),
    ] {
        assert_eq!(listed(&page(&web, &format!("/?{query}")).expect(200)), count, "{query}");
    }
    let all = web.get("/studies?includefield=AccessionNumber").json();
    let study = all.as_array().unwrap().iter().find(|study| study["00080050"].get("Value").is_some()).unwrap();
    for tag in ["00080050", "00100020"] {
        let value = value(study, tag).as_str().unwrap();
        assert!(listed(&page(&web, &format!("/?q={value}")).expect(200)) >= 1, "{tag}");
    }
}

/// Builds an object that the index takes, in a study of its own.
fn write_study(folder: &Path, number: usize) {
    let study = format!("1.2.{number}");
    let file = objects::file("P1", &study, &format!("{study}.1"), &format!("{study}.1.1"));
    fs::write(folder.join(format!("{number}.dcm")), file).unwrap();
}

#[test]
fn a_long_list_has_pages_that_give_each_study_once() {
    let folder = TempDir::new().unwrap();
    (1..=205).for_each(|number| write_study(folder.path(), number));
    let web = TestWeb::with(folder.path(), |_| {}, None);
    for query in ["", "q=test&"] {
        let mut seen = std::collections::BTreeSet::new();
        for (number, count, text) in [
            (1, 100, "Studies 1 to 100, the newest first. There are more."),
            (2, 100, "Studies 101 to 200, the newest first. There are more."),
            (3, 5, "Studies 201 to 205, the newest first."),
            (4, 0, "There are no more studies."),
        ] {
            let answer = page(&web, &format!("/?{query}page={number}")).expect(200);
            assert_eq!(listed(&answer), count, "{query}{number}");
            let html = answer.text();
            assert!(html.contains(&format!("role=\"status\">{text}</p>")), "{html}");
            assert_eq!(html.contains("rel=\"next\""), number < 3);
            assert_eq!(html.contains("rel=\"prev\""), number > 1);
            seen.extend(html.split("href=\"/study/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
        assert_eq!(seen.len(), 205);
    }
}

#[test]
fn a_study_has_its_series_and_the_index_its_numbers() {
    let web = TestWeb::start();
    let all = web.get("/studies?ModalitiesInStudy=CT").json();
    let uid = value(&all[0], "0020000D").as_str().unwrap();
    let study = page(&web, &format!("/study/{uid}")).expect(200).text();
    assert_eq!(study.matches("class=\"main card\"").count(), 2);
    assert_eq!(study.matches("/thumbnail\"").count(), 2);
    assert!(!study.contains("/ohif/"), "there is none");
    assert!(!study.contains("not-at-hand"));
    let status = page(&web, "/status").expect(200).text();
    assert!(status.contains("<dt>Studies</dt><dd>6</dd>") && status.contains("<dt>Instances</dt><dd>33</dd>"));
    for (target, why) in [("/study/1.2.3", "no such study"), (&format!("/study/{uid}/series/1.2"), "no such series")] {
        let answer = page(&web, target).expect(404);
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert!(answer.text().contains(why) && answer.text().contains("<h1>"), "{target}");
    }
}

#[test]
fn a_series_is_gone_through_without_script() {
    let web = TestWeb::start();
    let all = web.get("/series?Modality=CT").json();
    let tenth = |series: &&serde_json::Value| value(series, "00201209") == 10;
    let series = all.as_array().unwrap().iter().find(tenth).unwrap();
    let [study, series] = ["0020000D", "0020000E"].map(|tag| value(series, tag).as_str().unwrap());
    let target = format!("/study/{study}/series/{series}");
    let first = page(&web, &target).expect(200).text();
    assert!(first.contains("Image 1 of 10") && !first.contains("rel=\"prev\""), "{first}");
    assert!(first.contains("href=\"?at=2&#38;frame=1\"") || first.contains("href=\"?at=2&amp;frame=1\""), "{first}");
    let picture = |html: &str| {
        let source = html.split("id=\"picture\" src=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        source.replace("&#38;", "&").replace("&amp;", "&")
    };
    page(&web, &picture(&first)).expect(200);
    let fifth = page(&web, &format!("{target}?at=5&center=40&width=400")).expect(200).text();
    assert!(fifth.contains("Image 5 of 10") && fifth.contains("rel=\"prev\"") && fifth.contains("rel=\"next\""));
    assert!(picture(&fifth).ends_with("/frames/1/rendered?window=40,400"), "{fifth}");
    assert_ne!(page(&web, &picture(&fifth)).expect(200).body, page(&web, &picture(&first)).expect(200).body);
    let beyond = page(&web, &format!("{target}?at=99&center=x")).expect(200).text();
    assert!(beyond.contains("Image 10 of 10") && !beyond.contains("rel=\"next\""));
    let report = web.get("/series?Modality=SR").json();
    let [study, series] = ["0020000D", "0020000E"].map(|tag| value(&report[0], tag).as_str().unwrap());
    let report = page(&web, &format!("/study/{study}/series/{series}")).expect(200).text();
    assert!(report.contains("documents") && !report.contains("<img"), "{report}");
}

#[test]
fn an_index_without_objects_says_that_there_are_no_images() {
    let web = TestWeb::storing_metadata();
    let object = objects::file("P1", "1.2.3", "1.2.3.1", "1.2.3.1.1");
    let headers = [("Content-Type", "application/dicom")];
    http::request(web.address, "POST", "/dicom-web/studies", &headers, &object).expect(200);
    let study = page(&web, "/study/1.2.3").expect(200).text();
    assert!(study.contains("kept elsewhere, or their files are gone") && study.contains("not at hand"), "{study}");
    assert!(!study.contains("/thumbnail") && !study.contains("download"), "{study}");
    let series = page(&web, "/study/1.2.3/series/1.2.3.1").expect(200).text();
    assert!(series.contains("not its object") && !series.contains("<img") && !series.contains("download"), "{series}");
}

#[test]
fn files_that_were_not_read_and_conflicts_are_listed_in_pages() {
    let folder = TempDir::new().unwrap();
    let broken = [&[0; 128][..], b"DICM", b"\x02\0\0\0UL\x04\0\x10"].concat();
    (1..=105).for_each(|number| fs::write(folder.path().join(format!("bad{number:03}<b>.dcm")), &broken).unwrap());
    let one = objects::file("P1", "1.2.3", "1.2.3.1", "1.2.3.1.1");
    fs::write(folder.path().join("one.dcm"), &one).unwrap();
    fs::write(folder.path().join("other.dcm"), objects::file("P2", "1.2.3", "1.2.3.1", "1.2.3.1.1")).unwrap();
    let web = TestWeb::with(folder.path(), |_| {}, None);
    // The files are not needed for it.
    fs::remove_dir_all(folder.path()).unwrap();
    let first = page(&web, "/status/failures").expect(200).text();
    assert_eq!(first.matches("<tr><th scope=\"row\"").count(), 100);
    assert!(first.contains("bad001&#60;b&#62;.dcm") || first.contains("bad001&lt;b&gt;.dcm"), "{first}");
    assert!(first.contains("href=\"/status/failures?page=2\""));
    let second = page(&web, "/status/failures?page=2").expect(200).text();
    assert_eq!(second.matches("<tr><th scope=\"row\"").count(), 5);
    assert!(second.contains("href=\"/status/failures?page=1\"") && !second.contains("page=3"));
    let conflicts = page(&web, "/status/conflicts").expect(200).text();
    assert!(conflicts.contains("Two objects with different content") && conflicts.contains("href=\"/study/1.2.3\""));
    let status = page(&web, "/status").expect(200).text();
    assert!(status.contains("/status/failures") && status.contains("/status/conflicts"));
}

#[test]
fn pages_are_for_those_who_may_read() {
    let users = line_with_password("anna", Rights::READ, "secret").unwrap();
    let web = TestWeb::with(&archive(), |_| {}, Some(&users));
    for target in ["/", "/study/1.2", "/study/1.2/series/1.2", "/status", "/status/failures", "/status/conflicts"] {
        page(&web, target).expect(401);
    }
    // They tell nothing, and a browser asks for them without credentials.
    for open in ["/page.css", "/page.js", "/page.svg"] {
        page(&web, open).expect(200);
    }
}

#[test]
fn nothing_is_loaded_from_elsewhere_and_no_value_is_markup() {
    let folder = TempDir::new().unwrap();
    let evil = "<script>alert(1)</script>";
    let values: [(u16, u16, &[u8; 2], &str); 2] =
        [(0x0008, 0x0050, b"SH", "\"><img src=x>"), (0x0008, 0x0020, b"DA", "<b>bad")];
    fs::write(folder.path().join("1.dcm"), objects::file_with(1, &values)).unwrap();
    fs::write(folder.path().join("2.dcm"), objects::file(evil, "1.2.9", "1.2.9.1", "1.2.9.1.1")).unwrap();
    let web = TestWeb::with(folder.path(), |_| {}, None);
    for target in [
        "/",
        "/study/1.2.1",
        "/study/1.2.9",
        "/study/1.2.9/series/1.2.9.1",
        "/status",
        "/?q=%3Cscript%3Ealert(1)%3C/script%3E&modality=%22%3E",
    ] {
        let answer = page(&web, target).expect(200);
        let text = answer.text();
        assert!(
            !text.contains("<script>") && !text.contains("<img src=x") && !text.contains("<b>"),
            "{target}: {text}"
        );
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("style="), "{target}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    for asset in ["/page.css", "/page.js"] {
        assert!(!page(&web, asset).expect(200).text().contains("://"));
    }
}

#[test]
fn ohif_is_served_from_its_folder_and_from_nowhere_else() {
    let build = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(build.path().join(name), text).unwrap();
    write(
        "index.html",
        "<html><script>window.PUBLIC_URL = '/';</script><script src=\"/app.bundle.0a1b2c3d.js\"></script>",
    );
    write("app.bundle.0a1b2c3d.js", "__webpack_require__.p = \"/\";");
    write("decoder.wasm", "wasm");
    std::os::unix::fs::symlink("/etc/passwd", build.path().join("link.js")).unwrap();
    let (ohif, is_rebased) = Ohif::open(build.path()).unwrap();
    assert!(is_rebased);
    let ohif = std::sync::Arc::new(ohif);
    let web = TestWeb::with_services(&archive(), |_| {}, None, |services| services.ohif = Some(ohif));
    assert_eq!(page(&web, "/ohif").expect(308).header("location"), "/ohif/");
    for own in ["/ohif/", "/ohif/viewer?StudyInstanceUIDs=1.2", "/ohif/local", "/ohif/index.html"] {
        let answer = page(&web, own);
        assert!(answer.expect(200).text().contains("window.PUBLIC_URL = '/ohif/'"), "{own}");
    }
    let bundle = page(&web, "/ohif/app.bundle.0a1b2c3d.js").expect(200);
    assert_eq!(bundle.text(), "__webpack_require__.p = \"/ohif/\";");
    assert!(bundle.header("cache-control").contains("immutable"));
    assert_eq!(page(&web, "/ohif/decoder.wasm").expect(200).header("content-type"), "application/wasm");
    let config = page(&web, "/ohif/app-config.js").expect(200);
    assert!(config.text().contains("qidoRoot: '/dicom-web'"));
    assert_eq!(config.header("cross-origin-opener-policy"), "same-origin");
    for nowhere in ["/ohif/link.js", "/ohif/../etc/passwd.x", "/ohif/%2e%2e/%2e%2e/etc/passwd.x", "/ohif/no.js"] {
        let answer = page(&web, nowhere);
        assert!(answer.status == 404 && !answer.text().contains("root:"), "{nowhere}");
    }
    let uid = value(&web.get("/studies?limit=1").json()[0], "0020000D").as_str().unwrap().to_owned();
    assert!(
        page(&web, &format!("/study/{uid}"))
            .expect(200)
            .text()
            .contains(&format!("/ohif/viewer?StudyInstanceUIDs={uid}"))
    );
    page(&TestWeb::start(), "/ohif/").expect(404);
}
