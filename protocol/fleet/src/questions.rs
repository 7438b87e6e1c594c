//! Questions of operators to devices: which are waiting, which were answered, and that each has an end.
//!
//! A question waits for its device until it answers or the question's time is over, wherever the device is. Questions and
//! answers are kept in memory alone, and not for long: what a device says of itself is for whoever asked now, and in no
//! backup. That somebody asked is in the audit log.

use protocol::id::{DeviceId, QuestionId};
use protocol::limits::{ANSWER_MAX_BYTES, QUESTION_MAX_S, QUESTIONS_WAITING_MAX};
use protocol::question::{What, cut};
use protocol::wire;
use std::collections::BTreeMap;

/// Questions that are kept at a time, answered ones among them.
pub const QUESTIONS_MAX: usize = 512;
/// How long an answer can be fetched, and the time within which [`OFTEN_MAX`] counts, in seconds.
pub const KEPT_S: u64 = 600;
/// Questions that one device is asked within that time.
pub const OFTEN_MAX: usize = 30;
/// The longest sentence or word of a refusal that is kept.
const WHY_MAX_BYTES: usize = 1024;

/// Why a question is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The device has enough to answer.
    #[error("{QUESTIONS_WAITING_MAX} questions wait for {0} already")]
    Waiting(DeviceId),
    /// It was asked too often.
    #[error("{device} was asked {OFTEN_MAX} times within {KEPT_S} s")]
    TooOften {
        /// The device.
        device: DeviceId,
        /// When it may be asked again, in seconds.
        wait_s: u64,
    },
    /// Too many questions wait.
    #[error("{QUESTIONS_MAX} questions wait already")]
    Full,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of whom.
    pub device: DeviceId,
    /// What.
    pub what: What,
    /// When, in Unix seconds.
    pub at_s: u64,
    /// How long it waits, in seconds; at most [`QUESTION_MAX_S`].
    pub wait_s: u64,
}

/// How a question stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The device has not answered yet.
    Waiting,
    /// It has not answered in time.
    Late,
    /// It has.
    Answered {
        /// When, in Unix seconds.
        at_s: u64,
        /// What it says.
        text: String,
        /// How much of what was asked for is not in the text.
        left_out: u64,
    },
    /// It does not answer that.
    Refused {
        /// When, in Unix seconds.
        at_s: u64,
        /// The reason as a word.
        word: String,
        /// The reason in words.
        why: String,
    },
}

impl Standing {
    /// The standing as a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Standing::Waiting => "waiting",
            Standing::Late => "late",
            Standing::Answered { .. } => "answered",
            Standing::Refused { .. } => "refused",
        }
    }

    /// Whether nothing follows.
    pub fn is_end(&self) -> bool {
        *self != Standing::Waiting
    }
}

#[derive(Debug)]
struct Kept {
    asked: Asked,
    standing: Standing,
}

impl Kept {
    /// When nobody needs to know of it any more.
    fn ends_s(&self) -> u64 {
        let until_s = match &self.standing {
            Standing::Answered { at_s, .. } | Standing::Refused { at_s, .. } => *at_s,
            Standing::Waiting | Standing::Late => self.asked.at_s.saturating_add(self.asked.wait_s),
        };
        until_s.saturating_add(KEPT_S)
    }
}

/// All questions.
#[derive(Debug, Default)]
pub struct Questions {
    kept: BTreeMap<QuestionId, Kept>,
}

