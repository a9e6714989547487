//! What one input sends across the cut, as pictures: a map for each channel, none larger than a screen shows.

use std::sync::Arc;

use axum::{Json, body::Bytes, extract::State, http::HeaderMap};
use cleave_shared::tensor::{DType, HostTensor};
use serde::Serialize;

use super::Shared;
use crate::{
    predict::Smashed,
    serve::{InferError, Predictor, Query, parse_request},
};

/// Of one activation.
const MOST_TENSORS: usize = 4;
const MOST_MAPS: usize = 64;
/// Extents of a map, and of one that has a single row.
const MOST_SIDE: usize = 32;
const MOST_ROW: usize = 1024;

#[derive(Debug, PartialEq, Serialize)]
pub struct Activation {
    split_point: usize,
    codec: String,
    /// As they are encoded for the link; 0 where nothing crosses.
    bytes: usize,
    tensors: Vec<Picture>,
}

/// One tensor as maps, `height` times `width` each, row by row.
#[derive(Debug, PartialEq, Serialize)]
struct Picture {
    name: String,
    /// Without the batch.
    shape: Vec<usize>,
    /// All that there are; `maps` has the first of them.
    channels: usize,
    height: usize,
    width: usize,
    maps: Vec<Vec<f32>>,
}

/// The body is that of an inference request with one sample.
pub async fn activation(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Activation>, InferError> {
    if headers.contains_key("inference-header-content-length") {
        return Err(InferError::BadInput("send the sample as JSON".into()));
    }
    let predictor = &shared.page.predictor;
    let query = parse_request(&predictor.model(), body, None)?.request.query;
    let samples = match &query {
        Query::Tensors(inputs) => inputs.first().and_then(|(_, t)| t.shape().first().copied()),
        Query::Texts(texts) => Some(texts.len()),
    };
    if samples != Some(1) {
        return Err(InferError::BadInput(
            "send one sample: the first extent of each input is 1".into(),
        ));
    }
    let Smashed { split_point, codec, bytes, tensors } = predictor.smashed(query).await?;
    let pictures = tensors.into_iter().take(MOST_TENSORS).map(|(name, t)| picture(name, &t));
    let tensors = pictures.collect::<Result<_, _>>().map_err(InferError::Internal)?;
    Ok(Json(Activation { split_point, codec, bytes, tensors }))
}

fn picture(name: String, tensor: &HostTensor) -> Result<Picture, String> {
    let values = floats(tensor)?;
    let shape = tensor.shape().get(1..).unwrap_or_default().to_vec();
    // What lies side by side, and how many of these there are.
    let (channels, height, width) = match shape[..] {
        [] => (1, 1, 1),
        [width] => (1, 1, width),
        [height, width] => (1, height, width),
        [ref channels @ .., height, width] => (channels.iter().product(), height, width),
    };
    let row_block = height.div_ceil(MOST_SIDE).max(1);
    let column_block = match height {
        1 => width.div_ceil(MOST_ROW).max(1),
        _ => width.div_ceil(MOST_SIDE).max(1),
    };
    let size = (height * width).max(1);
    let shown = values.chunks(size).take(MOST_MAPS);
    let maps = shown.map(|map| means(map, width.max(1), row_block, column_block)).collect();
    let (height, width) = (height.div_ceil(row_block), width.div_ceil(column_block));
    Ok(Picture { name, shape, channels, height, width, maps })
}

fn floats(tensor: &HostTensor) -> Result<Vec<f32>, String> {
    let problem = |e: cleave_shared::tensor::TensorError| e.to_string();
    match tensor.dtype() {
        DType::F32 => tensor.to_f32().map_err(problem),
        DType::I64 => Ok(tensor.to_i64().map_err(problem)?.into_iter().map(|v| v as f32).collect()),
        DType::U8 => Ok(tensor.data().iter().map(|v| f32::from(*v)).collect()),
        other => Err(format!("a tensor of {} has no picture", other.name())),
    }
}

/// A map of means over blocks.
fn means(map: &[f32], width: usize, row_block: usize, column_block: usize) -> Vec<f32> {
    if (row_block, column_block) == (1, 1) {
        return map.to_vec();
    }
    let rows: Vec<&[f32]> = map.chunks(width).collect();
    let bands = rows.chunks(row_block);
    let band = |band: &[&[f32]]| -> Vec<f32> {
        let starts = (0..width).step_by(column_block);
        let mean = |start: usize| {
            let end = (start + column_block).min(width);
            let sum: f32 = band.iter().flat_map(|row| &row[start..end]).sum();
            sum / (band.len() * (end - start)) as f32
        };
        starts.map(mean).collect()
    };
    bands.flat_map(band).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(shape: &[usize]) -> Picture {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|v| v as f32).collect();
        picture("x".into(), &HostTensor::from_f32(shape.to_vec(), &values)).unwrap()
    }

    #[test]
    fn channels_are_maps_in_their_order() {
        let Picture { shape, channels, height, width, maps, .. } = of(&[1, 3, 2, 2]);
        assert_eq!((shape, channels, height, width), (vec![3, 2, 2], 3, 2, 2));
        assert_eq!(maps, [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]);
    }

    #[test]
    fn large_maps_become_means_and_many_are_cut_off() {
        let Picture { channels, height, width, maps, .. } = of(&[1, 100, 64, 33]);
        assert_eq!((channels, maps.len(), height, width), (100, MOST_MAPS, 32, 17));
        // The first two rows' first two columns, and the last column, which has no neighbour.
        assert_eq!(maps[0][0], (0.0 + 1.0 + 33.0 + 34.0) / 4.0);
        assert_eq!(maps[0][16], (32.0 + 65.0) / 2.0);
        let Picture { height, width, maps, .. } = of(&[1, 3000]);
        assert_eq!((height, width, maps[0].len(), maps[0][0]), (1, 1000, 1000, 1.0));
    }

    #[test]
    fn other_ranks_have_a_picture() {
        let size = |shape: &[usize]| {
            let Picture { channels, height, width, maps, .. } = of(shape);
            (channels, height, width, maps.len(), maps[0].len())
        };
        assert_eq!(size(&[1]), (1, 1, 1, 1, 1));
        assert_eq!(size(&[1, 128]), (1, 1, 128, 1, 128));
        assert_eq!(size(&[1, 5, 7]), (1, 5, 7, 1, 35));
        assert_eq!(size(&[1, 2, 3, 4, 5]), (6, 4, 5, 6, 20));
        let ids = HostTensor::from_i64(vec![1, 3], &[4, 5, 6]);
        assert_eq!(picture("ids".into(), &ids).unwrap().maps, [[4.0, 5.0, 6.0]]);
    }
}
