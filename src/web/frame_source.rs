//! The pixels of an instance. Their place is found once, and then runs of bytes are read.

use std::io::Read as _;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::object_reader::{Bytes, OpenObject, lost, not_damaged};
use super::piece_buffers::{PieceBuffer, PieceBuffers};
use super::pixel_cache::PixelsKey;
use super::problem::{Problem, breaks_off};
use crate::archive::Archives;
use crate::db::{KnownLocation, Search as _};
use crate::deliver::object::ObjectError;
use crate::encoding::walk::WalkError;
use crate::model::location::Location;
use crate::pixels::frames::{Frame, PixelError, Pixels, realigned};
use crate::qr::{FindError, Instances};
use crate::shares::CountedPeer;
use crate::store::is_unchanged;
use crate::web::http_state::HttpState;

/// An instance whose pixels were found.
#[derive(Clone)]
pub(super) struct FrameSource {
    pub(super) pixels: Arc<Pixels>,
    pub(super) location: Location,
}

/// Finds the pixels of the first instance of a list. `refuse` says what it means that it has none.
pub(super) async fn frame_source(
    server: &Arc<HttpState>,
    peer: &CountedPeer,
    instances: &Arc<Instances>,
    refuse: fn(&PixelError) -> Problem,
) -> Result<FrameSource, Problem> {
    let turn = server.turn(peer).await?;
    let (server, instances) = (Arc::clone(server), Arc::clone(instances));
    let found = spawn_blocking(move || {
        let _until_its_end = turn;
        find(&server, &instances, refuse)
    });
    found.await.map_err(|_| Problem::ours())?
}

/// Finds the pixels of the first instance of a list. If their place is known already, nothing is
/// opened.
fn find(server: &HttpState, instances: &Instances, refuse: fn(&PixelError) -> Problem) -> Result<FrameSource, Problem> {
    let instance = instances.get(0).ok_or_else(Problem::ours)?;
    let mut reader = server.readers.take()?;
    let known = reader.known_locations(instance.sop_instance_uid).map_err(FindError::Index)?;
    server.readers.give_back(reader);
    let known = not_damaged(known, server.delivery().verified()).map_err(|error| lost(&error))?;
    for KnownLocation { location, .. } in &known {
        if let Some(pixels) = server.pixels.get(&PixelsKey::of(location))
            && is_unchanged(location)
        {
            return Ok(FrameSource { pixels, location: location.clone() });
        }
    }
    let locations = known.iter().map(|known| known.location.clone());
    let opened = OpenObject::first_of(locations, &instance, &Archives::default());
    let OpenObject { mut walk, transfer_syntax, location, .. } = opened.map_err(|error| lost(&error))?;
    let pixels = Arc::new(Pixels::find(&mut walk, &transfer_syntax).map_err(|error| refuse(&error))?);
    server.pixels.put(PixelsKey::of(&location), Arc::clone(&pixels));
    Ok(FrameSource { pixels, location })
}

/// Says that a frame is not there, since the pixels of its object cannot be told.
pub(super) fn no_pixels(error: &PixelError) -> Problem {
    match error {
        PixelError::Walk(WalkError::Read(error)) => {
            tracing::warn!(%error, "an object cannot be read");
            Problem::ours()
        }
        PixelError::None | PixelError::NoSuchFrame(_) | PixelError::Contradiction(_) | PixelError::Walk(_) => {
            Problem::not_found(error.to_string())
        }
    }
}

/// An object of which single runs of bytes are read.
pub(super) struct Runs {
    instances: Arc<Instances>,
    location: Location,
    bytes: Bytes,
    /// Position in the bytes. `None` if it is not known.
    position: Option<u64>,
    /// Buffer for the bytes that are read.
    buffer: PieceBuffer,
}

impl Runs {
    /// Opens an object to read single values.
    pub(super) fn open(server: &HttpState, instances: Arc<Instances>, location: Location) -> Result<Self, ObjectError> {
        let bytes = Self::bytes(&instances, &location)?;
        let buffer = PieceBuffers::take(&server.pieces);
        Ok(Self { instances, location, bytes, position: Some(0), buffer })
    }

    /// Opens an object to read frames. An object without random access is kept for the next frames.
    pub(super) fn of_frames(
        server: &HttpState,
        instances: Arc<Instances>,
        FrameSource { pixels, location }: &FrameSource,
    ) -> Result<Self, ObjectError> {
        let runs = |bytes| Self {
            instances: Arc::clone(&instances),
            location: location.clone(),
            bytes,
            position: Some(0),
            buffer: PieceBuffers::take(&server.pieces),
        };
        let key = PixelsKey::of(location);
        let may_be_kept = pixels.frames() > 1;
        if may_be_kept
            && is_unchanged(location)
            && let Some(file) = server.members.get(&key)
        {
            return Ok(runs(Bytes::Kept { file, position: 0 }));
        }
        let bytes = Self::bytes(&instances, location)?;
        if !may_be_kept || bytes.has_random_access() {
            return Ok(runs(bytes));
        }
        match server.members.keep(&key, bytes) {
            Some(file) => Ok(runs(Bytes::Kept { file, position: 0 })),
            None => Ok(runs(Self::bytes(&instances, location)?)),
        }
    }

    fn bytes(instances: &Instances, location: &Location) -> Result<Bytes, ObjectError> {
        let instance = instances.get(0).ok_or(ObjectError::NotKept)?;
        Ok(OpenObject::at(location.clone(), &instance, &Archives::default())?.walk.into_input())
    }

    /// Calls `on_bytes` with the bytes of a run, in pieces, until it says to stop.
    pub(super) fn read(
        &mut self,
        (offset, length): (u64, u64),
        on_bytes: &mut dyn FnMut(&[u8]) -> Result<(), ()>,
    ) -> Result<(), ()> {
        let failed = |error: std::io::Error| {
            breaks_off("an object cannot be read to its end", &error);
        };
        if let Bytes::DataSet(_) = self.bytes
            && self.position.is_none_or(|position| position > offset)
        {
            // The object is rewritten while it is read, so the only way back is from its start.
            self.bytes = Self::bytes(&self.instances, &self.location).map_err(|error| {
                breaks_off("an object cannot be opened again", &error);
            })?;
            self.position = Some(0);
        }
        self.bytes.go_to(self.position.unwrap_or(0), offset).map_err(failed)?;
        self.position = None;
        let mut left = length;
        while left > 0 {
            let space = self.buffer.space(left);
            self.bytes.read_exact(space).map_err(failed)?;
            left -= space.len() as u64;
            on_bytes(space)?;
        }
        self.position = Some(offset + length);
        Ok(())
    }

    /// Returns the bytes of one frame. Packed bits begin with the lowest bit of the first byte.
    pub(super) fn whole(&mut self, pixels: &Pixels, frame: &Frame) -> Result<Vec<u8>, ()> {
        let mut bytes = Vec::new();
        for range in &frame.ranges {
            self.read(*range, &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
        }
        let is_packed = !pixels.is_encapsulated() && (frame.shift > 0 || pixels.shape.bits_allocated == 1);
        Ok(if is_packed { realigned(&bytes, frame.shift, pixels.frame_bits()) } else { bytes })
    }
}
