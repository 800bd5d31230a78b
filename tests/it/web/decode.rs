//! Decompressed and rendered frames, held against the samples that were compressed and against the
//! decoders of DCMTK and GDCM.

use std::fs;
use std::path::{Path, PathBuf};

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::TransferSyntaxIndex as _;
use dicom_object::{DefaultDicomObject, from_reader, open_file};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::retrieve::{of, parts, stored_frames};
use super::*;
use crate::util::peers;

const NATIVE: &str = "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1";

pub(crate) fn real(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real").join(path)
}

/// Name of the converter that is [`encapsulate`].
const OWN: &str = "own";

/// Writes the frames of an object in fragments, each as it is or deflated (PS3.5 A.4.11, A.4.13).
fn encapsulate(transfer_syntax: &str, from: &Path, to: &Path) {
    let mut object = open_file(from).unwrap();
    let count = object.element(tags::NUMBER_OF_FRAMES).map_or(1, |it| it.to_int::<usize>().unwrap());
    let frames = stored_frames(&object, count);
    let mut meta = object.meta().clone();
    meta.transfer_syntax = transfer_syntax.to_owned();
    meta.update_information_group_length();
    let mut file = [&[0; 128][..], b"DICM"].concat();
    meta.write(&mut file).unwrap();
    object.remove_element(tags::PIXEL_DATA);
    object.remove_element(tags::DATA_SET_TRAILING_PADDING);
    let syntax = TransferSyntaxRegistry.get(uids::EXPLICIT_VR_LITTLE_ENDIAN).unwrap();
    object.write_dataset_with_ts(&mut file, syntax).unwrap();
    file.extend(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\0\0\0\0");
    for frame in frames {
        let mut fragment = match transfer_syntax {
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => frame,
            _ => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut encoder, &frame).unwrap();
                encoder.finish().unwrap()
            }
        };
        fragment.resize(fragment.len().next_multiple_of(2), 0);
        file.extend(b"\xfe\xff\0\xe0");
        file.extend(u32::try_from(fragment.len()).unwrap().to_le_bytes());
        file.extend(fragment);
    }
    file.extend(b"\xfe\xff\xdd\xe0\0\0\0\0");
    fs::write(to, file).unwrap();
}

/// Runs a converter that reads one file and writes another. `None` if it is not installed.
pub(crate) fn convert(program: &str, options: &str, from: &Path, to: &Path) -> Option<()> {
    if program == OWN {
        encapsulate(options, from, to);
        return Some(());
    }
    let mut command = peers::dcmtk(program)?;
    command.args(options.split_whitespace()).arg(from).arg(to);
    peers::run(&mut command).expect_success();
    Some(())
}

/// Copies a fixture into a new folder.
fn folder_with(path: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::copy(real(path), folder.path().join("1.dcm")).unwrap();
    folder
}

/// Serves the only file of a folder. Returns the path of its instance.
fn serve(folder: &Path) -> (TestWeb, String) {
    let instance = of(&open_file(folder.join("1.dcm")).unwrap());
    (TestWeb::with(folder, |_| {}, None), instance.path())
}

/// Objects, and how DCMTK or GDCM compress them without loss.
pub(crate) const COMPRESSED: [(&str, &str, &str); 18] = [
    ("dcmcrle", "", "modalities/CT_small.dcm"),
    ("dcmcrle", "", "syntaxes/SC_rgb_small_odd.dcm"),
    ("dcmcjpeg", "+e1", "modalities/CT_small.dcm"),
    ("dcmcjpeg", "+el +sv 6", "modalities/MR_small.dcm"),
    ("dcmcjpeg", "+el +sv 4", "modalities/color-px.dcm"),
    ("dcmcjpeg", "+e1", "modalities/emri_small.dcm"),
    ("gdcmconv", "--j2k", "modalities/CT_small.dcm"),
    ("gdcmconv", "--j2k", "modalities/color-px.dcm"),
    ("dcmcjpls", "+el", "modalities/CT_small.dcm"),
    ("dcmcjpls", "+el", "modalities/emri_small.dcm"),
    ("dcmcjpls", "+el +is", "modalities/color-px.dcm"),
    ("dcmcjpls", "+el +il", "modalities/color-px.dcm"),
    ("dcmcjpls", "+el +in", "modalities/color-px.dcm"),
    (OWN, "1.2.840.10008.1.2.1.98", "modalities/emri_small.dcm"),
    (OWN, "1.2.840.10008.1.2.1.98", "syntaxes/SC_rgb_small_odd.dcm"),
    (OWN, "1.2.840.10008.1.2.8.1", "modalities/CT_small.dcm"),
    (OWN, "1.2.840.10008.1.2.8.1", "modalities/emri_small.dcm"),
    (OWN, "1.2.840.10008.1.2.8.1", "syntaxes/SC_rgb_small_odd.dcm"),
];

