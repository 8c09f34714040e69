//! `preprocessor_config.json`: what becomes of a picture before a model sees it.

use burn::{prelude::*, tensor::TensorData};
use firebrick_core::checkpoint::{LoadError, Source};
use firebrick_data::image::{
    Colour, Picture,
    resize::{Filter, resize},
};
use rayon::prelude::*;
use serde_json::{Value, json};

/// Scales a picture to the model's size and its numbers to the model's range.
#[derive(Debug, Clone, PartialEq)]
pub struct Processor {
    /// Rows and columns.
    pub size: [usize; 2],
    /// The shorter side is scaled to this before the middle is cut out; `None` scales both sides to [`Self::size`].
    pub shortest_edge: Option<usize>,
    pub colour: Colour,
    pub filter: Filter,
    /// Of each channel, out of 1.
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

/// Longest side that a file may ask for.
const SIDE_LIMIT: u64 = 4096;

impl Processor {
    /// Scales to `size`; mean and deviation are those of `pictures`, the training part.
    pub fn measured<'a>(
        pictures: impl Iterator<Item = &'a Picture>,
        size: [usize; 2],
        colour: Colour,
        filter: Filter,
    ) -> Self {
        let (mean, std) = statistics(pictures, colour.channels());
        let floats = |numbers: Vec<f64>| numbers.into_iter().map(|x| x as f32).collect();
        let (mean, std) = (floats(mean), floats(std));
        Self { size, shortest_edge: None, colour, filter, mean, std }
    }

    /// That of a model folder whose model takes `channels`; the defaults of `transformers`' ViT where a key is absent.
    pub fn open(source: &Source, channels: usize) -> Result<Self, LoadError> {
        const FILE: &str = "preprocessor_config.json";
        let value = source.json(FILE)?.unwrap_or_else(|| json!({}));
        Self::from_json(&value, channels)
            .map_err(|problem| LoadError::Config { path: source.path(FILE), problem })
    }

    fn from_json(value: &Value, channels: usize) -> Result<Self, String> {
        let colour = match channels {
            1 => Colour::Grey,
            3 => Colour::Rgb,
            other => return Err(format!("a model of {other} channels takes no pictures")),
        };
        let side = |value: &Value| {
            let side = value.as_u64().filter(|side| (1..=SIDE_LIMIT).contains(side));
            side.map(|side| side as usize)
        };
        let flag = |key: &str, otherwise: bool| match &value[key] {
            Value::Null => Ok(otherwise),
            Value::Bool(flag) => Ok(*flag),
            other => Err(format!("{key} is {other}")),
        };
        let sides = |key: &str| -> Result<Option<[usize; 2]>, String> {
            let value = &value[key];
            let pair = match (side(&value["height"]), side(&value["width"]), side(value)) {
                (Some(rows), Some(columns), _) => Some([rows, columns]),
                (_, _, Some(side)) => Some([side; 2]),
                _ if value.is_null() || !value["shortest_edge"].is_null() => None,
                _ => return Err(format!("{key} is {value}")),
            };
            Ok(pair)
        };
        if !flag("do_resize", true)? {
            return Err("do_resize is false, and pictures of any size are taken here".into());
        }
        let filter = match value["resample"].as_u64() {
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            None if value["resample"].is_null() => Filter::Bilinear,
            _ => {
                let found = &value["resample"];
                return Err(format!("resample is {found}: 2 (bilinear) or 3 (bicubic)"));
            }
        };
        let shortest_edge = side(&value["size"]["shortest_edge"]);
        let crops = flag("do_center_crop", false)?;
        let (size, shortest_edge) = match (sides("size")?, shortest_edge) {
            _ if !value["crop_pct"].is_null() => {
                cropped(value, shortest_edge.or(side(&value["size"])))?
            }
            (_, Some(edge)) => match sides("crop_size")?.filter(|_| crops) {
                Some(crop) => (crop, Some(edge)),
                None => return Err("size is a shortest_edge without crop_size".into()),
            },
            (Some(size), None) if !crops || sides("crop_size")? == Some(size) => (size, None),
            (None, None) if !crops && value["size"].is_null() => ([224; 2], None),
            _ => {
                let (size, crop) = (&value["size"], &value["crop_size"]);
                return Err(format!("size {size} and crop_size {crop}: a shortest_edge is due"));
            }
        };
        // What the numbers of a pixel are multiplied with, if they are out of 1 before.
        let factor = match (flag("do_rescale", true)?, &value["rescale_factor"]) {
            (false, _) => 255.0,
            (true, Value::Null) => 1.0,
            (true, factor) => match factor.as_f64().map(|factor| 255.0 * factor) {
                // As many digits as the file has.
                Some(factor) if (factor - 1.0).abs() < 1e-5 => 1.0,
                Some(factor) if factor.is_finite() && factor > 0.0 => factor as f32,
                _ => return Err(format!("rescale_factor is {factor}")),
            },
        };
        let numbers = |key: &str, otherwise: f32| -> Result<Vec<f32>, String> {
            if !flag("do_normalize", true)? {
                return Ok(vec![otherwise; channels]);
            }
            let number = |value: &Value| value.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
            let numbers: Option<Vec<f32>> = match &value[key] {
                Value::Null => Some(vec![0.5; channels]),
                Value::Array(list) => list.iter().map(number).collect(),
                one => number(one).map(|one| vec![one; channels]),
            };
            numbers.filter(|numbers| numbers.len() == channels).ok_or_else(|| {
                let found = &value[key];
                format!("{key} is {found}: one number, or one for each of {channels} channels")
            })
        };
        let std = numbers("image_std", 1.0)?;
        if std.iter().any(|std| *std <= 0.0) {
            return Err("image_std has a number that is not above 0".into());
        }
        let scaled = |numbers: Vec<f32>| numbers.into_iter().map(|x| x / factor).collect();
        let mean = scaled(numbers("image_mean", 0.0)?);
        Ok(Self { size, shortest_edge, colour, filter, mean, std: scaled(std) })
    }

