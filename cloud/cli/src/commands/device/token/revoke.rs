//! `outrigger device token revoke`.

pub(crate) use crate::revocation::Args;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    crate::revocation::run(args, "/v1/tokens", "outrigger device token list")
}
