//! Transfer syntaxes (PS3.5 annex A): their UIDs, and how their data sets are encoded.

use crate::encoding::padding::without_trailing_padding;

/// Implicit VR Little Endian (PS3.5 A.1).
pub const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";

/// Explicit VR Little Endian (PS3.5 A.2).
pub const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// Explicit VR Big Endian (PS3.5 A.3). It was retired in 2006, but old viewers still propose it.
pub const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// Deflated Explicit VR Little Endian (PS3.5 A.5).
pub const DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1.99";

/// JPIP Referenced Deflate (PS3.5 A.7).
const JPIP_REFERENCED_DEFLATE: &str = "1.2.840.10008.1.2.4.95";

/// JPIP HTJ2K Referenced Deflate (PS3.5 A.9).
const JPIP_HTJ2K_REFERENCED_DEFLATE: &str = "1.2.840.10008.1.2.4.205";

/// The transfer syntaxes whose whole data set is deflated.
const DEFLATED: [&str; 3] =
    [DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, JPIP_REFERENCED_DEFLATE, JPIP_HTJ2K_REFERENCED_DEFLATE];

/// Encapsulated Uncompressed Explicit VR Little Endian (PS3.5 A.4.11).
pub const ENCAPSULATED_UNCOMPRESSED: &str = "1.2.840.10008.1.2.1.98";

/// Deflated Image Frame Compression (PS3.5 A.4.13).
pub const DEFLATED_IMAGE_FRAME: &str = "1.2.840.10008.1.2.8.1";

/// RLE Lossless (PS3.5 A.4.2).
pub const RLE_LOSSLESS: &str = "1.2.840.10008.1.2.5";

/// JPEG Baseline, process 1 (PS3.5 A.4.1).
pub const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";

/// JPEG Extended, processes 2 and 4 (PS3.5 A.4.1).
pub const JPEG_EXTENDED: &str = "1.2.840.10008.1.2.4.51";

/// JPEG Lossless, process 14 (PS3.5 A.4.1).
pub const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.57";

/// JPEG Lossless, process 14 with selection value 1 (PS3.5 A.4.1).
pub const JPEG_LOSSLESS_FIRST_ORDER: &str = "1.2.840.10008.1.2.4.70";

/// JPEG-LS Lossless (PS3.5 A.4.3).
pub const JPEG_LS_LOSSLESS: &str = "1.2.840.10008.1.2.4.80";

/// JPEG-LS Near-lossless (PS3.5 A.4.3).
pub const JPEG_LS_NEAR_LOSSLESS: &str = "1.2.840.10008.1.2.4.81";

/// JPEG 2000, lossless only (PS3.5 A.4.4).
pub const JPEG_2000_LOSSLESS: &str = "1.2.840.10008.1.2.4.90";

/// JPEG 2000 (PS3.5 A.4.4).
pub const JPEG_2000: &str = "1.2.840.10008.1.2.4.91";

/// Known properties of a transfer syntax.
#[derive(Clone, Copy, Debug)]
pub struct KnownSyntax {
    /// UID.
    pub uid: &'static str,
    /// Name for documents, shorter than that of PS3.6 A.
    pub name: &'static str,
    /// Media type of its frames (PS3.18 tables 8.7.3-2 to -5). `None` if it has none of its own.
    pub frame_type: Option<&'static str>,
}

const fn known(uid: &'static str, name: &'static str, frame_type: &'static str) -> KnownSyntax {
    KnownSyntax { uid, name, frame_type: if frame_type.is_empty() { None } else { Some(frame_type) } }
}

