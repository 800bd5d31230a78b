//! The one table of resources: their paths, methods and meaning, and who may use them.
//!
//! The router, `Allow`, the capabilities answer, log lines and the conformance statement derive
//! from it.

use std::sync::LazyLock;

use hyper::Method;
use matchit::Router;

use crate::model::level::QueryRetrieveLevel;

/// The meaning of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Description of the service (PS3.18 8.9).
    Capabilities,
    /// Search for entities of this level (PS3.18 10.6).
    Search(QueryRetrieveLevel),
    /// All attributes of the instances of a study, a series, or of one (PS3.18 10.4).
    Metadata,
    /// The instances themselves.
    Instances,
    /// Frames of an instance.
    Frames,
    /// The value of one element of an instance.
    BulkData,
    /// All values that metadata give by URI.
    AllBulkData,
    /// All pixel data.
    AllPixelData,
    /// A frame as a picture.
    Rendered,
    /// The same frame, small.
    Thumbnail,
    /// An object by query parameters (PS3.18 9).
    WadoUri,
    /// The search page.
    Page,
    PageOfStudy,
    PageOfSeries,
    PageOfIndex,
    PageOfFailures,
    PageOfConflicts,
    Style,
    Script,
    Icon,
    /// The files of OHIF.
    Ohif,
    /// Whether the node is up, and nothing else.
    Health,
    /// Metrics for Prometheus.
    Metrics,
}

/// The right that a caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Read,
    Store,
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) kind: Kind,
    /// The path. A part in braces is a parameter.
    pub(super) template: &'static str,
    /// Its methods, besides HEAD with GET, and OPTIONS.
    pub(super) methods: &'static [&'static str],
    pub(super) needs: Needs,
    /// The transaction, as PS3.18 calls it, or its purpose.
    pub(super) what: &'static str,
    /// Media types of an answer.
    pub(super) media_types: &'static [&'static str],
}

const GET: &[&str] = &["GET"];
const GET_POST: &[&str] = &["GET", "POST"];
const JSON: &[&str] =
    &["application/dicom+json", "application/json", "multipart/related; type=\"application/dicom+xml\""];
const OBJECTS: &[&str] = &["multipart/related; type=\"application/dicom\""];
const OBJECT: &[&str] = &["multipart/related; type=\"application/dicom\"", "application/dicom"];
const FRAMES: &[&str] =
    &["multipart/related; type=\"application/octet-stream\"", "application/octet-stream", "image/*"];
const BULK: &[&str] = &["application/octet-stream", "multipart/related; type=\"application/octet-stream\""];
const ALL_BULK: &[&str] = &["multipart/related; type=\"application/octet-stream\""];
pub(super) const WADO_URI: &[&str] = &["application/dicom", "image/jpeg", "image/png", "image/gif"];
const PICTURES: &[&str] = &["image/jpeg", "image/png", "image/gif"];
const HTML: &[&str] = &["text/html"];
const TEXT: &[&str] = &["text/plain"];

macro_rules! resources {
    ($($kind:expr, $template:literal, $methods:expr, $needs:ident, $what:literal, $media_types:expr;)+) => {
        &[$(Resource {
            kind: $kind,
            template: $template,
            methods: $methods,
            needs: Needs::$needs,
            what: $what,
            media_types: $media_types,
        }),+]
    };
}

use QueryRetrieveLevel::{Image, Series, Study};

