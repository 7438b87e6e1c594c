//! The Update Framework (TUF 1.0) for a repository of models: who says what may be installed, so that
//! nobody who holds a server, or a key below its threshold, can forge, roll back, freeze or mix it.
//!
//! Four roles sign four files. *root* names the keys of all (its own too, by a threshold); *targets*
//! says which files are good, by length and hash, and may delegate names to other roles; *snapshot*
//! says which versions of those belong together; *timestamp* says which snapshot is the newest, for a
//! short while. Root's and targets' keys stay offline.
//!
//! [`client::Updater`] reads such a repository without doing anything: it says what it wants
//! ([`client::Step`]) and is told what came of it ([`client::Answer`], in which a file that is *absent*
//! is something else than a server that is *unreachable*). [`metadata`] has the files, [`canonical`] the
//! form that is signed, [`key`] the kinds of signatures, [`author`] what writes them. [`install`] is what
//! Outrigger adds, after Uptane: an installation also needs a *director*, who says which device; [`introduction`] is how a
//! fleet comes to a repository.
//!
//! Sections in comments are those of the specification, version 1.0.33.

pub mod author;
pub mod canonical;
pub mod client;
pub mod date;
pub mod delegation;
pub mod install;
pub mod introduction;
pub mod key;
pub mod metadata;
mod refused;

pub use refused::Refused;

#[cfg(test)]
mod tests;
