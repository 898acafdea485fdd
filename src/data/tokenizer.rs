//! Tokenizers: trained on the data at hand or taken from a checkpoint.

use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Encoding, Tokenizer};

use super::error::DataError;
use super::panics::without_panic;

/// The end token of a tokenizer that is trained here.
pub(super) const TRAINED_END: &str = "<|endoftext|>";

/// Smallest vocabulary of a byte-level tokenizer: the bytes and the end token.
pub const MIN_VOCAB_SIZE: usize = 257;

/// Most tokens of a tokenizer that is trained.
const MAX_VOCAB_SIZE: usize = 1 << 24;

/// Trains a byte-level BPE tokenizer as GPT-2's, of at most `vocab_size` tokens, with `<|endoftext|>` as token 0.
///
/// The same texts give the same tokenizer.
///
/// # Errors
/// If `vocab_size` is below [`MIN_VOCAB_SIZE`] or above 2^24.
pub fn train_bpe<S: AsRef<str> + Sync>(texts: &[S], vocab_size: usize) -> Result<Tokenizer, DataError> {
    if vocab_size < MIN_VOCAB_SIZE {
        let problem =
            format!("{vocab_size} tokens are too few; the bytes and the end token alone take {MIN_VOCAB_SIZE}");
        return Err(DataError::Setting { setting: "vocab_size", problem });
    }
    if vocab_size > MAX_VOCAB_SIZE {
        let problem = format!("{vocab_size} tokens are too many; the maximum is {MAX_VOCAB_SIZE}");
        return Err(DataError::Setting { setting: "vocab_size", problem });
    }
    let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(TRAINED_END, true)])
        .build()
        .into();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let failed = |error: tokenizers::Error| DataError::TokenizerTraining(error.to_string());
    tokenizer.train(&mut trainer, texts.iter().map(AsRef::as_ref)).map_err(failed)?;
    Ok(tokenizer)
}

/// Reads a `tokenizer.json`, without the truncation, padding and dropout that it may ask for.
///
/// # Errors
/// If the file is missing, is no tokenizer, or has no token.
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer, DataError> {
    let bytes = std::fs::read(path).map_err(|error| DataError::io(path, "read", error))?;
    tokenizer_from_bytes(path, &bytes)
}

pub(super) fn tokenizer_from_bytes(path: &Path, bytes: &[u8]) -> Result<Tokenizer, DataError> {
    let unusable = |problem: String| DataError::Tokenizer { path: path.into(), problem };
    // The tokenizers crate panics on some bad files: where a part is no JSON, where a character map is damaged.
    serde_json::from_slice::<Value>(bytes).map_err(|error| unusable(error.to_string()))?;
    let parsed = without_panic(|| Tokenizer::from_bytes(bytes)).ok_or_else(|| unusable("it is damaged".into()))?;
    let mut tokenizer = parsed.map_err(|error| unusable(error.to_string()))?;
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some()
    {
        // Meant for training the model that it belongs to; here the same text must give the same tokens.
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    tokenizer.with_truncation(None).map_err(|error| unusable(error.to_string()))?;
    tokenizer.with_padding(None);
    if vocab_size(&tokenizer) == 0 {
        return Err(unusable("its vocabulary is empty".into()));
    }
    Ok(tokenizer)
}

/// One more than the largest token number, which is what an embedding table needs.
pub fn vocab_size(tokenizer: &Tokenizer) -> usize {
    tokenizer.get_vocab(true).into_values().max().map_or(0, |largest| largest as usize + 1)
}

/// The tokens of a text, without any that the tokenizer would add around it.
///
/// # Errors
/// If the tokenizer refuses the text.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, DataError> {
    Ok(encoded(text, || tokenizer.encode_fast(text, false))?.get_ids().to_vec())
}

/// What a tokenizer makes of a text, or why it refuses it. With damaged character maps the tokenizers crate panics.
pub(super) fn encoded(
    text: &str,
    encode: impl FnOnce() -> tokenizers::Result<Encoding>,
) -> Result<Encoding, DataError> {
    let failed = |problem: String| DataError::Encode { text: text.into(), problem };
    without_panic(encode)
        .ok_or_else(|| failed("the tokenizer is damaged".into()))?
        .map_err(|error| failed(error.to_string()))
}