/// The table. A path of the DICOMweb service begins with [`SERVICE`].
pub(super) static RESOURCES: &[Resource] = resources! {
    Kind::Capabilities, "/dicom-web", GET, Read, "Retrieve Capabilities", CAPABILITIES;
    Kind::Capabilities, "/dicom-web/", GET, Read, "Retrieve Capabilities", CAPABILITIES;
    Kind::Search(Study), "/dicom-web/studies", GET_POST, Read, "Search: studies. Store", JSON;
    Kind::Search(Series), "/dicom-web/series", GET, Read, "Search: series", JSON;
    Kind::Search(Image), "/dicom-web/instances", GET, Read, "Search: instances", JSON;
    Kind::Search(Series), "/dicom-web/studies/{study}/series", GET, Read, "Search: series of a study", JSON;
    Kind::Search(Image), "/dicom-web/studies/{study}/instances", GET, Read, "Search: instances of a study", JSON;
    Kind::Search(Image), "/dicom-web/studies/{study}/series/{series}/instances", GET, Read,
        "Search: instances of a series", JSON;
    Kind::Metadata, "/dicom-web/studies/{study}/metadata", GET, Read, "Retrieve: metadata of a study", JSON;
    Kind::Metadata, "/dicom-web/studies/{study}/series/{series}/metadata", GET, Read,
        "Retrieve: metadata of a series", JSON;
    Kind::Metadata, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata", GET, Read,
        "Retrieve: metadata of an instance", JSON;
    Kind::Instances, "/dicom-web/studies/{study}", GET_POST, Read, "Retrieve: study. Store in a study", OBJECTS;
    Kind::Instances, "/dicom-web/studies/{study}/series/{series}", GET, Read, "Retrieve: series", OBJECTS;
    Kind::Instances, "/dicom-web/studies/{study}/series/{series}/instances/{instance}", GET, Read,
        "Retrieve: instance", OBJECT;
    Kind::Frames, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", GET, Read,
        "Retrieve: frames", FRAMES;
    Kind::BulkData, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata/{*path}", GET, Read,
        "Retrieve: bulk data", BULK;
    Kind::BulkData, "/dicom-web/instances/{instance}/bulkdata/{*path}", GET, Read,
        "Retrieve: bulk data, by the instance alone", BULK;
    Kind::AllBulkData, "/dicom-web/studies/{study}/bulkdata", GET, Read, "Retrieve: bulk data of a study", ALL_BULK;
    Kind::AllBulkData, "/dicom-web/studies/{study}/series/{series}/bulkdata", GET, Read,
        "Retrieve: bulk data of a series", ALL_BULK;
    Kind::AllBulkData, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata", GET, Read,
        "Retrieve: bulk data of an instance", ALL_BULK;
    Kind::AllPixelData, "/dicom-web/studies/{study}/pixeldata", GET, Read, "Retrieve: pixel data of a study", ALL_BULK;
    Kind::AllPixelData, "/dicom-web/studies/{study}/series/{series}/pixeldata", GET, Read,
        "Retrieve: pixel data of a series", ALL_BULK;
    Kind::AllPixelData, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/pixeldata", GET, Read,
        "Retrieve: pixel data of an instance", ALL_BULK;
    Kind::Rendered, "/dicom-web/studies/{study}/rendered", GET, Read,
        "Retrieve: rendered of a study", PICTURES;
    Kind::Rendered, "/dicom-web/studies/{study}/series/{series}/rendered", GET, Read,
        "Retrieve: rendered of a series", PICTURES;
    Kind::Rendered, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered", GET, Read,
        "Retrieve: rendered of an instance", PICTURES;
    Kind::Rendered, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered", GET, Read,
        "Retrieve: rendered of a frame", PICTURES;
    Kind::Thumbnail, "/dicom-web/studies/{study}/thumbnail", GET, Read,
        "Retrieve: thumbnail of a study", PICTURES;
    Kind::Thumbnail, "/dicom-web/studies/{study}/series/{series}/thumbnail", GET, Read,
        "Retrieve: thumbnail of a series", PICTURES;
    Kind::Thumbnail, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/thumbnail", GET, Read,
        "Retrieve: thumbnail of an instance", PICTURES;
    Kind::Thumbnail, "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/thumbnail", GET, Read,
        "Retrieve: thumbnail of a frame", PICTURES;
    Kind::WadoUri, "/dicom-web/wado", GET, Read, "WADO-URI", WADO_URI;
    Kind::WadoUri, "/wado", GET, Read, "WADO-URI", WADO_URI;
    Kind::Page, "/", GET, Read, "Page: search", HTML;
    Kind::PageOfStudy, "/study/{study}", GET, Read, "Page: a study", HTML;
    Kind::PageOfSeries, "/study/{study}/series/{series}", GET, Read, "Page: a series and its images", HTML;
    Kind::PageOfIndex, "/status", GET, Read, "Page: what the index holds", HTML;
    Kind::PageOfFailures, "/status/failures", GET, Read, "Page: files that could not be read", HTML;
    Kind::PageOfConflicts, "/status/conflicts", GET, Read, "Page: contradictions in the archive", HTML;
    Kind::Style, "/page.css", GET, Nothing, "Style of the page", TEXT;
    Kind::Script, "/page.js", GET, Nothing, "Script of the page", TEXT;
    Kind::Icon, "/page.svg", GET, Nothing, "Icon of the page", TEXT;
    Kind::Ohif, "/ohif", GET, Read, "OHIF", HTML;
    Kind::Ohif, "/ohif/", GET, Read, "OHIF", HTML;
    Kind::Ohif, "/ohif/{*path}", GET, Read, "OHIF", HTML;
    Kind::Health, "/healthz", GET, Nothing, "Whether the node is up", TEXT;
    Kind::Metrics, "/metrics", GET, Read, "Metrics for Prometheus", TEXT;
};

