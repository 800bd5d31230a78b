//! Compares a DICOMDIR with the files in its folder.
//!
//! A DICOMDIR lists the files of its folder and of all folders below. The scan does not need it to
//! find files. But a difference shows that files may be lost. A listed file that does not exist
//! becomes a failure named `DICOMDIR!/<reference>`, which the index keeps. A file that is not
//! listed is indexed like any other. It also gets a note of its own kind.
//!
//! References are only compared with names that listing the folder returned. The scan never opens a
//! path from a reference.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::skip;
use crate::db::{LISTED_AND_MISSING, NotIndexed, listed_and_missing};
use crate::ingest::{self, Outcome, References};

/// The name of a DICOMDIR (PS3.10 8.6). Case does not matter.
pub(super) const NAME: &str = "DICOMDIR";

/// Maximum files that are compared with one DICOMDIR.
const MAX_FILES: usize = 1_000_000;

/// Maximum depth of folders below a DICOMDIR. PS3.10 8.5 allows seven.
const MAX_DEPTH: usize = 64;

/// Maximum characters of a reference.
const MAX_REFERENCE: usize = 512;

/// Without this, opening a FIFO would block until a writer comes.
const O_NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// A difference between a DICOMDIR and its folder, or an error in the DICOMDIR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DicomdirFinding {
    /// A failure, or [`NotIndexed::Unlisted`] for a file that is not listed.
    pub kind: NotIndexed,
    /// A short, stable name of the reason, for counting.
    pub reason: &'static str,
    /// The reason in words.
    pub detail: String,
}

/// Whether a file name is that of a DICOMDIR. ISO 9660 may add a dot or a version to it.
pub(super) fn is_named_so(name: &OsStr) -> bool {
    let name = name.as_bytes().split_at_checked(NAME.len());
    name.is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(NAME.as_bytes()) && matches!(rest, b"" | b"." | b";1" | b".;1")
    })
}

/// Whether a file name begins as that of a DICOMDIR, as that of a copy does.
fn begins_so(name: &OsStr) -> bool {
    name.as_bytes().get(..NAME.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(NAME.as_bytes()))
}

/// Compares a DICOMDIR with its folder. The key of a finding is the path of the file in the folder,
/// or the reference as the DICOMDIR has it. The key `(records)` is for the DICOMDIR itself.
///
/// # Errors
/// If the DICOMDIR cannot be read.
pub fn check(path: &Path) -> io::Result<BTreeMap<OsString, DicomdirFinding>> {
    let mut findings = BTreeMap::new();
    let mut failed = |name: OsString, reason, detail: &str| {
        findings.insert(name, DicomdirFinding { kind: NotIndexed::Failed, reason, detail: detail.to_owned() });
    };
    let References { file_ids, studies, damage } = references(path)?;
    if let Some(damage) = damage {
        failed("(records)".into(), "dicomdir-damaged", damage);
    }
    let Some(folder) = path.parent() else { return Ok(findings) };
    let mut there = Folder::default();
    let is_whole = there.list(folder, path);
    let mut listed = vec![false; there.files.len()];
    let mut not_found = Vec::new();
    let mut study_of = HashMap::new();
    let others = OtherDicomdirs::read(folder, path.file_name().unwrap_or_default());
    let own_name = folded(path.file_name().unwrap_or_default().as_bytes());
    for (file_id, study) in file_ids.iter().zip(studies) {
        let reference = confined(file_id).and_then(|reference| match folded(reference.as_bytes()) == own_name {
            true => Err("a reference to the DICOMDIR itself"),
            false => Ok(reference),
        });
        match reference {
            Err(why) => {
                let name: String =
                    file_id.chars().take(MAX_REFERENCE).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
                let name = if name.is_empty() { "(no reference)".to_owned() } else { name };
                failed(name.into(), "dicomdir-bad-reference", why);
            }
            Ok(reference) => match there.find(&reference) {
                Some(at) => listed[at] = true,
                None => {
                    study_of.insert(reference.clone(), study);
                    not_found.push(reference);
                }
            },
        }
    }
    // Exact names come first: a file that one reference names cannot match another reference.
    let not_found = there.find_extended(folder, not_found, &mut listed);
    others.mark_listed(&there, folder, &mut listed);
    for reference in not_found.into_iter().filter(|reference| is_whole && !others.earlier.contains(reference)) {
        let detail = listed_and_missing(study_of.get(&reference).map_or("", |study| study));
        failed(reference.into(), LISTED_AND_MISSING, &detail);
    }
    // The unreadable records of a damaged DICOMDIR may list any file.
    if damage.is_none() && others.leave_unlisted_to_this_one() {
        let unlisted = there.files.iter().zip(listed).filter(|(_, listed)| !listed);
        for (name, _) in unlisted.filter(|(name, _)| is_instance(&folder.join(name))) {
            let detail = "a file that the DICOMDIR of its folder does not list".to_owned();
            let finding = DicomdirFinding { kind: NotIndexed::Unlisted, reason: "dicomdir-unlisted", detail };
            findings.insert(name.into(), finding);
        }
    }
    Ok(findings)
}

