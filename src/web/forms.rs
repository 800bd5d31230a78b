//! Forms of an object or of a frame (PS3.18 8.7.3): pure decisions from Accept.
//!
//! The stored form comes first. Implicit VR Little Endian and Explicit VR Big Endian are never sent
//! (PS3.18 8.7.3.5.2). They become Explicit VR Little Endian. If no transfer syntax is named,
//! compressed data go out as they are stored, and their Content-Type names the syntax.

use std::collections::BTreeSet;

use super::negotiate::{Accept, MediaRange};
use crate::deliver::framing::SentForm;
use crate::encoding::syntax::{self, EXPLICIT_VR_LITTLE_ENDIAN, NativeSyntax, is_video};
use crate::pixels::codec::Codec;

/// Media type of an object.
pub(super) const DICOM: &str = "application/dicom";

/// Media type of bytes without further meaning.
pub(super) const OCTETS: &str = "application/octet-stream";

/// Form in which frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameForm {
    AsStored,
    Decompressed,
    /// Decompressed, or as stored if the decoder refuses the first frame.
    DecompressedIfPossible,
}

/// Content that instances are sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InstanceForm {
    /// Complete files.
    File(Wrapping),
    /// Their values that metadata give by URI (PS3.18 table 10.4.4-1).
    Values,
}

/// Whether a response has parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    Multipart,
    Single,
}

/// The requested transfer syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WantedSyntax {
    /// None is named.
    Unnamed,
    /// `*`.
    Any,
    /// This one.
    Only(String),
}

impl WantedSyntax {
    fn of(range: &MediaRange) -> Self {
        match range.parameter("transfer-syntax").map(str::trim) {
            None | Some("") => Self::Unnamed,
            Some("*") => Self::Any,
            Some(uid) => Self::Only(uid.to_owned()),
        }
    }

    /// Returns the form for an object with this stored transfer syntax. `None` if there is none.
    pub(super) fn object(&self, stored: &str) -> Option<SentForm> {
        use NativeSyntax::{Deflated, ExplicitBig, ExplicitLittle, ImplicitLittle};
        let native = NativeSyntax::of_uid(stored);
        let explicit = SentForm::Rewritten(ExplicitLittle);
        match self {
            Self::Any => Some(match native {
                Some(ImplicitLittle | ExplicitBig) => explicit,
                Some(ExplicitLittle | Deflated) | None => SentForm::AsStored,
            }),
            Self::Unnamed => Some(match native {
                Some(ImplicitLittle | ExplicitBig | Deflated) => explicit,
                Some(ExplicitLittle) | None => SentForm::AsStored,
            }),
            Self::Only(uid) if uid == EXPLICIT_VR_LITTLE_ENDIAN => match native {
                Some(ExplicitLittle) => Some(SentForm::AsStored),
                Some(ImplicitLittle | ExplicitBig | Deflated) => Some(explicit),
                None => Codec::lossless(stored).map(|_| SentForm::Decompressed(ExplicitLittle)),
            },
            Self::Only(uid) => match native {
                Some(ImplicitLittle | ExplicitBig) => None,
                Some(ExplicitLittle | Deflated) | None => (uid == stored).then_some(SentForm::AsStored),
            },
        }
    }

    /// Returns the form for frames with this stored transfer syntax. `None` if there is none.
    ///
    /// `is_octets` is true if the range names octets. Then the default of the Standard is Explicit
    /// VR Little Endian (PS3.18 8.7.3.3.2).
    fn frames(&self, stored: &str, is_octets: bool) -> Option<FrameForm> {
        let is_decompressed = Codec::lossless(stored).is_some();
        match self {
            Self::Unnamed if is_octets && is_decompressed => Some(FrameForm::DecompressedIfPossible),
            Self::Unnamed | Self::Any => Some(FrameForm::AsStored),
            // Native frames are the same in each native transfer syntax.
            Self::Only(uid) if NativeSyntax::of_uid(stored).is_some() => {
                (uid == EXPLICIT_VR_LITTLE_ENDIAN).then_some(FrameForm::AsStored)
            }
            Self::Only(uid) if uid == EXPLICIT_VR_LITTLE_ENDIAN => {
                (is_octets && is_decompressed).then_some(FrameForm::Decompressed)
            }
            Self::Only(uid) => (uid == stored).then_some(FrameForm::AsStored),
        }
    }
}

