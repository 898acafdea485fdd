//! Text in HTML, and tables.

use std::fmt::{self, Display, Write};

/// Text from outside, shown as HTML that means nothing but the text, within elements and within quoted attributes.
///
/// Control characters, which HTML does not allow, become the replacement character.
pub(super) struct Text<'a>(pub &'a str);

impl Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                '\t' | '\n' | '\r' => formatter.write_char(' ')?,
                _ if character.is_control() => formatter.write_char('\u{fffd}')?,
                _ => formatter.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Text whose direction of writing must not turn what stands around it.
pub(super) fn isolated(text: &str) -> String {
    format!("<bdi>{}</bdi>", Text(text))
}

/// A share from 0 to 1 with four decimals.
pub(super) fn share(value: f64) -> String {
    format!("{value:.4}")
}

/// A share with its standard error below, where there is one.
pub(super) fn share_and_error(value: f64, error: Option<f64>) -> String {
    // Where all users gain alike, the sample says nothing of the error.
    let error = error.filter(|error| *error > 0.0);
    share(value) + &error.map(|error| format!(" <small>±{}</small>", share(error))).unwrap_or_default()
}

/// A table. All strings are HTML.
pub(super) struct Table {
    /// A name that no other element of the page has.
    pub id: String,
    /// What it shows.
    pub caption: String,
    /// Heads of the columns, the first one that of the rows' heads.
    pub head: Vec<String>,
    /// A head and cells for each row.
    pub rows: Vec<(String, Vec<String>)>,
}

impl Display for Table {
    /// The table in a box of its own, which scrolls where the page is too narrow.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { id, caption, head, rows } = self;
        write!(formatter, "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-labelledby=\"{id}\">")?;
        write!(formatter, "<table><caption id=\"{id}\"><span>{caption}</span></caption>\n<thead><tr>")?;
        for cell in head {
            write!(formatter, "<th scope=\"col\">{cell}</th>")?;
        }
        formatter.write_str("</tr></thead>\n<tbody>")?;
        for (head, cells) in rows {
            write!(formatter, "\n<tr><th scope=\"row\">{head}</th>")?;
            for cell in cells {
                write!(formatter, "<td>{cell}</td>")?;
            }
            formatter.write_str("</tr>")?;
        }
        formatter.write_str("\n</tbody></table></div>\n")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_stays_text() {
        let hostile = "<script>alert('1')</script> \" onload=\"x\" &amp;\n\u{0}\u{1b}\u{85}";
        let safe = Text(hostile).to_string();
        assert_eq!(
            safe,
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &quot; onload=&quot;x&quot; &amp;amp; \u{fffd}\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn shares_have_four_decimals_and_their_errors_below() {
        assert_eq!([0.4375, 1.0, 0.0, 0.99999].map(share), ["0.4375", "1.0000", "0.0000", "1.0000"]);
        assert_eq!(share_and_error(0.5, Some(0.05)), "0.5000 <small>±0.0500</small>");
        assert_eq!(share_and_error(0.0, Some(0.0)), "0.0000");
    }

    proptest! {
        #[test]
        fn no_text_opens_a_tag_an_attribute_or_an_entity(text in any::<String>()) {
            let safe = Text(&text).to_string();
            prop_assert!(!safe.contains(['<', '>', '"', '\'']));
            for (at, _) in safe.match_indices('&') {
                let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
                prop_assert!(known.iter().any(|entity| safe[at..].starts_with(entity)));
            }
        }
    }
}
