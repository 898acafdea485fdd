//! Synthetic listening histories with a pattern to learn.

use std::fmt::Write;
use std::path::Path;

use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::models::ModelError;
use crate::models::files::write_atomically;
use crate::models::random::generator;

const BANDS: [&str; 12] = [
    "Copper Harbor",
    "The Night Gardeners",
    "Ada and the Engines",
    "Slow Meridian",
    "Paper Comets",
    "Old Salt Choir",
    "Violet Static",
    "The Lamplighters",
    "Northern Orchard",
    "Glass Tigers",
    "Miss Entropy",
    "Quiet Riverboat",
];
const ALBUMS: [&str; 8] = [
    "First Light",
    "Second Wind",
    "Three Bridges",
    "Four Corners",
    "Fifth Season",
    "Six Degrees",
    "Seven Hills",
    "Last Train",
];
/// Marks the demo's generators.
const DEMO: u64 = 0x4445_4d4f_0000_0000;
/// Choices of a listener.
const CHOICES: usize = 9;
/// One album in this many is random.
const RANDOM_ONE_IN: u32 = 10;

/// Writes `train.csv`, `valid.csv`, `test.csv` and `info.txt`: 160 listeners to train, 80 each to validate and test.
///
/// A listener has two bands and turns from one to the other with each album, going through each band's albums in order
/// from where a throw of the dice puts the beginning.
///
/// # Errors
///
/// A file that cannot be written.
pub fn write_listeners(folder: &Path, seed: u64) -> Result<(), ModelError> {
    std::fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
    let titles: Vec<String> =
        BANDS.iter().flat_map(|band| ALBUMS.iter().map(move |album| format!("{band} - {album}"))).collect();
    let info: String = titles.iter().enumerate().map(|(id, title)| format!("{title}\t{id}\n")).collect();
    write_atomically(&folder.join("info.txt"), info.as_bytes())?;
    let parts = [
        ("train", 0..160, 2..CHOICES),
        ("valid", 160..240, CHOICES - 1..CHOICES),
        ("test", 240..320, CHOICES - 1..CHOICES),
    ];
    for (name, listeners, targets) in parts {
        let mut csv = "user_id,history_item_title,item_title,history_item_id,item_id\n".to_owned();
        for listener in listeners {
            let choices = choices(seed, listener);
            for target in targets.clone() {
                let history = &choices[..target];
                let quoted: Vec<String> = history.iter().map(|&item| format!("'{}'", titles[item])).collect();
                let target = choices[target];
                writeln!(csv, "u{listener},\"[{}]\",{},\"{history:?}\",{target}", quoted.join(", "), titles[target])
                    .expect("a string can be written to");
            }
        }
        write_atomically(&folder.join(format!("{name}.csv")), csv.as_bytes())?;
    }
    Ok(())
}

fn choices(seed: u64, listener: u64) -> Vec<usize> {
    let mut rng = generator([seed, DEMO, listener, 0]);
    let bands: Vec<usize> = (0..BANDS.len()).collect();
    let pair: Vec<usize> = bands.sample(&mut rng, 2).copied().collect();
    let mut next = [rng.random_range(0..3), rng.random_range(0..3)];
    let choice = |turn: usize| {
        if rng.random_ratio(1, RANDOM_ONE_IN) {
            return rng.random_range(0..BANDS.len() * ALBUMS.len());
        }
        let which = turn % 2;
        let item = pair[which] * ALBUMS.len() + next[which] % ALBUMS.len();
        next[which] += 1;
        item
    };
    (0..CHOICES).map(choice).collect()
}
