//! Bytes that keep something with them for as long as anybody has some of them: their part of an account.

use bytes::Bytes;

struct Guarded<B, G> {
    bytes: B,
    _guard: G,
}

impl<B: AsRef<[u8]>, G> AsRef<[u8]> for Guarded<B, G> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// These bytes; `guard` is dropped with the last of them.
pub(crate) fn guarded(bytes: impl AsRef<[u8]> + Send + 'static, guard: impl Send + 'static) -> Bytes {
    Bytes::from_owner(Guarded { bytes, _guard: guard })
}
