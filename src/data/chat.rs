//! A prompt within the markers that a model's chats have.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value as Variable, context};
use serde_json::Value;

use super::error::DataError;
use super::prompt::PromptTemplate;
use super::special_tokens::Beside;

/// Name of a file with the chat template, which newer checkpoints have beside the tokenizer.
const TEMPLATE_FILE: &str = "chat_template.jinja";

/// Steps that a chat template may take, so that none runs for ever.
const MOST_STEPS: u64 = 1_000_000;

impl PromptTemplate {
    /// This wording as the user's message of a chat, up to where the model answers.
    ///
    /// The chat template is `chat_template.jinja` beside the tokenizer's file, or `chat_template` of
    /// `tokenizer_config.json`; it is rendered as `transformers` does it, except that no date is known to it.
    ///
    /// # Errors
    /// If there is no chat template, or it does not hold the message exactly once.
    pub fn in_chat(&self, tokenizer: &Path) -> Result<Self, DataError> {
        let (path, source) = read(tokenizer)?;
        let unusable = |problem: String| DataError::Template { path: path.clone().into(), problem };
        let config = Beside::read(Some(tokenizer), "tokenizer_config.json").map_err(unusable)?;
        let token = |field: &str| config.text(field).map_err(unusable);
        let (bos_token, eos_token) = (token("bos_token")?, token("eos_token")?);
        let text = render(&source, self.text(), bos_token, eos_token);
        let text = text.map_err(|error| unusable(format!("chat template: {error:#}")))?;
        Self::parse(&text).map_err(|problem| unusable(format!("after applying the chat template, {problem}")))
    }
}

/// The chat template with the name of its file.
fn read(tokenizer: &Path) -> Result<(String, String), DataError> {
    let file = tokenizer.with_file_name(TEMPLATE_FILE);
    if file.exists() {
        let text = std::fs::read_to_string(&file).map_err(|error| DataError::io(&file, "read", error))?;
        return Ok((file.display().to_string(), text));
    }
    let unusable = |problem: String| DataError::Template { path: tokenizer.into(), problem };
    let config = Beside::read(Some(tokenizer), "tokenizer_config.json").map_err(unusable)?;
    let template = match config.content.get("chat_template") {
        // Several, by name.
        Some(Value::Array(named)) => {
            let default = named.iter().find(|named| named.get("name").and_then(Value::as_str) == Some("default"));
            default.and_then(|named| named.get("template"))
        }
        template => template,
    };
    match template.and_then(Value::as_str) {
        Some(template) => Ok((config.name, template.to_owned())),
        None => Err(unusable(format!(
            "the folder has no {TEMPLATE_FILE} and no tokenizer_config.json with a chat_template"
        ))),
    }
}

fn render(source: &str, message: &str, bos: Option<&str>, eos: Option<&str>) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    let refuse = |problem: String| Err::<String, _>(minijinja::Error::new(ErrorKind::InvalidOperation, problem));
    environment.add_function("raise_exception", refuse);
    let token = |token: Option<&str>| token.map_or(Variable::UNDEFINED, Variable::from);
    let chat = context! {
        messages => [context! { role => "user", content => message }],
        add_generation_prompt => true,
        bos_token => token(bos),
        eos_token => token(eos),
        tools => (),
        documents => (),
    };
    let source = without_marks_of_training(source);
    match environment.render_str(&source, &chat) {
        // It has no other way than to ask for today's date.
        Err(error) if error.kind() == ErrorKind::UnknownFunction && source.contains("strftime_now") => {
            environment.add_function("strftime_now", |format: String| DATE.strftime(&format).to_string());
            environment.render_str(&source, &chat)
        }
        rendered => rendered,
    }
}

/// What is the day for templates that insist on one.
const DATE: jiff::civil::Date = jiff::civil::date(2025, 1, 1);

/// A template without the tags by which `transformers` finds what an assistant said, and which mean nothing else.
fn without_marks_of_training(source: &str) -> String {
    let mut source = source.to_owned();
    for name in ["generation", "endgeneration"] {
        for (open, close) in [("{%", "%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%-", "-%}")] {
            // A comment has the same space around it.
            let comment = format!("{open} {close}").replace('%', "#");
            source = source.replace(&format!("{open} {name} {close}"), &comment);
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{{ bos_token }}{% for message in messages %}\n{{ '<|im_start|>' + message['role'] + '\\n' + \
        message.content.strip() + '<|im_end|>\\n' }}{% endfor %}\n{% if add_generation_prompt %}\n    <|im_start|>assistant\n{% endif %}";

    fn in_chat(files: &[(&str, String)]) -> Result<PromptTemplate, DataError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let template = PromptTemplate::parse("\nFor {domain}: {history}\nNext:\n").unwrap();
        template.in_chat(&folder.path().join("tokenizer.json"))
    }

    fn config(template: Value) -> (&'static str, String) {
        let config = serde_json::json!({"chat_template": template, "bos_token": {"content": "<s>"}});
        ("tokenizer_config.json", config.to_string())
    }

    #[test]
    fn the_wording_is_the_users_message() {
        let wanted = "<s><|im_start|>user\nFor {domain}: {history}\nNext:<|im_end|>\n    <|im_start|>assistant\n";
        let named = serde_json::json!([{"name": "tools", "template": ""}, {"name": "default", "template": CHATML}]);
        for file in [config(CHATML.into()), config(named)] {
            assert_eq!(in_chat(&[file]).unwrap().text(), wanted);
        }
        let other = in_chat(&[config("".into()), (TEMPLATE_FILE, "file {{ messages[0].content }}".into())]);
        assert!(other.unwrap().text().starts_with("file \nFor"));
    }

    #[test]
    fn what_templates_of_other_families_ask_for_is_there() {
        let template = "{{ bos_token }}{{ strftime_now('%d %B %Y') }}{% if tools %}tools{% endif %}|{%- generation -%} {{ messages[0].content }}{% endgeneration %}{{ eos_token }}";
        let config = serde_json::json!({"chat_template": template});
        let found = in_chat(&[("tokenizer_config.json", config.to_string())]).unwrap();
        assert_eq!(found.text(), "01 January 2025|\nFor {domain}: {history}\nNext:\n");
        let either = "{% if strftime_now is defined %}today{% else %}no day{% endif %}{{ messages[0].content }}";
        assert!(in_chat(&[self::config(either.into())]).unwrap().text().starts_with("no day"));
    }

    #[test]
    fn a_template_that_cannot_be_used_is_an_error() {
        for (template, wanted) in [
            ("{% for", "chat template"),
            ("{{ raise_exception('no system message') }}", "no system message"),
            ("{% for i in range(10000) %}{% for j in range(10000) %}{{ i }}{% endfor %}{% endfor %}", "fuel"),
            ("no message", "exactly once"),
            ("{{ messages[0].content }}{{ messages[0].content }}", "2 times"),
            ("{{ unknown.thing.of }}", "undefined"),
        ] {
            let error = in_chat(&[config(template.into())]).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        for files in [vec![], vec![config(7.into())], vec![("tokenizer_config.json", "{".to_owned())]] {
            assert!(in_chat(&files).is_err());
        }
    }
}
