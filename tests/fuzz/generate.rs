//! Inputs: random bytes, and valid inputs with bytes flipped, cut, doubled, repeated, overwritten or joined with boundary values, or spliced.

/// Text at the edges of what parsers expect.
const WORDS: [&str; 15] =
    ["99999", "4294967296", "18446744073709551616", "-1", "1e400", "..", "//", "\r\n", "\\u0000", "*", "\"", "null", "é", "\u{2028}", "😀"];

/// Makes inputs, the same for the same seed.
pub(crate) struct Generator<'a> {
    state: u64,
    bytes_max: usize,
    seeds: &'a [Vec<u8>],
    input: Vec<u8>,
}

/// Numbers at the edges of what decoders compare with.
const EDGES: [u32; 10] = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

impl<'a> Generator<'a> {
    pub(crate) fn new(seed: u64, bytes_max: usize, seeds: &'a [Vec<u8>]) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, bytes_max, seeds, input: Vec::new() }
    }

    /// The next input.
    pub(crate) fn input(&mut self) -> &[u8] {
        self.input.clear();
        if self.below(16) == 0 {
            let length = self.below(self.bytes_max.min(256));
            for _ in 0..length {
                let byte = self.next() as u8;
                self.input.push(byte);
            }
        } else {
            let seed = &self.seeds[self.below(self.seeds.len())];
            self.input.extend_from_slice(seed);
            for _ in 0..=self.below(4) {
                self.damage();
            }
        }
        self.input.truncate(self.bytes_max);
        &self.input
    }

    fn damage(&mut self) {
        let length = self.input.len();
        if length == 0 {
            return;
        }
        let at = self.below(length);
        match self.below(9) {
            0 => self.input[at] ^= 1 << self.below(8),
            1 => self.input[at] = self.next() as u8,
            2 => self.input.truncate(at),
            3 => {
                let end = (at + 1 + self.below(16)).min(length);
                self.input.drain(at..end);
            }
            4 => {
                let end = (at + 1 + self.below(64)).min(length);
                let piece = self.input[at..end].to_vec();
                let place = self.below(length);
                self.input.splice(place..place, piece);
            }
            5 => {
                let edge = EDGES[self.below(EDGES.len())];
                let bytes = if self.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
                for (place, byte) in self.input[at..].iter_mut().zip(bytes) {
                    *place = byte;
                }
            }
            6 => {
                let word = WORDS[self.below(WORDS.len())];
                self.input.splice(at..at, word.bytes());
            }
            7 => {
                let repeated = vec![self.input[at]; 1 + self.below(40)];
                self.input.splice(at..at, repeated);
            }
            _ => {
                let other = &self.seeds[self.below(self.seeds.len())];
                let from = self.below(other.len().max(1)).min(other.len());
                self.input.truncate(at);
                self.input.extend_from_slice(&other[from..]);
            }
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