    /// As `transformers.ViTImageProcessor` reads it.
    pub fn to_json(&self) -> Value {
        let [height, width] = self.size;
        json!({
            "image_processor_type": "ViTImageProcessor",
            "do_resize": true,
            "size": {"height": height, "width": width},
            "resample": self.filter.resample(),
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": self.mean,
            "image_std": self.std,
        })
    }

    /// `picture` at the model's size and in its colours.
    pub fn size(&self, picture: &Picture) -> Picture {
        let picture = picture.clone().into_colour(self.colour);
        fit(&picture, self.size, self.shortest_edge, self.filter)
    }

    /// Pictures of the model's size -> `[B, I, H, W]`
    pub fn batch(&self, pictures: &[Picture], device: &Device) -> Tensor<4> {
        let [h, w] = self.size;
        let size = self.mean.len() * h * w;
        let mut values = vec![0.0; pictures.len() * size];
        values.par_chunks_mut(size).zip(pictures).for_each(|(values, picture)| {
            self.write(picture, values);
        });
        let shape = [pictures.len(), self.mean.len(), h, w];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// A picture of the model's size, channel after channel.
    pub fn write(&self, picture: &Picture, values: &mut [f32]) {
        let channels = self.mean.len();
        let planes = values.chunks_exact_mut(values.len() / channels);
        for (channel, plane) in planes.enumerate() {
            let (scale, shift) =
                (1.0 / (255.0 * self.std[channel]), self.mean[channel] / self.std[channel]);
            let numbers = picture.pixels[channel..].iter().step_by(channels);
            for (value, number) in plane.iter_mut().zip(numbers) {
                *value = f32::from(*number) * scale - shift;
            }
        }
    }
}

/// `picture` in `[rows, columns]`: both sides are scaled, or the shorter one, and the middle is cut out.
pub fn fit(
    picture: &Picture,
    [rows, columns]: [usize; 2],
    shortest_edge: Option<usize>,
    filter: Filter,
) -> Picture {
    let Some(edge) = shortest_edge else { return resize(picture, columns, rows, filter) };
    let (w, h) = (picture.width, picture.height);
    let scaled = |side: usize| (side * edge / w.min(h)).max(1);
    middle(&resize(picture, scaled(w), scaled(h), filter), columns, rows)
}

/// Size and shortest edge of a file with `crop_pct`, as `transformers.ConvNextImageProcessor` reads them: below 384, so
/// large a share of the scaled picture's shorter side is cut out.
fn cropped(value: &Value, edge: Option<usize>) -> Result<([usize; 2], Option<usize>), String> {
    let edge = edge.ok_or_else(|| "crop_pct goes with a size of one side".to_string())?;
    let share = value["crop_pct"].as_f64().filter(|share| (0.01..=1.0).contains(share));
    let share = share.ok_or_else(|| {
        format!("crop_pct is {}, which is not within 0.01 and 1", value["crop_pct"])
    })?;
    Ok(([edge; 2], (edge < 384).then_some((edge as f64 / share) as usize)))
}

/// The middle of a picture; what it is too small for is black.
fn middle(picture: &Picture, width: usize, height: usize) -> Picture {
    let channels = picture.colour.channels();
    let mut cut = Picture::filled(width, height, picture.colour, 0);
    // As `torchvision` rounds.
    let offset = |inner: usize, outer: usize| (inner as isize - outer as isize).div_euclid(2);
    let (left, top) = (offset(picture.width, width), offset(picture.height, height));
    for y in 0..height {
        for x in 0..width {
            let (from_x, from_y) = (x as isize + left, y as isize + top);
            let inside = (0..picture.width as isize).contains(&from_x)
                && (0..picture.height as isize).contains(&from_y);
            if inside {
                let from = (from_y as usize * picture.width + from_x as usize) * channels;
                let to = (y * width + x) * channels;
                cut.pixels[to..to + channels]
                    .copy_from_slice(&picture.pixels[from..from + channels]);
            }
        }
    }
    cut
}

/// Mean and deviation of each channel over pictures of one kind, out of 1.
fn statistics<'a>(
    pictures: impl Iterator<Item = &'a Picture>,
    channels: usize,
) -> (Vec<f64>, Vec<f64>) {
    let mut sums = vec![[0.0f64; 3]; channels];
    for picture in pictures {
        for pixel in picture.pixels.chunks_exact(channels) {
            for (sum, number) in sums.iter_mut().zip(pixel) {
                let x = f64::from(*number) / 255.0;
                *sum = [sum[0] + 1.0, sum[1] + x, sum[2] + x * x];
            }
        }
    }
    let of_one = |[n, x, xx]: &[f64; 3]| {
        let mean = x / n.max(1.0);
        (mean, (xx / n.max(1.0) - mean * mean).max(0.0).sqrt().max(1e-3))
    };
    sums.iter().map(of_one).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: usize, height: usize) -> Picture {
        let pixels = (0..width * height).map(|i| i as u8).collect();
        Picture { width, height, colour: Colour::Grey, pixels }
    }

    #[test]
    fn written_and_read_again() {
        let processor = Processor {
            size: [32, 48],
            shortest_edge: None,
            colour: Colour::Rgb,
            filter: Filter::Bicubic,
            mean: vec![0.5, 0.25, 0.125],
            std: vec![0.25; 3],
        };
        assert_eq!(Processor::from_json(&processor.to_json(), 3), Ok(processor));
    }

    #[test]
    fn other_peoples_files() {
        let resnet =
            json!({"size": 64, "do_center_crop": false, "image_mean": [0.5], "image_std": [0.5]});
        assert_eq!(Processor::from_json(&resnet, 1).unwrap().size, [64, 64]);
        let mobilenet = json!({
            "size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 224},
        });
        let read = Processor::from_json(&mobilenet, 3).unwrap();
        assert_eq!((read.size, read.shortest_edge), ([224, 224], Some(256)));
        let one = json!({"image_mean": 0.25, "image_std": 1, "size": 32});
        let read = Processor::from_json(&one, 3).unwrap();
        assert_eq!((read.mean, read.std), (vec![0.25; 3], vec![1.0; 3]));
        let absent = Processor::from_json(&json!({"image_mean": null}), 3).unwrap();
        assert_eq!((absent.mean, absent.std), (vec![0.5; 3], vec![0.5; 3]));
        for wrong in [
            json!({"image_mean": "0.5"}),
            json!({"image_std": true}),
            json!({"image_mean": [0.5, "0.5", 0.5]}),
            json!({"size": {"height": 0, "width": 3}}),
            json!({"image_mean": [0.5, 0.5]}),
            json!({"image_std": [0.0, 1.0, 1.0]}),
            json!({"crop_pct": 0.875}),
            json!({"crop_pct": 0, "size": 224}),
            json!({"size": {"shortest_edge": 0}}),
            json!({"do_resize": false}),
            json!({"do_resize": "no"}),
            json!({"resample": 1}),
            json!({"rescale_factor": 0}),
            json!({"size": 256, "do_center_crop": true, "crop_size": 224}),
        ] {
            assert!(Processor::from_json(&wrong, 3).is_err(), "{wrong}");
        }
    }

    /// Of microsoft/resnet-50 and facebook/convnext-tiny-224: `size` and `crop_pct`.
    #[test]
    fn a_share_is_cut_out_below_384() {
        let read = |side: usize, share: f64| {
            let value = json!({"size": side, "crop_pct": share, "resample": 3});
            let read = Processor::from_json(&value, 3).unwrap();
            assert_eq!(read.filter, Filter::Bicubic);
            (read.size, read.shortest_edge)
        };
        assert_eq!(read(224, 0.875), ([224; 2], Some(256)));
        assert_eq!(read(224, 0.95), ([224; 2], Some(235)));
        assert_eq!(read(384, 0.875), ([384; 2], None));
        let edge = json!({"size": {"shortest_edge": 224}, "crop_pct": 0.875});
        assert_eq!(Processor::from_json(&edge, 3).unwrap().shortest_edge, Some(256));
    }

    /// 51 is 0.2 out of 1, 51 where nothing is rescaled.
    #[test]
    fn numbers_are_rescaled_as_the_file_says() {
        let check = |value: Value, expected: f32| {
            let processor = Processor::from_json(&value, 1).unwrap();
            let mut values = [0.0];
            processor.write(&Picture::filled(1, 1, Colour::Grey, 51), &mut values);
            assert!((values[0] - expected).abs() < 1e-4, "{value}: {values:?}");
        };
        check(
            json!({"image_mean": [0.1], "image_std": [0.5], "rescale_factor": 0.00392156862}),
            0.2,
        );
        check(json!({"image_mean": [1.0], "image_std": [0.5], "do_rescale": false}), 100.0);
        check(json!({"do_normalize": false, "do_rescale": false}), 51.0);
        check(json!({"do_normalize": false, "rescale_factor": 0.0078125}), 51.0 / 128.0);
    }

    #[test]
    fn the_middle_is_cut_out() {
        assert_eq!(middle(&numbered(4, 4), 2, 2).pixels, [5, 6, 9, 10]);
        assert_eq!(middle(&numbered(2, 1), 4, 1).pixels, [0, 0, 1, 0]);
    }

    #[test]
    fn numbers_are_normalised_channel_by_channel() {
        let processor = Processor {
            size: [1, 2],
            shortest_edge: None,
            colour: Colour::Rgb,
            filter: Filter::Bilinear,
            mean: vec![0.0, 0.5, 1.0],
            std: vec![1.0, 0.5, 0.1],
        };
        let picture = Picture {
            width: 2,
            height: 1,
            colour: Colour::Rgb,
            pixels: vec![0, 0, 255, 255, 255, 255],
        };
        let mut values = [0.0; 6];
        processor.write(&picture, &mut values);
        for (found, expected) in values.into_iter().zip([0.0, 1.0, -1.0, 1.0, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-5, "{values:?}");
        }
        let (mean, std) = statistics([&picture].into_iter(), 3);
        assert_eq!((mean[0], std[0], mean[2]), (0.5, 0.5, 1.0));
    }
}