/// The transfer syntaxes of objects: those of PS3.6 A that are not retired, and that of PS3.5 A.3.
/// Those of SMPTE ST 2110 are left out, because PS3.22 sends them and nobody keeps them.
pub const KNOWN: [KnownSyntax; 43] = [
    known(IMPLICIT_VR_LITTLE_ENDIAN, "Implicit VR Little Endian", ""),
    known(EXPLICIT_VR_LITTLE_ENDIAN, "Explicit VR Little Endian", ""),
    known(EXPLICIT_VR_BIG_ENDIAN, "Explicit VR Big Endian (retired)", ""),
    known(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "Deflated Explicit VR Little Endian", ""),
    known(ENCAPSULATED_UNCOMPRESSED, "Encapsulated Uncompressed Explicit VR Little Endian", ""),
    known(DEFLATED_IMAGE_FRAME, "Deflated Image Frame Compression", ""),
    known(RLE_LOSSLESS, "RLE Lossless", "image/dicom-rle"),
    known(JPEG_BASELINE, "JPEG Baseline", "image/jpeg"),
    known(JPEG_EXTENDED, "JPEG Extended", "image/jpeg"),
    known(JPEG_LOSSLESS, "JPEG Lossless", "image/jpeg"),
    known(JPEG_LOSSLESS_FIRST_ORDER, "JPEG Lossless, First-Order Prediction", "image/jpeg"),
    known(JPEG_LS_LOSSLESS, "JPEG-LS Lossless", "image/jls"),
    known(JPEG_LS_NEAR_LOSSLESS, "JPEG-LS Near-lossless", "image/jls"),
    known(JPEG_2000_LOSSLESS, "JPEG 2000 Lossless", "image/jp2"),
    known(JPEG_2000, "JPEG 2000", "image/jp2"),
    known("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Lossless", "image/jpx"),
    known("1.2.840.10008.1.2.4.93", "JPEG 2000 Part 2", "image/jpx"),
    known("1.2.840.10008.1.2.4.94", "JPIP Referenced", ""),
    known(JPIP_REFERENCED_DEFLATE, "JPIP Referenced Deflate", ""),
    known("1.2.840.10008.1.2.4.201", "HTJ2K Lossless", "image/jphc"),
    known("1.2.840.10008.1.2.4.202", "HTJ2K Lossless RPCL", "image/jphc"),
    known("1.2.840.10008.1.2.4.203", "HTJ2K", "image/jphc"),
    known("1.2.840.10008.1.2.4.204", "JPIP HTJ2K Referenced", ""),
    known(JPIP_HTJ2K_REFERENCED_DEFLATE, "JPIP HTJ2K Referenced Deflate", ""),
    known("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", "image/jxl"),
    known("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression", "image/jxl"),
    known("1.2.840.10008.1.2.4.112", "JPEG XL", "image/jxl"),
    known("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level", "video/mpeg"),
    known("1.2.840.10008.1.2.4.100.1", "MPEG2 Main Profile / Main Level, in fragments", "video/mpeg"),
    known("1.2.840.10008.1.2.4.101", "MPEG2 Main Profile / High Level", "video/mpeg"),
    known("1.2.840.10008.1.2.4.101.1", "MPEG2 Main Profile / High Level, in fragments", "video/mpeg"),
    known("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile", "video/mp4"),
    known("1.2.840.10008.1.2.4.102.1", "MPEG-4 AVC/H.264 High Profile, in fragments", "video/mp4"),
    known("1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD-compatible High Profile", "video/mp4"),
    known("1.2.840.10008.1.2.4.103.1", "MPEG-4 AVC/H.264 BD-compatible High Profile, in fragments", "video/mp4"),
    known("1.2.840.10008.1.2.4.104", "MPEG-4 AVC/H.264 High Profile for 2D Video", "video/mp4"),
    known("1.2.840.10008.1.2.4.104.1", "MPEG-4 AVC/H.264 High Profile for 2D Video, in fragments", "video/mp4"),
    known("1.2.840.10008.1.2.4.105", "MPEG-4 AVC/H.264 High Profile for 3D Video", "video/mp4"),
    known("1.2.840.10008.1.2.4.105.1", "MPEG-4 AVC/H.264 High Profile for 3D Video, in fragments", "video/mp4"),
    known("1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo High Profile", "video/mp4"),
    known("1.2.840.10008.1.2.4.106.1", "MPEG-4 AVC/H.264 Stereo High Profile, in fragments", "video/mp4"),
    known("1.2.840.10008.1.2.4.107", "HEVC/H.265 Main Profile", "video/mp4"),
    known("1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10 Profile", "video/mp4"),
];

/// Returns the known properties of the transfer syntax with this UID. `None` for a private or
/// retired one.
#[must_use]
pub fn known_of(uid: &str) -> Option<&'static KnownSyntax> {
    KNOWN.iter().find(|known| known.uid == uid)
}

/// The media type of frames in the transfer syntax with this UID. `None` if they have none of their
/// own.
#[must_use]
pub fn frame_type(uid: &str) -> Option<&'static str> {
    known_of(uid)?.frame_type
}

/// Whether a transfer syntax is one of the Standard and no private one. Implicit VR Little Endian,
/// whose UID is shorter, is not looked for here.
#[must_use]
pub(crate) fn is_of_standard(uid: &str) -> bool {
    uid.starts_with("1.2.840.10008.1.2.")
}

/// Whether data sets in the transfer syntax with this UID are deflated.
#[must_use]
pub fn is_deflated(uid: &str) -> bool {
    DEFLATED.contains(&uid)
}

/// Whether all frames in the transfer syntax with this UID are one stream: MPEG2, MPEG-4 and HEVC
/// (PS3.5 8.2). The stream may lie in several fragments.
#[must_use]
pub fn is_video(uid: &str) -> bool {
    frame_type(uid).is_some_and(|kind| kind.starts_with("video/"))
}

