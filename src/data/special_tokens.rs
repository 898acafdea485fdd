//! The tokens that begin prompts and end targets.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizers::Tokenizer;

use super::error::DataError;
use super::tokenizer::{TRAINED_END, encode, encoded};

/// End tokens that checkpoints use, tried in this order.
const KNOWN_ENDS: [&str; 5] = [TRAINED_END, "<|im_end|>", "</s>", "<|end_of_text|>", "<|eot_id|>"];

/// Tokenizers of `transformers` (4.57) to which `add_bos_token` counts more than the file's post-processor.
const LLAMA_TOKENIZERS: [&str; 6] = [
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "CodeLlamaTokenizer",
    "CodeLlamaTokenizerFast",
    "GemmaTokenizer",
    "GemmaTokenizerFast",
];

/// A token with a role of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialToken {
    /// Its text.
    pub text: String,
    /// Its number.
    pub id: u32,
}

/// Whether prompts begin with the tokenizer's BOS token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Bos {
    /// As `transformers` does for this tokenizer, and hence as its model was trained.
    #[default]
    Auto,
    /// Always, with the token that the tokenizer's files name.
    Yes,
    /// Never.
    No,
}

impl SpecialToken {
    /// Finds the token that ends every target: the one asked for; else `eos_token_id` (the first, if it is a list) of a
    /// `config.json` beside the tokenizer's file; else `eos_token` of a `tokenizer_config.json` there; else the first of
    /// the usual ones that the tokenizer has.
    ///
    /// # Errors
    /// If the tokenizer lacks it, none is found, or `config.json` cannot be read.
    pub fn end(tokenizer: &Tokenizer, file: Option<&Path>, asked_for: Option<&str>) -> Result<Self, DataError> {
        let unusable = |problem| DataError::EndToken { problem };
        if let Some(text) = asked_for {
            return Self::of_text(tokenizer, text).map_err(unusable);
        }
        let config = Beside::read(file, "config.json").map_err(unusable)?;
        if let Some(token) = config.id(tokenizer, "eos_token_id").map_err(unusable)? {
            return Ok(token);
        }
        let of_tokenizer = Beside::read(file, "tokenizer_config.json").map_err(unusable)?;
        if let Some(text) = of_tokenizer.text("eos_token").map_err(unusable)? {
            return Self::of_text(tokenizer, text).map_err(unusable);
        }
        let known = KNOWN_ENDS.iter().find_map(|text| Self::of_text(tokenizer, text).ok());
        known.ok_or_else(|| unusable(format!("the tokenizer has none of {}", KNOWN_ENDS.join(", "))))
    }

    /// The token that begins every prompt, if one does.
    ///
    /// For [`Bos::Auto`] that is what the tokenizer's post-processor puts in front of a text; for Llama's own tokenizer
    /// classes `add_bos_token` and `bos_token` of a `tokenizer_config.json` beside the file count before it. For
    /// [`Bos::Yes`] it is `bos_token` there, else `bos_token_id` of `config.json`, else the post-processor's.
    ///
    /// # Errors
    /// If the tokenizer lacks it, puts several tokens in front of a text, none is found though one is asked for, or a
    /// file beside the tokenizer's cannot be read.
    pub fn begin(tokenizer: &Tokenizer, file: Option<&Path>, bos: Bos) -> Result<Option<Self>, DataError> {
        let unusable = |problem| DataError::BeginToken { problem };
        if bos == Bos::No {
            return Ok(None);
        }
        let of_tokenizer = Beside::read(file, "tokenizer_config.json").map_err(unusable)?;
        let named = of_tokenizer.text("bos_token").map_err(unusable)?;
        if bos == Bos::Auto {
            let class = of_tokenizer.content.get("tokenizer_class").and_then(Value::as_str);
            return match class {
                Some(class) if LLAMA_TOKENIZERS.contains(&class) => {
                    // Their default is to begin with it, and it is called so.
                    let adds = of_tokenizer.content.get("add_bos_token").is_none_or(|adds| adds != &Value::Bool(false));
                    let text = named.unwrap_or("<s>");
                    adds.then(|| Self::of_text(tokenizer, text).map_err(unusable)).transpose()
                }
                _ => Self::of_post_processor(tokenizer),
            };
        }
        if let Some(text) = named {
            return Self::of_text(tokenizer, text).map(Some).map_err(unusable);
        }
        let config = Beside::read(file, "config.json").map_err(unusable)?;
        let token = match config.id(tokenizer, "bos_token_id").map_err(unusable)? {
            None => Self::of_post_processor(tokenizer)?,
            token => token,
        };
        let none = || unusable("neither the tokenizer nor tokenizer_config.json nor config.json names one".into());
        token.ok_or_else(none).map(Some)
    }

