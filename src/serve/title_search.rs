//! Finding items by their titles, with typos.

use crate::data::Catalog;

/// Share of a query's groups of three characters that a title must have.
const ALIKE: f64 = 0.4;

/// The catalog's titles as they are compared.
pub(super) struct TitleSearch {
    titles: Vec<(String, Vec<[char; 3]>)>,
}

impl TitleSearch {
    pub fn new(catalog: &Catalog) -> Self {
        let comparable = |title: &str| {
            let title = title.to_lowercase();
            let groups = groups(&title);
            (title, groups)
        };
        Self { titles: catalog.items().iter().map(|item| comparable(&item.title)).collect() }
    }

    /// Places in the catalog of the items whose titles are most alike, best first: those that have the whole text, and
    /// then by the share of its groups of three characters.
    pub fn find(&self, text: &str, most: usize) -> Vec<usize> {
        let text = text.trim().to_lowercase();
        if text.is_empty() {
            return (0..self.titles.len().min(most)).collect();
        }
        let wanted = groups(&text);
        let score = |(title, own): &(String, Vec<[char; 3]>)| {
            if title.contains(&text) {
                return 1.0 + text.len() as f64 / title.len() as f64;
            }
            let common = wanted.iter().filter(|group| own.binary_search(group).is_ok()).count();
            common as f64 / wanted.len().max(1) as f64
        };
        let scored = self.titles.iter().enumerate().map(|(place, title)| (score(title), place));
        let mut found: Vec<(f64, usize)> = scored.filter(|(score, _)| *score >= ALIKE).collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.into_iter().take(most).map(|(_, place)| place).collect()
    }
}

/// A text's groups of three characters, sorted; a space stands before and behind it.
fn groups(text: &str) -> Vec<[char; 3]> {
    let characters: Vec<char> = std::iter::once(' ').chain(text.chars()).chain([' ']).collect();
    let mut groups: Vec<[char; 3]> = characters.windows(3).map(|group| [group[0], group[1], group[2]]).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Item;

    #[test]
    fn titles_are_found_by_their_parts_and_with_typos() {
        let titles = ["Red fountain pen", "Blue notebook", "Red pen", "Émail blanc"];
        let item = |(id, title): (usize, &&str)| Item { id: id.to_string(), title: title.to_string() };
        let search = TitleSearch::new(&Catalog::new(titles.iter().enumerate().map(item).collect()).unwrap());
        assert_eq!(search.find("PEN", 9), [2, 0]);
        assert_eq!(search.find("noetbook", 9), [1]);
        assert_eq!(search.find("fuontain pen", 9)[0], 0);
        assert_eq!(search.find("émail", 9), [3]);
        assert!(search.find("zzzz", 9).is_empty());
        assert_eq!(search.find("  ", 2), [0, 1]);
        assert_eq!(search.find("p", 9).len(), 2);
    }
}
