//! A short name for some content, to notice that it changed.

/// The 64-bit FNV-1a hash. Not cryptographic: it finds accidents, not forgeries.
///
/// <http://www.isthe.com/chongo/tech/comp/fnv/>
#[derive(Debug, Clone, Copy)]
pub(super) struct Fnv1a(u64);

impl Fnv1a {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        for (text, hash) in [("", 0xcbf29ce484222325), ("a", 0xaf63dc4c8601ec8c), ("foobar", 0x85944171f73967e8)] {
            let mut fnv = Fnv1a::new();
            fnv.add(text.as_bytes());
            assert_eq!(fnv.finish(), hash);
        }
    }
}
