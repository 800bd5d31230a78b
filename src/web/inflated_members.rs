//! Inflated members of archives. They are kept for a minute for the frames that a viewer asks for
//! next.
//!
//! A frame in the middle of a compressed member can be reached only by inflating everything before
//! it. So the first request for a frame inflates the whole member into a file without a name beside
//! the index. Objects that are rewritten on the way (big endian, deflated) are kept the same way.

use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::object_reader::Bytes;
use super::pixel_cache::PixelsKey;
use crate::store::{SpoolDirectory, SpoolFile};

/// Time for which an unused member is kept. Larger: more disk is used. Smaller: slow viewers
/// inflate again.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Maximum size of all kept members, in bytes.
const MAX_BYTES: u64 = 8 << 30;

/// Maximum size of one member, in bytes. A longer one is inflated for each request.
const MAX_MEMBER_BYTES: u64 = 4 << 30;

/// Number of bytes that are inflated at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The kept members.
pub(super) struct Members {
    spools: SpoolDirectory,
    kept: Mutex<Vec<KeptMember>>,
}

/// A file that one request fills while others wait for it.
type MemberFile = Arc<Mutex<Option<Arc<SpoolFile>>>>;

struct KeptMember {
    key: PixelsKey,
    file: MemberFile,
    bytes: u64,
    used: Instant,
}

impl Members {
    pub(super) fn new(spools: SpoolDirectory) -> Self {
        Self { spools, kept: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<KeptMember>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a kept member.
    pub(super) fn get(&self, key: &PixelsKey) -> Option<Arc<SpoolFile>> {
        let file = {
            let mut kept = self.lock();
            let member = kept.iter_mut().find(|member| member.key == *key)?;
            member.used = Instant::now();
            Arc::clone(&member.file)
        };
        // Another request may be filling the file.
        let file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.clone()
    }

    /// Keeps a member, and reads its bytes to the end. `None` if it is too long, if the disk has no
    /// room, or if it cannot be read.
    pub(super) fn keep(self: &Arc<Self>, key: &PixelsKey, mut bytes: Bytes) -> Option<Arc<SpoolFile>> {
        let cell = self.cell(key);
        let mut slot = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = slot.as_ref() {
            return Some(Arc::clone(file));
        }
        match self.filled(&mut bytes) {
            Ok(file) => {
                let file = Arc::new(file);
                *slot = Some(Arc::clone(&file));
                self.settle(key, file.length());
                Some(file)
            }
            Err(error) => {
                tracing::debug!("a member of an archive is not kept: {error}");
                self.lock().retain(|member| member.key != *key);
                None
            }
        }
    }

    fn cell(self: &Arc<Self>, key: &PixelsKey) -> MemberFile {
        let mut kept = self.lock();
        if let Some(member) = kept.iter().find(|member| member.key == *key) {
            return Arc::clone(&member.file);
        }
        let file = MemberFile::default();
        kept.push(KeptMember { key: key.clone(), file: Arc::clone(&file), bytes: 0, used: Instant::now() });
        Handle::current().spawn(let_go(Arc::downgrade(self), key.clone()));
        file
    }

    fn filled(&self, bytes: &mut Bytes) -> std::io::Result<SpoolFile> {
        bytes.go_to(0, 0)?;
        let mut file = self.spools.file()?;
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let read = match bytes.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Ok(file);
            }
            if file.length() + read as u64 > MAX_MEMBER_BYTES {
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
            file.append(buffer.get(..read).unwrap_or_default())?;
        }
    }

    /// Counts a complete member. Others make room for it.
    fn settle(&self, key: &PixelsKey, bytes: u64) {
        let mut kept = self.lock();
        if let Some(member) = kept.iter_mut().find(|member| member.key == *key) {
            (member.bytes, member.used) = (bytes, Instant::now());
        }
        while kept.iter().map(|member| member.bytes).sum::<u64>() > MAX_BYTES {
            let others = kept.iter().enumerate().filter(|(_, member)| member.key != *key && member.bytes > 0);
            let Some((oldest, _)) = others.min_by_key(|(_, member)| member.used) else { return };
            kept.remove(oldest);
        }
    }

    /// Drops a member if it was not used for some time. Otherwise returns how long it has left.
    fn expire(&self, key: &PixelsKey, now: Instant) -> Option<Duration> {
        let mut kept = self.lock();
        let at = kept.iter().position(|member| member.key == *key)?;
        let left = kept.get(at)?.used + KEPT_FOR;
        match left.checked_duration_since(now).filter(|left| !left.is_zero()) {
            Some(left) => Some(left),
            None => {
                kept.remove(at);
                None
            }
        }
    }
}

/// Waits until a member was not used for some time, and drops it.
async fn let_go(members: Weak<Members>, key: PixelsKey) {
    let mut left = Some(KEPT_FOR);
    while let Some(wait) = left {
        tokio::time::sleep(wait).await;
        left = members.upgrade().and_then(|members| members.expire(&key, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archives;
    use crate::model::location::{Location, Place};
    use crate::store::Source;

    fn location(directory: &std::path::Path, content: &[u8]) -> Location {
        std::fs::write(directory.join("object"), content).unwrap();
        Location {
            place: Place::Managed,
            directory: directory.to_owned(),
            file_name: "object".into(),
            size: content.len() as u64,
            mtime_ms: 0,
        }
    }

    #[tokio::test]
    async fn a_member_is_read_once_and_let_go_after_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let members = Arc::new(Members::new(SpoolDirectory::new(directory.path().to_owned(), 0)));
        let content: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        let location = location(directory.path(), &content);
        let key = PixelsKey::of(&location);
        assert!(members.get(&key).is_none());
        let bytes = || Bytes::Source(Source::open(&location, &Archives::default()).unwrap().unwrap());
        let file = members.keep(&key, bytes()).unwrap();
        assert_eq!(file.length(), 300_000);
        let mut read = [0; 4];
        file.read_at(&mut read, 299_996).unwrap();
        assert_eq!(read, content[299_996..]);
        assert!(Arc::ptr_eq(&members.get(&key).unwrap(), &file));
        let now = Instant::now();
        assert!(members.expire(&key, now).is_some());
        assert_eq!(members.expire(&key, now + KEPT_FOR), None);
        assert!(members.get(&key).is_none());
    }
}
