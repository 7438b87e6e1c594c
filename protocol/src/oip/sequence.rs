//! The sequence extension: which requests are pieces of one stream.

use serde_json::Value;

use super::options::{boolean, invalid};
use crate::infer::{Sequence, SequenceId};
use crate::limits::NAME_MAX_BYTES;
use crate::problem::Problem;

/// `sequence_id`, `sequence_start` and `sequence_end`, gathered one by one.
#[derive(Debug, Default)]
pub(super) struct SequenceOptions {
    id: Option<SequenceId>,
    start: bool,
    end: bool,
}

impl SequenceOptions {
    /// Takes one of the three; `false` for another parameter.
    pub(super) fn set(&mut self, key: &str, value: &Value) -> Result<bool, Problem> {
        match key {
            "sequence_id" => self.id = id(value)?,
            "sequence_start" => self.start = boolean(key, value)?,
            "sequence_end" => self.end = boolean(key, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The piece of a sequence that was described; none without an id.
    pub(super) fn finish(self) -> Result<Option<Sequence>, Problem> {
        let Self { id, start, end } = self;
        match id {
            Some(id) => Ok(Some(Sequence { owner: None, id, start, end })),
            None if start || end => {
                Err(invalid("sequence_start and sequence_end need a sequence_id")
                    .hint("give each stream a number above 0, or a name, of its own"))
            }
            None => Ok(None),
        }
    }
}

/// 0 and the empty text stand for no sequence.
fn id(value: &Value) -> Result<Option<SequenceId>, Problem> {
    if let Some(number) = value.as_u64() {
        return Ok((number > 0).then_some(SequenceId::Number(number)));
    }
    match value.as_str() {
        Some(name) if name.len() <= NAME_MAX_BYTES => {
            Ok((!name.is_empty()).then(|| SequenceId::Name(name.to_owned())))
        }
        _ => {
            let text = format!(
                "sequence_id is a whole number from 0 on, or a text of at most {NAME_MAX_BYTES} bytes"
            );
            Err(invalid(text).hint("give each stream a number or a name of its own"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(parameters: &[(&str, Value)]) -> Result<Option<Sequence>, String> {
        let mut options = SequenceOptions::default();
        for (key, value) in parameters {
            options.set(key, value).map_err(|problem| problem.message)?;
        }
        options.finish().map_err(|problem| problem.message)
    }

    #[test]
    fn pieces_of_sequences() {
        let piece = |id, start, end| Ok(Some(Sequence { owner: None, id, start, end }));
        let started = [("sequence_id", json!(7)), ("sequence_start", json!(true))];
        assert_eq!(read(&started), piece(SequenceId::Number(7), true, false));
        let ended = [("sequence_end", json!(true)), ("sequence_id", json!("mic"))];
        assert_eq!(read(&ended), piece(SequenceId::Name("mic".into()), false, true));
        for none in [json!(0), json!("")] {
            assert_eq!(read(&[("sequence_id", none)]), Ok(None));
        }
        assert_eq!(read(&[("placement", json!("edge"))]), Ok(None), "of no sequence");
        for bad in [json!(-1), json!(1.5), json!(true), json!("x".repeat(129))] {
            assert!(read(&[("sequence_id", bad)]).is_err());
        }
        assert!(read(&[("sequence_id", json!(1)), ("sequence_end", json!(1))]).is_err());
        assert!(
            read(&[("sequence_start", json!(true))]).unwrap_err().contains("need a sequence_id")
        );
    }
}