#[test]
fn lossless_frames_are_decompressed_to_the_samples_that_were_compressed() {
    for (program, options, source) in COMPRESSED {
        let folder = TempDir::new().unwrap();
        if convert(program, options, &real(source), &folder.path().join("1.dcm")).is_none() {
            peers::skipped(program);
            continue;
        }
        let original = open_file(real(source)).unwrap();
        let count = original.element(tags::NUMBER_OF_FRAMES).map_or(1, |it| it.to_int::<usize>().unwrap());
        // A single frame of odd length has a byte of padding behind it.
        let number = |tag| original.element(tag).unwrap().to_int::<usize>().unwrap();
        let pixels = number(tags::ROWS) * number(tags::COLUMNS) * number(tags::SAMPLES_PER_PIXEL);
        let size = pixels * number(tags::BITS_ALLOCATED) / 8;
        let mut expected = stored_frames(&original, count);
        expected.iter_mut().for_each(|frame| frame.truncate(size));
        let (web, instance) = serve(folder.path());
        let first = web.get_with(&format!("{instance}/frames/1"), &[("Accept", NATIVE)]).expect(200);
        assert_eq!(first.header("content-type"), NATIVE, "{source} by {program}");
        assert!(first.body == expected[0], "{source} by {program} {options}");
        let range = [("Accept", NATIVE), ("Range", "bytes=2-5")];
        assert_eq!(web.get_with(&format!("{instance}/frames/1"), &range).expect(206).body, expected[0][2..6]);
        // Octets without a transfer syntax are native ones (PS3.18 8.7.3.3.2).
        let octets = [("Accept", "multipart/related; type=\"application/octet-stream\"")];
        let all: Vec<_> = (1..=count).rev().map(|number| number.to_string()).collect();
        let answer = web.get_with(&format!("{instance}/frames/{}", all.join(",")), &octets).expect(200);
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        for ((kind, bytes), expected) in parts(&answer).iter().zip(expected.iter().rev()) {
            assert_eq!(kind, NATIVE);
            assert!(bytes == expected, "{source} by {program} {options}");
        }
        // Whoever takes anything gets the frames as they are stored.
        let stored = web.get_with(&format!("{instance}/frames/1"), &[("Accept", "*/*")]).expect(200);
        assert!(!parts(&stored)[0].0.ends_with("1.2.840.10008.1.2.1"));
    }
}

#[test]
fn lossless_objects_are_decompressed_whole() {
    for (program, options, source) in COMPRESSED {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("1.dcm");
        if convert(program, options, &real(source), &path).is_none() {
            peers::skipped(program);
            continue;
        }
        let mut stored = open_file(&path).unwrap();
        let is_rgb = stored.element(tags::SAMPLES_PER_PIXEL).unwrap().to_int::<u16>().unwrap() == 3;
        if program == "gdcmconv" && is_rgb {
            // What other writers state of such a stream.
            stored.put_str(tags::PHOTOMETRIC_INTERPRETATION, dicom_core::VR::CS, "YBR_RCT");
            stored.write_to_file(&path).unwrap();
        }
        let original = open_file(real(source)).unwrap();
        let (web, instance) = serve(folder.path());
        let wanted = "application/dicom; transfer-syntax=1.2.840.10008.1.2.1";
        let answer = web.get_with(&instance, &[("Accept", wanted)]).expect(200);
        assert_eq!(answer.header("content-type"), wanted);
        let in_parts = format!("multipart/related; type=\"application/dicom\"; transfer-syntax={}", &wanted[35..]);
        let series = instance.split("/instances/").next().unwrap();
        let multipart = web.get_with(series, &[("Accept", &in_parts)]).expect(200);
        assert!(parts(&multipart) == [(wanted.to_owned(), answer.body.clone())], "{source} by {program}");
        let received = dicom_object::from_reader(&answer.body[128..]).unwrap();
        assert_eq!(received.meta().transfer_syntax().trim_end_matches('\0'), "1.2.840.10008.1.2.1");
        let pixels = |object: &dicom_object::DefaultDicomObject| {
            object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned()
        };
        assert!(pixels(&received) == pixels(&original), "{source} by {program} {options}");
        for element in stored.iter() {
            let tag = element.header().tag;
            // Lengths of groups that change are left out.
            if tag == tags::PIXEL_DATA || tag.element() == 0 {
                continue;
            }
            let expected = if tag == tags::PHOTOMETRIC_INTERPRETATION { &original } else { &stored };
            let expected = expected.element(tag).unwrap();
            assert_eq!(received.element(tag).unwrap().value(), expected.value(), "{tag} of {source} by {program}");
        }
        // Whoever takes anything gets the object as it is stored.
        let any = web.get_with(&instance, &[("Accept", "application/dicom; transfer-syntax=*")]).expect(200);
        assert!(any.body.ends_with(&fs::read(&path).unwrap()[1000..]));
    }
}

