//! `mayfly healthcheck`: for containers, whose images hold nothing else that could ask.

use std::fmt::Display;
use std::time::Duration;

use clap::Args;

use super::{Failure, innermost};

/// The arguments of `mayfly healthcheck`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Where the server's health is asked for
    #[arg(
        long,
        env = "MAYFLY_HEALTHCHECK_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:2112/healthz"
    )]
    url: reqwest::Url,
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
        let unhealthy =
            |what: &dyn Display| Failure::operation(format!("{}: {what}", arguments.url));
        let response = client
            .get(arguments.url.clone())
            .send()
            .await
            .map_err(|error| unhealthy(&innermost(&error)))?;
        if response.status().is_success() {
            println!("serving");
            Ok(())
        } else {
            Err(unhealthy(&response.status()))
        }
    })
}
