//! One session with all that stands around it: pre-processing before, reading the confidence
//! after. It runs in a worker's thread.

use protocol::tensor::Tensor;

use crate::backend::Session;
use crate::confidence::{ClassReader, Reading};
use crate::error::{InvalidRequest, RunError};
use crate::preprocess::Preprocess;

/// A whole model: session, pipelines and, for a classifier, how its answer is read.
pub struct Runner {
    session: Box<dyn Session>,
    preprocess: Preprocess,
    classes: Option<ClassReader>,
}

impl Runner {
    /// Puts a model together.
    pub fn new(
        session: Box<dyn Session>,
        preprocess: Preprocess,
        classes: Option<ClassReader>,
    ) -> Self {
        Self { session, preprocess, classes }
    }

    /// Answers one request: inputs as an application has them, the wanted outputs (all when
    /// empty), and the confidence, which is read even if the logits are not wanted.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn answer(
        &mut self,
        inputs: &[Tensor],
        outputs: &[String],
    ) -> Result<(Vec<Tensor>, Reading), RunError> {
        let inputs = self.preprocess.apply(inputs)?;
        let Some(classes) = &self.classes else {
            return Ok((self.session.run(&inputs, outputs)?, Reading::default()));
        };
        let mut asked = outputs.to_vec();
        let unasked = !asked.is_empty() && !asked.contains(&classes.logits);
        if unasked {
            asked.push(classes.logits.clone());
        }
        let mut answer = self.session.run(&inputs, &asked)?;
        let logits = answer.iter().find(|output| output.name() == classes.logits);
        let absent = || InvalidRequest::unknown_output(&classes.logits, self.session.outputs());
        let reading = classes.read(logits.ok_or_else(absent)?)?;
        if unasked {
            answer.pop();
        }
        Ok((answer, reading))
    }
}
