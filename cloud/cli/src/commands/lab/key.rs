//! `outrigger lab key`.

use crate::config::{Config, LAB_KEY};
use crate::output;

pub(crate) fn run() -> anyhow::Result<()> {
    let key = Config::open()?.ensure_key(LAB_KEY)?.public();
    output::line(&hex::encode(key.0));
    eprintln!("An operator lets it measure: outrigger lab delegate KEY -o FILE");
    Ok(())
}
