//! Random numbers made on the host by a counter-based generator, so that they are the same on every
//! backend, for any batch size, and leave no state to save.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The generator for one use, named by four numbers: the run's seed and what it is drawn for
/// (for example seed, step, prompt, sample). Equal numbers give equal draws.
pub fn generator(key: [u64; 4]) -> ChaCha8Rng {
    let mut seed = [0; 32];
    for (bytes, part) in seed.chunks_exact_mut(8).zip(key) {
        bytes.copy_from_slice(&part.to_le_bytes());
    }
    ChaCha8Rng::from_seed(seed)
}

/// FNV-1a hash of a name, to make a parameter's path part of a generator's key.
pub(crate) fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn equal_keys_draw_equal_numbers_and_others_do_not() {
        let draw = |key| generator(key).random::<u64>();
        assert_eq!(draw([1, 2, 3, 4]), draw([1, 2, 3, 4]));
        assert_ne!(draw([1, 2, 3, 4]), draw([1, 2, 4, 3]));
        assert_ne!(name_key("a.b"), name_key("b.a"));
    }
}