#[test]
fn lossless_frames_of_others_are_decompressed_as_dcmtk_and_gdcm_do_it() {
    for (program, options, source) in [
        ("dcmdrle", "", "syntaxes/MR_small_RLE.dcm"),
        ("dcmdjpeg", "", "syntaxes/JPGLosslessP14SV1_1s_1f_8b.dcm"),
        ("gdcmconv", "--raw", "syntaxes/MR_small_jp2klossless.dcm"),
        ("dcmdjpls", "", "syntaxes/MR_small_jpeg_ls_lossless.dcm"),
    ] {
        let native = TempDir::new().unwrap();
        let path = native.path().join("native.dcm");
        if convert(program, options, &real(source), &path).is_none() {
            peers::skipped(program);
            continue;
        }
        let expected = stored_frames(&open_file(path).unwrap(), 1);
        let folder = folder_with(source);
        let (web, instance) = serve(folder.path());
        let answer = web.get_with(&format!("{instance}/frames/1"), &[("Accept", NATIVE)]).expect(200);
        assert!(answer.body == expected[0], "{source}");
    }
}

/// DCMTK names a table of quantisation in lossless streams of colour, which have none.
#[test]
fn a_lossless_stream_that_names_a_table_of_quantisation_is_decompressed() {
    let source = "syntaxes/JPGLosslessP14SV1_1s_1f_8b.dcm";
    let frame = |folder: &Path| {
        let (web, instance) = serve(folder);
        web.get_with(&format!("{instance}/frames/1"), &[("Accept", NATIVE)]).expect(200).body
    };
    let expected = frame(folder_with(source).path());
    let mut bytes = fs::read(real(source)).unwrap();
    // The start of the frame: a length of 11, 8 bits, rows, columns, one component and its table.
    let at = bytes.windows(5).position(|window| window == [0xFF, 0xC3, 0, 11, 8]).unwrap();
    assert_eq!((bytes[at + 9], bytes[at + 12]), (1, 0));
    bytes[at + 12] = 1;
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("1.dcm"), bytes).unwrap();
    assert!(frame(folder.path()) == expected);
}

/// Returns samples of one of several kinds, from flat to noise.
fn samples(kind: usize, columns: usize, rows: usize, bits: u32, random: &mut impl FnMut() -> u32) -> Vec<u16> {
    let greatest = (1_u32 << bits) - 1;
    let smooth = |at: usize| (at % columns) as u32 * greatest / (2 * columns as u32) + (at / columns) as u32 % 3;
    let sample = |at: usize, random: u32| match kind {
        0 => greatest / 3,
        1 => random & greatest,
        2 => smooth(at) + (random & 7),
        3 => (at / columns / 3) as u32 * 40 % greatest,
        _ if (at / 11).is_multiple_of(2) => greatest,
        _ => random & 1,
    };
    (0..columns * rows).map(|at| sample(at, random()).min(greatest) as u16).collect()
}

/// Returns an object of a fixture with other numbers and pixels.
fn image_of(numbers: &[(Tag, u16)], mut pixels: Vec<u8>) -> DefaultDicomObject {
    use dicom_core::{DataElement, PrimitiveValue, VR};
    let mut object = open_file(real("modalities/CT_small.dcm")).unwrap();
    for (tag, value) in numbers {
        object.put(DataElement::new(*tag, VR::US, PrimitiveValue::from(*value)));
    }
    pixels.resize(pixels.len().next_multiple_of(2), 0);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::from(pixels)));
    object
}

/// Writes an object with one component of up to 16 bits.
fn write_grey(path: &Path, samples: &[u16], columns: usize, bits: u16) {
    let allocated = if bits > 8 { 16 } else { 8 };
    let numbers = [
        (tags::ROWS, (samples.len() / columns) as u16),
        (tags::COLUMNS, columns as u16),
        (tags::BITS_ALLOCATED, allocated),
        (tags::BITS_STORED, bits),
        (tags::HIGH_BIT, bits - 1),
        (tags::PIXEL_REPRESENTATION, 0),
    ];
    image_of(&numbers, native(samples, bits)).write_to_file(path).unwrap();
}

