//! The page and OHIF in headless Chromium (`tests/peers/page.py`).
//!
//! What a scenario saw last stands in `target/tmp/browser` when it fails: a screenshot, the page,
//! and the console with all requests.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use dcmdex::web::Ohif;
use tempfile::TempDir;

use crate::util::peers;
use crate::web::TestWeb;

/// Writes the objects of these tests, and returns their folder. `None` without the peers.
fn page_archive() -> Option<TempDir> {
    peers::program("/usr/bin/chromium")?;
    let folder = TempDir::new().unwrap();
    peers::run(peers::python_peer("make_page_archive.py")?.arg(folder.path())).expect_success();
    Some(folder)
}

/// Runs scenarios of `page.py` in one browser.
fn run(web: &TestWeb, scenarios: &[&str]) {
    let Some(page) = peers::python_peer("page.py") else { return };
    run_with(page, web, scenarios);
}

fn run_with(mut page: Command, web: &TestWeb, scenarios: &[&str]) {
    let artefacts = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let said = peers::run(page.arg(format!("http://{}", web.address)).arg(artefacts).args(scenarios)).expect_success();
    for scenario in scenarios {
        assert!(said.contains(&format!("passed {scenario}\n")), "{scenario}: {said}");
    }
}

#[test]
fn studies_are_found_and_read_by_everyone() {
    let Some(folder) = page_archive() else { return };
    let scenarios = [
        "the_hooks_see_what_they_are_for",
        "search_as_one_types",
        "an_answer_that_nobody_waits_for_is_cancelled",
        "everything_goes_by_keyboard",
        "it_is_read_in_light_and_dark_and_on_a_phone",
    ];
    run(&TestWeb::with(folder.path(), |_| {}, None), &scenarios);
}

#[test]
fn images_are_looked_at_and_no_value_is_markup() {
    let Some(folder) = page_archive() else { return };
    let scenarios = [
        "a_study_has_thumbnails_and_icons",
        "a_stack_is_scrolled",
        "a_drag_changes_the_window",
        "a_finger_goes_through_the_images",
        "frames_are_gone_through",
        "what_cannot_be_shown_is_said",
        "no_value_is_markup",
    ];
    run(&TestWeb::with(folder.path(), |_| {}, None), &scenarios);
}

/// axe-core is fetched with npm, as OHIF is.
#[test]
fn axe_has_no_complaint_of_any_page() {
    let Some(axe) = peers::axe() else { return };
    let Some(folder) = page_archive() else { return };
    let Some(mut page) = peers::python_peer("page.py") else { return };
    page.env("DCMDEX_AXE", axe.join("axe.min.js"));
    run_with(page, &TestWeb::with(folder.path(), |_| {}, None), &["axe_finds_nothing"]);
}

/// OHIF has 199 MB, and npm has to be there to fetch it. So it may be missing even where peers are
/// required, and the test says so.
#[test]
fn ohif_lists_the_studies_and_draws_an_image() {
    let Some(dist) = peers::ohif() else { return };
    let Some(folder) = page_archive() else { return };
    let (ohif, is_rebased) = Ohif::open(&dist).unwrap();
    assert!(is_rebased, "the base of this version is not where it was");
    let ohif = Arc::new(ohif);
    let web = TestWeb::with_services(folder.path(), |_| {}, None, |services| services.ohif = Some(ohif));
    run(&web, &["ohif_shows_a_study"]);
}