/// Media types of a description of the service (PS3.18 8.9.3).
pub(super) const CAPABILITIES: &[&str] = &["application/vnd.sun.wadl+xml", "application/json"];

/// Path of the DICOMweb service.
pub(super) const SERVICE: &str = "/dicom-web";

/// A resource and its methods, for documents and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceMethods {
    /// The path, with parameters in braces.
    pub template: &'static str,
    /// Its methods, besides HEAD and OPTIONS.
    pub methods: &'static [&'static str],
    /// The transaction or its purpose.
    pub what: &'static str,
    /// Media types of an answer.
    pub media_types: &'static [&'static str],
    /// Whether it answers without credentials if there are users.
    pub is_open: bool,
}

/// All resources and their methods.
pub static METHODS_OF_RESOURCES: LazyLock<Vec<ResourceMethods>> = LazyLock::new(|| {
    let row = |resource: &Resource| ResourceMethods {
        template: resource.template,
        methods: resource.methods,
        what: resource.what,
        media_types: resource.media_types,
        is_open: resource.needs == Needs::Nothing,
    };
    RESOURCES.iter().map(row).collect()
});

static ROUTER: LazyLock<Router<&'static Resource>> = LazyLock::new(|| {
    let mut router = Router::new();
    for resource in RESOURCES {
        router
            .insert(resource.template, resource)
            .expect("the paths of the table do not collide; a test reads them all");
    }
    router
});

/// A resource that a path names.
#[derive(Debug)]
pub(super) struct Route<'p> {
    pub(super) resource: &'static Resource,
    parameters: Vec<(&'static str, &'p str)>,
}

impl<'p> Route<'p> {
    /// Returns the resource of a path. `None` if there is none.
    pub(super) fn of(path: &'p str) -> Option<Self> {
        let found = ROUTER.at(path).ok()?;
        let resource = *found.value;
        // The names live as long as the table.
        let names = resource
            .template
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| name.trim_start_matches('*'));
        let parameters = names.filter_map(|name| Some((name, found.params.get(name)?))).collect();
        Some(Self { resource, parameters })
    }

    /// Returns a parameter, still percent-encoded. It is empty if the path has none of this name.
    pub(super) fn parameter(&self, name: &str) -> &'p str {
        self.parameters.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

impl Resource {
    /// Whether it has this method. HEAD is allowed wherever GET is.
    pub(super) fn takes(&self, method: &Method) -> bool {
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        self.methods.contains(&method)
    }

    /// Returns the value of `Allow`.
    pub(super) fn allow(&self) -> String {
        let head = self.methods.contains(&"GET").then_some("HEAD");
        self.methods.iter().copied().chain(head).chain(["OPTIONS"]).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_table_is_found() {
        for resource in RESOURCES {
            let path = resource.template.replace(['{', '}', '*'], "");
            let route = Route::of(&path).unwrap();
            assert_eq!(route.resource.template, resource.template);
        }
        assert!(Route::of("/dicom-web/patients").is_none());
        assert!(Route::of("/dicom-web/../etc/passwd").is_none());
        let route = Route::of("/dicom-web/studies/1.2/series/3/instances").unwrap();
        assert_eq!((route.parameter("study"), route.parameter("series"), route.parameter("none")), ("1.2", "3", ""));
        assert_eq!(route.resource.allow(), "GET, HEAD, OPTIONS");
    }
}
