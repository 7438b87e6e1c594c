//! A browser, where there is one.

use fleet::sign_in::provider::may_be_opened;

use crate::errors::hinted;

/// Says where to sign in, and opens it. The address is the cloud's word, so only what a browser goes to is opened.
pub(super) fn show(url: &str, may_open: bool) -> anyhow::Result<()> {
    if !may_be_opened(url) {
        let what = format!("the cloud names no address that a browser can sign in at: {url:?}");
        return Err(hinted(what, "is its provider set up rightly?"));
    }
    let is_open = may_open && has_screen() && open::that_detached(url).is_ok();
    let opened = if is_open { ", if the browser has not opened it" } else { "" };
    eprintln!("Sign in here{opened}:\n\n  {url}\n");
    eprintln!(
        "If the browser is on another machine, it ends at an address that does not answer: paste it here."
    );
    Ok(())
}

/// Without a screen, what opens addresses may fill the terminal with a browser of its own.
fn has_screen() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(windows, target_os = "macos")) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}