/// Returns samples as they lie in an object.
fn native(samples: &[u16], bits: u16) -> Vec<u8> {
    match bits {
        ..=8 => samples.iter().map(|sample| *sample as u8).collect(),
        _ => samples.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
    }
}

#[test]
fn many_images_of_jpeg_ls_are_decoded_as_dcmtk_does_it() {
    use dcmdex::pixels::codec::{Codec, FrameShape};

    let work = TempDir::new().unwrap();
    let file = |name: &str| work.path().join(name);
    let mut state = 7_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    for (kind, (columns, rows), (bits, deviation)) in [8, 10, 12, 16]
        .into_iter()
        .flat_map(|bits| [0, 1, 3].map(|deviation| (bits, deviation)))
        .flat_map(|coding| (0..5).map(move |kind| (kind, [(2, 1), (33, 17), (64, 5)][kind % 3], coding)))
    {
        let original = samples(kind, columns, rows, bits, &mut random);
        write_grey(&file("native.dcm"), &original, columns, bits as u16);
        let loss = if deviation == 0 { "+el".to_owned() } else { format!("+en +md {deviation}") };
        if convert("dcmcjpls", &loss, &file("native.dcm"), &file("coded.dcm")).is_none() {
            return peers::skipped("dcmcjpls");
        }
        convert("dcmdjpls", "", &file("coded.dcm"), &file("decoded.dcm")).unwrap();
        let coded = open_file(file("coded.dcm")).unwrap();
        let codec = Codec::of(coded.meta().transfer_syntax().trim_end_matches('\0')).unwrap();
        let shape = FrameShape {
            columns: columns as u32,
            rows: rows as u32,
            samples: 1,
            bits_allocated: if bits > 8 { 16 } else { 8 },
            is_planar: false,
        };
        let decoded = codec.decompress(&stored_frames(&coded, 1)[0], &shape).unwrap();
        let expected = &stored_frames(&open_file(file("decoded.dcm")).unwrap(), 1)[0][..decoded.len()];
        let image = format!("kind {kind} of {bits} bits, {loss}");
        assert!(decoded == expected, "{image}");
        assert!(deviation > 0 || decoded == native(&original, bits as u16), "{image}");
    }
}

#[test]
fn frames_that_cannot_be_native_are_406_and_the_reason_is_told() {
    for (source, reason) in [
        ("syntaxes/JPEG2000.dcm", "transfer-syntax=1.2.840.10008.1.2.4.91"),
        ("syntaxes/JPEG-lossy.dcm", "transfer-syntax=1.2.840.10008.1.2.4.51"),
    ] {
        let folder = folder_with(source);
        let (web, instance) = serve(folder.path());
        let frame = format!("{instance}/frames/1");
        let refused = web.get_with(&frame, &[("Accept", NATIVE)]).expect(406);
        assert!(refused.text().contains(reason), "{}", refused.text());
        let object = "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.1";
        let refused = web.get_with(&instance, &[("Accept", object)]).expect(406);
        assert!(refused.text().contains(reason), "{}", refused.text());
        // Octets without a transfer syntax come as stored then.
        let stored = web.get_with(&frame, &[("Accept", "application/octet-stream")]).expect(200);
        assert!(stored.header("content-type").ends_with(reason), "{}", stored.header("content-type"));
    }
}

#[test]
fn damaged_frames_are_406_and_never_half_a_frame() {
    let folder = folder_with("syntaxes/MR_small_RLE.dcm");
    let path = folder.path().join("1.dcm");
    let mut bytes = fs::read(&path).unwrap();
    // The number of segments in the RLE header, which the last long value begins with.
    let header = bytes.windows(8).rposition(|window| window == [2, 0, 0, 0, 64, 0, 0, 0]).unwrap();
    bytes[header] = 9;
    fs::write(&path, bytes).unwrap();
    let (web, instance) = serve(folder.path());
    let frame = format!("{instance}/frames/1");
    let refused = web.get_with(&frame, &[("Accept", NATIVE)]).expect(406);
    assert!(refused.text().starts_with("not decompressed"), "{}", refused.text());
    let object = [("Accept", "application/dicom; transfer-syntax=1.2.840.10008.1.2.1")];
    assert!(web.get_with(&instance, &object).expect(406).text().starts_with("not decompressed"));
    let rendered = web.get_with(&format!("{instance}/rendered"), &[]).expect(406);
    assert!(rendered.text().contains("retrieved as stored"), "{}", rendered.text());
    let stored = web.get_with(&frame, &[("Accept", "application/octet-stream")]).expect(200);
    assert_eq!(stored.header("content-type"), "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.5");
}

