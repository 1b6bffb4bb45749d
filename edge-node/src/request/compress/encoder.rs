//! The three compressors behind one face: bytes in, coded bytes out, and a flush in between where a reader waits. How hard each tries, and why.

use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use selvedge_origin::registry::Coding;
use tokio::sync::OwnedSemaphorePermit;

/// Brotli's quality. 5 is where its output is clearly smaller than gzip's while it is about as fast; each step beyond costs twice the time.
const BROTLI_QUALITY: u32 = 5;
/// Zstandard's level: its own default, several times as fast as the others.
const ZSTD_LEVEL: i32 = 3;
/// Gzip's level: zlib's own default.
const GZIP_LEVEL: u32 = 6;
/// Windows are at most this, as a power of two of bytes: 512 KiB hold whole pages and scripts, and one compressor within about 2 MiB in all.
const WINDOW_LOG_MAX: u32 = 19;
/// Smallest windows, likewise (Brotli's and Zstandard's are 10).
const WINDOW_LOG_MIN: u32 = 12;
/// Bytes that a compressor hands over at once.
const OUT_BYTES: usize = 8 << 10;

/// One body's compressor, and its place among those that may run at one time.
pub(super) struct Encoder {
    kind: Kind,
    _place: OwnedSemaphorePermit,
}

enum Kind {
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Encoder {
    /// For a body of `length` bytes, where that is known: a small one needs a small window.
    pub(super) fn new(coding: Coding, length: Option<u64>, place: OwnedSemaphorePermit) -> io::Result<Self> {
        let fits = length.map_or(WINDOW_LOG_MAX, |length| 64 - length.leading_zeros());
        let window_log = fits.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX);
        let kind = match coding {
            Coding::Brotli => Kind::Brotli(Box::new(CompressorWriter::new(Vec::new(), OUT_BYTES, BROTLI_QUALITY, window_log))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(window_log)?;
                Kind::Zstd(Box::new(encoder))
            }
            Coding::Gzip => Kind::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL)))),
        };
        Ok(Self { kind, _place: place })
    }

    /// Takes bytes in. What comes of them is for [`Self::take`], now or later.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.kind {
            Kind::Brotli(encoder) => encoder.write_all(bytes),
            Kind::Zstd(encoder) => encoder.write_all(bytes),
            Kind::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// Brings out all that was taken in, so that the client can decode it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Brotli(encoder) => encoder.flush(),
            Kind::Zstd(encoder) => encoder.flush(),
            Kind::Gzip(encoder) => encoder.flush(),
        }
    }

    /// Coded bytes that are ready.
    pub(super) fn take(&mut self) -> Bytes {
        let out = match &mut self.kind {
            Kind::Brotli(encoder) => encoder.get_mut(),
            Kind::Zstd(encoder) => encoder.get_mut(),
            Kind::Gzip(encoder) => encoder.get_mut(),
        };
        std::mem::take(out).into()
    }

    /// The coded bytes that are left, with the coding's end.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        let rest = match self.kind {
            Kind::Brotli(encoder) => encoder.into_inner(),
            Kind::Zstd(encoder) => encoder.finish()?,
            Kind::Gzip(encoder) => encoder.finish()?,
        };
        Ok(rest.into())
    }
}

#[cfg(test)]
pub(in crate::request) mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    pub(in crate::request::compress) fn encoder(coding: Coding, length: Option<u64>) -> Encoder {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        Encoder::new(coding, length, place).expect("a compressor")
    }

    /// What a client makes of coded bytes; an unfinished stream gives what can be decoded of it.
    pub(in crate::request) fn decode(coding: Coding, coded: &[u8]) -> (Vec<u8>, bool) {
        let mut plain = Vec::new();
        let read = match coding {
            Coding::Brotli => brotli::Decompressor::new(coded, 4096).read_to_end(&mut plain),
            Coding::Zstd => zstd::stream::read::Decoder::new(coded).expect("a decoder").read_to_end(&mut plain),
            Coding::Gzip => flate2::read::MultiGzDecoder::new(coded).read_to_end(&mut plain),
        };
        (plain, read.is_ok())
    }

    #[test]
    fn every_coding_gives_back_what_was_taken_in_and_flushes_what_it_holds() {
        let text = "a line that says much the same as the next one\n".repeat(2_000);
        for coding in Coding::ALL {
            for length in [None, Some(text.len() as u64), Some(10)] {
                let mut encoder = encoder(coding, length);
                let mut coded = Vec::new();
                encoder.write(b"first").expect("written");
                encoder.flush().expect("flushed");
                coded.extend_from_slice(&encoder.take());
                assert_eq!(decode(coding, &coded).0, b"first", "{coding:?}: a flush brings out all");
                encoder.write(text.as_bytes()).expect("written");
                coded.extend_from_slice(&encoder.take());
                coded.extend_from_slice(&encoder.finish().expect("finished"));
                assert!(coded.len() * 10 < text.len(), "{coding:?}: {}", coded.len());
                assert_eq!(decode(coding, &coded), ([b"first", text.as_bytes()].concat(), true), "{coding:?}");
            }
        }
    }
}
