//! Name templates:
//! `{PatientID}/{StudyDate}_{StudyDescription}/{SeriesNumber:04}/{InstanceNumber:05}.dcm`.

use std::path::PathBuf;

use super::Error;
use super::dicomdir::DICOMDIR;
use super::manifest::MANIFEST;
use super::names::component;

/// Digits that a number may be filled up to.
const MAX_DIGITS: usize = 20;

/// A template for relative paths. Each `/` in it begins a new part of the path. A `/` in a value
/// does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    parts: Vec<Vec<TemplatePiece>>,
    keys: Vec<String>,
}

/// A piece of a part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePiece {
    Text(String),
    /// A value, by its place in the keys. A whole number gets zeros in front up to `digits`.
    Value {
        key: usize,
        digits: usize,
    },
}

impl NameTemplate {
    /// Reads a template. `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// [`Error::Template`].
    pub fn parse(template: &str) -> Result<Self, Error> {
        let refused = |problem: &str| Error::Template { template: template.to_owned(), problem: problem.to_owned() };
        let mut parts = vec![Vec::new()];
        let mut keys: Vec<String> = Vec::new();
        let mut text = String::new();
        let mut letters = template.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '{' | '}' if letters.peek() == Some(&letter) => {
                    letters.next();
                    text.push(letter);
                }
                '}' => return Err(refused("a } has no {")),
                '{' => {
                    let mut inside = String::new();
                    loop {
                        match letters.next() {
                            Some('}') => break,
                            Some('/' | '{') | None => return Err(refused("a { has no }")),
                            Some(letter) => inside.push(letter),
                        }
                    }
                    push_text(&mut parts, &mut text);
                    let (name, digits) = match inside.split_once(':') {
                        None => (inside.trim(), 0),
                        Some((name, digits)) => match digits.trim().parse() {
                            Ok(digits) if digits <= MAX_DIGITS => (name.trim(), digits),
                            _ => {
                                return Err(refused(
                                    "after a colon stands a number of digits, as in {SeriesNumber:04}",
                                ));
                            }
                        },
                    };
                    if name.is_empty() {
                        return Err(refused("a {} has no key"));
                    }
                    let key = keys.iter().position(|key| key == name).unwrap_or_else(|| {
                        keys.push(name.to_owned());
                        keys.len() - 1
                    });
                    if let Some(part) = parts.last_mut() {
                        part.push(TemplatePiece::Value { key, digits });
                    }
                }
                '/' => {
                    push_text(&mut parts, &mut text);
                    parts.push(Vec::new());
                }
                letter => text.push(letter),
            }
        }
        push_text(&mut parts, &mut text);
        if template.starts_with('/') {
            return Err(refused("it begins with /, and names lie in the destination"));
        }
        for part in &parts {
            match part.as_slice() {
                [] => return Err(refused("a part between two / is empty")),
                [TemplatePiece::Text(text)] if matches!(text.as_str(), "." | "..") => {
                    return Err(refused("a part is . or .., and names lie in the destination"));
                }
                _ => {}
            }
        }
        if keys.is_empty() {
            return Err(refused("it has no key, so all files would have one name; hint: {SOPInstanceUID}.dcm"));
        }
        Ok(Self { parts, keys })
    }

    /// The keys whose values it needs, each once.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The relative path for these values, which are those of [`Self::keys`].
    #[must_use]
    pub fn path(&self, values: &[String]) -> PathBuf {
        let mut path = PathBuf::new();
        for part in &self.parts {
            let mut name = String::new();
            for piece in part {
                match piece {
                    TemplatePiece::Text(text) => name.push_str(text),
                    TemplatePiece::Value { key, digits } => {
                        let value = values.get(*key).map_or("", |value| value.trim());
                        match value.parse::<u64>() {
                            Ok(number) if *digits > 0 => name.push_str(&format!("{number:0digits$}")),
                            _ => name.push_str(value),
                        }
                    }
                }
            }
            let mut name = component(&name);
            if path.as_os_str().is_empty() && is_of_the_copy(&name) {
                name.insert(0, '_');
            }
            path.push(name);
        }
        path
    }
}

/// Whether the copy itself writes a file of this name at the top of its folder.
fn is_of_the_copy(name: &str) -> bool {
    [MANIFEST, DICOMDIR].into_iter().any(|own| {
        // Half written, it has another name.
        let (begin, end) = name.split_at_checked(own.len()).unwrap_or((name, ""));
        begin.eq_ignore_ascii_case(own) && (end.is_empty() || end.eq_ignore_ascii_case(".partial"))
    })
}

fn push_text(parts: &mut [Vec<TemplatePiece>], text: &mut String) {
    if !text.is_empty()
        && let Some(part) = parts.last_mut()
    {
        part.push(TemplatePiece::Text(std::mem::take(text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(template: &str, values: &[&str]) -> String {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        NameTemplate::parse(template).unwrap().path(&values).to_str().unwrap().to_owned()
    }

    #[test]
    fn values_stand_where_their_keys_are() {
        let template = "{PatientID}/{StudyDate}_{StudyDescription}/{SeriesNumber:04}/{{x}}{InstanceNumber:05}.dcm";
        let values = ["4711", "20240131", "Kopf", "3", "12"];
        assert_eq!(path(template, &values), "4711/20240131_Kopf/0003/{x}00012.dcm");
        assert_eq!(path("{A:04}", &["x1"]), "x1");
        assert_eq!(path("{A}/{A}", &["1"]), "1/1");
        assert_eq!(path("{A}/x", &[""]), "_/x");
    }

    #[test]
    fn a_value_cannot_lead_out_of_the_folder() {
        for value in ["..", ".", "../../etc/passwd", "/etc/passwd", "a/../../b", "\0", "..\\..", ""] {
            for template in ["{A}", "{A}/{A}", "x/{A}/y"] {
                let made = NameTemplate::parse(template).unwrap().path(&[value.to_owned()]);
                let parts: Vec<_> = made.components().collect();
                assert_eq!(parts.len(), template.split('/').count(), "{made:?}");
                assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))), "{made:?}");
            }
        }
    }

    #[test]
    fn a_value_is_no_name_of_the_copy_itself() {
        for (value, name) in [
            ("manifest.csv", "_manifest.csv/manifest.csv"),
            ("Manifest.CSV.Partial", "_Manifest.CSV.Partial/Manifest.CSV.Partial"),
            ("dicomdir", "_dicomdir/dicomdir"),
            ("manifest.csv2", "manifest.csv2/manifest.csv2"),
        ] {
            assert_eq!(path("{A}/{A}", &[value]), name);
        }
    }

    #[test]
    fn a_template_that_leads_out_or_is_no_template_is_refused() {
        for template in [
            "", "x.dcm", "/x/{A}", "../{A}", "x/../{A}", "{A", "A}", "{A}//{B}", "{}", "{A:x}", "{A:99}", "{A}/",
            "./{A}",
        ] {
            assert!(NameTemplate::parse(template).is_err(), "{template}");
        }
    }
}