impl WantedSyntax {
    /// Whether values of an object with this stored transfer syntax are accepted.
    fn takes_values(&self, stored: &str) -> bool {
        let sent = if NativeSyntax::of_uid(stored).is_some() { EXPLICIT_VR_LITTLE_ENDIAN } else { stored };
        match self {
            Self::Unnamed | Self::Any => true,
            Self::Only(uid) => uid == sent,
        }
    }
}

/// The accepted transfer syntaxes, those that are wanted most first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AcceptedSyntaxes(Vec<WantedSyntax>);

impl From<WantedSyntax> for AcceptedSyntaxes {
    fn from(wanted: WantedSyntax) -> Self {
        Self(vec![wanted])
    }
}

impl AcceptedSyntaxes {
    /// Returns the form for an object with this stored transfer syntax. `None` if there is none.
    pub(super) fn object(&self, stored: &str) -> Option<SentForm> {
        self.0.iter().find_map(|wanted| wanted.object(stored))
    }

    /// Whether values of an object with this stored transfer syntax are accepted.
    pub(super) fn takes_values(&self, stored: &str) -> bool {
        self.0.iter().any(|wanted| wanted.takes_values(stored))
    }
}

/// Returns what a range asks for besides its weight. This is the type of the response or of its
/// parts, and whether it has parts.
fn wrapped(range: &MediaRange) -> Option<(Wrapping, Option<(String, String)>)> {
    match (range.essence.0.as_str(), range.essence.1.as_str()) {
        ("*", _) => Some((Wrapping::Multipart, None)),
        ("multipart", "related" | "*") => {
            let kind = range.parameter("type").map(str::to_ascii_lowercase);
            let of_parts = kind.as_deref().and_then(|kind| kind.split_once('/'));
            let of_parts = of_parts.map(|(kind, subkind)| (kind.to_owned(), subkind.to_owned()));
            if kind.is_some() && of_parts.is_none() {
                return None;
            }
            Some((Wrapping::Multipart, of_parts.filter(|(kind, _)| kind != "*")))
        }
        ("multipart", _) => None,
        _ => Some((Wrapping::Single, Some(range.essence.clone()))),
    }
}

/// Whether a range covers a media type, by itself or as that of parts. A wildcard does not cover a
/// type that another range refuses by its name (RFC 9110 12.5.1).
fn covers(accept: &Accept, range: &MediaRange, media_type: &str) -> bool {
    let Some((_, kind)) = wrapped(range) else { return false };
    let is_in = |(kind, subkind): (String, String)| {
        subkind == "*" && media_type.split_once('/').is_some_and(|(own, _)| kind == own)
    };
    let is_refused = |other: &MediaRange| other.weight == 0 && names(other, media_type);
    let is_free = || !accept.groups().into_iter().flatten().any(is_refused);
    names(range, media_type) || kind.is_none_or(is_in) && is_free()
}

/// Whether a range names a media type, by itself or as that of parts.
fn names(range: &MediaRange, media_type: &str) -> bool {
    let kind = wrapped(range).and_then(|(_, kind)| kind);
    kind.is_some_and(|(kind, subkind)| media_type.split_once('/') == Some((kind.as_str(), subkind.as_str())))
}

/// Whether a request accepts any form. No readable range is the same as no header.
fn takes_any(accept: &Accept) -> bool {
    accept.groups().is_empty()
}

/// Returns ranges in the order in which they are tried. Those of the query parameter come first,
/// then the heaviest. Equal ranges are sorted by how closely they name a type.
fn in_order(accept: &Accept) -> Vec<&MediaRange> {
    let mut all = Vec::new();
    for group in accept.groups() {
        let mut group: Vec<_> = group.iter().filter(|range| range.weight > 0).collect();
        // The sort is stable, so the first of equal ranges stays first.
        group.sort_by_key(|range| (std::cmp::Reverse(range.weight), range.essence.0 == "*", range.essence.1 == "*"));
        all.extend(group);
    }
    all
}

