//! A loaded model, and what it leaves when it goes.

use models::model::LoadedModel;
use std::ops::Deref;
use tokio::runtime::Handle;

/// A loaded model. Its end, which waits for its threads, never stops an async thread, and gives
/// its memory back to the system.
#[derive(Debug)]
pub struct Resident(Option<LoadedModel>);

impl Resident {
    /// Takes a model in.
    pub fn new(model: LoadedModel) -> Self {
        Self(Some(model))
    }
}

impl Deref for Resident {
    type Target = LoadedModel;

    fn deref(&self) -> &LoadedModel {
        match &self.0 {
            Some(model) => model,
            None => unreachable!("only dropping takes the model"),
        }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let model = self.0.take();
        let end = move || {
            drop(model);
            give_memory_back();
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

/// glibc keeps freed memory in its arenas, and gives only the top of the heap back by itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn give_memory_back() {
    // SAFETY: malloc_trim may be called at any time, from any thread; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_memory_back() {}