/// Byte order and VR form of elements, as the three uncompressed transfer syntaxes have them (PS3.5
/// A.1 to A.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Implicit VR Little Endian (PS3.5 A.1).
    ImplicitLittle,
    /// Explicit VR Little Endian (PS3.5 A.2).
    ExplicitLittle,
    /// Explicit VR Big Endian (PS3.5 A.3). It was retired in 2006, but old viewers still propose
    /// it.
    ExplicitBig,
}

impl Encoding {
    /// All three transfer syntaxes.
    pub const ALL: [Self; 3] = [Self::ImplicitLittle, Self::ExplicitLittle, Self::ExplicitBig];

    /// Returns the transfer syntax with this UID. `None` for any other UID.
    #[must_use]
    pub fn of_uid(uid: &str) -> Option<Self> {
        match without_trailing_padding(uid) {
            IMPLICIT_VR_LITTLE_ENDIAN => Some(Self::ImplicitLittle),
            EXPLICIT_VR_LITTLE_ENDIAN => Some(Self::ExplicitLittle),
            EXPLICIT_VR_BIG_ENDIAN => Some(Self::ExplicitBig),
            _ => None,
        }
    }

    /// Returns the UID.
    #[must_use]
    pub fn uid(self) -> &'static str {
        match self {
            Self::ImplicitLittle => IMPLICIT_VR_LITTLE_ENDIAN,
            Self::ExplicitLittle => EXPLICIT_VR_LITTLE_ENDIAN,
            Self::ExplicitBig => EXPLICIT_VR_BIG_ENDIAN,
        }
    }

    /// Whether numbers have their most significant byte first.
    pub(crate) fn is_big(self) -> bool {
        self == Self::ExplicitBig
    }

    /// Whether headers name the VR.
    pub(crate) fn is_explicit(self) -> bool {
        self != Self::ImplicitLittle
    }

    /// Reads a number in this byte order.
    pub(crate) fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.is_big() { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    /// Appends a number in this byte order.
    pub(crate) fn push_u16(self, out: &mut Vec<u8>, value: u16) {
        out.extend(if self.is_big() { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    /// The bytes of a number in this byte order.
    pub(crate) fn u32_bytes(self, value: u32) -> [u8; 4] {
        if self.is_big() { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// A transfer syntax without compression of pixel data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NativeSyntax {
    /// Implicit VR Little Endian (PS3.5 A.1).
    ImplicitLittle,
    /// Explicit VR Little Endian (PS3.5 A.2).
    ExplicitLittle,
    /// Explicit VR Big Endian (PS3.5 A.3, retired).
    ExplicitBig,
    /// Deflated Explicit VR Little Endian (PS3.5 A.5).
    Deflated,
}

impl From<Encoding> for NativeSyntax {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::ImplicitLittle => Self::ImplicitLittle,
            Encoding::ExplicitLittle => Self::ExplicitLittle,
            Encoding::ExplicitBig => Self::ExplicitBig,
        }
    }
}

impl NativeSyntax {
    /// The transfer syntaxes to which a data set can be rewritten, the preferred one first.
    pub const TARGETS: [Self; 3] = [Self::ExplicitLittle, Self::ImplicitLittle, Self::ExplicitBig];

    /// Returns the transfer syntax with this UID. `None` for encapsulated, private and unknown
    /// ones.
    #[must_use]
    pub fn of_uid(uid: &str) -> Option<Self> {
        [Self::ImplicitLittle, Self::ExplicitLittle, Self::ExplicitBig, Self::Deflated]
            .into_iter()
            .find(|syntax| syntax.uid() == uid)
    }

    /// Returns the UID.
    #[must_use]
    pub fn uid(self) -> &'static str {
        match self {
            Self::Deflated => DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            Self::ImplicitLittle | Self::ExplicitLittle | Self::ExplicitBig => self.encoding().uid(),
        }
    }

    /// Returns the encoding of its elements. For a deflated data set it is the encoding after
    /// inflating.
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::ImplicitLittle => Encoding::ImplicitLittle,
            Self::ExplicitLittle | Self::Deflated => Encoding::ExplicitLittle,
            Self::ExplicitBig => Encoding::ExplicitBig,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transfer_syntax_is_known_once() {
        for (at, known) in KNOWN.iter().enumerate() {
            assert!(!KNOWN[..at].iter().any(|other| other.uid == known.uid || other.name == known.name), "{known:?}");
        }
        let registry = dicom_transfer_syntax_registry::TransferSyntaxRegistry;
        let names = registry.iter().filter(|syntax| known_of(syntax.uid()).is_none()).map(|syntax| syntax.name());
        let missing: Vec<_> = names.filter(|name| !name.starts_with("SMPTE ST 2110")).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(DEFLATED.iter().all(|uid| known_of(uid).is_some_and(|known| known.name.contains("Deflate"))));
    }
}