/// Returns how to send objects with these transfer syntaxes: as what, and in which transfer
/// syntaxes. `None` if no object can be sent. An object without an accepted one is left out.
pub(super) fn objects(accept: &Accept, stored: &[String], count: usize) -> Option<(InstanceForm, AcceptedSyntaxes)> {
    if takes_any(accept) {
        return Some((InstanceForm::File(Wrapping::Multipart), WantedSyntax::Unnamed.into()));
    }
    let form = |range: &MediaRange| match wrapped(range)?.0 {
        Wrapping::Single if count != 1 => None,
        wrapping if covers(accept, range, DICOM) => Some(InstanceForm::File(wrapping)),
        Wrapping::Multipart if names(range, OCTETS) => Some(InstanceForm::Values),
        Wrapping::Multipart | Wrapping::Single => None,
    };
    let offers = in_order(accept).into_iter().filter_map(|range| Some((form(range)?, WantedSyntax::of(range))));
    let offers: Vec<_> = offers.collect();
    let sends_some = |(form, wanted): &&(InstanceForm, WantedSyntax)| {
        stored.iter().any(|stored| match form {
            InstanceForm::File(_) => wanted.object(stored).is_some(),
            InstanceForm::Values => wanted.takes_values(stored),
        })
    };
    let (chosen, _) = *offers.iter().find(sends_some)?;
    let of_form = offers.into_iter().filter(|(form, _)| *form == chosen).map(|(_, wanted)| wanted);
    Some((chosen, AcceptedSyntaxes(of_form.collect())))
}

/// Returns the media types that so many objects with these transfer syntaxes can have.
pub(super) fn object_offers(stored: &[String], count: usize) -> Vec<String> {
    let multipart = format!("multipart/related; type=\"{DICOM}\"");
    let of_some = |uid: &&str| {
        let wanted = WantedSyntax::Only((*uid).to_owned());
        stored.iter().any(|stored| wanted.object(stored).is_some())
    };
    let syntaxes = stored.iter().map(String::as_str).chain([EXPLICIT_VR_LITTLE_ENDIAN]);
    let syntaxes: BTreeSet<&str> = syntaxes.filter(of_some).collect();
    let mut offers = vec![format!("{multipart}; transfer-syntax=*")];
    for uid in syntaxes {
        offers.push(format!("{multipart}; transfer-syntax={uid}"));
        offers.extend((count == 1).then(|| format!("{DICOM}; transfer-syntax={uid}")));
    }
    offers
}

/// Returns the media type of frames with this transfer syntax, or octets.
pub(super) fn frame_type(stored: &str) -> &'static str {
    syntax::frame_type(stored).unwrap_or(OCTETS)
}

/// Returns how to send frames of a stored transfer syntax. This is whether they are in parts, their
/// type without its parameter, and whether they are decompressed.
pub(super) fn frames(accept: &Accept, stored: &str, count: usize) -> Option<(Wrapping, &'static str, FrameForm)> {
    let own = frame_type(stored);
    // A browser that plays a video accepts anything and reads no parts.
    let is_played = is_video(stored) && count == 1;
    let whole = if is_played { (Wrapping::Single, own) } else { (Wrapping::Multipart, OCTETS) };
    if takes_any(accept) {
        return Some((whole.0, whole.1, FrameForm::AsStored));
    }
    in_order(accept).into_iter().find_map(|range| {
        let (wrapping, kind) = wrapped(range)?;
        if wrapping == Wrapping::Single && count != 1 {
            return None;
        }
        let wanted = WantedSyntax::of(range);
        if is_played && range.essence.0 == "*" && covers(accept, range, own) {
            return Some((whole.0, whole.1, wanted.frames(stored, false)?));
        }
        [OCTETS, own].into_iter().filter(|own| covers(accept, range, own)).find_map(|own| {
            // A wildcard without a transfer syntax wants frames as they are stored.
            let is_octets = own == OCTETS && (kind.is_some() || wanted != WantedSyntax::Unnamed);
            Some((wrapping, own, wanted.frames(stored, is_octets)?))
        })
    })
}

