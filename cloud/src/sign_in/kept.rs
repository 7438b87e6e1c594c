//! An answer that is asked for once, and kept for a while: also that there was none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::provider::ProviderError;

/// How long it is kept that the provider failed: whoever comes then hears the same at once.
const FAILURE_KEPT: Duration = Duration::from_secs(5);

type Outcome<T> = Result<Arc<T>, ProviderError>;

/// What was answered last.
#[derive(Debug)]
pub(super) struct Kept<T> {
    last: Mutex<Option<(Instant, Outcome<T>)>>,
    /// Held by whoever asks, so that the others wait for that answer.
    asking: Mutex<()>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { last: Mutex::default(), asking: Mutex::default() }
    }
}

impl<T> Kept<T> {
    /// What was answered, where that is not longer ago. Never waits.
    pub(super) fn peek(&self, age: Duration) -> Option<Outcome<T>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, outcome) = last.as_ref()?;
        let kept = if outcome.is_ok() { age } else { FAILURE_KEPT };
        (at.elapsed() < kept).then(|| outcome.clone())
    }

    /// The same, or what is answered now.
    pub(super) fn get(
        &self,
        age: Duration,
        ask: impl FnOnce() -> Result<T, ProviderError>,
    ) -> Outcome<T> {
        if let Some(known) = self.peek(age) {
            return known;
        }
        let _asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.peek(age) {
            return known; // somebody has asked meanwhile
        }
        let outcome = ask().map(Arc::new);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }
}

#[cfg(test)]
impl<T> Kept<T> {
    /// What was answered is older by so much.
    pub(super) fn age(&self, by: Duration) {
        if let Some((at, _)) = self.last.lock().unwrap().as_mut() {
            *at = at.checked_sub(by).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn it_is_asked_once_and_again_where_it_has_to_be_newer() {
        let kept = Kept::default();
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            Ok(asked.get())
        };
        assert!(kept.peek(LONG).is_none());
        assert_eq!(*kept.get(LONG, ask).unwrap(), 1);
        assert_eq!(*kept.get(LONG, ask).unwrap(), 1);
        assert_eq!(*kept.get(Duration::ZERO, ask).unwrap(), 2);
        assert_eq!(*kept.peek(LONG).unwrap().unwrap(), 2);
    }

    #[test]
    fn a_failure_is_kept_for_a_moment() {
        let kept = Kept::<u8>::default();
        assert!(kept.get(LONG, || Err(ProviderError::Late)).is_err());
        assert!(kept.get(Duration::ZERO, || Ok(1)).is_err(), "nobody asks again at once");
        kept.age(FAILURE_KEPT);
        assert_eq!(*kept.get(LONG, || Ok(1)).unwrap(), 1);
    }
}
