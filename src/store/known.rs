//! Whether the file at a location is still the one that the index knows. Nothing is opened.

use std::fs::Metadata;

use crate::model::clock::unix_ms;
use crate::model::location::{Location, Place};

/// Difference between a file with these metadata and what the index knows of this location.
///
/// - A received object must have its length. Only the node writes there, and an object that was
///   restored from a backup may have another time.
/// - A file that was scanned in place must have its length and its time.
/// - A member must lie in an archive file with its time. The size is that of the member.
#[must_use]
pub fn change_of(location: &Location, metadata: &Metadata) -> Option<&'static str> {
    let other_length = location.place != Place::Archive && metadata.len() != location.size;
    let other_time = match location.place {
        Place::InPlace | Place::Archive => {
            !metadata.modified().is_ok_and(|modified| unix_ms(modified) == location.mtime_ms)
        }
        Place::Managed | Place::MetadataOnly => false,
    };
    match (other_length, other_time) {
        (true, _) => Some("another length"),
        (false, true) => Some("another modification time"),
        (false, false) => None,
    }
}

/// Whether the file at a location is still the one that the index knows. An instance whose object
/// is not kept has no file.
#[must_use]
pub fn is_unchanged(location: &Location) -> bool {
    let metadata = location.file().and_then(|file| file.metadata().ok());
    metadata.is_some_and(|metadata| change_of(location, &metadata).is_none())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, write};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn time_counts_where_others_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write(&path, "1234").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        let at = |place, size, mtime_ms| {
            let (directory, file_name) = match place {
                Place::Archive => (path.clone(), "member".into()),
                _ => (directory.path().to_owned(), "a".into()),
            };
            is_unchanged(&Location { place, directory, file_name, size, mtime_ms })
        };
        for (place, expected) in [
            // The same, another time, another length.
            (Place::Managed, [true, true, false]),
            (Place::InPlace, [true, false, false]),
            (Place::Archive, [true, false, true]),
            (Place::MetadataOnly, [false, false, false]),
        ] {
            assert_eq!([at(place, 4, 1000), at(place, 4, 2000), at(place, 5, 1000)], expected, "{place:?}");
        }
    }
}