impl Questions {
    /// Whether this may be asked.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn may_ask(&mut self, asked: &Asked) -> Result<(), AskError> {
        self.handle_time(asked.at_s);
        self.check(asked)?;
        let has_room = self.kept.len() < QUESTIONS_MAX || self.oldest_ended().is_some();
        has_room.then_some(()).ok_or(AskError::Full)
    }

    /// The answered one that is forgotten first.
    fn oldest_ended(&self) -> Option<QuestionId> {
        let ended = self.kept.iter().filter(|(_, kept)| kept.standing.is_end());
        ended.min_by_key(|(_, kept)| kept.ends_s()).map(|(id, _)| id.clone())
    }

    /// Asks.
    ///
    /// # Errors
    /// [`AskError`]; nothing is asked then.
    pub fn ask(&mut self, id: QuestionId, asked: Asked) -> Result<(), AskError> {
        self.may_ask(&asked)?;
        if self.kept.len() >= QUESTIONS_MAX {
            self.kept.remove(&self.oldest_ended().ok_or(AskError::Full)?);
        }
        let asked = Asked { wait_s: asked.wait_s.min(QUESTION_MAX_S), ..asked };
        self.kept.insert(id, Kept { asked, standing: Standing::Waiting });
        Ok(())
    }

    /// Refuses what would be too much for one device.
    fn check(&self, asked: &Asked) -> Result<(), AskError> {
        let own = || self.kept.values().filter(|kept| kept.asked.device == asked.device);
        if own().filter(|kept| !kept.standing.is_end()).count() >= QUESTIONS_WAITING_MAX {
            return Err(AskError::Waiting(asked.device.clone()));
        }
        let recent_s = asked.at_s.saturating_sub(KEPT_S);
        let recent = own().map(|kept| kept.asked.at_s).filter(|at_s| *at_s > recent_s);
        let recent: Vec<u64> = recent.collect();
        if recent.len() >= OFTEN_MAX {
            let first_s = recent.into_iter().min().unwrap_or(recent_s);
            let wait_s = first_s.saturating_sub(recent_s).max(1);
            return Err(AskError::TooOften { device: asked.device.clone(), wait_s });
        }
        Ok(())
    }

    /// What a device is to answer now.
    pub fn waiting_for(&mut self, device: &DeviceId, now_s: u64) -> Vec<wire::Question> {
        self.handle_time(now_s);
        let own = self.kept.iter().filter(|(_, kept)| kept.asked.device == *device);
        let waiting = own.filter(|(_, kept)| !kept.standing.is_end());
        waiting.map(|(id, kept)| kept.asked.what.to_wire(id.as_str())).collect()
    }

    /// A device answers. What it was not asked, or has answered before, changes nothing: `None`. Else what was asked.
    pub fn handle_answer(
        &mut self,
        device: &DeviceId,
        answer: wire::DeviceAnswer,
        now_s: u64,
    ) -> Option<(&Asked, &Standing)> {
        self.handle_time(now_s);
        let id: QuestionId = answer.id.parse().ok()?;
        let kept = self.kept.get_mut(&id)?;
        if kept.asked.device != *device || kept.standing.is_end() {
            return None;
        }
        let wire::DeviceAnswer { text, left_out, refused, why, .. } = answer;
        kept.standing = match refused.is_empty() {
            true => {
                Standing::Answered { at_s: now_s, text: plain(&text, ANSWER_MAX_BYTES), left_out }
            }
            false => Standing::Refused {
                at_s: now_s,
                word: plain(&refused, WHY_MAX_BYTES),
                why: plain(&why, WHY_MAX_BYTES),
            },
        };
        Some((&kept.asked, &kept.standing))
    }

    /// A question and how it stands; `None` where there is none of that id, or none any more.
    pub fn get(&mut self, id: &QuestionId, now_s: u64) -> Option<(&Asked, &Standing)> {
        self.handle_time(now_s);
        self.kept.get(id).map(|kept| (&kept.asked, &kept.standing))
    }

    /// This device is gone, and so is what it was asked.
    pub fn forget(&mut self, device: &DeviceId) {
        self.kept.retain(|_, kept| kept.asked.device != *device);
    }

    fn handle_time(&mut self, now_s: u64) {
        self.kept.retain(|_, kept| kept.ends_s() > now_s);
        for Kept { asked, standing } in self.kept.values_mut() {
            if *standing == Standing::Waiting && asked.at_s.saturating_add(asked.wait_s) <= now_s {
                *standing = Standing::Late;
            }
        }
    }
}

