//! Compressed objects for peers that take only uncompressed ones. The samples are held against the
//! original ones, and against the decoders of DCMTK and GDCM.

use std::fs;
use std::path::Path;

use dcmdex::scp::Decompression;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject, open_file};
use dicom_transfer_syntax_registry::entries::{
    EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT, IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT,
};
use tempfile::TempDir;

use super::retrieval::{Retrieved, STUDY_GET, get, getter, instance, node_on};
use crate::util::known::known;
use crate::util::peers;
use crate::web::decode::{COMPRESSED, convert, real};

const IMPLICIT_UID: &str = "1.2.840.10008.1.2";
const ALL_FAILED: u16 = 0xA702;

/// Gets the only object of a folder in a transfer syntax.
fn got_with(folder: &Path, accepted: &str, decompression: Decompression) -> Retrieved {
    let node = node_on(folder, |settings| settings.retrieve.decompression = decompression);
    let known = known(&node);
    let (uid, known) = known.iter().next().unwrap();
    let mut peer = getter(&node, STUDY_GET, &[(&known.class, &[accepted])]);
    let retrieved = get(&mut peer, STUDY_GET, &instance(uid), |_| 0);
    peer.release();
    retrieved
}

fn got(folder: &Path, accepted: &str) -> Retrieved {
    got_with(folder, accepted, Decompression::All)
}

/// Reads the only object that arrived.
fn read(retrieved: &Retrieved, accepted: &str) -> InMemDicomObject {
    assert_eq!((retrieved.status, retrieved.objects.len()), (0, 1), "{}", retrieved.comment);
    let bytes = retrieved.objects[0].2.as_slice();
    let syntaxes = [EXPLICIT_VR_BIG_ENDIAN.erased(), EXPLICIT.erased(), IMPLICIT.erased()];
    let syntax = syntaxes.iter().find(|syntax| syntax.uid() == accepted).unwrap();
    InMemDicomObject::read_dataset_with_ts(bytes, syntax).unwrap()
}

fn pixels(object: &InMemDicomObject) -> Vec<u8> {
    object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned()
}

/// Compresses an object with a program of others. `None` if it is not installed.
fn compressed(program: &str, options: &str, source: &Path) -> Option<TempDir> {
    let folder = TempDir::new().unwrap();
    if convert(program, options, source, &folder.path().join("1.dcm")).is_none() {
        peers::skipped(program);
        return None;
    }
    Some(folder)
}

/// Copies an object into a new folder. Objects without UIDs of study and series get some.
fn folder_with(source: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::copy(real(source), folder.path().join("1.dcm")).unwrap();
    change(folder.path(), |object| {
        for tag in [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
            if object.get(tag).is_none() {
                object.put_str(tag, VR::UI, "1.2.3");
            }
        }
    });
    folder
}

/// Changes the only object of a folder.
fn change(folder: &Path, change: impl FnOnce(&mut DefaultDicomObject)) {
    let path = folder.join("1.dcm");
    let mut object = open_file(&path).unwrap();
    change(&mut object);
    object.write_to_file(&path).unwrap();
}