// PS3.5 8.1.1: the last byte of a frame of bits need not be full.
#[test]
fn a_frame_of_bits_is_sent_with_its_last_byte() {
    let folder = TempDir::new().unwrap();
    let (native, file) = (folder.path().join("native.dcm"), folder.path().join("1.dcm"));
    let numbers = [(tags::ROWS, 3), (tags::COLUMNS, 3), (tags::BITS_ALLOCATED, 1)];
    image_of(&numbers, vec![0x55, 1]).write_to_file(&native).unwrap();
    encapsulate(uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN, &native, &file);
    fs::remove_file(&native).unwrap();
    let (web, instance) = serve(folder.path());
    let answer = web.get_with(&format!("{instance}/frames/1"), &[("Accept", NATIVE)]).expect(200);
    assert_eq!(answer.body, [0x55, 1]);
}

#[test]
fn a_frame_behind_the_pixels_is_404_however_large_its_object_says_it_is() {
    let folder = TempDir::new().unwrap();
    let size = [tags::ROWS, tags::COLUMNS, tags::SAMPLES_PER_PIXEL, tags::BITS_ALLOCATED].map(|tag| (tag, 32_768));
    let mut object = image_of(&size, vec![7; 1000]);
    object.put_str(tags::NUMBER_OF_FRAMES, dicom_core::VR::IS, "40");
    object.write_to_file(folder.path().join("1.dcm")).unwrap();
    let (web, instance) = serve(folder.path());
    for number in [1, 15, 16, 17, 32, 33, 40] {
        for resource in ["", "/rendered"] {
            let answer = web.get(&format!("{instance}/frames/{number}{resource}"));
            assert!(matches!(answer.status, 404 | 406), "{number}{resource}: {}", answer.status);
        }
    }
}

// PS3.3 C.7.9.2.
#[test]
fn a_segmented_palette_may_be_one_long_ramp() {
    use dicom_core::{DataElement, PrimitiveValue, VR};
    let folder = TempDir::new().unwrap();
    let numbers = [
        (tags::ROWS, 1),
        (tags::COLUMNS, 4),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 16),
        (tags::HIGH_BIT, 15),
        (tags::PIXEL_REPRESENTATION, 0),
    ];
    let mut object = image_of(&numbers, native(&[1000, 20_000, 40_000, 65_000], 16));
    object.put_str(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR");
    // The whole ramp up, the whole ramp down, and a table that is shorter than its descriptor says.
    for (descriptor, data, tables) in [
        (
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            [0, 1, 0, 1, 65_535, 65_535].as_slice(),
        ),
        (
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            &[0, 1, 65_535, 1, 65_535, 0],
        ),
        (
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            &[0, 1, 0, 1, 50_000, 50_000],
        ),
    ] {
        object.put(DataElement::new(descriptor, VR::US, PrimitiveValue::U16([0, 0, 16].as_slice().into())));
        object.put(DataElement::new(data, VR::OW, PrimitiveValue::U16(tables.into())));
    }
    object.write_to_file(folder.path().join("1.dcm")).unwrap();
    let (web, instance) = serve(folder.path());
    let answer = web.get_with(&format!("{instance}/rendered"), &[("Accept", "image/png")]).expect(200);
    let colours = image::load_from_memory(&answer.body).unwrap().into_rgb8().into_raw();
    assert_eq!(colours, [3, 252, 3, 78, 177, 78, 156, 99, 156, 253, 2, 195]);
}

/// Renders a file with DCMTK. Returns its samples as red, green and blue.
fn by_dcmtk(options: &str, file: &Path, picture: &Path) -> Option<image::RgbImage> {
    convert("dcmj2pnm", &format!("--write-png {options}"), file, picture)?;
    Some(image::open(picture).unwrap().into_rgb8())
}

