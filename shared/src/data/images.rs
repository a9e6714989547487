//! Image files by class: a folder whose subfolders are the classes, with PNG, JPEG and PPM files.
//!
//! Every file is decoded once when the set is opened, to find those that cannot be used, and again
//! whenever it is in a batch: what is kept of a file is its path, however many there are. An image is
//! scaled until it covers the model's input, and what is over on two sides is cut off.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use image::{DynamicImage, ImageError, ImageReader, imageops::FilterType};

use super::{DataError, Dataset, Dropped, INPUT, Target, csv::content};
use crate::{
    model::Port,
    progress::{Progress, Steps},
};

/// Images in files.
#[derive(Debug)]
pub struct ImageFolder {
    name: String,
    /// `[channels, height, width]` of a sample; 1 or 3 channels.
    input: [usize; 3],
    classes: Vec<String>,
    files: Vec<File>,
}

#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    class: usize,
}

impl ImageFolder {
    /// Finds and checks the files of all classes, which are in the order of their names; `progress` is told of
    /// each file.
    pub fn open(
        folder: &Path,
        input: [usize; 3],
        progress: Progress<'_>,
    ) -> Result<(Self, Dropped), DataError> {
        if !matches!(input[0], 1 | 3) || input.iter().any(|n| !(1..=1 << 15).contains(n)) {
            let problem = format!("gives no samples of {input:?}: [1 or 3, height, width] is read");
            return Err(content(folder, problem));
        }
        let folders: Vec<PathBuf> =
            entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
        let classes: Vec<String> = folders.iter().map(|path| file_name(path)).collect();
        let mut found = Vec::new();
        for (class, folder) in folders.iter().enumerate() {
            let files = entries(folder)?.into_iter().filter(|path| !path.is_dir());
            found.extend(files.map(|path| File { path, class }));
        }
        let mut dropped = Dropped::default();
        let mut files = Vec::new();
        let steps = Steps::new("reading images", found.len(), progress);
        for (file, problem) in found.iter().zip(problems(&found, &steps)) {
            match problem {
                None => files.push(file.clone()),
                Some(reason) => {
                    tracing::warn!(file = %file.path.display(), "{reason}");
                    dropped.add(reason, file.path.display());
                }
            }
        }
        if files.is_empty() {
            let problem =
                "has no images: it needs a folder with PNG, JPEG or PPM files for each class";
            return Err(content(folder, problem.into()));
        }
        Ok((Self { name: file_name(folder), input, classes, files }, dropped))
    }
}

/// What is in a folder, by name; what is hidden is left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = read().map_err(|source| DataError::Read { path: folder.into(), source })?;
    paths.retain(|path| !file_name(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Why each file cannot be used; on all processors, since decoding takes milliseconds.
fn problems(files: &[File], steps: &Steps<'_>) -> Vec<Option<String>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = files.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let shares: Vec<_> =
            files.chunks(share).map(|files| scope.spawn(move || check(files, steps))).collect();
        let joined = shares.into_iter().map(|share| share.join().expect("decoding gives errors"));
        joined.flatten().collect()
    })
}

fn check(files: &[File], steps: &Steps<'_>) -> Vec<Option<String>> {
    let one = |file: &File| {
        let problem = decode(&file.path).err();
        steps.step();
        problem
    };
    files.iter().map(one).collect()
}

/// Decodes a file by what is in it, whatever its name ends in.
fn decode(path: &Path) -> Result<DynamicImage, String> {
    let opened = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let reader = opened.map_err(|e| format!("cannot be read: {e}"))?;
    reader.decode().map_err(|error| undecodable(&error))
}

/// Why an image cannot be used, on one line.
pub fn undecodable(error: &ImageError) -> String {
    match error {
        ImageError::Unsupported(_) => "is not a PNG, JPEG or PPM image".into(),
        other => {
            let words = other.to_string();
            format!("cannot be decoded: {}", words.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    }
}

/// As Pillow and torchvision have it (ITU-R 601-2).
pub fn grey([red, green, blue]: [u8; 3]) -> u8 {
    let [red, green, blue] = [red, green, blue].map(u32::from);
    ((299 * red + 587 * green + 114 * blue + 500) / 1000) as u8
}

impl Dataset for ImageFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn inputs(&self) -> Vec<Port> {
        vec![Port::float(INPUT, &self.input)]
    }

    fn target(&self) -> Target {
        Target::Classes { names: self.classes.clone() }
    }

    /// Values are 0 to 1. A file that was there when the set was opened and has gone since is black,
    /// and named in the log.
    fn write_input(&self, index: usize, _input: usize, out: &mut Vec<u8>) {
        let path = &self.files[index].path;
        let [channels, height, width] = self.input;
        let image = decode(path).unwrap_or_else(|problem| {
            tracing::error!(file = %path.display(), "{problem} any more; it counts as black");
            DynamicImage::new_rgb8(width as u32, height as u32)
        });
        let image = image.resize_to_fill(width as u32, height as u32, FilterType::Triangle);
        let pixels = image.to_rgb8();
        let value = |p: u8| (f32::from(p) / 255.0).to_le_bytes();
        match channels {
            1 => out.extend(pixels.pixels().flat_map(|p| value(grey(p.0)))),
            _ => (0..3).for_each(|c| out.extend(pixels.pixels().flat_map(|p| value(p.0[c])))),
        }
    }

    fn write_label(&self, index: usize, out: &mut Vec<u8>) {
        out.extend((self.files[index].class as i64).to_le_bytes());
    }
}
