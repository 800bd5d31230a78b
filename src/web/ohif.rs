//! OHIF from a folder, served below `/ohif/`. It is the npm build, with the changes that it needs
//! for this place.
//!
//! The build is made for the root of a host. The start rewrites its base in `index.html`, in the
//! bundles and in the style sheets. `app-config.js` is replaced by ours. The start also lists all
//! files, so no path is ever made of a request.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use ring::digest::{SHA256, digest};

/// Maximum number of files of a build. OHIF 3.12 has some 900.
const MAX_FILES: usize = 50_000;

/// Maximum depth of directories.
const MAX_DEPTH: usize = 16;

/// Maximum size of a bundle that is searched for its base.
const MAX_BUNDLE_BYTES: u64 = 64 << 20;

/// The base in bundles, minified or not, and its replacement.
const BUNDLE_BASES: [(&str, &str); 2] =
    [("__webpack_require__.p = \"/\"", "__webpack_require__.p = \"/ohif/\""), (".p=\"/\"", ".p=\"/ohif/\"")];

/// File that a browser reads for an installed application.
const MANIFEST: &str = "manifest.json";

const CONFIG: &str = include_str!("page/ohif-config.js");

/// Errors of a folder that cannot be served as OHIF.
#[derive(Debug, thiserror::Error)]
pub enum OhifError {
    /// The file or folder cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The folder has no `index.html` of OHIF.
    #[error("{} has no index.html that begins OHIF; the folder `dist` of the npm package @ohif/app has", .0.display())]
    NoIndex(PathBuf),
    /// The folder has too many files for a build of a viewer.
    #[error("{} has more than {MAX_FILES} files", .0.display())]
    TooMany(PathBuf),
}

/// A build of OHIF, listed and rewritten.
pub struct Ohif {
    pub(super) files: HashMap<String, Entry>,
    /// The first page.
    pub(super) index: Bytes,
    /// The Content-Security-Policy of all its pages.
    pub(super) policy: HeaderValue,
}

impl std::fmt::Debug for Ohif {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ohif").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// One file.
pub(super) enum Entry {
    OnDisk(PathBuf),
    Rewritten(Bytes),
}

impl Ohif {
    /// Reads a folder. Says whether the base of a bundle was found. Without it, OHIF loads only its
    /// first page.
    ///
    /// # Errors
    /// See [`OhifError`].
    pub fn open(directory: &Path) -> Result<(Self, bool), OhifError> {
        let mut files = HashMap::new();
        list(directory, directory, 0, &mut files)?;
        let Some(Entry::OnDisk(path)) = files.get("index.html") else {
            return Err(OhifError::NoIndex(directory.to_owned()));
        };
        let index = read(path)?;
        if !index.contains("PUBLIC_URL") {
            return Err(OhifError::NoIndex(directory.to_owned()));
        }
        let index = rebased(&index);
        let policy = policy(&index);
        let mut is_rebased = false;
        let is_rewritten = |name: &str| name.ends_with(".js") || name.ends_with(".css") || name == MANIFEST;
        let rewritten: Vec<_> =
            files.keys().filter(|name| is_rewritten(name) && !name.contains('/')).cloned().collect();
        for name in rewritten {
            let Some(Entry::OnDisk(path)) = files.get(&name) else { continue };
            let metadata = fs::metadata(path).map_err(|source| OhifError::Read { path: path.clone(), source })?;
            if metadata.len() > MAX_BUNDLE_BYTES {
                continue;
            }
            let text = read(path)?;
            if name.ends_with(".css") {
                // Fonts.
                files.insert(name, Entry::Rewritten(text.replace("url(/", "url(/ohif/").into()));
                continue;
            }
            if name == MANIFEST {
                // Icons.
                files.insert(name, Entry::Rewritten(text.replace("\": \"/", "\": \"/ohif/").into()));
                continue;
            }
            if let Some((from, to)) = BUNDLE_BASES.into_iter().find(|(from, _)| text.contains(from)) {
                is_rebased = true;
                files.insert(name, Entry::Rewritten(text.replace(from, to).into()));
            }
        }
        files.insert("app-config.js".to_owned(), Entry::Rewritten(Bytes::from_static(CONFIG.as_bytes())));
        files.remove("index.html");
        Ok((Self { files, index: index.into(), policy }, is_rebased))
    }
}

fn read(path: &Path) -> Result<String, OhifError> {
    fs::read_to_string(path).map_err(|source| OhifError::Read { path: path.to_owned(), source })
}

/// Lists all regular files by their path below the folder. It does not follow links.
fn list(root: &Path, directory: &Path, depth: usize, files: &mut HashMap<String, Entry>) -> Result<(), OhifError> {
    let failed = |source| OhifError::Read { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        if kind.is_dir() && depth < MAX_DEPTH {
            list(root, &path, depth + 1, files)?;
        } else if kind.is_file()
            && let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str)
        {
            if files.len() == MAX_FILES {
                return Err(OhifError::TooMany(root.to_owned()));
            }
            files.insert(name.to_owned(), Entry::OnDisk(path.clone()));
        }
    }
    Ok(())
}