#[test]
fn a_peer_that_takes_only_uncompressed_objects_gets_the_samples_that_were_compressed() {
    let accepted = [IMPLICIT_UID, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"];
    for ((program, options, source), accepted) in COMPRESSED.into_iter().zip(accepted.into_iter().cycle()) {
        let Some(folder) = compressed(program, options, &real(source)) else { continue };
        let stored = open_file(folder.path().join("1.dcm")).unwrap();
        let original = open_file(real(source)).unwrap();
        let arrived = read(&got(folder.path(), accepted), accepted);
        let case = format!("{source} by {program} {options} as {accepted}");
        // 16-bit samples are read as numbers, so the byte order does not matter.
        assert!(pixels(&arrived) == pixels(&original), "{case}");
        for element in stored.iter() {
            let tag = element.header().tag;
            // Lengths of groups are left out.
            if tag == tags::PIXEL_DATA || tag == tags::PHOTOMETRIC_INTERPRETATION || tag.element() == 0 {
                continue;
            }
            let found = arrived.element(tag).unwrap_or_else(|_| panic!("{tag} of {case}"));
            if element.value().primitive().is_some() && element.vr() == found.vr() {
                assert_eq!(found.to_bytes().unwrap(), element.to_bytes().unwrap(), "{tag} of {case}");
            }
        }
        let lossy = |object: &InMemDicomObject| object.get(tags::LOSSY_IMAGE_COMPRESSION).is_some();
        assert_eq!(lossy(&arrived), lossy(&stored), "{case}");
    }
}

/// PS3.5 A.4 demands explicit VR. Real writers have forgotten it.
#[test]
fn a_compressed_object_in_implicit_vr_is_decompressed() {
    for (program, options, source) in COMPRESSED {
        let Some(folder) = compressed(program, options, &real(source)) else { continue };
        let path = folder.path().join("1.dcm");
        let stored = open_file(&path).unwrap();
        let mut bytes = [vec![0; 128], b"DICM".to_vec()].concat();
        stored.meta().write(&mut bytes).unwrap();
        stored.write_dataset_with_ts(&mut bytes, &IMPLICIT.erased()).unwrap();
        fs::write(&path, bytes).unwrap();
        for accepted in [IMPLICIT_UID, "1.2.840.10008.1.2.1"] {
            let arrived = read(&got(folder.path(), accepted), accepted);
            let case = format!("{source} by {program} {options} as {accepted}");
            assert!(pixels(&arrived) == pixels(&open_file(real(source)).unwrap()), "{case}");
            assert!(
                arrived.element(tags::SOP_INSTANCE_UID).unwrap().value()
                    == stored.element(tags::SOP_INSTANCE_UID).unwrap().value(),
                "{case}"
            );
        }
    }
}

/// DCMTK compresses the pixels of icons as well (PS3.5 A.4).
#[test]
fn an_icon_is_decompressed_with_its_object() {
    for (program, options) in [("dcmcrle", ""), ("dcmcjpls", "")] {
        let folder = folder_with("modalities/MR_small.dcm");
        let samples: Vec<u8> = (0..64).collect();
        let short = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
        let icon = InMemDicomObject::from_element_iter([
            short(tags::SAMPLES_PER_PIXEL, 1),
            DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, PrimitiveValue::from("MONOCHROME2")),
            short(tags::ROWS, 8),
            short(tags::COLUMNS, 8),
            short(tags::BITS_ALLOCATED, 8),
            short(tags::BITS_STORED, 8),
            short(tags::HIGH_BIT, 7),
            short(tags::PIXEL_REPRESENTATION, 0),
            DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(samples.clone())),
        ]);
        change(folder.path(), |object| {
            let items = dicom_core::value::DataSetSequence::from(vec![icon]);
            object.put(DataElement::new(tags::ICON_IMAGE_SEQUENCE, VR::SQ, items));
        });
        let original = open_file(folder.path().join("1.dcm")).unwrap();
        let Some(folder) = compressed(program, options, &folder.path().join("1.dcm")) else { continue };
        let icon_of = |object: &InMemDicomObject| {
            let items = object.element(tags::ICON_IMAGE_SEQUENCE).unwrap().items().unwrap();
            items[0].element(tags::PIXEL_DATA).unwrap().clone()
        };
        let stored = open_file(folder.path().join("1.dcm")).unwrap();
        assert!(icon_of(&stored).value().primitive().is_none(), "{program} has compressed the icon");
        for accepted in [IMPLICIT_UID, "1.2.840.10008.1.2.1"] {
            let arrived = read(&got(folder.path(), accepted), accepted);
            assert_eq!(*icon_of(&arrived).to_bytes().unwrap(), *samples, "{program} {accepted}");
            assert!(pixels(&arrived) == pixels(&original), "{program} {accepted}");
        }
        // An icon that cannot be decompressed is left out: it is of type 3.
        change(folder.path(), |object| {
            object
                .update_value_at((tags::ICON_IMAGE_SEQUENCE, 0, tags::ROWS), |rows| {
                    *rows = PrimitiveValue::from(9_u16).into();
                })
                .unwrap();
        });
        let arrived = read(&got(folder.path(), IMPLICIT_UID), IMPLICIT_UID);
        assert!(arrived.get(tags::ICON_IMAGE_SEQUENCE).is_none(), "{program}");
        assert!(pixels(&arrived) == pixels(&original), "{program}");
    }
}

