use std::path::PathBuf;

use clap::Args;

use super::files::{check_json, write_json};
use super::report::{print, table};
use super::{CliError, CommonArgs};
use crate::data::{PrepareConfig, Split, Splits, Summary, prepare};

/// Options of `prepare`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads folders of train.csv, valid.csv, test.csv and info.txt in either published column set, and RecBole's NAME.inter and \
NAME.item; which one it is, the files' headers say."
)]
pub(super) struct PrepareArgs {
    /// Folder of the data
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
    /// Write the summary as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) fn run(args: &PrepareArgs) -> Result<(), CliError> {
    let config = PrepareConfig {
        data: args.data.clone(),
        out: args.out.clone(),
        domain: args.domain.clone(),
        tokenizer: args.tokenizer.clone(),
        end_token: args.end_token.clone(),
        vocab_size: args.vocab_size,
        max_history: args.max_history,
        max_tokens: args.max_tokens,
        window: args.window,
        template: args.template.clone(),
        drop_markup_titles: args.drop_markup_titles,
    };
    check_json(args.json.as_deref())?;
    let summary = prepare(&config)?;
    write_json(args.json.as_deref(), &summary)?;
    if args.common.quiet {
        return Ok(());
    }
    print(&format!("{}written to {}\n", describe(&summary), args.out.display()))
}

fn describe(summary: &Summary) -> String {
    let mut rows = vec![
        ["split", "rows", "users", "cold targets", "history", "prompt tokens", "shortened"].map(str::to_owned).to_vec(),
    ];
    for split in Split::ALL {
        let part = summary.splits.get(split);
        rows.push(vec![
            split.name().into(),
            part.rows.to_string(),
            part.users.to_string(),
            format!("{} ({:.1}%)", part.cold_targets, 100.0 * part.cold_share),
            format!("{:.1}", part.history.mean),
            format!("{:.1} (most {})", part.prompt_tokens.mean, part.prompt_tokens.max),
            part.shortened_prompts.to_string(),
        ]);
    }
    let sum = |counts: &Splits<usize>| Split::ALL.into_iter().map(|split| *counts.get(split)).sum::<usize>();
    let dropped = &summary.dropped;
    let dropped = match dropped.markup_items + dropped.untitled_items {
        0 => String::new(),
        items => format!(
            "; left out {items} items, {} rows that chose them and {} whose history was nothing else",
            sum(&dropped.rows_by_item),
            sum(&dropped.rows_by_history)
        ),
    };
    format!(
        "{}\n{} users, {} items, {} titles ({} of them shared by {} items), {} titles are markup{}\n\
         {} tokens, the end token is `{}` ({}); an item has {:.1} tokens, at most {}\n",
        table(&rows),
        summary.users,
        summary.items,
        summary.titles,
        summary.shared_titles,
        summary.items_with_shared_title,
        summary.markup_titles,
        dropped,
        summary.vocab_size,
        summary.end_token.text,
        summary.end_token.id,
        summary.target_tokens.mean,
        summary.target_tokens.max,
    )
}
