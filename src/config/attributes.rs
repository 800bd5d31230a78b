//! Declared attributes, `[[attribute]]`, which the index keeps in addition to its table. Only a
//! file can declare them.

use std::sync::Arc;

use super::SettingProblem;
use super::layers::Layers;
use crate::model::declaration::Declaration;
use crate::model::declared::DeclaredSet;

/// Builds the set of all declared attributes.
pub(super) fn declared(layers: &Layers, problems: &mut Vec<SettingProblem>) -> Arc<DeclaredSet> {
    let entries = layers.attributes();
    let mut declarations = Vec::new();
    let mut origins = Vec::new();
    for entry in entries {
        let text = |name: &str| entry.fields.get(name).and_then(|setting| setting.value.as_str()).map(str::to_owned);
        let (Some(path), Some(level)) = (text("path"), text("level")) else {
            let missing = if entry.fields.contains_key("path") { "level" } else { "path" };
            let origin = entry.origin.clone();
            problems.push(SettingProblem { origin, message: format!("an attribute needs a `{missing}`") });
            continue;
        };
        let declaration = Declaration { path, level, creator: text("creator"), vr: text("vr"), name: text("name") };
        declarations.push(declaration);
        origins.push(&entry.origin);
    }
    if declarations.is_empty() {
        return Arc::clone(DeclaredSet::none());
    }
    let set = DeclaredSet::new(&declarations, |number, error| {
        if let Some(origin) = origins.get(number) {
            problems.push(SettingProblem { origin: (*origin).clone(), message: format!("attribute: {error}") });
        }
    });
    Arc::new(set)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_text;

    #[test]
    fn attributes_are_declared_in_the_file() {
        let config = load_text(
            "[[attribute]]\npath = \"0019xx10\"\ncreator = \"ACME 1.1\"\nlevel = \"SERIES\"\nvr = \"DS\"\nname = \"Dose\"\n\n\
             [[attribute]]\npath = \"ContrastBolusAgent\"\nlevel = \"series\"\n",
        )
        .unwrap();
        let names: Vec<_> = config.declared.attributes().iter().map(|attribute| attribute.name.as_str()).collect();
        assert_eq!(names, ["Dose", "ContrastBolusAgent"]);
        assert!(load_text("").unwrap().declared.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let problems = load_text(
            "[[attribute]]\npath = \"ContrastBolusAgnt\"\nlevel = \"SERIES\"\n\n[[attribute]]\npaht = \"x\"\nlevel = 3\n\n\
             [[attribute]]\nlevel = \"SERIES\"\n",
        )
        .unwrap_err();
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for wanted in [
            ":1: attribute: `ContrastBolusAgnt` is neither a keyword nor a tag",
            "did you mean `ContrastBolusAgent`?",
            ":6: unknown setting `paht` of an attribute; did you mean `path`?",
            ":7: `level` is written as in \"SERIES\"",
            ":9: an attribute needs a `path`",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(wanted)), "{wanted}: {problems:#?}");
        }
        assert!(load_text("attribute = 3").unwrap_err()[0].message.contains("[[attribute]]"));
        assert!(load_text("[attribute]\npath = \"x\"").unwrap_err()[0].message.contains("[[attribute]]"));
    }
}
