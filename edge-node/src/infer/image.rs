//! An image as one sample: decoded, fitted to the model's height and width, 0 to 1.
//!
//! Without further wishes an image is treated as those of an image folder are in training. `resize`, `mean`
//! and `std` are for weights that were trained elsewhere: torchvision's transforms resize the shorter side,
//! cut the middle out, and normalise.

use cleave_shared::{
    data::{grey, undecodable},
    tensor::{DType, HostTensor},
};
use image::{DynamicImage, imageops::FilterType};

use super::input::Input;

/// Longest side that a model's input may have; 32768² values are 4 GiB.
const LONGEST: usize = 1 << 15;
/// A thinner image would become huge before its middle is cut out.
const MOST_OBLONG: u32 = 100;

/// What is done to an image on its way to values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pixels {
    /// Black becomes white, before all else that is done to values.
    pub invert: bool,
    /// Length of the shorter side before the middle is cut out, pixels; else the image is scaled until it
    /// covers the model's input.
    pub resize: Option<u32>,
    /// Taken from values of 0 to 1, one for each channel; none if empty.
    pub mean: Vec<f32>,
    /// Divides what is left, one for each channel; none if empty.
    pub std: Vec<f32>,
}

/// A PNG, JPEG or PPM file as FP32 `[1, channels, height, width]`: grey for one channel, else red, green
/// and blue. Transparency is dropped.
pub fn parse(file: &[u8], input: &Input, how: &Pixels) -> Result<HostTensor, String> {
    let unfit = || format!("{input} takes no image: [batch, 1 or 3, height, width] does");
    let [Some(channels @ (1 | 3)), Some(height), Some(width)] = input.sample[..] else {
        return Err(unfit());
    };
    let sides_fit = [height, width].iter().all(|side| (1..=LONGEST).contains(side));
    if input.dtype != DType::F32 || !sides_fit {
        return Err(unfit());
    }
    let normalisation = how.normalisation(channels)?;
    // By what is in it, whatever the file's name ends in.
    let decoded = image::load_from_memory(file).map_err(|error| undecodable(&error))?;
    let image = fitted(&decoded, [height as u32, width as u32], how.resize)?.to_rgb8();
    let mut values = Vec::with_capacity(channels * height * width);
    for (channel, (mean, std)) in normalisation.into_iter().enumerate() {
        values.extend(image.pixels().map(|pixel| {
            let value = if channels == 1 { grey(pixel.0) } else { pixel.0[channel] };
            let value = if how.invert { 255 - value } else { value };
            (f32::from(value) / 255.0 - mean) / std
        }));
    }
    Ok(HostTensor::from_f32(vec![1, channels, height, width], &values))
}

impl Pixels {
    /// Mean and standard deviation of each channel.
    fn normalisation(&self, channels: usize) -> Result<Vec<(f32, f32)>, String> {
        let Self { mean, std, .. } = self;
        if mean.is_empty() && std.is_empty() {
            return Ok(vec![(0.0, 1.0); channels]);
        }
        for (flag, found) in [("--mean", mean.len()), ("--std", std.len())] {
            if found != channels {
                return Err(format!(
                    "{flag} has {found} numbers; write {channels}, one for each channel"
                ));
            }
        }
        match std.iter().all(|s| s.is_finite() && *s > 0.0) {
            true => Ok(mean.iter().copied().zip(std.iter().copied()).collect()),
            false => Err(format!("--std is {std:?}; write numbers above 0")),
        }
    }
}

/// Scaled with its aspect kept, then the middle of it, `[height, width]`.
fn fitted(
    image: &DynamicImage,
    [height, width]: [u32; 2],
    resize: Option<u32>,
) -> Result<DynamicImage, String> {
    let (wide, high) = (image.width(), image.height());
    let (short, long) = (wide.min(high), wide.max(high));
    if short == 0 || long / short > MOST_OBLONG {
        return Err(format!(
            "has {wide} × {high} pixels; cut it: one side is more than {MOST_OBLONG} times the other"
        ));
    }
    let Some(shorter) = resize else {
        return Ok(image.resize_to_fill(width, height, FilterType::Triangle));
    };
    if shorter < height.max(width) || shorter as usize > LONGEST {
        return Err(format!(
            "--resize {shorter} is not from {} to {LONGEST}, for an input of {height} × {width}",
            height.max(width)
        ));
    }
    // The rounding of torchvision's Resize and CenterCrop.
    let longer = (u64::from(shorter) * u64::from(long) / u64::from(short)) as u32;
    let (wide, high) = if wide <= high { (shorter, longer) } else { (longer, shorter) };
    let image = image.resize_exact(wide, high, FilterType::Triangle);
    let [x, y] = [wide - width, high - height].map(half);
    Ok(image.crop_imm(x, y, width, height))
}

