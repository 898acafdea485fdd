//! What the model reads and what it writes, as text and as tokens.

use tokenizers::Tokenizer;

use super::error::DataError;
use super::tokenizer::{encode, encoded};

const HISTORY: &str = "{history}";
const DOMAIN: &str = "{domain}";

/// The wording around a history.
///
/// `{history}` occurs once and stands for the quoted titles; `{domain}` may occur anywhere and stands for the kind of
/// item. Other braces are plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTemplate {
    text: String,
    history_at: usize,
}

impl Default for PromptTemplate {
    /// A wording that works for any kind of item.
    fn default() -> Self {
        let text = "One customer's record of {domain} stands below, oldest first. Every title is in double quotes, \
                    with commas in between. Weigh the whole record, the latest entries most, and name the title \
                    that this customer picks next.\n\n\
                    Record:\n{history}\n\n\
                    Next:\n";
        Self::parse(text).expect("the default has one place for the history")
    }
}

impl PromptTemplate {
    /// Takes a wording.
    ///
    /// # Errors
    /// What is wrong with it, if there is not exactly one `{history}` or nothing before it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut places = text.match_indices(HISTORY).map(|(at, _)| at);
        match (places.next(), places.count()) {
            (Some(0), 0) => Err(format!("the template starts with {HISTORY}; put some text before it")),
            (Some(history_at), 0) => Ok(Self { text: text.into(), history_at }),
            (first, more) => {
                let times = more + usize::from(first.is_some());
                Err(format!("the template must contain {HISTORY} exactly once, but has it {times} times"))
            }
        }
    }

    /// The wording with its placeholders.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The wording for one kind of item.
    pub fn fill(&self, domain: &str) -> Prompt {
        let head = self.text[..self.history_at].replace(DOMAIN, domain);
        let tail = self.text[self.history_at + HISTORY.len()..].replace(DOMAIN, domain);
        Prompt { begin: None, head, tail }
    }
}

/// A template in which only the history is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The token before the text.
    begin: Option<u32>,
    head: String,
    tail: String,
}

/// The tokens of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// The tokens of the whole text.
    pub tokens: Vec<u32>,
    /// How many of the newest titles the text has.
    pub titles: usize,
}

impl Prompt {
    /// The prompt with a token before its text, or none.
    pub fn beginning_with(self, begin: Option<u32>) -> Self {
        Self { begin, ..self }
    }

