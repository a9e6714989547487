//! Little-endian bytes as numbers, and back, without a copy where memory allows it.

use std::borrow::Cow;

use bytemuck::Pod;
use bytes::Bytes;

/// The numbers in `bytes`, used where they lie if they are aligned. A tail that is no whole number is
/// left out: callers check lengths.
pub fn words<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    let whole = &bytes[..bytes.len() / size_of::<T>() * size_of::<T>()];
    match bytemuck::try_cast_slice(whole) {
        Ok(aligned) => Cow::Borrowed(aligned),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(whole)),
    }
}

/// Hands the memory of `words` on as bytes.
pub fn into_bytes<T: Pod + Send>(words: Vec<T>) -> Bytes {
    struct Owner<T>(Vec<T>);
    impl<T: Pod> AsRef<[u8]> for Owner<T> {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Bytes::from_owner(Owner(words))
}