/// Returns `index.html` for `/ohif/` instead of the root.
fn rebased(index: &str) -> String {
    let quotes = ["\"", "'"];
    let mut text = index.to_owned();
    for quote in quotes {
        text = text.replace(&format!("window.PUBLIC_URL = {quote}/{quote}"), "window.PUBLIC_URL = '/ohif/'");
        for attribute in ["src", "href", "content"] {
            text = text.replace(&format!("{attribute}={quote}/"), &format!("{attribute}={quote}/ohif/"));
        }
    }
    text
}

/// The Content-Security-Policy of the page. Scripts in the page are named by their hashes. OHIF
/// sets styles in place, works in threads made of blobs, and compiles its decoders to WebAssembly.
fn policy(index: &str) -> HeaderValue {
    let mut hashes = String::new();
    let mut rest = index;
    while let Some(at) = rest.find("<script") {
        rest = &rest[at..];
        let Some(open) = rest.find('>') else { break };
        let (tag, behind) = rest.split_at(open + 1);
        let end = behind.find("</script").unwrap_or(behind.len());
        let script = &behind[..end];
        if !tag.contains("src=") && !script.trim().is_empty() {
            hashes.push_str(&format!(" 'sha256-{}'", BASE64.encode(digest(&SHA256, script.as_bytes()).as_ref())));
        }
        rest = &behind[end..];
    }
    let policy = format!(
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval' blob:{hashes}; worker-src 'self' blob:; \
         style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; font-src 'self' data:; media-src 'self' blob:; \
         connect-src 'self' blob: data:; frame-src 'self' blob:; object-src 'self' blob:; base-uri 'self'; \
         frame-ancestors 'self'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'self'"))
}

/// Returns the media type of a file by its name.
pub(super) fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Whether a name contains a hash of its content, so that the file never changes.
pub(super) fn is_hashed(name: &str) -> bool {
    let is_hash = |part: &str| part.len() >= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.split(['.', '-', '/']).any(is_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_and_the_bundles_are_moved_below_ohif() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let index = "<link href=\"/a.css\"><script>window.PUBLIC_URL = '/';</script><script src=\"/app.bundle.0a1b2c3d.js\"></script>";
        write("index.html", index);
        write("app.bundle.0a1b2c3d.js", "x.p=\"/\";");
        write("other.js", "nothing");
        write("app.bundle.css", "@font-face{src:url(/0a1b2c3d.woff2)}");
        write("manifest.json", "{\"src\": \"/assets/a.png\", \"type\": \"image/png\"}");
        fs::create_dir(directory.path().join("assets")).unwrap();
        write("assets/a.png", "png");
        let (ohif, is_rebased) = Ohif::open(directory.path()).unwrap();
        assert!(is_rebased);
        let index = String::from_utf8(ohif.index.to_vec()).unwrap();
        assert!(index.contains("href=\"/ohif/a.css\"") && index.contains("window.PUBLIC_URL = '/ohif/'"), "{index}");
        assert!(index.contains("src=\"/ohif/app.bundle.0a1b2c3d.js\""));
        let Some(Entry::Rewritten(bundle)) = ohif.files.get("app.bundle.0a1b2c3d.js") else { panic!("not rewritten") };
        assert_eq!(&bundle[..], b"x.p=\"/ohif/\";");
        for (name, text) in [
            ("app.bundle.css", "@font-face{src:url(/ohif/0a1b2c3d.woff2)}"),
            ("manifest.json", "{\"src\": \"/ohif/assets/a.png\", \"type\": \"image/png\"}"),
        ] {
            let Some(Entry::Rewritten(bytes)) = ohif.files.get(name) else { panic!("{name} is not rewritten") };
            assert_eq!(&bytes[..], text.as_bytes());
        }
        assert!(matches!(ohif.files.get("assets/a.png"), Some(Entry::OnDisk(_))));
        let hash = BASE64.encode(digest(&SHA256, b"window.PUBLIC_URL = '/ohif/';").as_ref());
        assert!(ohif.policy.to_str().unwrap().contains(&format!("'sha256-{hash}'")));
        fs::remove_file(directory.path().join("app.bundle.0a1b2c3d.js")).unwrap();
        assert!(!Ohif::open(directory.path()).unwrap().1);
        fs::write(directory.path().join("index.html"), "hello").unwrap();
        assert!(matches!(Ohif::open(directory.path()), Err(OhifError::NoIndex(_))));
        assert!(matches!(Ohif::open(Path::new("/nowhere")), Err(OhifError::Read { .. })));
    }

    #[test]
    fn only_names_with_a_hash_are_kept_for_good() {
        assert!(is_hashed("app.bundle.0a1b2c3d4e5f.js") && is_hashed("12345678.wasm"));
        assert!(!is_hashed("app-config.js") && !is_hashed("index.html") && !is_hashed("assets/logo.svg"));
    }
}
