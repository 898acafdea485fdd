//! Titles that are pieces of a web page instead of names.

/// Elements whose names are no English words: `<span` can only be a tag.
const UNMISTAKABLE: [&str; 25] = [
    "span", "div", "br", "hr", "img", "td", "tr", "th", "ul", "ol", "li", "dl", "dt", "h1", "h2", "h3", "h4", "h5",
    "h6", "tbody", "thead", "iframe", "noscript", "html", "svg",
];

/// Elements that a title could name in angle brackets (`Live <Video>`).
const AMBIGUOUS: [&str; 22] = [
    "a", "b", "i", "p", "s", "u", "em", "strong", "font", "small", "big", "sub", "sup", "table", "body", "head",
    "script", "style", "button", "input", "label", "center",
];

/// Whether a title carries HTML, whole or cut off, as in `<span class="a-size-medium`.
///
/// A `<` counts only where it must be a tag:
/// - an element that is no English word (`<span`, `<br>`), opened or closed;
/// - any known element that is closed (`</b>`) or has an attribute (`<a href=`);
/// - a comment or document type (`<!--`, `<!doctype`).
///
/// So `Rock & Roll <3`, `Yes <Live>`, `a < b` and `Clip <B>` are names. Entities (`&amp;`) are text.
pub fn is_markup(title: &str) -> bool {
    title.match_indices('<').any(|(at, _)| is_tag(&title[at + 1..]))
}

/// Whether the text after a `<` continues a tag.
fn is_tag(rest: &str) -> bool {
    if let Some(declaration) = rest.strip_prefix('!') {
        let doctype = declaration.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("doctype"));
        return declaration.starts_with("--") || doctype;
    }
    let (closing, rest) = match rest.strip_prefix('/') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let name = name.to_ascii_lowercase();
    if !after.is_empty() && !after.starts_with(|c: char| c.is_whitespace() || c == '>' || c == '/') {
        return false;
    }
    if UNMISTAKABLE.contains(&name.as_str()) {
        return true;
    }
    AMBIGUOUS.contains(&name.as_str())
        && if closing { after.trim_start().starts_with('>') } else { has_attribute(after) }
}

/// Whether ` name=` comes first.
fn has_attribute(text: &str) -> bool {
    let trimmed = text.trim_start();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':');
    let value = trimmed.trim_start_matches(is_name);
    trimmed.len() < text.len() && value.len() < trimmed.len() && value.trim_start().starts_with('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_of_html_are_markup() {
        for title in [
            r#"<span class="a-size-medium a-color-secondary a-text-normal"#,
            r#"Kind of Blue <span class="x">(Remastered)</span>"#,
            "<span",
            "Hits<br>Vol. 2",
            "Hits<BR/>",
            "<b>Best</b> of",
            "Best of</i>",
            r#"<a href="http://x">Live"#,
            "<font color = red>Red",
            "<!-- title -->",
            "<!DOCTYPE html>",
            "<H1>Title</H1>",
        ] {
            assert!(is_markup(title), "{title}");
        }
    }

    #[test]
    fn names_with_angle_brackets_are_no_markup() {
        for title in [
            "Rock & Roll <3",
            "Yes <Live>",
            "Yes <Live",
            "<Untitled>",
            "a < b > c",
            "x<y",
            "1</2",
            "</3",
            "Clip <B>",
            "Clip <B",
            "<I> Robot",
            "<I Robot>",
            "A<B=C",
            "<spanish> Songs",
            "<<<",
            "<",
            "</",
            "<!",
            "<!日本語",
            "Simon &amp; Garfunkel",
            "",
            "5 > 3 <日本>",
        ] {
            assert!(!is_markup(title), "{title}");
        }
    }
}
