//! `mayfly healthcheck`: for containers, whose images hold nothing else that could ask.

use std::time::Duration;

use clap::Args;

use super::Failure;

/// The arguments of `mayfly healthcheck`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Where the server's health is asked for
    #[arg(
        long,
        env = "MAYFLY_HEALTHCHECK_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:2112/healthz"
    )]
    url: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::defect)?;
    runtime.block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(3))
            .build()
            .map_err(Failure::defect)?;
        let unreachable =
            |error: reqwest::Error| Failure::dependency(format!("{}: {error}", arguments.url));
        let response = client
            .get(&arguments.url)
            .send()
            .await
            .map_err(unreachable)?;
        if response.status().is_success() {
            println!("serving");
            Ok(())
        } else {
            Err(Failure::operation(format!(
                "{}: {}",
                arguments.url,
                response.status()
            )))
        }
    })
}