/// What a device said, as it may be shown to an operator: a terminal obeys control characters, and who sends them may be
/// no friend. So much of it.
fn plain(text: &str, max_bytes: usize) -> String {
    let obeyed = |c: &char| c.is_control() && !matches!(c, '\n' | '\t');
    cut(text, max_bytes).chars().filter(|c| !obeyed(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    fn id(number: usize) -> QuestionId {
        format!("q-{number}").parse().unwrap()
    }

    fn asked(of: &str, at_s: u64) -> Asked {
        Asked { device: device(of), what: What::Check, at_s, wait_s: 60 }
    }

    fn answer(number: usize, refused: &str) -> wire::DeviceAnswer {
        let (id, text) = (format!("q-{number}"), "all is well".to_owned());
        wire::DeviceAnswer { id, text, refused: refused.to_owned(), ..Default::default() }
    }

    #[test]
    fn a_question_ends_with_one_answer_of_the_device_that_was_asked() {
        let mut all = Questions::default();
        all.ask(id(1), asked("d-1", 1000)).unwrap();
        assert_eq!(all.waiting_for(&device("d-1"), 1001).len(), 1);
        assert_eq!(all.waiting_for(&device("d-2"), 1001), []);
        assert_eq!(all.handle_answer(&device("d-2"), answer(1, ""), 1001), None);
        assert_eq!(all.handle_answer(&device("d-1"), answer(2, ""), 1001), None);
        let taken = all.handle_answer(&device("d-1"), answer(1, ""), 1001);
        assert_eq!(taken.unwrap().1.as_str(), "answered");
        assert_eq!(all.handle_answer(&device("d-1"), answer(1, "forbidden"), 1002), None);
        assert_eq!(all.waiting_for(&device("d-1"), 1002), []);
        assert!(all.get(&id(1), 1001 + KEPT_S - 1).is_some());
        assert!(all.get(&id(1), 1001 + KEPT_S).is_none());
    }

    #[test]
    fn what_nobody_answers_is_late_and_then_forgotten() {
        let mut all = Questions::default();
        all.ask(id(1), asked("d-1", 1000)).unwrap();
        assert_eq!(all.get(&id(1), 1059).unwrap().1, &Standing::Waiting);
        assert_eq!(all.get(&id(1), 1060).unwrap().1, &Standing::Late);
        assert_eq!(all.waiting_for(&device("d-1"), 1060), []);
        assert_eq!(all.handle_answer(&device("d-1"), answer(1, ""), 1061), None);
        assert!(all.get(&id(1), 1060 + KEPT_S).is_none());
        let long = Asked { wait_s: u64::MAX, ..asked("d-1", 2000) };
        all.ask(id(2), long).unwrap();
        assert_eq!(all.get(&id(2), 2000 + QUESTION_MAX_S).unwrap().1, &Standing::Late);
    }

    #[test]
    fn no_device_and_no_cloud_is_asked_without_end() {
        let mut all = Questions::default();
        for number in 0..QUESTIONS_WAITING_MAX {
            all.ask(id(number), asked("d-1", 1000)).unwrap();
        }
        let error = all.ask(id(99), asked("d-1", 1000)).unwrap_err();
        assert_eq!(error, AskError::Waiting(device("d-1")));
        for number in 0..OFTEN_MAX {
            all.ask(id(100 + number), asked("d-2", 1000)).unwrap();
            all.handle_answer(&device("d-2"), answer(100 + number, ""), 1000).unwrap();
        }
        let error = all.ask(id(999), asked("d-2", 1001)).unwrap_err();
        assert_eq!(error, AskError::TooOften { device: device("d-2"), wait_s: KEPT_S - 1 });
        // Answers make room, those who wait do not.
        for number in 1000..1000 + QUESTIONS_MAX - QUESTIONS_WAITING_MAX {
            all.ask(id(number), asked(&format!("d-{number}"), 1002)).unwrap();
        }
        assert_eq!(all.kept.len(), QUESTIONS_MAX);
        assert_eq!(all.ask(id(9999), asked("d-9999", 1002)), Err(AskError::Full));
    }

    #[test]
    fn no_device_speaks_to_an_operators_terminal() {
        let mut all = Questions::default();
        all.ask(id(1), asked("d-1", 1000)).unwrap();
        let text = "one\n\ttwo\u{1b}[2J\u{9b}31m\0\r".to_owned();
        let said = wire::DeviceAnswer { text, ..answer(1, "") };
        let (_, standing) = all.handle_answer(&device("d-1"), said, 1001).unwrap();
        let Standing::Answered { text, .. } = standing else { panic!("{standing:?}") };
        assert_eq!(text, "one\n\ttwo[2J31m");
    }

    #[test]
    fn a_device_that_says_too_much_is_cut() {
        let mut all = Questions::default();
        all.ask(id(1), asked("d-1", 1000)).unwrap();
        let long = wire::DeviceAnswer { text: "ä".repeat(ANSWER_MAX_BYTES), ..answer(1, "") };
        let (_, standing) = all.handle_answer(&device("d-1"), long, 1001).unwrap();
        let Standing::Answered { text, .. } = standing else { panic!("{standing:?}") };
        assert_eq!(text.len(), ANSWER_MAX_BYTES);
        all.ask(id(2), asked("d-1", 1001)).unwrap();
        all.forget(&device("d-1"));
        assert!(all.get(&id(2), 1001).is_none());
    }
}