    fn of_text(tokenizer: &Tokenizer, text: &str) -> Result<Self, String> {
        let id = tokenizer.token_to_id(text).ok_or_else(|| format!("the tokenizer has no token `{text}`"))?;
        Ok(Self { text: text.into(), id })
    }

    /// What the tokenizer itself puts in front of a text.
    fn of_post_processor(tokenizer: &Tokenizer) -> Result<Option<Self>, DataError> {
        let probe = "a";
        let plain = encode(tokenizer, probe)?;
        let processed = encoded(probe, || tokenizer.encode_fast(probe, true))?;
        let ids = processed.get_ids();
        let front = (0..=ids.len().saturating_sub(plain.len())).find(|front| ids[*front..].starts_with(&plain));
        match ids[..front.unwrap_or(0)] {
            [] => Ok(None),
            [id] => Ok(Some(Self { text: tokenizer.id_to_token(id).unwrap_or_default(), id })),
            ref ids => {
                let problem =
                    format!("the tokenizer puts {} tokens in front of a text; only one is supported", ids.len());
                Err(DataError::BeginToken { problem })
            }
        }
    }
}

/// A JSON file beside a tokenizer's, empty where there is none.
pub(super) struct Beside {
    pub name: String,
    pub content: Value,
}

impl Beside {
    pub fn read(tokenizer: Option<&Path>, name: &str) -> Result<Self, String> {
        let path = tokenizer.map(|file| file.with_file_name(name)).filter(|path| path.exists());
        let Some(path) = path else {
            return Ok(Self { name: name.into(), content: Value::Null });
        };
        let name = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|error| format!("cannot read {name}: {error}"))?;
        let content = serde_json::from_slice(&bytes).map_err(|error| format!("{name}: {error}"))?;
        Ok(Self { name, content })
    }

    /// A token's text, which may stand in an object with its properties.
    pub fn text(&self, field: &str) -> Result<Option<&str>, String> {
        match self.content.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(token) => match token.as_str().or_else(|| token.get("content")?.as_str()) {
                None => Err(format!("{}: {field} is neither a string nor an object with `content`", self.name)),
                text => Ok(text),
            },
        }
    }

    /// A token by its number, the first if it is a list.
    fn id(&self, tokenizer: &Tokenizer, field: &str) -> Result<Option<SpecialToken>, String> {
        let id = match self.content.get(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(ids)) => ids.first().and_then(Value::as_u64),
            Some(id) => id.as_u64(),
        };
        let problem = || format!("{}: {field} is neither a token id nor a list of token ids", self.name);
        let number = id.ok_or_else(problem)?;
        let token = u32::try_from(number).ok().and_then(|id| Some((tokenizer.id_to_token(id)?, id)));
        let (text, id) =
            token.ok_or_else(|| format!("{}: {field} is {number}, which is not in the tokenizer", self.name))?;
        Ok(Some(SpecialToken { text, id }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tokenizer::{load_tokenizer, train_bpe};
    use super::*;

    fn small() -> Tokenizer {
        train_bpe(&["the cat and the hat", "the cat sat"], 270).unwrap()
    }

    /// A folder with the small tokenizer, changed, and files beside it.
    fn folder(change: impl Fn(&mut Value), beside: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut json: Value = serde_json::from_str(&small().to_string(false).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        for (name, content) in beside {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    fn end_of(end: &str, config: Option<&str>, asked_for: Option<&str>) -> Result<SpecialToken, DataError> {
        let beside: Vec<_> = config.into_iter().map(|config| ("config.json", config)).collect();
        let rename =
            |json: &mut Value| *json = serde_json::from_str(&json.to_string().replace(TRAINED_END, end)).unwrap();
        let dir = folder(rename, &beside);
        let file = dir.path().join("tokenizer.json");
        SpecialToken::end(&load_tokenizer(&file)?, Some(&file), asked_for)
    }

    /// What begins prompts, where the post-processor puts `front` tokens 0 before a text and one behind it.
    fn begin_of(front: usize, beside: &[(&str, &str)], bos: Bos) -> Result<Option<u32>, DataError> {
        let template = |json: &mut Value| {
            let special = json!({"SpecialToken": {"id": TRAINED_END, "type_id": 0}});
            let mut single = vec![special.clone(); front];
            single.extend([json!({"Sequence": {"id": "A", "type_id": 0}}), special]);
            json["post_processor"] = json!({
                "type": "TemplateProcessing", "single": single, "pair": single,
                "special_tokens": {TRAINED_END: {"id": TRAINED_END, "ids": [0], "tokens": [TRAINED_END]}},
            });
        };
        let dir = folder(template, beside);
        let file = dir.path().join("tokenizer.json");
        Ok(SpecialToken::begin(&load_tokenizer(&file)?, Some(&file), bos)?.map(|token| token.id))
    }

    #[test]
    fn end_token_is_the_one_asked_for_then_the_configs_then_a_known_one() {
        let the = small().token_to_id("the").unwrap();
        let config = format!(r#"{{"eos_token_id": [{the}, 1]}}"#);
        assert_eq!(end_of("</s>", Some(&config), Some("</s>")).unwrap(), SpecialToken { text: "</s>".into(), id: 0 });
        assert_eq!(end_of("</s>", Some(&config), None).unwrap(), SpecialToken { text: "the".into(), id: the });
        for config in [r#"{"eos_token_id": null}"#, "{}"] {
            assert_eq!(end_of("<|eot_id|>", Some(config), None).unwrap().text, "<|eot_id|>");
        }
        assert_eq!(end_of("</s>", None, None).unwrap().id, 0);
        let dir = folder(|_| {}, &[("tokenizer_config.json", r#"{"eos_token": {"content": "the"}}"#)]);
        let file = dir.path().join("tokenizer.json");
        assert_eq!(SpecialToken::end(&small(), Some(&file), None).unwrap().id, the);
    }

    #[test]
    fn an_end_token_that_does_not_exist_is_an_error() {
        for (end, config, asked_for, wanted) in [
            ("</s>", None, Some("<end>"), "no token `<end>`"),
            ("<none>", None, None, "has none of"),
            ("</s>", Some(r#"{"eos_token_id": 100000}"#), None, "which is not in the tokenizer"),
            ("</s>", Some(r#"{"eos_token_id": -1}"#), None, "neither a token id"),
            ("</s>", Some(r#"{"eos_token_id": []}"#), None, "neither a token id"),
            ("</s>", Some("{"), None, "config.json"),
        ] {
            let error = end_of(end, config, asked_for).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn texts_begin_as_the_post_processor_has_it() {
        assert_eq!(begin_of(0, &[], Bos::Auto).unwrap(), None);
        assert_eq!(begin_of(1, &[], Bos::Auto).unwrap(), Some(0));
        assert_eq!(begin_of(1, &[], Bos::No).unwrap(), None);
        assert!(begin_of(2, &[], Bos::Auto).unwrap_err().to_string().contains("2 tokens in front"));
        let ours = small();
        assert_eq!(SpecialToken::begin(&ours, None, Bos::Auto).unwrap(), None);
        assert!(SpecialToken::begin(&ours, None, Bos::Yes).is_err());
    }

    #[test]
    fn llamas_own_tokenizers_go_by_their_configuration() {
        let config =
            |fields: &str| format!(r#"{{"tokenizer_class": "LlamaTokenizerFast", "bos_token": "the"{fields}}}"#);
        let the = small().token_to_id("the");
        for (fields, wanted) in [("", the), (r#", "add_bos_token": true"#, the), (r#", "add_bos_token": false"#, None)]
        {
            let begin = begin_of(1, &[("tokenizer_config.json", &config(fields))], Bos::Auto);
            assert_eq!(begin.unwrap(), wanted, "{fields}");
        }
        // To any other class the post-processor alone counts.
        let other = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "the", "add_bos_token": true}"#;
        assert_eq!(begin_of(0, &[("tokenizer_config.json", other)], Bos::Auto).unwrap(), None);
    }

    #[test]
    fn asked_for_it_is_the_one_that_the_files_name() {
        let the = small().token_to_id("the").unwrap();
        let named = [("tokenizer_config.json", r#"{"bos_token": {"content": "the"}}"#)];
        assert_eq!(begin_of(1, &named, Bos::Yes).unwrap(), Some(the));
        let numbered = format!(r#"{{"bos_token_id": {the}}}"#);
        assert_eq!(begin_of(0, &[("config.json", &numbered)], Bos::Yes).unwrap(), Some(the));
        assert_eq!(begin_of(1, &[], Bos::Yes).unwrap(), Some(0));
        for (name, content) in [
            ("tokenizer_config.json", "{"),
            ("tokenizer_config.json", r#"{"bos_token": 7}"#),
            ("tokenizer_config.json", r#"{"bos_token": "<none>"}"#),
            ("config.json", r#"{"bos_token_id": 100000}"#),
        ] {
            let error = begin_of(0, &[(name, content)], Bos::Yes).unwrap_err().to_string();
            assert!(error.contains(name) || error.contains("<none>"), "{error}");
        }
    }
}
