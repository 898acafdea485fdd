//! The whole page.

use std::fs::File;
use std::io::Read;

use super::attention::{self, Examples};
use super::contents::Contents;
use super::html::Text;
use super::{curves, overview, popularity, quality, samples, speed};

/// All of the page's looks.
pub(super) const STYLE: &str = include_str!("style.css");

/// What every page begins with.
const PAGE_START: &str = "<!DOCTYPE html>";

/// Whether a file begins as every page does.
pub fn is_page(mut file: File) -> bool {
    let mut start = [0; PAGE_START.len()];
    file.read_exact(&mut start).is_ok() && start == PAGE_START.as_bytes()
}

/// The report as a page of HTML. `examples` are the prompts to look into, or why there are none.
pub fn page(contents: &Contents, examples: &Result<Examples, String>) -> String {
    let sections = [
        ("runs", "What this is", overview::section(contents)),
        ("figures", "Hit rate and NDCG", quality::section(contents)),
        ("curves", "Learning curves", curves::section(contents)),
        ("samples", "Recommendations while it trains", samples::section(contents)),
        ("speed", "Hit rate against latency", speed::section(contents)),
        ("popularity", "Popularity", popularity::section(contents)),
        ("attention", "What the thought attends to", attention::section(contents, examples)),
    ];
    let names: Vec<&str> = contents.subjects.iter().map(|subject| subject.name.as_str()).collect();
    let names = names.join(", ");
    let names = Text(&names);
    // The policy forbids everything but the style sheet within, should anything ever slip through as markup.
    let mut html = format!(
        "{PAGE_START}\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>LatentR3: {names}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>LatentR3 report</h1>\n<nav aria-label=\"Sections\"><ul>"
    );
    for (id, title, _) in &sections {
        html += &format!("<li><a href=\"#{id}\">{title}</a></li>");
    }
    html += "</ul></nav></header>\n<main>\n";
    for (id, title, content) in sections {
        html += &format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-head\">\n<h2 id=\"{id}-head\">{title}</h2>\n{content}</section>\n"
        );
    }
    html += &format!(
        "</main>\n<footer><p>Made by latentr3 {}.</p></footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    html
}