/// Whether two tokenizers give any text the same tokens: they are the same but for what they do with tokens afterwards.
///
/// # Errors
/// If one of them cannot be written as JSON.
pub fn encode_alike(a: &Tokenizer, b: &Tokenizer) -> Result<bool, DataError> {
    let json = |tokenizer: &Tokenizer| {
        let failed = |problem: String| DataError::Tokenizer { path: "tokenizer.json".into(), problem };
        tokenizer.to_string(false).map_err(|error| failed(error.to_string()))
    };
    let (a, b) = (json(a)?, json(b)?);
    let encoding = |json: &str| {
        let mut file: serde_json::Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
        for afterwards in ["decoder", "post_processor", "version"] {
            file.remove(afterwards);
        }
        file
    };
    Ok(a == b || encoding(&a) == encoding(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small() -> Tokenizer {
        train_bpe(&["the cat and the hat", "the cat sat"], 270).unwrap()
    }

    proptest! {
        #[test]
        fn any_text_survives_the_trained_tokenizer(text in any::<String>()) {
            prop_assume!(!text.contains(TRAINED_END));
            let tokenizer = small();
            let tokens = encode(&tokenizer, &text).unwrap();
            prop_assert_eq!(tokenizer.decode(&tokens, false).unwrap(), text);
        }
    }

    #[test]
    fn the_same_texts_give_the_same_tokenizer() {
        let texts: Vec<_> = (0..300).map(|at| format!("title {} of {}", at * 7919 % 101, at * 31 % 17)).collect();
        let first = train_bpe(&texts, 400).unwrap().to_string(false).unwrap();
        for _ in 0..3 {
            assert_eq!(train_bpe(&texts, 400).unwrap().to_string(false).unwrap(), first);
        }
    }

    #[test]
    fn trained_vocabulary_has_every_byte_and_the_end_token_first() {
        let tokenizer = train_bpe(&[] as &[&str], 4096).unwrap();
        assert_eq!(vocab_size(&tokenizer), MIN_VOCAB_SIZE);
        assert_eq!(tokenizer.token_to_id(TRAINED_END), Some(0));
        assert!(vocab_size(&small()) > MIN_VOCAB_SIZE);
        assert!(matches!(train_bpe(&["x"], 256), Err(DataError::Setting { setting: "vocab_size", .. })));
    }

    #[test]
    fn truncation_and_padding_of_a_file_are_ignored() {
        let mut tokenizer = small();
        let truncation = tokenizers::TruncationParams { max_length: 2, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).unwrap();
        tokenizer.with_padding(Some(tokenizers::PaddingParams {
            strategy: tokenizers::PaddingStrategy::Fixed(100),
            ..Default::default()
        }));
        let json = tokenizer.to_string(false).unwrap();
        let loaded = tokenizer_from_bytes(Path::new("t.json"), json.as_bytes()).unwrap();
        assert_eq!(encode(&loaded, "the cat").unwrap(), encode(&small(), "the cat").unwrap());
    }

    /// A normaliser whose character map is cut off.
    const DAMAGED_MAP: &str = r#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": null,
        "decoder": null, "post_processor": null, "truncation": null, "padding": null,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAA="},
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;

    #[test]
    fn the_same_text_has_the_same_tokens_whatever_dropout_a_file_asks_for() {
        let plain = small();
        let mut file: Value = serde_json::from_str(&plain.to_string(false).unwrap()).unwrap();
        file["model"]["dropout"] = 0.5.into();
        let read = tokenizer_from_bytes(Path::new("t.json"), file.to_string().as_bytes()).unwrap();
        for _ in 0..20 {
            assert_eq!(encode(&read, "the cat and the hat").unwrap(), encode(&plain, "the cat and the hat").unwrap());
        }
    }

    #[test]
    fn a_bad_tokenizer_file_is_named() {
        for garbage in [
            "",
            "{}",
            "[1, 2]",
            "\u{0}",
            r#"{"version": "1.0", "decoder": {"type": x}}"#,
            DAMAGED_MAP,
            r#"{"model": {"type": "BPE", "vocab": {}, "merges": []}}"#,
        ] {
            let error = tokenizer_from_bytes(Path::new("dir/t.json"), garbage.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("dir/t.json: not a usable tokenizer: "), "{error}");
        }
        assert!(matches!(load_tokenizer(Path::new("no/such.json")), Err(DataError::Io { .. })));
    }

    #[test]
    fn tokenizers_are_compared_by_the_tokens_that_they_give() {
        let plain = small();
        let changed = |change: fn(&mut Value)| {
            let mut file: Value = serde_json::from_str(&plain.to_string(false).unwrap()).unwrap();
            change(&mut file);
            tokenizer_from_bytes(Path::new("t.json"), file.to_string().as_bytes()).unwrap()
        };
        let same = |other: Tokenizer| encode_alike(&plain, &other).unwrap();
        assert!(same(plain.clone()));
        assert!(same(changed(|file| file["decoder"] = Value::Null)));
        assert!(same(changed(|file| file["truncation"] = Value::Null)));
        assert!(!same(changed(|file| file["normalizer"] = serde_json::json!({"type": "Lowercase"}))));
        assert!(!same(changed(|file| file["added_tokens"][0]["normalized"] = true.into())));
        assert!(!same(changed(|file| {
            let merges = file["model"]["merges"].as_array_mut().unwrap();
            merges.swap(0, 1);
        })));
    }
}
