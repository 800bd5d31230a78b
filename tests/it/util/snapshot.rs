//! Snapshots: texts that a test compares with a file. `INSTA_UPDATE=always` rewrites the files, so
//! that the difference can be reviewed.

use std::path::Path;

/// Compares a text with the snapshot `name` in a directory of the tests.
#[track_caller]
pub(crate) fn assert_snapshot(directory: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(directory));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
