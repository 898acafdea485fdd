use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::interrupt::interrupted;
use super::outputs::{check_json, write_json};
use super::terminal::{is_quiet, print};
use super::{CliError, SeedArg, names_of};
use crate::data::{FewerUsers, PrepareConfig, RawConfig, Repeats, SplitKind, prepare_unless};
use crate::text;

/// Options of `prepare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads what it finds in --data:
  train.csv, valid.csv, test.csv, info.txt     rows with histories, in either published column set; used as they are
  NAME.inter, NAME.item                        RecBole's atomic files; by default unfiltered, last two choices left out
  ratings.dat, movies.dat (or .csv)            MovieLens
  a file of reviews beside one whose name has `meta`, `item` or `product`
                                               Amazon 2018 and 2023, or your own tables: .csv, .tsv, .json, .jsonl
                                               (each also .gz) or .parquet; --data may be the file of interactions itself

Interactions that come one by one are filtered in this order: --min-rating, --from and --until, items without a title,
--repeats, --k-core; then they are split, and rows get the --max-history choices before theirs as history.")]
pub(super) struct PrepareArgs {
    /// Folder of the data, or a file of interactions
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder to make
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// Read, filter and split interactions, say what is left, and make nothing
    #[arg(long)]
    dry_run: bool,
    /// What the items are, as the prompt calls them
    #[arg(long, default_value = "items")]
    domain: String,
    /// An existing tokenizer.json; without one a byte-level BPE is trained on the data
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// The token that ends a target; found in the tokenizer or its config.json if not given
    #[arg(long, value_name = "TEXT")]
    end_token: Option<String>,
    /// Tokens of a tokenizer that is trained
    #[arg(long, default_value_t = 4096)]
    vocab_size: usize,
    /// Most titles in a prompt
    #[arg(long, default_value_t = 10)]
    max_history: usize,
    /// Most tokens of a prompt; a longer one loses its oldest titles
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// Events in a pretraining window
    #[arg(long, default_value_t = 12)]
    window: usize,
    /// File with the prompt's wording; {history} stands for the titles, {domain} for --domain
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Leave out items whose title is HTML or empty
    #[arg(long)]
    drop_markup_titles: bool,
    /// Train on the rows of all splits, for a model that is served
    #[arg(long)]
    all_train: bool,
    /// Keep the training rows of this many users, drawn at random by --seed, to see what more data brings; validation
    /// and test rows stay
    #[arg(long, value_name = "N")]
    train_users: Option<NonZeroUsize>,
    /// Write the summary as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    raw: RawArgs,
    #[command(flatten)]
    seed: SeedArg,
}

/// Options for interactions that come one by one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Interactions that come one by one")]
pub(super) struct RawArgs {
    /// File with the items' titles, if it is not found beside the interactions
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// Column of users [default: the first there is of user_id, reviewerID, userId, user, customer_id]
    #[arg(long, value_name = "NAME")]
    user_column: Option<String>,
    /// Column of items, in both files [default: parent_asin, asin, item_id, movieId, item, product_id]
    #[arg(long, value_name = "NAME")]
    item_column: Option<String>,
    /// Column of times: seconds since 1970, or milli-, micro- or nanoseconds, or dates [default: timestamp,
    /// unixReviewTime, time, date]
    #[arg(long, value_name = "NAME")]
    time_column: Option<String>,
    /// Column of ratings, for --min-rating [default: rating, overall]
    #[arg(long, value_name = "NAME")]
    rating_column: Option<String>,
    /// Column of titles [default: title, movie_title, name, item_title, product_title]
    #[arg(long, value_name = "NAME")]
    title_column: Option<String>,
    /// Column of items in the file of titles, where it is not called as in the interactions
    #[arg(long, value_name = "NAME")]
    catalog_column: Option<String>,
    /// Keep the items of that file that nobody chose, so that they can be recommended too
    #[arg(long)]
    whole_catalog: bool,
    /// Leave out interactions rated lower, or not rated
    #[arg(long, value_name = "RATING")]
    min_rating: Option<f64>,
    /// Leave out interactions before this date, as in 2015-10-01
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Leave out interactions at this date or later
    #[arg(long, value_name = "DATE")]
    until: Option<String>,
    /// What becomes of choices that a user makes again; keep takes only those out that have the same time
    #[arg(long, value_enum, value_parser = names_of::<Repeats>(), default_value_t = Repeats::Keep)]
    repeats: Repeats,
    /// Leave out users and items with fewer interactions, until all have so many [default: 5, for RecBole's files 1]
    #[arg(long, value_name = "K")]
    k_core: Option<usize>,
    /// Choices that a history has at least
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_history: usize,
    /// Deal rows out by time, or leave each user's last two choices out [default: temporal, for RecBole's files
    /// leave-one-out]
    #[arg(long, value_parser = names_of::<SplitKind>())]
    split: Option<SplitKind>,
    /// Shares of training, validation and test rows by time
    #[arg(long, value_name = "A:B:C", default_value = "8:1:1", value_parser = parse_ratio)]
    split_ratio: [u32; 3],
    /// Leave HTML and its entities in titles
    #[arg(long)]
    keep_markup: bool,
    /// Characters of a title at most; a longer one is cut at a word
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_title: usize,
    /// What becomes of validation and test rows whose item no training row has
    #[arg(long, value_parser = ["keep", "drop"], default_value = "keep")]
    cold_items: String,
}

fn parse_ratio(text: &str) -> Result<[u32; 3], String> {
    let parts: Vec<u32> = text.split(':').map(|part| part.parse().unwrap_or(0)).collect();
    match <[u32; 3]>::try_from(parts) {
        Ok(parts) if !parts.contains(&0) => Ok(parts),
        _ => Err("three whole numbers from 1, as in 8:1:1".into()),
    }
}

impl RawArgs {
    pub(super) fn config(&self) -> RawConfig {
        RawConfig {
            items: self.items.clone(),
            user_column: self.user_column.clone(),
            item_column: self.item_column.clone(),
            time_column: self.time_column.clone(),
            rating_column: self.rating_column.clone(),
            title_column: self.title_column.clone(),
            catalog_column: self.catalog_column.clone(),
            whole_catalog: self.whole_catalog,
            min_rating: self.min_rating,
            from: self.from.clone(),
            until: self.until.clone(),
            repeats: self.repeats,
            k_core: self.k_core,
            min_history: self.min_history,
            split: self.split,
            split_ratio: self.split_ratio,
            clean_titles: !self.keep_markup,
            max_title: self.max_title,
            drop_cold: self.cold_items == "drop",
        }
    }
}

pub(super) fn run(args: &PrepareArgs) -> Result<(), CliError> {
    let config = PrepareConfig {
        data: args.data.clone(),
        out: args.out.clone().unwrap_or_default(),
        domain: args.domain.clone(),
        tokenizer: args.tokenizer.clone(),
        end_token: args.end_token.clone(),
        vocab_size: args.vocab_size,
        max_history: args.max_history,
        max_tokens: args.max_tokens,
        window: args.window,
        template: args.template.clone(),
        drop_markup_titles: args.drop_markup_titles,
        all_train: args.all_train,
        train_users: args.train_users.map(|count| FewerUsers { count: count.get(), seed: args.seed.seed }),
        raw: args.raw.config(),
    };
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