/// Maximum number of DICOMDIRs in one folder that are compared together.
const MAX_BESIDE: usize = 8;

/// The other DICOMDIRs of a folder, as `DICOMDIR` and `DICOMDIR;1` or `DICOMDIR.bak` of a copied
/// CD. What one lists is listed, and what several say is said once, by the first by name.
#[derive(Default)]
struct OtherDicomdirs {
    /// References that they list, in the folder.
    references: Vec<String>,
    /// References that those before this one list.
    earlier: HashSet<String>,
    /// Whether there are some before this one.
    is_later: bool,
    /// Whether one of them is damaged.
    is_damaged: bool,
}

impl OtherDicomdirs {
    fn read(folder: &Path, own_name: &OsStr) -> Self {
        let mut others = Self::default();
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name()).filter(|name| name != own_name && begins_so(name)).collect();
        names.sort();
        for name in names.into_iter().take(MAX_BESIDE) {
            let path = folder.join(&name);
            if !matches!(outcome(&path), Some(Outcome::Dicomdir)) {
                continue;
            }
            let is_earlier = name.as_os_str() < own_name;
            others.is_later |= is_earlier;
            let Ok(References { file_ids, damage, .. }) = references(&path) else { continue };
            others.is_damaged |= damage.is_some();
            for reference in file_ids.iter().filter_map(|file_id| confined(file_id).ok()) {
                if is_earlier {
                    others.earlier.insert(reference.clone());
                }
                others.references.push(reference);
            }
        }
        others
    }

    fn mark_listed(&self, there: &Folder, folder: &Path, listed: &mut [bool]) {
        let mut not_found = Vec::new();
        for reference in &self.references {
            match there.find(reference) {
                Some(at) => listed[at] = true,
                None => not_found.push(reference.clone()),
            }
        }
        there.find_extended(folder, not_found, listed);
    }

    /// Whether this DICOMDIR says which files none of them lists.
    fn leave_unlisted_to_this_one(&self) -> bool {
        !self.is_later && !self.is_damaged
    }
}

/// Reads the references of a DICOMDIR.
fn references(path: &Path) -> io::Result<References> {
    let file = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    ingest::read_references(BufReader::with_capacity(64 << 10, file))
}

/// The path that a Referenced File ID names, with `/` between its components. An error says why it
/// names none.
fn confined(file_id: &str) -> Result<String, &'static str> {
    if file_id.len() > MAX_REFERENCE {
        return Err("a reference that is too long");
    }
    // PS3.10 8.2: each component is a value of its own. Some writers put slashes between them, as
    // in a path.
    let components: Vec<_> = file_id.split(['\\', '/']).map(|component| component.trim_matches(' ')).collect();
    for component in &components {
        if component.is_empty() || matches!(*component, "." | "..") {
            return Err("a reference that leads out of its folder");
        }
        // PS3.10 8.5 allows capital letters, digits and underscores. Small letters and extensions
        // are common.
        if !component.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err("a reference with characters that no file name has");
        }
    }
    Ok(components.join("/"))
}

/// The files in the folder of a DICOMDIR and below it.
#[derive(Default)]
struct Folder {
    files: Vec<PathBuf>,
    /// By their exact paths.
    exact: HashMap<Vec<u8>, usize>,
    /// By their folded paths, since systems show names on a CD in several forms. See [`folded`].
    folded: HashMap<Vec<u8>, usize>,
}

