//! docs/conformance.md agrees with the code.

use std::fs;
use std::path::Path;

use dcmdex::{qr, scp, web};

#[test]
fn the_tables_of_the_conformance_statement_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let written = fs::read_to_string(&path).unwrap();
    let mut text = written.clone();
    let sections = [scp::conformance::sections(), qr::conformance::sections(), web::conformance::sections()].concat();
    for (name, section) in &sections {
        let begin = format!("<!-- begin generated: {name} -->\n");
        let start =
            text.find(&begin).unwrap_or_else(|| panic!("{} has no section `{name}`", path.display())) + begin.len();
        let length = text[start..].find("<!-- end generated -->").unwrap();
        text.replace_range(start..start + length, section);
    }
    assert_eq!(
        text.matches("<!-- begin generated:").count(),
        sections.len(),
        "the statement has sections that nothing generates"
    );
    let version = format!("| Version | {} |", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version), "the statement is that of another version");
    #[expect(clippy::disallowed_methods, reason = "how a developer asks a test to write what it compares")]
    let bless = std::env::var_os("DCMDEX_BLESS").is_some();
    if bless {
        fs::write(&path, text).unwrap();
    } else {
        assert!(
            text == written,
            "docs/conformance.md is stale: run this test with DCMDEX_BLESS=1, and look at what changes"
        );
    }
}
