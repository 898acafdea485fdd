//! The interactions that a shop was made of, kept so that a later one continues from them.

use std::path::{Path, PathBuf};

use super::added::added_items;
use super::config::FitConfig;
use super::language_model::trial_model;
use super::shop::Shop;
use crate::data::{PreparedCatalog, RawConfig, RawEvents};
use crate::input_error::InputError;
use crate::models::files::write_atomically;
use crate::run::RunError;

/// The files of interactions and of items in a shop's folder.
fn files(shop: &Path) -> [PathBuf; 2] {
    ["events.csv", "items.csv"].map(|name| shop.join(name))
}

fn write(events: &RawEvents, shop: &Path) -> Result<(), RunError> {
    for (file, text) in files(shop).iter().zip(events.as_csv()) {
        write_atomically(file, &text)?;
    }
    Ok(())
}

impl FitConfig {
    /// The files of interactions and items that are kept.
    pub(super) fn kept(&self) -> [PathBuf; 2] {
        files(&self.out)
    }

    /// Keeps the data's interactions in the folder, merged with those of the shop that it continues from, and returns
    /// the configuration that the shop is made by. Rows with histories are used where they are.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, and a shop that has no interactions to continue from.
    pub(super) fn keep(&self, raw: Option<RawConfig>) -> Result<Self, RunError> {
        let guessed = raw.unwrap_or_else(|| self.raw.clone());
        let config = Self { raw: guessed, ..self.clone() };
        let read = RawEvents::read(&self.data, &config.raw)?;
        let Some(from) = &self.from else {
            if let Some(events) = read {
                write(&events, &self.out)?;
            }
            return Ok(config);
        };
        let shop = Shop::read(from)?;
        let [old_events, old_items] = files(from);
        let problem = "has no interactions to continue from: the shop was made from rows with histories";
        let (Some(columns), Some(read), true) = (&shop.columns, read, old_events.is_file()) else {
            return Err(InputError::new(from, problem).into());
        };
        let old = RawEvents::read(&old_events, &RawEvents::config(&old_items, columns))?;
        let mut all = old.ok_or_else(|| InputError::new(from, problem))?;
        all.add_titles(added_items(from)?.into_iter().map(|item| (item.id, item.title)));
        all.join(read);
        write(&all, &self.out)?;
        let [data, items] = files(&self.out);
        let domain = match self.domain == Self::DOMAIN {
            true => PreparedCatalog::load(&shop.data)?.domain,
            false => self.domain.clone(),
        };
        // The trial's model, not the refitted one: it has not seen the newest interactions, which may be validation or
        // test rows now.
        let model = trial_model(from)?;
        let raw = RawEvents::config(&items, &RawConfig { split: columns.split, ..config.raw.clone() });
        Ok(Self { data, raw, model, domain, ..config })
    }
}
