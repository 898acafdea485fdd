//! `latentr3 serve`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use tracing::Level;

use super::interrupt::{hung_up, interrupted};
use super::model::warn_of_software;
use super::terminal::{is_quiet, tell};
use super::{CliError, DeviceArg};
use crate::recommend::RecommenderConfig;
use crate::run::ChosenGuidance;
use crate::serve::{ServeConfig, ServeError, Server};

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: latentr3 serve --model shop
         curl -s localhost:8080/v1/recommend -H 'Content-Type: application/json' -d '{\"history\": [\"SKU-1\"], \"top\": 3}'

Open / in a browser to try it; /openapi.json describes all routes, and /metrics is for Prometheus. The log has one \
JSON line per request, or with --quiet per server error, timeout and full queue. Ctrl-C shuts down after open \
requests are answered. SIGHUP or POST /admin/reload reloads the folder.")]
pub(super) struct ServeArgs {
    /// Shop folder (`latentr3 fit`), Hugging Face folder, run folder or name on the hub
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Prepared data; a shop folder has its own
    #[arg(long, value_name = "PREPARED")]
    data: Option<PathBuf>,
    /// Address to listen on; 0.0.0.0 or :: for all addresses of this machine
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 for any free port
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Key that clients must send as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", env = "LATENTR3_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &ServeArgs) -> Result<(), CliError> {
    warn_of_software(&args.device.device)?;
    let recommender = RecommenderConfig {
        data: args.data.clone(),
        guidance: ChosenGuidance::of_run(&args.model)?,
        device: args.device.device.clone(),
        ..RecommenderConfig::new(&args.model)
    };
    let level = if is_quiet() { Level::WARN } else { Level::INFO };
    tracing_subscriber::fmt().json().with_max_level(level).with_writer(std::io::stderr).init();
    let config = ServeConfig { recommender, host: args.host, port: args.port, api_key: args.api_key.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Start)?;
    runtime.block_on(async {
        let server = Server::start(&config).await?;
        tell(&format!("listening at http://{}", server.address()));
        let (flag, again, reloader) = (interrupted(), hung_up(), server.reloader());
        server
            .run(async move {
                while !flag.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    if again.swap(false, Ordering::Relaxed) {
                        reloader.reload().await;
                    }
                }
            })
            .await;
        Ok(())
    })
}