/// Returns the transfer syntaxes in which Accept allows values of several instances, in parts.
/// `None` if it allows none of objects with these stored ones.
pub(super) fn all_values(accept: &Accept, stored: &[String]) -> Option<AcceptedSyntaxes> {
    if takes_any(accept) {
        return Some(WantedSyntax::Unnamed.into());
    }
    let has_parts = |range: &&MediaRange| wrapped(range).is_some_and(|(wrapping, _)| wrapping == Wrapping::Multipart);
    let ranges = in_order(accept).into_iter().filter(has_parts).filter(|range| covers(accept, range, OCTETS));
    let wanted = AcceptedSyntaxes(ranges.map(WantedSyntax::of).collect());
    stored.iter().any(|stored| wanted.takes_values(stored)).then_some(wanted)
}

/// Returns how to send bulk data, whose own type may be known, and which have this transfer syntax.
/// This is whether they are in parts, and their type. A browser that accepts anything gets the
/// bytes themselves.
pub(super) fn bulk(accept: &Accept, own: Option<&str>, transfer_syntax: &str) -> Option<(Wrapping, String)> {
    if takes_any(accept) {
        return Some((Wrapping::Single, OCTETS.to_owned()));
    }
    in_order(accept).into_iter().find_map(|range| {
        let wrapping = if range.essence.0 == "*" { Wrapping::Single } else { wrapped(range)?.0 };
        let takes_octets = WantedSyntax::of(range).takes_values(transfer_syntax);
        let takes = |media_type: &&str| covers(accept, range, media_type) && (takes_octets || *media_type != OCTETS);
        let media_type = [OCTETS].into_iter().chain(own).find(takes)?;
        Some((wrapping, media_type.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::encoding::syntax::EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT_LITTLE;

    const IMPLICIT: &str = "1.2.840.10008.1.2";
    const BIG: &str = "1.2.840.10008.1.2.2";
    const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
    const JPEG: &str = "1.2.840.10008.1.2.4.50";
    const J2K: &str = "1.2.840.10008.1.2.4.90";
    const RLE: &str = "1.2.840.10008.1.2.5";

    fn accept(header: &str) -> Accept {
        Accept::of([&HeaderValue::from_str(header).unwrap()], "")
    }

    #[track_caller]
    fn sent(header: &str, stored: &str) -> Option<(Wrapping, String)> {
        let (form, wanted) = objects(&accept(header), &[stored.to_owned()], 1)?;
        let InstanceForm::File(wrapping) = form else { panic!("{header}: {form:?}") };
        Some((wrapping, wanted.object(stored).unwrap().transfer_syntax(stored).to_owned()))
    }

    // PS3.18 8.7.3.5.2.
    #[test]
    fn implicit_and_big_endian_are_never_sent() {
        for header in [
            "",
            "*/*",
            "multipart/related; type=\"application/dicom\"",
            "multipart/related; type=application/dicom; transfer-syntax=*",
        ] {
            for stored in [IMPLICIT, BIG, EXPLICIT_LITTLE] {
                assert_eq!(
                    sent(header, stored),
                    Some((Wrapping::Multipart, EXPLICIT_LITTLE.into())),
                    "{header} {stored}"
                );
            }
        }
        let asked = |uid| format!("multipart/related; type=\"application/dicom\"; transfer-syntax={uid}");
        assert_eq!(sent(&asked(IMPLICIT), IMPLICIT), None);
        assert_eq!(sent(&asked(BIG), BIG), None);
        assert_eq!(sent(&asked(EXPLICIT_LITTLE), BIG), Some((Wrapping::Multipart, EXPLICIT_LITTLE.into())));
    }

    #[test]
    fn what_is_compressed_goes_out_as_it_lies_or_not_at_all() {
        let dicom = "multipart/related; type=\"application/dicom\"";
        assert_eq!(sent(dicom, JPEG).unwrap().1, JPEG);
        assert_eq!(sent(&format!("{dicom}; transfer-syntax=*"), JPEG).unwrap().1, JPEG);
        assert_eq!(sent(&format!("{dicom}; transfer-syntax=\"*\""), DEFLATED).unwrap().1, DEFLATED);
        assert_eq!(sent(&format!("{dicom}; transfer-syntax={JPEG}"), JPEG).unwrap().1, JPEG);
        assert_eq!(sent(&format!("{dicom}; transfer-syntax={J2K}"), JPEG), None);
        assert_eq!(sent(&format!("{dicom}; transfer-syntax={EXPLICIT_LITTLE}"), JPEG), None);
        assert_eq!(sent(&format!("{dicom}; transfer-syntax={EXPLICIT_LITTLE}"), RLE).unwrap().1, EXPLICIT_LITTLE);
        assert_eq!(sent(dicom, RLE).unwrap().1, RLE);
        // A second range that can be met.
        let both = format!("{dicom}; transfer-syntax={J2K}, {dicom}; transfer-syntax={JPEG};q=0.5");
        assert_eq!(sent(&both, JPEG).unwrap().1, JPEG);
        assert_eq!(sent(DEFLATED, JPEG), Some((Wrapping::Multipart, JPEG.into())), "no range that can be read");
    }

    #[test]
    fn one_object_can_be_had_without_parts() {
        assert_eq!(sent("application/dicom", EXPLICIT_LITTLE).unwrap().0, Wrapping::Single);
        assert_eq!(sent("multipart/*", EXPLICIT_LITTLE).unwrap().0, Wrapping::Multipart);
        assert_eq!(objects(&accept("application/dicom"), &[EXPLICIT_LITTLE.to_owned()], 2), None);
        assert_eq!(sent("image/jpeg", EXPLICIT_LITTLE), None);
        let values = accept("multipart/related; type=\"application/octet-stream\"");
        let of_one = objects(&values, &[EXPLICIT_LITTLE.to_owned()], 1);
        assert_eq!(of_one, Some((InstanceForm::Values, WantedSyntax::Unnamed.into())));
        let all = accept("multipart/related; type=\"application/dicom\"; transfer-syntax=*");
        let mixed = objects(&all, &[JPEG, IMPLICIT].map(str::to_owned), 2);
        assert_eq!(mixed, Some((InstanceForm::File(Wrapping::Multipart), WantedSyntax::Any.into())));
    }

    #[test]
    fn what_is_offered_can_be_had() {
        for (stored, count, offered) in [
            (vec![IMPLICIT], 1, 3),
            (vec![BIG], 2, 2),
            (vec![JPEG], 1, 3),
            (vec![RLE], 1, 5),
            (vec![JPEG, IMPLICIT], 2, 3),
            (vec![EXPLICIT_LITTLE, DEFLATED], 2, 3),
        ] {
            let stored: Vec<_> = stored.into_iter().map(str::to_owned).collect();
            let offers = object_offers(&stored, count);
            assert_eq!(offers.len(), offered, "{stored:?}: {offers:?}");
            for offer in offers {
                assert!(objects(&accept(&offer), &stored, count).is_some(), "{stored:?}: {offer}");
            }
        }
    }

    #[test]
    fn frames_are_sent_as_viewers_ask_for_them() {
        let stored = |wrapping, kind| Some((wrapping, kind, FrameForm::AsStored));
        let ohif = "multipart/related; type=application/octet-stream; transfer-syntax=*";
        assert_eq!(frames(&accept(ohif), JPEG, 1), stored(Wrapping::Multipart, OCTETS));
        assert_eq!(frames(&accept(ohif), IMPLICIT, 3), stored(Wrapping::Multipart, OCTETS));
        // dicom-microscopy-viewer.
        let long = format!(
            "multipart/related; type=\"image/jls\"; transfer-syntax=1.2.840.10008.1.2.4.80, \
             multipart/related; type=\"image/jp2\"; transfer-syntax={J2K}, \
             multipart/related; type=\"image/jpeg\"; transfer-syntax={JPEG}, \
             multipart/related; type=\"application/octet-stream\"; transfer-syntax={EXPLICIT_LITTLE}"
        );
        assert_eq!(frames(&accept(&long), JPEG, 1), stored(Wrapping::Multipart, "image/jpeg"));
        assert_eq!(frames(&accept(&long), IMPLICIT, 1), stored(Wrapping::Multipart, OCTETS));
        assert_eq!(frames(&accept("multipart/related; type=\"image/jpeg\""), IMPLICIT, 1), None);
        assert_eq!(frames(&accept("image/*"), JPEG, 1), stored(Wrapping::Single, "image/jpeg"));
        assert_eq!(frames(&accept("application/octet-stream"), JPEG, 2), None);
        assert_eq!(frames(&accept("*/*"), JPEG, 2), stored(Wrapping::Multipart, OCTETS));
        assert_eq!(frames(&accept("*/*"), RLE, 2), stored(Wrapping::Multipart, OCTETS));
    }

    #[test]
    fn a_video_is_sent_by_itself_unless_parts_are_wanted() {
        let mp4 = "1.2.840.10008.1.2.4.102";
        let by_itself = Some((Wrapping::Single, "video/mp4", FrameForm::AsStored));
        for header in ["*/*", "video/*", "video/mp4", "video/webm, video/mp4;q=0.9", "audio/*, */*;q=0.5"] {
            assert_eq!(frames(&accept(header), mp4, 1), by_itself, "{header}");
        }
        assert_eq!(frames(&Accept::default(), mp4, 1), by_itself);
        let parts = accept("multipart/related; type=\"video/mp4\"");
        assert_eq!(frames(&parts, mp4, 1), Some((Wrapping::Multipart, "video/mp4", FrameForm::AsStored)));
        assert_eq!(frames(&accept("video/mpeg"), mp4, 1), None);
    }

    // PS3.18 8.7.3.3.2.
    #[test]
    fn lossless_frames_are_decompressed_if_that_is_wanted() {
        let native =
            accept(&format!("multipart/related; type=application/octet-stream; transfer-syntax={EXPLICIT_LITTLE}"));
        let of = |accept: &Accept, stored| frames(accept, stored, 1).map(|(_, kind, form)| (kind, form));
        assert_eq!(of(&native, RLE), Some((OCTETS, FrameForm::Decompressed)));
        assert_eq!(of(&native, JPEG), None);
        assert_eq!(of(&native, "1.2.840.10008.1.2.4.201"), None);
        let octets = accept("application/octet-stream");
        assert_eq!(of(&octets, RLE), Some((OCTETS, FrameForm::DecompressedIfPossible)));
        assert_eq!(of(&octets, JPEG), Some((OCTETS, FrameForm::AsStored)));
        assert_eq!(of(&accept("image/*"), RLE), Some(("image/dicom-rle", FrameForm::AsStored)));
        let wrong = accept(&format!("image/dicom-rle; transfer-syntax={EXPLICIT_LITTLE}"));
        assert_eq!(of(&wrong, RLE), None);
    }

    #[test]
    fn bulk_data_are_sent_without_parts_unless_parts_are_wanted() {
        let octets = |wrapping| Some((wrapping, OCTETS.to_owned()));
        assert_eq!(bulk(&accept("*/*"), None, EXPLICIT_LITTLE), octets(Wrapping::Single));
        assert_eq!(bulk(&accept("application/octet-stream"), None, EXPLICIT_LITTLE), octets(Wrapping::Single));
        let multipart = accept("multipart/related; type=\"application/octet-stream\"");
        assert_eq!(bulk(&multipart, None, EXPLICIT_LITTLE), octets(Wrapping::Multipart));
        let pdf = Some("application/pdf");
        assert_eq!(
            bulk(&accept("application/pdf, */*;q=0.1"), pdf, EXPLICIT_LITTLE),
            Some((Wrapping::Single, "application/pdf".into()))
        );
        assert_eq!(bulk(&accept("application/pdf"), None, EXPLICIT_LITTLE), None);
    }

    // RFC 9110 12.4.2.
    #[test]
    fn a_client_that_accepts_nothing_gets_nothing() {
        for header in ["*/*;q=0", "application/dicom;q=0, application/octet-stream;q=0"] {
            assert_eq!(sent(header, EXPLICIT_LITTLE), None, "{header}");
            assert_eq!(frames(&accept(header), JPEG, 1), None, "{header}");
            assert_eq!(bulk(&accept(header), None, EXPLICIT_LITTLE), None, "{header}");
            assert_eq!(all_values(&accept(header), &[JPEG.to_owned()]), None, "{header}");
        }
    }
}