#[test]
fn objects_of_others_are_decompressed_as_dcmtk_and_gdcm_do_it() {
    for (program, options, source, most_apart) in [
        ("dcmdrle", "", "syntaxes/MR_small_RLE.dcm", 0),
        ("dcmdjpeg", "", "syntaxes/JPGLosslessP14SV1_1s_1f_8b.dcm", 0),
        ("gdcmconv", "--raw", "syntaxes/MR_small_jp2klossless.dcm", 0),
        ("dcmdjpls", "", "syntaxes/MR_small_jpeg_ls_lossless.dcm", 0),
        ("dcmdjpls", "", "odd/JPEGLSNearLossless_08.dcm", 0),
        // Decoders may round differently.
        ("gdcmconv", "--raw", "syntaxes/JPEG2000.dcm", 1),
    ] {
        let Some(native) = compressed(program, options, &real(source)) else { continue };
        let folder = folder_with(source);
        let expected = pixels(&open_file(native.path().join("1.dcm")).unwrap());
        let arrived = read(&got(folder.path(), IMPLICIT_UID), IMPLICIT_UID);
        let samples = |bytes: &[u8]| -> Vec<i32> {
            match arrived.element(tags::BITS_ALLOCATED).unwrap().to_int::<u16>().unwrap() {
                8 => bytes.iter().map(|byte| i32::from(*byte)).collect(),
                _ => bytes.chunks_exact(2).map(|two| i32::from(i16::from_le_bytes([two[0], two[1]]))).collect(),
            }
        };
        let (arrived, expected) = (samples(&pixels(&arrived)), samples(&expected));
        assert_eq!(arrived.len(), expected.len(), "{source}");
        let apart = arrived.iter().zip(&expected).map(|(one, other)| one.abs_diff(*other)).max().unwrap();
        assert!(apart <= most_apart, "{source}: {apart}");
    }
}

// PS3.3 C.7.6.1.1.5.
#[test]
fn a_lossy_object_says_that_it_was_lossy() {
    let source = real("modalities/color-px.dcm");
    for (stated, decompression) in
        [(None, Decompression::All), (Some("00"), Decompression::All), (Some("01"), Decompression::Lossless)]
    {
        let Some(folder) = compressed("dcmcjpeg", "+eb", &source) else { return };
        change(folder.path(), |object| {
            object.remove_element(tags::LOSSY_IMAGE_COMPRESSION);
            if let Some(stated) = stated {
                object.put_str(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, stated);
            }
        });
        let retrieved = got_with(folder.path(), IMPLICIT_UID, decompression);
        if decompression == Decompression::Lossless {
            assert_eq!((retrieved.status, retrieved.objects.len()), (ALL_FAILED, 0));
            continue;
        }
        let arrived = read(&retrieved, IMPLICIT_UID);
        assert_eq!(arrived.element(tags::LOSSY_IMAGE_COMPRESSION).unwrap().to_str().unwrap(), "01");
        let text = |tag| arrived.element(tag).unwrap().to_str().unwrap().into_owned();
        assert_eq!(text(tags::PHOTOMETRIC_INTERPRETATION), "YBR_FULL", "the stream states YBR_FULL_422");
        // As DCMTK decompresses it if it keeps the colours.
        let native = folder.path().join("native");
        convert("dcmdjpeg", "+cn", &folder.path().join("1.dcm"), &native).unwrap();
        let expected = pixels(&open_file(&native).unwrap());
        let arrived = pixels(&arrived);
        assert_eq!(arrived.len(), expected.len());
        let apart: u64 = arrived.iter().zip(&expected).map(|(one, other)| u64::from(one.abs_diff(*other))).sum();
        // Decoders may differ in how they spread the chrominances over neighbours.
        assert!(apart < 3 * arrived.len() as u64, "{apart}");
    }
}

