//! Commands about the repository of models.

pub(crate) mod delegate;
pub(crate) mod init;
pub(crate) mod refresh;
pub(crate) mod rotate;
pub(crate) mod show;
pub(crate) mod sign;

use serde_json::Value;

use crate::output;

/// How long root and targets are good, unless said.
const LIFE: &str = "365d";

/// Says which versions hold now.
fn tell(versions: &Value, json: bool) {
    if json {
        return output::json(versions);
    }
    let named = versions.as_object().into_iter().flatten();
    let text: Vec<_> = named.map(|(role, version)| format!("{role} {version}")).collect();
    output::line(&format!("the repository has {}", text.join(", ")));
}
