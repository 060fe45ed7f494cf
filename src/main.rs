//! The `pgusher` program.
fn main() -> anyhow::Result<()> {
    let path = std::path::PathBuf::from(std::env::args().nth(3).unwrap_or_else(|| "proxy.toml".into()));
    let config = pgusher::config::Config::load(&path)?;
    pgusher::telemetry::logs::init(&config.proxy.log)?;
    pgusher::app::serve(&config, path)
}