impl Folder {
    /// Lists the folder. Returns false if part of it could not be listed.
    fn list(&mut self, folder: &Path, dicomdir: &Path) -> bool {
        let mut is_whole = true;
        let mut to_list = vec![(PathBuf::new(), 0)];
        while let Some((inside, depth)) = to_list.pop() {
            let Ok(entries) = fs::read_dir(folder.join(&inside)) else {
                is_whole = false;
                continue;
            };
            let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            // A folder with a DICOMDIR of its own belongs to that DICOMDIR.
            if depth > 0 && entries.iter().any(|entry| is_named_so(&entry.file_name())) {
                continue;
            }
            for entry in entries {
                let name = entry.file_name();
                let path = inside.join(&name);
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        if skip::directory(&name).is_none() && depth < MAX_DEPTH {
                            to_list.push((path, depth + 1));
                        }
                    }
                    Ok(_) if self.files.len() >= MAX_FILES => return false,
                    Ok(_) if folder.join(&path) != dicomdir && skip::file(&name).is_none() => {
                        let at = self.files.len();
                        self.exact.insert(path.as_os_str().as_bytes().to_vec(), at);
                        self.folded.insert(folded(path.as_os_str().as_bytes()), at);
                        self.files.push(path);
                    }
                    Ok(_) => {}
                    Err(_) => is_whole = false,
                }
            }
        }
        is_whole
    }

    fn find(&self, reference: &str) -> Option<usize> {
        let exact = self.exact.get(reference.as_bytes());
        exact.or_else(|| self.folded.get(&folded(reference.as_bytes()))).copied()
    }

    /// Finds files whose extension differs from that of the reference, if no other reference names
    /// the file. Returns the references that match no file.
    ///
    /// File IDs have no extensions (PS3.10 8.2). Software often adds `.dcm` when it copies media.
    fn find_extended(&self, folder: &Path, references: Vec<String>, listed: &mut [bool]) -> Vec<String> {
        if references.is_empty() {
            return references;
        }
        let mut by_stem: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, path) in self.files.iter().enumerate().filter(|(at, _)| !listed[*at]) {
            by_stem.entry(stem(&folded(path.as_os_str().as_bytes())).0.to_vec()).or_default().push(at);
        }
        let is_meant = |&at: &usize, wanted: &[u8]| {
            let Some(path) = self.files.get(at) else { return false };
            let name = folded(path.as_os_str().as_bytes());
            let (_, extension) = stem(&name);
            let (_, wanted) = stem(wanted);
            match (is_of_dicom(extension), is_of_dicom(wanted)) {
                (true, _) => wanted.is_empty() || is_of_dicom(wanted),
                // The file has no extension, and the reference has one.
                (false, true) => extension.is_empty(),
                (false, false) => wanted.is_empty() && is_instance(&folder.join(path)),
            }
        };
        let mut missing = Vec::new();
        for reference in references {
            let wanted = folded(reference.as_bytes());
            let candidates = by_stem.get_mut(stem(&wanted).0);
            let found = candidates.and_then(|candidates| {
                let at = candidates.iter().position(|at| is_meant(at, &wanted))?;
                Some(candidates.swap_remove(at))
            });
            match found {
                Some(at) => listed[at] = true,
                None => missing.push(reference),
            }
        }
        missing
    }
}

/// Splits a folded path into the path without extension and the extension with its dot.
fn stem(path: &[u8]) -> (&[u8], &[u8]) {
    let name = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    match path.iter().rposition(|&byte| byte == b'.') {
        Some(point) if point > name => path.split_at(point),
        _ => (path, b""),
    }
}

/// Whether an extension is one of DICOM files.
fn is_of_dicom(extension: &[u8]) -> bool {
    [b".DCM".as_slice(), b".DIC", b".DICOM", b".IMA"].contains(&extension)
}

/// The path as on ISO 9660: in capital letters, without version number and without a final dot.
fn folded(path: &[u8]) -> Vec<u8> {
    let components = path.split(|&byte| byte == b'/').map(|component| {
        let version = component.iter().rposition(|byte| !byte.is_ascii_digit());
        let version = version.filter(|&at| component.get(at) == Some(&b';') && at + 1 < component.len());
        let name = version.and_then(|at| component.get(..at)).unwrap_or(component);
        name.strip_suffix(b".").unwrap_or(name).to_ascii_uppercase()
    });
    components.collect::<Vec<_>>().join(&b'/')
}

/// Whether a file is an instance.
fn is_instance(path: &Path) -> bool {
    matches!(outcome(path), Some(Outcome::Instance(_)))
}

/// Outcome of reading a file. `None` if it cannot be read.
fn outcome(path: &Path) -> Option<Outcome> {
    let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path).ok()?;
    let read = || ingest::read_file(&file, ingest::Wanted::index());
    // If the parser panics, the scan loses this file and goes on.
    file.metadata().ok()?.is_file().then(|| catch_unwind(AssertUnwindSafe(read)).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_in_their_folder() {
        assert_eq!(confined("IMAGES\\A\\IM000001").as_deref(), Ok("IMAGES/A/IM000001"));
        assert_eq!(confined("IMAGES/A\\IM000001").as_deref(), Ok("IMAGES/A/IM000001"));
        assert_eq!(confined("images\\im 1.dcm ").as_deref(), Ok("images/im 1.dcm"));
        for bad in
            ["", "..\\X", "A\\..\\..\\etc\\passwd", "/etc/passwd", "\\\\server\\share", "A/../../B", "A\0B", "A\\.\\B"]
        {
            assert!(confined(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_a_cd_are_the_same_in_any_form() {
        assert_eq!(folded(b"images/im000001.;1"), b"IMAGES/IM000001");
        assert_eq!(folded(b"IMAGES/IM000001"), b"IMAGES/IM000001");
        assert_eq!(folded(b"IMAGES/IM1.DCM;12"), b"IMAGES/IM1.DCM");
        assert_eq!(folded(b"IMAGES/A;B"), b"IMAGES/A;B");
        for name in ["DICOMDIR", "dicomdir", "DICOMDIR.", "DICOMDIR;1", "dicomdir.;1"] {
            assert!(is_named_so(OsStr::new(name)), "{name}");
        }
        assert!(!is_named_so(OsStr::new("DICOMDIR.txt")) && !is_named_so(OsStr::new("DICOM")));
    }
}
