//! Commands about what devices record: for whom it is sealed, and how it is read. Only this side can open it.

pub(crate) mod cost;
pub(crate) mod decrypt;
pub(crate) mod delete;
#[cfg(feature = "analytics")]
pub(crate) mod export;
#[cfg(feature = "analytics")]
pub(crate) mod forget;
#[cfg(feature = "analytics")]
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod pull;
#[cfg(feature = "analytics")]
pub(crate) mod query;

/// What runs questions: they are the only asynchronous thing in this program.
#[cfg(feature = "analytics")]
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
