//! Titles as a model should read them.

use html_escape::decode_html_entities;

use crate::data::markup::is_markup;
use crate::data::text::turns_direction;

/// The title on one line, without control characters, and if `markup` without HTML; at most `longest` characters of it,
/// cut at the end of a word where there is one in the second half. Nothing may be left.
pub(super) fn clean(title: &str, markup: bool, longest: usize) -> String {
    let mut text = title.to_owned();
    if markup {
        if is_markup(&text) {
            text = without_tags(&text);
        }
        text = decode_html_entities(&text).into_owned();
    }
    let visible: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|c| !is_unseen(*c)).collect();
    let text = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(longest) {
        None => text,
        Some((end, _)) => {
            let cut = &text[..end];
            let word = cut.rfind(' ').filter(|&at| at > end / 2 && !text[end..].starts_with(' '));
            cut[..word.unwrap_or(end)].trim_end().to_owned()
        }
    }
}

/// Marks that turn the direction of text, or take no room; the joiner of emoji is none of them.
fn is_unseen(c: char) -> bool {
    turns_direction(c) || matches!(c, '\u{200b}' | '\u{feff}')
}

/// The text outside `<..>`; a tag that is cut off goes on to the end.
fn without_tags(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        kept.push_str(&rest[..start]);
        kept.push(' ');
        rest = rest[start..].find('>').map_or("", |end| &rest[start + end + 1..]);
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_one_line_without_markup() {
        for (title, cleaned) in [
            ("  Kind \t of\n Blue\u{0} ", "Kind of Blue"),
            (r#"Hits <span class="x">(Live)</span>"#, "Hits (Live)"),
            (r#"<span class="a-size-medium a-color"#, ""),
            ("Simon &amp; Garfunkel &quot;Live&quot;", "Simon & Garfunkel \"Live\""),
            ("Caf&eacute; &#8217;n&#x2019; M&uuml;ll&nbsp;&hellip;", "Café ’n’ Müll …"),
            ("a &#x202e;b&#10;&#99999999; &nosuch; AT&T", "a b &#99999999; &nosuch; AT&T"),
            ("a \u{202e}b\u{feff}", "a b"),
            ("👩‍👩‍👧 שלום", "👩‍👩‍👧 שלום"),
            ("Yes <Live>", "Yes <Live>"),
        ] {
            assert_eq!(clean(title, true, 200), cleaned);
        }
        assert_eq!(clean("<br>&amp;", false, 200), "<br>&amp;");
    }

    #[test]
    fn long_titles_end_with_a_word() {
        assert_eq!(clean("one two three", true, 9), "one two");
        assert_eq!(clean("one two three", true, 7), "one two");
        assert_eq!(clean("ééééé", true, 3), "ééé");
        assert_eq!(clean(&"long ".repeat(1000), true, 200).chars().count(), 199);
    }
}
