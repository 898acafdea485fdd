//! `latentr3 add-items`.

use std::path::PathBuf;

use clap::Args;

use super::terminal::{is_quiet, print};
use super::{CliError, DeviceArg};
use crate::data::{Item, RawConfig, read_items};
use crate::fit::Shop;
use crate::recommend::{RecommenderConfig, add_items};

/// Options of `add-items`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: latentr3 add-items --model shop --items new.csv
         latentr3 add-items --model shop --id SKU-99 --title \"turquoise lamp\"

A language model recommends new items by their titles at once. Item transitions and SASRec cannot, until `fit` \
reads orders of them. A running server includes them after it reloads its folder.")]
pub(super) struct AddItemsArgs {
    /// Shop folder (`latentr3 fit`)
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// File with ids and titles, in any format that `fit` accepts for --items
    #[arg(long, value_name = "FILE", required_unless_present = "id")]
    items: Option<PathBuf>,
    /// Column of ids [default: as in the shop's file of items, else item_id or id]
    #[arg(long, value_name = "NAME", requires = "items")]
    item_column: Option<String>,
    /// Column of titles [default: as in the shop's file of items, else title]
    #[arg(long, value_name = "NAME", requires = "items")]
    title_column: Option<String>,
    /// Id of a single item
    #[arg(long, conflicts_with = "items", requires = "title", allow_hyphen_values = true)]
    id: Option<String>,
    /// Title of that item
    #[arg(long, requires = "id", allow_hyphen_values = true)]
    title: Option<String>,
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &AddItemsArgs) -> Result<(), CliError> {
    let config = RecommenderConfig { device: args.device.device.clone(), ..RecommenderConfig::new(&args.model) };
    let columns = if Shop::is_one(&args.model) { Shop::read(&args.model)?.columns } else { None };
    let columns = columns.unwrap_or_default();
    let items = match (&args.items, &args.id, &args.title) {
        (Some(file), ..) => {
            let catalog_column = args.item_column.clone().or(columns.catalog_column.clone());
            let title_column = args.title_column.clone().or(columns.title_column.clone());
            read_items(file, &RawConfig { catalog_column, title_column, ..columns })?
        }
        (None, Some(id), Some(title)) => vec![Item { id: id.clone(), title: title.clone() }],
        _ => return Err(CliError::Usage("give --items, or --id and --title".into())),
    };
    let (recommender, added) = add_items(&config, &items)?;
    let all = recommender.catalog().catalog.len();
    if is_quiet() { Ok(()) } else { print(&format!("added {added} items; the catalog has {all}\n")) }
}
