//! Spectrograms to look at.

/// A spectrogram with its words.
pub struct Picture {
    /// `[T, M]`
    pub frames: Vec<f32>,
    pub bands: usize,
    pub caption: String,
}

const WIDTH: usize = 260;
const HEIGHT: usize = 110;
const COLUMNS: usize = 3;

/// Spectrograms side by side, as an SVG file: time runs to the right, frequency upwards, bright is loud.
pub fn spectrograms_svg(pictures: &[Picture]) -> String {
    let rows = pictures.len().div_ceil(COLUMNS);
    let (width, height) = (COLUMNS * WIDTH, rows * (HEIGHT + 30) + 10);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"system-ui,sans-serif\" font-size=\"12\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    for (i, picture) in pictures.iter().enumerate() {
        let (x, y) = (i % COLUMNS * WIDTH + 5, i / COLUMNS * (HEIGHT + 30) + 5);
        svg.push_str(&format!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{HEIGHT}\" preserveAspectRatio=\"none\" \
             style=\"image-rendering:pixelated\" href=\"data:image/bmp;base64,{}\"/>\
             <text x=\"{x}\" y=\"{}\">{}</text>",
            WIDTH - 10,
            base64(&bitmap(&picture.frames, picture.bands)),
            y + HEIGHT + 15,
            escape(&picture.caption),
        ));
    }
    svg + "</svg>\n"
}

fn escape(text: &str) -> String {
    let safe = |c: char| match c {
        '&' => "&amp;".into(),
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        c if c.is_control() => " ".into(),
        c => c.to_string(),
    };
    text.chars().map(safe).collect()
}

/// A Windows bitmap of 256 shades; its rows run from the lowest band upwards, as they are to be seen.
fn bitmap(frames: &[f32], bands: usize) -> Vec<u8> {
    let columns = frames.len() / bands.max(1);
    let low = frames.iter().copied().fold(f32::INFINITY, f32::min);
    let high = frames.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shade = |x: f32| (255.0 * (x - low) / (high - low).max(1e-9)) as u8;
    let pitch = columns.next_multiple_of(4);
    let start = 14 + 40 + 4 * 256;
    let mut bytes = b"BM".to_vec();
    let mut put = |numbers: &[u32]| numbers.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    put(&[(start + pitch * bands) as u32, 0, start as u32]);
    // One plane of 8 bits.
    put(&[40, columns as u32, bands as u32, 8 << 16 | 1, 0, 0, 0, 0, 256, 0]);
    for i in 0..256u32 {
        // Black over violet and orange to white.
        let t = i as f32 / 255.0;
        let part =
            |low: f32, high: f32| (255.0 * ((t - low) / (high - low)).clamp(0.0, 1.0)) as u32;
        let blue = if t < 0.5 {
            part(0.0, 0.4) * 2 / 3
        } else {
            part(0.7, 1.0).max(170 - part(0.5, 0.7) * 2 / 3)
        };
        put(&[part(0.1, 0.7) << 16 | part(0.4, 1.0) << 8 | blue.min(255)]);
    }
    for band in 0..bands {
        let row = (0..columns).map(|t| shade(frames[t * bands + band]));
        bytes.extend(row.chain(std::iter::repeat(0)).take(pitch));
    }
    bytes
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let at = |i: usize| u32::from(part.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= part.len() { letter as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The RFC's own.
    #[test]
    fn base64_is_the_rfcs() {
        let coded = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(coded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn a_bitmap_has_its_rows() {
        let bytes = bitmap(&[0.0, 1.0, 2.0, 3.0, 4.0, 4.0], 2);
        assert_eq!(&bytes[..2], b"BM");
        assert_eq!(bytes.len(), 14 + 40 + 1024 + 8);
        // The lower band first: 0, 2, 4 of 4, and what fills the row up.
        assert_eq!(bytes[1078..], [0, 127, 255, 0, 63, 191, 255, 0]);
        let svg =
            spectrograms_svg(&[Picture { frames: vec![0.0; 6], bands: 2, caption: "a<b".into() }]);
        assert!(svg.contains("a&lt;b") && svg.starts_with("<svg"));
    }
}
