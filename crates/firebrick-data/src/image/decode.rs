//! A file's bytes to a picture, and a picture to PNG.
//!
//! The format is told by the content, not by the name: BMP, GIF (its first picture), JPEG, PNG, PNM, TIFF, WebP. Every
//! colour mode becomes grey or RGB of 8 bits; alpha is dropped, as Pillow's `convert("RGB")` does. EXIF's orientation is
//! applied.

use std::{
    io::{Cursor, ErrorKind, Read},
    path::Path,
};

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageFormat,
    ImageReader, Limits, codecs::png::PngEncoder, metadata::Orientation,
};

use super::{Colour, Picture};
use crate::{contained::contained, error::DataError, quote::escaped, stream};

/// Longest side, in pixels.
pub const SIDE_LIMIT: u32 = 16_384;

/// Bytes of a picture once it is decoded, in the file's own colours.
pub const DECODED_LIMIT: u64 = 256 << 20;

/// Endings of the files that are taken for pictures in a folder.
pub const EXTENSIONS: &[&str] =
    &["bmp", "gif", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"];

/// Whether a file's name ends as a picture's does.
pub fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| EXTENSIONS.contains(&ending.as_str()))
}

/// Reads a picture's file.
pub fn read(path: &Path, colour: Colour) -> Result<Picture, DataError> {
    let (file, size) = stream::open_regular(path)?;
    if size > DECODED_LIMIT {
        let detail = format!("{size} bytes, above the limit of {DECODED_LIMIT}");
        return Err(DataError::TooLarge { path: path.to_owned(), detail });
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(DECODED_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    decode(&bytes, path, colour)
}

/// Width and height of a picture's file as [`read`] turns it, without its pixels; `None` of what is no picture.
pub fn size(path: &Path) -> Option<(u32, u32)> {
    let of_file = || {
        let reader = ImageReader::open(path).ok()?.with_guessed_format().ok()?;
        let mut decoder = reader.into_decoder().ok()?;
        let (width, height) = decoder.dimensions();
        let turned = matches!(
            decoder.orientation(),
            Ok(Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH)
        );
        Some(if turned { (height, width) } else { (width, height) })
    };
    contained(of_file).flatten()
}

/// Makes a picture of a file's bytes; `path` is what messages call it.
pub fn decode(bytes: &[u8], path: &Path, colour: Colour) -> Result<Picture, DataError> {
    let unsupported = |detail: String| DataError::Unsupported { path: path.to_owned(), detail };
    if bytes.is_empty() {
        return Err(DataError::Empty { path: path.to_owned(), detail: "it has no bytes" });
    }
    let format = image::guess_format(bytes).map_err(|_| {
        unsupported(
            "is no picture that is read here: BMP, GIF, JPEG, PNG, PNM, TIFF or WebP".into(),
        )
    })?;
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        let detail = "the JPEG has no end mark".into();
        return Err(DataError::Truncated { path: path.to_owned(), detail });
    }
    let decoded = contained(|| decode_as(bytes, format));
    let decoded = decoded.ok_or_else(|| DataError::BadSyntax {
        path: path.to_owned(),
        detail: format!("the {} decoder gave up on it", name(format)),
    })?;
    let decoded = decoded.map_err(|problem| match problem {
        Problem::TooLarge(detail) => DataError::TooLarge { path: path.to_owned(), detail },
        Problem::Image(error) => told(path, format, error),
    })?;
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    if width == 0 || height == 0 {
        let detail = format!("the picture is {width} x {height}");
        return Err(DataError::BadSyntax { path: path.to_owned(), detail });
    }
    let grey = !decoded.color().has_color();
    let picture = match grey {
        true => {
            Picture { width, height, colour: Colour::Grey, pixels: decoded.into_luma8().into_raw() }
        }
        false => {
            Picture { width, height, colour: Colour::Rgb, pixels: decoded.into_rgb8().into_raw() }
        }
    };
    Ok(picture.into_colour(colour))
}

enum Problem {
    TooLarge(String),
    Image(ImageError),
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

fn decode_as(bytes: &[u8], format: ImageFormat) -> Result<DynamicImage, Problem> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_LIMIT);
    limits.max_image_height = Some(SIDE_LIMIT);
    limits.max_alloc = Some(DECODED_LIMIT);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let ((width, height), total) = (decoder.dimensions(), decoder.total_bytes());
    if width.max(height) > SIDE_LIMIT || total > DECODED_LIMIT {
        return Err(Problem::TooLarge(format!(
            "{width} x {height} pixels are {total} bytes; the limits are {SIDE_LIMIT} pixels a side \
             and {DECODED_LIMIT} bytes"
        )));
    }
    let orientation = decoder.orientation();
    let mut image = DynamicImage::from_decoder(decoder)?;
    // What is said of the orientation in a broken way is as good as unsaid.
    if let Ok(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image)
}

