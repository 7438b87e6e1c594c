//! Commands about the repository of models.

pub(crate) mod cosign;
pub(crate) mod delegate;
pub(crate) mod init;
pub(crate) mod refresh;
pub(crate) mod remove;
pub(crate) mod rotate;
pub(crate) mod show;
pub(crate) mod sign;

use serde_json::Value;

use crate::client::Client;
use crate::output;
use crate::repository::{Draft, DraftArgs, Files, Keys, KeysArgs, Remote, publish};
use crate::time::parse_span;

/// What every command says that signs.
#[derive(clap::Args)]
pub(crate) struct Signing {
    #[command(flatten)]
    keys: KeysArgs,
    #[command(flatten)]
    draft: DraftArgs,
    /// How long what is signed is good.
    #[arg(long = "for", default_value = "365d", value_name = "TIME", value_parser = parse_span)]
    span: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Signing {
    /// Until when what is signed now is good, Unix seconds.
    fn expires_s(&self) -> i64 {
        output::now_s() + i64::from(self.span)
    }

    /// The keys at hand.
    fn open_keys(&self, config: &crate::config::Config) -> anyhow::Result<Keys> {
        Ok(Keys::open(&self.keys, config)?.for_draft(&self.draft))
    }

    /// Publishes what was signed, or puts it where others add their signatures.
    fn finish(&self, client: &Client, remote: &Remote, files: &Files) -> anyhow::Result<()> {
        let Some(path) = &self.draft.path else {
            tell(&publish(client, files, None)?, self.json);
            return Ok(());
        };
        Draft { files: files.clone() }.write(path)?;
        for (role, hash) in files.keys().filter_map(|role| Some((role, remote.hash(role)?))) {
            eprintln!("the draft builds on the {role} with SHA-256 {hash}");
        }
        eprintln!("others sign it by: outrigger repo cosign {}", path.display());
        Ok(())
    }
}

/// Says which versions hold now.
fn tell(versions: &Value, json: bool) {
    if json {
        return output::json(versions);
    }
    let named = versions.as_object().into_iter().flatten();
    let text: Vec<_> = named.map(|(role, version)| format!("{role} {version}")).collect();
    output::line(&format!("the repository has {}", text.join(", ")));
}