#[test]
fn pictures_are_those_of_dcmtk() {
    // dcmj2pnm has no decoders of JPEG 2000 and JPEG-LS, so another program decompresses first.
    for (source, ours, theirs) in [
        ("modalities/CT_small.dcm", "?window=50,400", "+Ww 50 400"),
        ("modalities/CT_small.dcm", "", "+Wm"),
        ("modalities/MR_small.dcm", "", "+Wi 1"),
        ("modalities/color-px.dcm", "", ""),
        ("modalities/examples_palette.dcm", "", ""),
        ("modalities/vlut_04.dcm", "", "+Wl 1"),
        ("modalities/emri_small.dcm", "/frames/3?window=200,400", "+F 3 +Ww 200 400"),
        ("modalities/liver_1frame.dcm", "", "+Wm"),
        ("syntaxes/ExplVR_BigEnd.dcm", "", ""),
        ("syntaxes/MR_small_RLE.dcm", "?window=600,1600", "+Ww 600 1600"),
        ("syntaxes/JPGLosslessP14SV1_1s_1f_8b.dcm", "?window=128,256", ""),
        ("syntaxes/JPEG2000.dcm", "", "+Wm"),
        ("syntaxes/MR_small_jpeg_ls_lossless.dcm", "?window=600,1600", "+Ww 600 1600"),
    ] {
        let folder = folder_with(source);
        let work = TempDir::new().unwrap();
        let mut file = folder.path().join("1.dcm");
        let first = match source {
            "syntaxes/JPEG2000.dcm" => Some(("gdcmconv", "--raw")),
            "syntaxes/MR_small_jpeg_ls_lossless.dcm" => Some(("dcmdjpls", "")),
            _ => None,
        };
        if let Some((program, options)) = first {
            let native = work.path().join("native.dcm");
            if convert(program, options, &file, &native).is_none() {
                peers::skipped(program);
                continue;
            }
            file = native;
        }
        let Some(expected) = by_dcmtk(theirs, &file, &work.path().join("picture.png")) else {
            peers::skipped("dcmj2pnm");
            return;
        };
        let (web, instance) = serve(folder.path());
        let (frame, query) = ours.split_at(ours.find('?').unwrap_or(ours.len()));
        let answer = web.get_with(&format!("{instance}{frame}/rendered{query}"), &[("Accept", "image/png")]);
        let picture = image::load_from_memory(&answer.expect(200).body).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), expected.dimensions(), "{source}");
        let apart = picture.iter().zip(expected.iter()).map(|(one, other)| one.abs_diff(*other)).max();
        assert!(apart <= Some(2), "{source}: {apart:?}");
    }
}

#[test]
fn colours_of_jpeg_are_those_of_dcmtk() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("1.dcm");
    if convert("dcmcjpeg", "+eb", &real("modalities/color-px.dcm"), &file).is_none() {
        peers::skipped("dcmcjpeg");
        return;
    }
    let expected = by_dcmtk("", &file, &folder.path().join("1.png")).unwrap();
    fs::remove_file(folder.path().join("1.png")).unwrap();
    let (web, instance) = serve(folder.path());
    let picture = web.get_with(&format!("{instance}/rendered"), &[("Accept", "image/png")]).expect(200);
    let picture = image::load_from_memory(&picture.body).unwrap().into_rgb8();
    let apart: u64 = picture.iter().zip(expected.iter()).map(|(one, other)| u64::from(one.abs_diff(*other))).sum();
    // Decoders may differ in how they spread the chrominances over neighbours.
    assert!(apart < 3 * u64::from(picture.width() * picture.height() * 3), "{apart}");
    // A JPEG goes out as it is stored.
    let stored = web.get_with(&format!("{instance}/frames/1"), &[("Accept", "image/jpeg")]).expect(200);
    let shown = web.get_with(&format!("{instance}/rendered"), &[("Accept", "image/jpeg")]).expect(200);
    assert!(shown.body == stored.body);
    let small = web.get_with(&format!("{instance}/rendered?viewport=64,64"), &[("Accept", "image/jpeg")]).expect(200);
    assert_eq!(image::load_from_memory(&small.body).unwrap().into_rgb8().dimensions(), (64, 30));
}

// PS3.5 6.2.2: a writer without a dictionary may write UN.
#[test]
fn attributes_that_were_written_as_un_have_the_vr_of_the_dictionary() {
    let folder = folder_with("modalities/explicit_VR-UN.dcm");
    let object = open_file(folder.path().join("1.dcm")).unwrap();
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let found = web.get("/instances").expect(200).json();
    let text = |of: &serde_json::Value, tag: &str| of[tag]["Value"][0].as_str().unwrap().to_owned();
    let (study, series) = (text(&found[0], "0020000D"), text(&found[0], "0020000E"));
    let uid = text(&found[0], "00080018");
    let metadata = web.get(&format!("/studies/{study}/series/{series}/instances/{uid}/metadata")).expect(200).json();
    assert_eq!(object.element(tags::STUDY_INSTANCE_UID).unwrap().vr().to_string(), "UN");
    assert_eq!((text(&metadata[0], "0020000D"), text(&metadata[0], "00080018")), (study, uid));
    assert_eq!(metadata[0]["00100010"]["vr"], "PN");
}

/// Returns the tags of the only object of metadata.
fn tags_of(metadata: &str) -> Vec<String> {
    let objects: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(metadata).unwrap();
    assert_eq!(objects.len(), 1);
    objects[0].keys().cloned().collect()
}