fn told(path: &Path, format: ImageFormat, error: ImageError) -> DataError {
    let path = path.to_owned();
    let detail = format!("the {}: {}", name(format), escaped(&error.to_string()));
    match error {
        ImageError::Limits(_) => DataError::TooLarge { path, detail },
        ImageError::Unsupported(_) => {
            DataError::Unsupported { path, detail: format!("is not read: {detail}") }
        }
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DataError::Truncated { path, detail }
        }
        _ => DataError::BadSyntax { path, detail },
    }
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::WebP => "WebP",
        _ => "picture",
    }
}

/// Whether an end mark follows the start of the first scan: a decoder fills what is cut off with grey. Within a scan
/// `FF D9` is an end mark and nothing else (ITU-T T.81, B.1.1.5). Between segments decoders skip what is no mark, and so
/// does this.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2; // after the start mark
    while let Some([byte, mark, more @ ..]) = bytes.get(at..) {
        match (byte, mark, more) {
            (0xff, 0xda, _) => return more.windows(2).any(|pair| pair == [0xff, 0xd9]),
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8, _) => at += 2,
            (0xff, ..=0xfe, [high, low, ..]) => {
                at += 2 + usize::from(u16::from_be_bytes([*high, *low]));
            }
            _ => at += 1,
        }
    }
    false
}

/// A picture as PNG.
pub fn png(picture: &Picture) -> Vec<u8> {
    let kind = match picture.colour {
        Colour::Grey => ExtendedColorType::L8,
        Colour::Rgb => ExtendedColorType::Rgb8,
    };
    let mut bytes = vec![];
    PngEncoder::new(&mut bytes)
        .write_image(&picture.pixels, picture.width as u32, picture.height as u32, kind)
        .expect("memory can be written to, and the numbers are as many as the sizes say");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], colour: Colour) -> Result<Picture, String> {
        decode(bytes, Path::new("a.png"), colour).map_err(|error| error.kind().to_owned())
    }

    fn gradient() -> Picture {
        let pixels = (0..5 * 4 * 3).map(|i| (i * 4) as u8).collect();
        Picture { width: 5, height: 4, colour: Colour::Rgb, pixels }
    }

    #[test]
    fn png_both_ways() {
        let picture = gradient();
        assert_eq!(decoded(&png(&picture), Colour::Rgb), Ok(picture.clone()));
        let grey = picture.into_colour(Colour::Grey);
        assert_eq!(decoded(&png(&grey), Colour::Grey), Ok(grey.clone()));
        let coloured = decoded(&png(&grey), Colour::Rgb).unwrap();
        assert_eq!(coloured.pixels[..3], [grey.pixels[0]; 3]);
    }

    /// Pillow: `Image.new("RGB", (1, 1), (10, 200, 30)).convert("L").getpixel((0, 0))` is 124.
    #[test]
    fn luma_is_pillows() {
        assert_eq!(super::super::luma([10, 200, 30]), 124);
        assert_eq!([[0; 3], [255; 3]].map(super::super::luma), [0, 255]);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let good = png(&gradient());
        assert_eq!(decoded(b"", Colour::Rgb), Err("Empty".into()));
        assert_eq!(decoded(b"hello, this is no picture", Colour::Rgb), Err("Unsupported".into()));
        assert!(decoded(&good[..good.len() / 2], Colour::Rgb).is_err());
        assert_eq!(decoded(b"P6\n65536 21846\n255\n\0\0\0", Colour::Rgb), Err("TooLarge".into()));
        assert!(decoded(b"P6\n100 100\n255\n\x01\x02\x03", Colour::Rgb).is_err());
    }

    /// 6 x 4 pixels whose EXIF says that they lie on their side (orientation 6).
    #[test]
    fn a_size_is_that_of_the_picture_as_it_is_read() {
        let mut jpeg = vec![];
        let encoder = image::codecs::jpeg::JpegEncoder::new(&mut jpeg);
        encoder.write_image(&[9; 6 * 4 * 3], 6, 4, ExtendedColorType::Rgb8).unwrap();
        let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let turned = [&jpeg[..2], exif, &jpeg[2..]].concat();
        let dir = tempfile::tempdir().unwrap();
        for (bytes, expected) in [(&jpeg, (6, 4)), (&turned, (4, 6))] {
            let path = dir.path().join("a.jpg");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(size(&path), Some(expected));
            let picture = read(&path, Colour::Rgb).unwrap();
            assert_eq!((picture.width as u32, picture.height as u32), expected);
        }
        assert_eq!(size(&dir.path().join("none.jpg")), None);
    }

    #[test]
    fn a_jpeg_must_end() {
        let scan = |tail: &[u8]| [&[0xff, 0xd8, 0xff, 0xda, 0, 2, 7, 0xff, 0x00], tail].concat();
        assert!(jpeg_ends(&scan(&[0xff, 0xd9])));
        assert!(!jpeg_ends(&scan(&[])));
        assert!(jpeg_ends(&[&[0xff, 0xd8, 7, 7][..], &scan(&[0xff, 0xd9])[2..]].concat()));
        // The end mark of a preview within a segment is none.
        assert!(!jpeg_ends(&[0xff, 0xd8, 0xff, 0xe1, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 2, 7]));
    }
}
