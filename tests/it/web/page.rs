//! The page and OHIF's files, as a browser gets them.

use std::fs;

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

#[test]
fn a_study_has_its_series_and_the_index_its_numbers() {
    let web = TestWeb::start();
    let all = web.get("/studies?ModalitiesInStudy=CT").json();
    let uid = value(&all[0], "0020000D").as_str().unwrap();
    let study = page(&web, &format!("/study/{uid}")).expect(200).text();
    assert_eq!(study.matches("/metadata\">JSON</a>").count(), 2);
    assert!(!study.contains("/ohif/"), "there is none");
    page(&web, "/study/1.2.3").expect(404);
    let status = page(&web, "/status").expect(200).text();
    assert!(status.contains("<dt>Studies</dt><dd>6</dd>") && status.contains("<dt>Instances</dt><dd>33</dd>"));
    assert!(!status.contains(archive().to_str().unwrap()), "paths hold names");
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
    for target in
        ["/", "/study/1.2.1", "/study/1.2.9", "/status", "/?q=%3Cscript%3Ealert(1)%3C/script%3E&modality=%22%3E"]
    {
        let answer = page(&web, target).expect(200);
        let text = answer.text();
        assert!(!text.contains("<script>") && !text.contains("<img") && !text.contains("<b>"), "{target}: {text}");
        assert!(!text.contains("http://") && !text.contains("https://"), "{target}");
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
        if own.ends_with("index.html") {
            continue;
        }
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