    /// Tokens of what stands before the history.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn encode_head(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, DataError> {
        self.encode_text(tokenizer, &self.head)
    }

    fn encode_text(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, DataError> {
        let tokens = encode(tokenizer, text)?;
        Ok(self.begin.into_iter().chain(tokens).collect())
    }

    /// The whole text for a history, oldest title first.
    pub fn render(&self, titles: &[&str]) -> String {
        format!("{}{}{}", self.head, quoted_list(titles), self.tail)
    }

    /// Tokens of the prompt with as many of the newest titles as fit, each whole.
    ///
    /// The text is encoded as a whole for every number of titles that is tried, so the tokens are those of
    /// [`render`](Self::render), after the token that begins it. `place` names the row or user in errors.
    ///
    /// # Errors
    /// If there is no title, the newest title alone does not fit, or the tokenizer refuses the text.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        titles: &[&str],
        max_tokens: usize,
        place: impl Fn() -> String,
    ) -> Result<EncodedPrompt, DataError> {
        let Some(newest) = titles.last() else {
            return Err(DataError::NoTitles);
        };
        let newest_titles = |count: usize| self.encode_text(tokenizer, &self.render(&titles[titles.len() - count..]));
        let mut tokens = newest_titles(titles.len())?;
        if tokens.len() <= max_tokens {
            return Ok(EncodedPrompt { tokens, titles: titles.len() });
        }
        // Halving, because a long history of long titles is slow to encode title by title.
        let mut fitting = None;
        let (mut fits, mut too_many) = (0, titles.len());
        while too_many - fits > 1 {
            let count = fits + (too_many - fits) / 2;
            let candidate = newest_titles(count)?;
            if candidate.len() <= max_tokens {
                fits = count;
                fitting = Some(EncodedPrompt { tokens: candidate, titles: count });
            } else {
                too_many = count;
                tokens = candidate;
            }
        }
        fitting.ok_or_else(|| DataError::TooLong {
            place: place(),
            what: "the prompt with only the newest title",
            tokens: tokens.len(),
            max_tokens,
            title: (*newest).into(),
        })
    }

    /// For each token of the prompt for a history, the place in `titles` of the title that it belongs to; none for the
    /// wording around the history.
    ///
    /// A title has its quotes and the comma after it. A token across a border belongs to the side with more of its
    /// bytes, or else to the first.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn titles_of_tokens(&self, tokenizer: &Tokenizer, titles: &[&str]) -> Result<Vec<Option<usize>>, DataError> {
        let text = self.render(titles);
        // Where parts end: what stands before the history, each title, what stands after.
        let mut ends = vec![self.head.len()];
        for (at, title) in titles.iter().enumerate() {
            let comma = if at + 1 < titles.len() { ", ".len() } else { 0 };
            ends.push(ends[at] + "\"\"".len() + title.len() + comma);
        }
        ends.push(text.len());
        let encoding = encoded(&text, || tokenizer.encode(text.as_str(), false))?;
        let part_of = |&(start, end): &(usize, usize)| {
            let bytes = |part: usize| {
                let from = if part == 0 { 0 } else { ends[part - 1] };
                end.min(ends[part]).saturating_sub(start.max(from))
            };
            let first = ends.partition_point(|&part_end| part_end <= start).min(ends.len() - 1);
            let touched = (first + 1..ends.len()).take_while(|&part| ends[part - 1] < end);
            touched.fold(first, |best, part| if bytes(part) > bytes(best) { part } else { best })
        };
        let title_of = |part: usize| (1..=titles.len()).contains(&part).then(|| part - 1);
        let begin = self.begin.map(|_| None);
        Ok(begin.into_iter().chain(encoding.get_offsets().iter().map(part_of).map(title_of)).collect())
    }
}

/// Titles in double quotes, joined by commas.
pub fn quoted_list(titles: &[&str]) -> String {
    let quoted: Vec<_> = titles.iter().map(|title| format!("\"{title}\"")).collect();
    quoted.join(", ")
}

