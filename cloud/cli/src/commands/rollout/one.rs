//! Arguments of `rollout history`, `watch`, `approve`, `pause`, `resume` and `abort`: all are about one roll-out.

use protocol::id::RolloutId;

/// Which roll-out, and how it is shown.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The roll-out.
    #[arg(value_name = "ID")]
    pub(super) rollout: RolloutId,
    /// Print JSON; `watch` an object a line.
    #[arg(long)]
    pub(super) json: bool,
}
