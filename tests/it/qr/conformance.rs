//! docs/conformance.md agrees with the code.

use std::fs;
use std::path::Path;

use dcmdex::{config, qr, scp, web};

use crate::util::generated::assert_generated;

#[test]
fn the_tables_of_the_conformance_statement_are_those_of_the_code() {
    let sections = [
        scp::conformance::sections(),
        qr::conformance::sections(),
        web::conformance::sections(),
        config::conformance_sections(),
    ]
    .concat();
    assert_generated("docs/conformance.md", &sections);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let version = format!("| Version | {} |", env!("CARGO_PKG_VERSION"));
    assert!(fs::read_to_string(path).unwrap().contains(&version), "the statement is that of another version");
}
