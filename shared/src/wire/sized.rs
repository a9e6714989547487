//! Messages as frames of gRPC.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

/// prost's codec, but room is made for a whole message before any of it is written. prost's own grows its buffer as it
/// writes: what comes behind a tensor would double it, and copy the tensor once more.
#[derive(Debug)]
pub struct SizedCodec<T, U>(PhantomData<(T, U)>);

/// Its way out.
#[derive(Debug)]
pub struct SizedEncoder<T>(PhantomData<T>);

impl<T, U> Default for SizedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for SizedEncoder<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SizedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SizedEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl<T: Message> Encoder for SizedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(message.encoded_len());
        message.encode(to).map_err(|e| Status::internal(format!("a message was not encoded: {e}")))
    }
}
