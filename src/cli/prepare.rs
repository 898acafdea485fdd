use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::interrupt::interrupted;
use super::outputs::{check_json, write_json};
use super::terminal::{is_quiet, print};
use super::{CliError, SeedArg};
use crate::data::{FewerUsers, PrepareConfig, prepare_unless};
use crate::text;

/// Options of `prepare`.
#[derive(Debug, Args)]
#[command(after_help = "\
--data can hold:
  train.csv, valid.csv, test.csv, info.txt     rows with histories, already split, in either published column set
  NAME.inter, NAME.item                        RecBole's atomic files; by default unfiltered, split leave-one-out
  ratings.dat, movies.dat (or .csv)            MovieLens
  a file of reviews beside one whose name has `meta`, `item` or `product`
                                               Amazon 2018 and 2023, or your own tables: .csv, .tsv, .json, .jsonl
                                               (each also .gz) or .parquet; --data may be the file of interactions itself

Raw interactions are filtered in this order: --min-rating, --from and --until, items without a title,
--repeats, --k-core. Then they are split. A row's history is the user's last --max-history interactions before it.")]
pub(super) struct PrepareArgs {
    #[command(flatten)]
    config: PrepareConfig,
    /// Read, filter and split raw interactions and print a summary, but write nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep the training rows of only this many users, drawn at random by --seed, to measure the effect of more data;
    /// validation and test rows stay
    #[arg(long, value_name = "N")]
    train_users: Option<NonZeroUsize>,
    /// Write the summary as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &PrepareArgs) -> Result<(), CliError> {
    if args.config.out.as_os_str().is_empty() && !args.dry_run {
        return Err(CliError::Usage("give --out DIR, or --dry-run to write nothing".into()));
    }
    let train_users = args.train_users.map(|count| FewerUsers { count: count.get(), seed: args.seed.seed });
    let config = PrepareConfig { train_users, ..args.config.clone() };
    check_json(args.json.as_deref())?;
    let shown = if args.dry_run {
        let summary = config.survey()?;
        write_json(args.json.as_deref(), &summary)?;
        text::of_raw_summary(&summary)
    } else {
        let summary = prepare_unless(&config, interrupted())?;
        write_json(args.json.as_deref(), &summary)?;
        format!("{}written to {}\n", text::of_summary(&summary), config.out.display())
    };
    if is_quiet() { Ok(()) } else { print(&shown) }
}
