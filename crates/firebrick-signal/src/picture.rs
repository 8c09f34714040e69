//! Scaling, with as much of the source in every pixel as it covers (anti-aliased), as Pillow does.

use fast_image_resize::{
    FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::{U8, U8x3},
};

/// How pixels are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    Bilinear,
    /// With `a = -0.5`, which is Pillow's bicubic.
    CatmullRom,
}

/// Pixels of one or three `channels` at another size, row by row; both sizes are width and height, none of them 0.
pub fn scale(
    pixels: &[u8],
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
    filter: Filter,
) -> Vec<u8> {
    match channels {
        1 => scaled::<U8>(pixels, from, to, filter),
        3 => scaled::<U8x3>(pixels, from, to, filter),
        _ => panic!("pixels of {channels} channels"),
    }
}

/// By the type of a pixel: the library's untyped images would have it built for all that there are, which takes minutes.
fn scaled<P: PixelTrait>(
    pixels: &[u8],
    from: [usize; 2],
    to: [usize; 2],
    filter: Filter,
) -> Vec<u8> {
    let mut out = vec![0; to[0] * to[1] * size_of::<P>()];
    let [from, [width, height]] = [from, to].map(|sizes| sizes.map(|size| size as u32));
    let from = TypedImageRef::<P>::from_buffer(from[0], from[1], pixels);
    let from = from.expect("the numbers are as many as the sizes say");
    let to = TypedImage::<P>::from_buffer(width, height, &mut out);
    let mut to = to.expect("the numbers are as many as the sizes say");
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::CatmullRom => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize_typed(&from, &mut to, &options).expect("no size is 0");
    drop(to);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow: `Image.frombytes("L", (4, 1), bytes([0, 0, 255, 255])).resize((2, 1), BILINEAR)` holds 36 and 219.
    #[test]
    fn shrinking_weighs_all_that_a_pixel_covers() {
        assert_eq!(scale(&[0, 0, 255, 255], 1, [4, 1], [2, 1], Filter::Bilinear), [36, 219]);
    }

    #[test]
    fn a_flat_picture_stays_flat() {
        for filter in [Filter::Bilinear, Filter::CatmullRom] {
            let scaled = scale(&[93; 7 * 5 * 3], 3, [7, 5], [16, 3], filter);
            assert_eq!(scaled, [93; 16 * 3 * 3]);
        }
    }
}
