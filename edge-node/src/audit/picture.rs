//! One picture of an audit: held-out originals in the first row, and below them what was rebuilt at
//! each split point, in the order of the table.

use super::subject::Samples;

/// Samples in a row.
const COLUMNS: usize = 16;
/// An image is shown at least this large, pixels.
const LEAST: usize = 40;
/// White between images, pixels.
const GAP: usize = 3;

/// Rows of images, brightness from `low` to `high`; nothing at all where inputs are no images.
pub struct Grid {
    image: Option<[usize; 3]>,
    rows: Vec<Vec<f32>>,
    columns: usize,
    low: f32,
    high: f32,
}

impl Grid {
    pub fn new(originals: &Samples, low: f32, high: f32) -> Self {
        let columns = originals.count().min(COLUMNS);
        let mut grid = Self { image: originals.image(), rows: Vec::new(), columns, low, high };
        grid.add(originals);
        grid
    }

    /// The same samples as the others, in the same order.
    pub fn add(&mut self, samples: &Samples) {
        self.rows.push(samples.values[..self.columns * samples.width()].to_vec());
    }

    /// The picture as a PNG file: RGB of three channels, else the first channel as grey.
    pub fn png(&self) -> Result<Option<Vec<u8>>, String> {
        let Some([channels, height, width]) = self.image else { return Ok(None) };
        let scale = LEAST.div_ceil(height.max(width)).max(1);
        let step = [height * scale + GAP, width * scale + GAP];
        let size = [self.rows.len() * step[0] + GAP, self.columns * step[1] + GAP];
        let mut pixels = vec![u8::MAX; size[0] * size[1] * 3];
        let plane = height * width;
        for (row, values) in self.rows.iter().enumerate() {
            for (column, image) in values.chunks_exact(channels * plane).enumerate() {
                for place in 0..plane * scale * scale {
                    let (y, x) = (place / (width * scale), place % (width * scale));
                    let from = y / scale * width + x / scale;
                    let colour = |c: usize| self.shade(image[from + plane * c]);
                    let colour = if channels == 3 { [0, 1, 2].map(colour) } else { [colour(0); 3] };
                    let at = (GAP + row * step[0] + y) * size[1] + GAP + column * step[1] + x;
                    pixels[at * 3..at * 3 + 3].copy_from_slice(&colour);
                }
            }
        }
        encode(&pixels, size).map(Some).map_err(|e| format!("audit.png: {e}"))
    }

    fn shade(&self, value: f32) -> u8 {
        ((value - self.low) / (self.high - self.low) * 255.0).round().clamp(0.0, 255.0) as u8
    }
}

fn encode(pixels: &[u8], [height, width]: [usize; 2]) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(file: &[u8]) -> (usize, usize, Vec<u8>) {
        let decoder = png::Decoder::new(std::io::Cursor::new(file));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width as usize, info.height as usize, pixels)
    }

    #[test]
    fn a_row_of_originals_and_one_for_each_cut() {
        let originals =
            Samples { shape: vec![1, 2, 2], values: vec![0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0] };
        let mut grid = Grid::new(&originals, 0.0, 1.0);
        grid.add(&Samples { shape: vec![1, 2, 2], values: vec![0.5; 8] });
        let (width, height, pixels) = decoded(&grid.png().unwrap().unwrap());
        assert_eq!((width, height), (2 * 43 + 3, 2 * 43 + 3));
        let at = |x: usize, y: usize| pixels[(y * width + x) * 3];
        assert_eq!([at(0, 0), at(3, 3), at(23, 3), at(3, 23), at(42, 42)], [255, 0, 255, 255, 0]);
        assert_eq!(at(46, 46), 128, "the second original's row is followed by what was rebuilt");
    }

    #[test]
    fn colours_are_kept_and_tables_have_no_picture() {
        let red = Samples { shape: vec![3, 1, 1], values: vec![1.0, 0.0, 0.0] };
        let (_, _, pixels) = decoded(&Grid::new(&red, 0.0, 1.0).png().unwrap().unwrap());
        assert!(pixels.chunks(3).any(|p| p == [255, 0, 0]));
        let table = Samples { shape: vec![3], values: vec![1.0, 0.0, 0.0] };
        assert_eq!(Grid::new(&table, 0.0, 1.0).png().unwrap(), None);
    }
}