/// What the model writes for an item, before the end token.
pub fn target_text(title: &str) -> String {
    format!("\"{title}\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::train_bpe;

    fn place() -> String {
        "train.csv, line 2".into()
    }

    #[test]
    fn template_has_one_place_for_the_history() {
        assert!(PromptTemplate::parse("no place").unwrap_err().contains("0 times"));
        assert!(PromptTemplate::parse("a {history} b {history}").unwrap_err().contains("2 times"));
        assert!(PromptTemplate::parse("{history} b").unwrap_err().contains("before"));
        assert!(PromptTemplate::parse("").is_err());
    }

    #[test]
    fn placeholders_in_titles_and_domain_stay_text() {
        let template = PromptTemplate::parse("{x} {domain}s, {{domain}}: {history}\n{domain} {}").unwrap();
        let prompt = template.fill("{history}");
        assert_eq!(
            prompt.render(&["{domain}", "say \"{history}\""]),
            "{x} {history}s, {{history}}: \"{domain}\", \"say \"{history}\"\"\n{history} {}"
        );
    }

    #[test]
    fn default_ends_with_a_line_for_the_answer() {
        let text = PromptTemplate::default().fill("films").render(&["A", "B"]);
        assert!(text.contains("record of films"));
        assert!(text.contains("Record:\n\"A\", \"B\"\n\nNext:\n"));
        assert!(text.ends_with(":\n"));
    }

    #[test]
    fn the_oldest_titles_are_left_out_whole() {
        let tokenizer = train_bpe(&["plain text"], 257).unwrap();
        let prompt = PromptTemplate::parse("H:{history}\n").unwrap().fill("");
        let titles = ["first", "second", "third", "4"];
        for max_tokens in 0..60 {
            // With bytes as tokens the length of the text is the number of tokens.
            let fitting = (1..=4).rev().find(|&count| prompt.render(&titles[4 - count..]).len() <= max_tokens);
            match (prompt.encode(&tokenizer, &titles, max_tokens, place), fitting) {
                (Ok(encoded), Some(count)) => {
                    assert_eq!(encoded.titles, count);
                    let text = tokenizer.decode(&encoded.tokens, false).unwrap();
                    assert_eq!(text, prompt.render(&titles[4 - count..]));
                }
                (Err(DataError::TooLong { tokens, .. }), None) => {
                    assert_eq!(tokens, "H:\"4\"\n".len())
                }
                (other, wanted) => panic!("{max_tokens}: {other:?}, wanted {wanted:?}"),
            }
        }
    }

    #[test]
    fn every_token_of_a_title_is_known_by_it() {
        let prompt = PromptTemplate::parse("Head \"of\" {history} and tail").unwrap().fill("");
        let titles = ["Zoë's “best”, 2", "", "Zoë's “best”, 2", "\", \""];
        // With bytes as tokens every byte is where the text has it.
        let bytes = train_bpe(&["text"], 257).unwrap();
        let owners = prompt.titles_of_tokens(&bytes, &titles).unwrap();
        let lengths = [titles[0].len() + 4, 4, titles[2].len() + 4, titles[3].len() + 2];
        let mut expected = vec![None; prompt.head.len()];
        for (title, length) in lengths.into_iter().enumerate() {
            expected.extend(vec![Some(title); length]);
        }
        expected.extend(vec![None; " and tail".len()]);
        // A character of several bytes is at one place for all of them, which does not matter within a title.
        assert_eq!(owners, expected);
        // Larger tokens: as many as the prompt has, and `", "` across two titles goes with the first.
        let words = train_bpe(&[prompt.render(&titles), "\"a\", \"b\", \"c\"".into()], 400).unwrap();
        let owners = prompt.titles_of_tokens(&words, &["a", "b"]).unwrap();
        let tokens = encode(&words, &prompt.render(&["a", "b"])).unwrap();
        assert_eq!(owners.len(), tokens.len());
        assert!(owners.contains(&Some(0)) && owners.contains(&Some(1)));
        assert!(owners[0].is_none() && owners[owners.len() - 1].is_none());
        assert!(owners.iter().flatten().is_sorted());
    }

    #[test]
    fn the_token_that_begins_a_prompt_stands_there_once_and_counts() {
        let tokenizer = train_bpe(&["text"], 257).unwrap();
        let plain = PromptTemplate::parse("H:{history}\n").unwrap().fill("");
        let prompt = plain.clone().beginning_with(Some(0));
        let longest = plain.render(&["a", "b"]).len();
        let with = prompt.encode(&tokenizer, &["a", "b"], longest + 1, place).unwrap();
        let without = plain.encode(&tokenizer, &["a", "b"], longest, place).unwrap();
        assert_eq!(with.tokens, [vec![0], without.tokens].concat());
        assert_eq!(prompt.encode(&tokenizer, &["a", "b"], longest, place).unwrap().titles, 1);
        let head = prompt.encode_head(&tokenizer).unwrap();
        assert!(with.tokens.starts_with(&head) && head.len() == 3);
        let owners = prompt.titles_of_tokens(&tokenizer, &["a", "b"]).unwrap();
        assert_eq!((owners.len(), owners[3]), (with.tokens.len(), Some(0)));
    }

    #[test]
    fn a_prompt_needs_a_title() {
        let tokenizer = train_bpe(&["text"], 257).unwrap();
        let encoded = PromptTemplate::default().fill("items").encode(&tokenizer, &[], 512, place);
        assert!(matches!(encoded, Err(DataError::NoTitles)));
    }
}
