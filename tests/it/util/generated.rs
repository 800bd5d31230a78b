//! Parts of documents that the program generates.

use std::fs;
use std::path::Path;

/// Compares generated sections of a document with the code. With `DCMDEX_BLESS=1` it writes them.
pub(crate) fn assert_generated(document: &str, sections: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let written = fs::read_to_string(&path).unwrap();
    let mut text = written.clone();
    for (name, section) in sections {
        let begin = format!("<!-- begin generated: {name} -->\n");
        let start =
            text.find(&begin).unwrap_or_else(|| panic!("{} has no section `{name}`", path.display())) + begin.len();
        let length = text[start..].find("<!-- end generated -->").unwrap();
        text.replace_range(start..start + length, section);
    }
    assert_eq!(text.matches("<!-- begin generated:").count(), sections.len(), "{document}: a section is not generated");
    #[expect(clippy::disallowed_methods, reason = "how a developer asks a test to write what it compares")]
    let bless = std::env::var_os("DCMDEX_BLESS").is_some();
    if bless {
        fs::write(&path, text).unwrap();
    } else {
        assert!(text == written, "{document} is stale: run this test with DCMDEX_BLESS=1, and look at what changes");
    }
}
