//! Transfer syntaxes (PS3.5 annex A): their UIDs, and how their data sets are encoded.

/// Implicit VR Little Endian (PS3.5 A.1).
pub const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";

/// Explicit VR Little Endian (PS3.5 A.2).
pub const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// Explicit VR Big Endian (PS3.5 A.3). It was retired in 2006, but old viewers still propose it.
pub const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// Deflated Explicit VR Little Endian (PS3.5 A.5).
pub const DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1.99";

/// The transfer syntaxes whose whole data set is deflated.
const DEFLATED: [&str; 3] = [
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.4.95",  // JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.205", // JPIP HTJ2K Referenced Deflate
];

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

/// Names of transfer syntaxes for documents, shorter than those of PS3.6 A.
const NAMES: [(&str, &str); 18] = [
    (IMPLICIT_VR_LITTLE_ENDIAN, "Implicit VR Little Endian"),
    (EXPLICIT_VR_LITTLE_ENDIAN, "Explicit VR Little Endian"),
    (EXPLICIT_VR_BIG_ENDIAN, "Explicit VR Big Endian (retired)"),
    (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "Deflated Explicit VR Little Endian"),
    (RLE_LOSSLESS, "RLE Lossless"),
    (JPEG_BASELINE, "JPEG Baseline"),
    (JPEG_EXTENDED, "JPEG Extended"),
    (JPEG_LOSSLESS, "JPEG Lossless"),
    (JPEG_LOSSLESS_FIRST_ORDER, "JPEG Lossless, First-Order Prediction"),
    (JPEG_LS_LOSSLESS, "JPEG-LS Lossless"),
    (JPEG_LS_NEAR_LOSSLESS, "JPEG-LS Near-lossless"),
    (JPEG_2000_LOSSLESS, "JPEG 2000 Lossless"),
    (JPEG_2000, "JPEG 2000"),
    ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Lossless"),
    ("1.2.840.10008.1.2.4.201", "HTJ2K Lossless"),
    ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
    ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level"),
    ("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile"),
];

/// The transfer syntaxes that have a name here, by UID and name.
pub fn named() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.into_iter()
}

/// The name of the transfer syntax with this UID. `None` if it has none here.
#[must_use]
pub fn name_of(uid: &str) -> Option<&'static str> {
    named().find(|(known, _)| *known == uid).map(|(_, name)| name)
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
    let number = uid.strip_prefix("1.2.840.10008.1.2.4.").and_then(|rest| rest.split('.').next());
    matches!(number, Some("100" | "101" | "102" | "103" | "104" | "105" | "106" | "107" | "108"))
}

/// A transfer syntax of an Identifier.
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
        match uid.trim_end_matches(['\0', ' ']) {
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

    pub(crate) fn is_big(self) -> bool {
        self == Self::ExplicitBig
    }

    pub(crate) fn is_explicit(self) -> bool {
        self != Self::ImplicitLittle
    }

    pub(crate) fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.is_big() { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    pub(crate) fn push_u16(self, out: &mut Vec<u8>, value: u16) {
        out.extend(if self.is_big() { value.to_be_bytes() } else { value.to_le_bytes() });
    }

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