// PS3.5 A.4 demands explicit VR. Real writers have forgotten it.
#[test]
fn a_compressed_object_in_implicit_vr_is_read_as_it_is_and_sent_as_it_should_be() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("1.dcm");
    if convert("dcmcrle", "", &real("modalities/CT_small.dcm"), &file).is_none() {
        peers::skipped("dcmcrle");
        return;
    }
    let object = open_file(&file).unwrap();
    let (web, instance) = serve(folder.path());
    let explicit = tags_of(&web.get(&format!("{instance}/metadata")).expect(200).text());
    let picture = web.get_with(&format!("{instance}/rendered"), &[("Accept", "image/png")]).expect(200).body;
    drop(web);
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    object.meta().write(&mut bytes).unwrap();
    let implicit = TransferSyntaxRegistry.get(uids::IMPLICIT_VR_LITTLE_ENDIAN).unwrap();
    object.write_dataset_with_ts(&mut bytes, implicit).unwrap();
    fs::write(&file, bytes).unwrap();
    let web = TestWeb::with(folder.path(), |_| {}, None);
    assert_eq!(tags_of(&web.get(&format!("{instance}/metadata")).expect(200).text()), explicit);
    let shown = web.get_with(&format!("{instance}/rendered"), &[("Accept", "image/png")]).expect(200);
    assert!(shown.body == picture);
    let original = open_file(real("modalities/CT_small.dcm")).unwrap();
    let accept = format!("application/dicom; transfer-syntax={}", uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let native = web.get_with(&instance, &[("Accept", &accept)]).expect(200);
    let native: DefaultDicomObject = from_reader(&native.body[128..]).unwrap();
    assert!(native.element(tags::PIXEL_DATA).unwrap().value() == original.element(tags::PIXEL_DATA).unwrap().value());
    let whole = web.get_with(&instance, &[("Accept", "application/dicom; transfer-syntax=*")]).expect(200);
    let sent: DefaultDicomObject = from_reader(&whole.body[128..]).unwrap();
    assert_eq!(sent.meta().transfer_syntax(), uids::RLE_LOSSLESS);
    assert!(sent.element(tags::PIXEL_DATA).unwrap().value() == object.element(tags::PIXEL_DATA).unwrap().value());
    for tag in [tags::PATIENT_NAME, tags::SOP_INSTANCE_UID, tags::ROWS] {
        assert_eq!(sent.element(tag).unwrap().to_str().unwrap(), object.element(tag).unwrap().to_str().unwrap());
    }
}

#[test]
fn each_frame_of_an_enhanced_object_has_its_own_window() {
    use dicom_core::value::DataSetSequence;
    use dicom_core::{DataElement, PrimitiveValue, VR};
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

    let sequence = |tag, items: Vec<InMemDicomObject>| DataElement::new(tag, VR::SQ, DataSetSequence::from(items));
    let window = |centre: &str| {
        let mut object = InMemDicomObject::new_empty();
        object.put_str(tags::WINDOW_CENTER, VR::DS, centre);
        object.put_str(tags::WINDOW_WIDTH, VR::DS, "2");
        InMemDicomObject::from_element_iter([sequence(tags::FRAME_VOILUT_SEQUENCE, vec![object])])
    };
    let mut rescale = InMemDicomObject::new_empty();
    rescale.put_str(tags::RESCALE_INTERCEPT, VR::DS, "-100");
    rescale.put_str(tags::RESCALE_SLOPE, VR::DS, "10");
    let shared =
        InMemDicomObject::from_element_iter([sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![rescale])]);
    let mut object = InMemDicomObject::new_empty();
    for (tag, uid) in [
        (tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2.1"),
        (tags::SOP_INSTANCE_UID, "1.2.9.1.1"),
        (tags::STUDY_INSTANCE_UID, "1.2.9"),
        (tags::SERIES_INSTANCE_UID, "1.2.9.1"),
    ] {
        object.put_str(tag, VR::UI, uid);
    }
    object.put_str(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
    object.put_str(tags::NUMBER_OF_FRAMES, VR::IS, "2");
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1_u16),
        (tags::ROWS, 1),
        (tags::COLUMNS, 2),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 16),
        (tags::HIGH_BIT, 15),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    object.put(sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]));
    object.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, vec![window("-95"), window("105")]));
    let pixels = PrimitiveValue::U16([0, 10, 0, 20].as_slice().into());
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, pixels));
    let folder = TempDir::new().unwrap();
    let meta = FileMetaTableBuilder::new().transfer_syntax("1.2.840.10008.1.2.1");
    object.with_meta(meta).unwrap().write_to_file(folder.path().join("1.dcm")).unwrap();
    let (web, instance) = serve(folder.path());
    let shown = |frame: u8, query: &str| {
        let target = format!("{instance}/frames/{frame}/rendered{query}");
        let answer = web.get_with(&target, &[("Accept", "image/png")]).expect(200);
        image::load_from_memory(&answer.body).unwrap().into_luma8().into_raw()
    };
    // Values -100 and 0, then -100 and 100; the window of the second frame is above both.
    assert_eq!(shown(1, ""), [255, 0]);
    assert_eq!(shown(2, ""), [255, 255]);
    assert_eq!(shown(2, "?window=0,200,linear-exact"), [255, 0]);
    assert_eq!(shown(2, "?viewport=2,1,,,-2,1&window=0,2"), [0, 255]);
    web.get(&format!("{instance}/rendered?viewport=2,2,0,0,3,1")).expect(400);
}

