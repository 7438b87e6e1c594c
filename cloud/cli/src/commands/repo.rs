//! Commands about the repository of models.

pub(crate) mod delegate;
pub(crate) mod init;
pub(crate) mod refresh;
pub(crate) mod rotate;
pub(crate) mod show;
pub(crate) mod sign;

use serde_json::Value;

use crate::output;
use crate::repository::KeysArgs;
use crate::time::parse_span;

/// What every command says that signs.
#[derive(clap::Args)]
pub(crate) struct Signing {
    #[command(flatten)]
    keys: KeysArgs,
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