/// Half of it, to even.
fn half(n: u32) -> u32 {
    n / 2 + (n % 2) * (n / 2 % 2)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};

    use super::*;

    fn input(sample: [usize; 3]) -> Input {
        Input { name: "input".into(), dtype: DType::F32, sample: sample.map(Some).to_vec() }
    }

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    }

    fn read(image: impl Into<DynamicImage>, sample: [usize; 3], how: &Pixels) -> Vec<f32> {
        let tensor = parse(&png(&image.into()), &input(sample), how).unwrap();
        assert_eq!(tensor.shape()[1..], sample);
        tensor.to_f32().unwrap()
    }

    #[test]
    fn an_image_of_the_right_size_is_its_pixels() {
        let grey = GrayImage::from_fn(8, 8, |x, y| Luma([(x * 31 + y * 3) as u8]));
        let expected: Vec<f32> = grey.pixels().map(|p| f32::from(p.0[0]) / 255.0).collect();
        assert_eq!(read(grey.clone(), [1, 8, 8], &Pixels::default()), expected);
        // Three channels of a grey image are thrice the same.
        let thrice = read(grey.clone(), [3, 8, 8], &Pixels::default());
        assert!(thrice.chunks(64).all(|channel| channel == expected));
        let inverted = read(grey, [1, 8, 8], &Pixels { invert: true, ..Default::default() });
        assert_eq!(inverted[0], 1.0);
    }

    #[test]
    fn channels_are_one_after_the_other_and_grey_is_luma() {
        let image = RgbImage::from_pixel(2, 1, Rgb([255, 0, 51]));
        let values = read(image.clone(), [3, 1, 2], &Pixels::default());
        assert_eq!(values, [1.0, 1.0, 0.0, 0.0, 0.2, 0.2]);
        // 0.299 × 255 + 0.114 × 51 = 82.06.
        assert_eq!(read(image.clone(), [1, 1, 2], &Pixels::default()), [82.0 / 255.0; 2]);
        let how =
            Pixels { mean: vec![0.5, 0.25, 0.2], std: vec![0.5, 0.25, 0.1], ..Default::default() };
        assert_eq!(read(image, [3, 1, 2], &how), [1.0, 1.0, -1.0, -1.0, 0.0, 0.0]);
    }

    #[test]
    fn the_middle_is_kept_of_what_is_too_wide() {
        // Thirds of black, white and black; a square takes the middle one.
        let image = GrayImage::from_fn(48, 16, |x, _| Luma([255 * u8::from(x / 16 == 1)]));
        assert_eq!(read(image.clone(), [1, 16, 16], &Pixels::default()), [1.0; 256]);
        let covering = read(image.clone(), [1, 8, 8], &Pixels::default());
        // At the very edges the filter sees the neighbours.
        assert!(covering.chunks(8).all(|row| row[2..6] == [1.0; 4]), "{covering:?}");
        let how = Pixels { resize: Some(16), ..Default::default() };
        assert_eq!(read(image, [1, 8, 8], &how), [1.0; 64]);
    }

    #[test]
    fn a_half_goes_to_even_as_in_torchvision() {
        // Of Python: [int(round(n / 2.0)) for n in range(8)].
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(half), [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn mistakes_say_what_fits() {
        let file = png(&DynamicImage::from(GrayImage::new(8, 8)));
        let refused =
            |file: &[u8], input: &Input, how: &Pixels| parse(file, input, how).unwrap_err();
        let (model, none) = (input([1, 8, 8]), Pixels::default());
        assert_eq!(refused(b"text", &model, &none), "is not a PNG, JPEG or PPM image");
        assert!(refused(&file[..40], &model, &none).starts_with("cannot be decoded: "));
        assert!(refused(&file, &input([2, 8, 8]), &none).contains("takes no image"));
        let ids = Input { name: "ids".into(), dtype: DType::I64, sample: vec![None] };
        assert!(refused(&file, &ids, &none).contains("INT64 [batch, any] takes no image"));
        let how = Pixels { mean: vec![0.5; 3], std: vec![0.5; 3], ..Default::default() };
        let error = refused(&file, &model, &how);
        assert_eq!(error, "--mean has 3 numbers; write 1, one for each channel");
        let how = Pixels { mean: vec![0.5], std: vec![0.0], ..Default::default() };
        assert!(refused(&file, &model, &how).contains("above 0"));
        let how = Pixels { resize: Some(7), ..Default::default() };
        assert!(refused(&file, &model, &how).contains("from 8 to 32768"));
        let line = png(&DynamicImage::from(GrayImage::new(1, 1000)));
        assert!(refused(&line, &model, &none).contains("1 × 1000 pixels; cut it"));
    }
}