/// Replaces the first bytes of the last frame by nonsense.
fn damage_last_frame(folder: &Path, frame_begins_with: &[u8]) {
    let path = folder.join("1.dcm");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(frame_begins_with.len()).rposition(|window| window == frame_begins_with).unwrap();
    bytes[at..at + 4].fill(0xEE);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_damaged_frame_is_a_failed_sub_operation_and_nothing_of_the_object_is_sent() {
    let Some(folder) = compressed("dcmcrle", "", &real("modalities/emri_small.dcm")) else { return };
    damage_last_frame(folder.path(), &[2, 0, 0, 0, 64, 0, 0, 0]);
    let retrieved = got(folder.path(), IMPLICIT_UID);
    assert_eq!((retrieved.status, retrieved.objects.len()), (ALL_FAILED, 0));
    assert!(retrieved.comment.starts_with("not decompressed: "), "{}", retrieved.comment);
}

#[test]
fn what_has_no_decoder_fails_with_its_reason() {
    for (source, reason) in [
        ("syntaxes/HTJ2K_08_RGB.dcm", "no presentation context for its SOP Class and transfer syntax"),
        ("syntaxes/JPEG-lossy.dcm", "not decompressed: the compressed stream uses a rare kind of JPEG"),
    ] {
        let folder = folder_with(source);
        let retrieved = got(folder.path(), IMPLICIT_UID);
        assert_eq!((retrieved.status, retrieved.objects.len()), (ALL_FAILED, 0), "{source}");
        assert!(retrieved.comment.starts_with(reason), "{source}: {}", retrieved.comment);
    }
}

#[test]
fn nothing_is_decompressed_if_that_is_switched_off() {
    let folder = folder_with("syntaxes/MR_small_RLE.dcm");
    let retrieved = got_with(folder.path(), IMPLICIT_UID, Decompression::Never);
    assert_eq!((retrieved.status, retrieved.objects.len()), (ALL_FAILED, 0));
    assert_eq!(retrieved.comment, "no presentation context for its SOP Class and transfer syntax");
}

#[test]
fn frames_that_are_too_many_to_be_kept_are_decompressed_again() {
    let native = TempDir::new().unwrap();
    let path = native.path().join("native.dcm");
    let mut object = open_file(real("modalities/CT_small.dcm")).unwrap();
    let frames = 20_u8;
    let side = 1024_u16;
    for (tag, value) in [(tags::ROWS, side), (tags::COLUMNS, side)] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    object.put_str(tags::NUMBER_OF_FRAMES, VR::IS, frames.to_string());
    let samples = usize::from(side) * usize::from(side);
    let values: Vec<u16> =
        (0..frames).flat_map(|frame| std::iter::repeat_n(u16::from(frame) * 3 + 1, samples)).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(values.into())));
    object.write_to_file(&path).unwrap();
    let Some(folder) = compressed("dcmcrle", "", &path) else { return };
    let arrived = read(&got(folder.path(), IMPLICIT_UID), IMPLICIT_UID);
    assert!(pixels(&arrived) == pixels(&object));
}

// PS3.5 A.4: such data sets are in Explicit VR Little Endian.
#[test]
fn an_object_without_pixels_in_a_compressed_transfer_syntax_is_rewritten() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("1.dcm");
    let mut object = open_file(real("modalities/test-SR.dcm")).unwrap();
    assert_eq!(object.meta().transfer_syntax().trim_end_matches('\0'), "1.2.840.10008.1.2.1");
    let syntax = dicom_transfer_syntax_registry::entries::JPEG_BASELINE.erased();
    object.update_meta(|meta| meta.set_transfer_syntax(&syntax));
    object.write_to_file(&path).unwrap();
    let arrived = read(&got(folder.path(), IMPLICIT_UID), IMPLICIT_UID);
    assert!(arrived.element(tags::CONTENT_SEQUENCE).is_ok() && arrived.get(tags::LOSSY_IMAGE_COMPRESSION).is_none());
}