#[test]
fn an_extended_jpeg_of_12_bits_is_not_rendered() {
    let folder = folder_with("syntaxes/JPEG-lossy.dcm");
    let (web, instance) = serve(folder.path());
    let refused = web.get_with(&format!("{instance}/rendered"), &[]).expect(406);
    assert!(refused.text().contains("not decompressed"), "{}", refused.text());
}

// PS3.5 8.2: all frames of a video are in one stream, which may lie in several fragments.
#[test]
fn a_video_is_one_stream_that_browsers_can_play() {
    use dicom_core::value::PixelFragmentSequence;
    use dicom_core::{DataElement, PrimitiveValue, VR};
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
    let mut object = InMemDicomObject::new_empty();
    for (tag, vr, text) in [
        (tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.77.1.4.1"),
        (tags::SOP_INSTANCE_UID, VR::UI, "1.2.9.1.1"),
        (tags::STUDY_INSTANCE_UID, VR::UI, "1.2.9"),
        (tags::SERIES_INSTANCE_UID, VR::UI, "1.2.9.1"),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "YBR_PARTIAL_420"),
        (tags::NUMBER_OF_FRAMES, VR::IS, "25"),
    ] {
        object.put_str(tag, vr, text);
    }
    for (tag, value) in
        [(tags::SAMPLES_PER_PIXEL, 3_u16), (tags::ROWS, 64), (tags::COLUMNS, 64), (tags::BITS_ALLOCATED, 8)]
    {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    let stream: Vec<u8> = (0..30_000_u32).map(|at| (at % 251) as u8).collect();
    let fragments: Vec<Vec<u8>> = stream.chunks(20_000).map(<[u8]>::to_vec).collect();
    let fragments = PixelFragmentSequence::new(Vec::<u32>::new(), fragments);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
    let folder = TempDir::new().unwrap();
    let mp4 = "1.2.840.10008.1.2.4.102";
    let meta = FileMetaTableBuilder::new().transfer_syntax(mp4);
    object.with_meta(meta).unwrap().write_to_file(folder.path().join("1.dcm")).unwrap();
    let (web, instance) = serve(folder.path());
    let own = format!("video/mp4; transfer-syntax={mp4}");
    for (path, accept) in [
        ("rendered", "*/*"),
        ("rendered", "video/mp4"),
        ("frames/1", "video/*"),
        ("bulkdata/7FE00010", "video/webm, video/mp4;q=0.9, */*;q=0.5"),
        ("bulkdata/7FE00010", "*/*"),
    ] {
        let get = |headers: &[(&str, &str)]| web.get_with(&format!("{instance}/{path}"), headers);
        let whole = get(&[("Accept", accept)]).expect(200);
        assert!(whole.header("content-type") == own && whole.body == stream, "{path} {accept}");
        let part = get(&[("Accept", accept), ("Range", "bytes=19990-20009")]).expect(206);
        assert_eq!(part.body, stream[19_990..20_010], "{path} {accept}");
        assert_eq!(part.header("content-range"), "bytes 19990-20009/30000");
    }
    let all = parts(&web.get(&format!("{instance}/pixeldata")).expect(200));
    assert!(all.len() == 1 && all[0].1 == stream);
    web.get(&format!("{instance}/frames/2")).expect(404);
    // A picture of it cannot be made.
    for (path, accept) in [("rendered", "image/*"), ("rendered?viewport=9,9", "*/*"), ("thumbnail", "*/*")] {
        web.get_with(&format!("{instance}/{path}"), &[("Accept", accept)]).expect(406);
    }
    web.get_with(&format!("{instance}/rendered"), &[("Accept", "image/avif,image/*,*/*;q=0.8")]).expect(406);
}
