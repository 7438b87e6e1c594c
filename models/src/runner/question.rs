//! Requests that are ready for a session, and one run for several of them.
//!
//! A request is pre-processed and checked by itself; then it is a [`Question`]. Questions of the
//! same [`Mates::key`] can share a run: their inputs are joined along the first dimension, and the
//! outputs are cut where the inputs were joined. Post-processing is each request's own again, so
//! that one request's NaN is nobody else's. Whether mates leave an answer as it is, is not decided
//! here, but proven by [`crate::probing`].
//!
//! A run that fails with mates is made again for each of them alone: what one request brings, such
//! as text that is not UTF-8, fails no other.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use protocol::manifest::TensorSpec;
use protocol::tensor::{Tensor, TensorMeta};

use super::{Call, Pipelines, Reply, Runner, blame, failed};
use crate::backend::check_request;
use crate::error::RunError;
use crate::postprocess::Plan;
use crate::worker::{Job, panic_text};

/// A request that is ready for a session.
#[derive(Debug)]
pub struct Question {
    job: Job,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Of a model with state, or that cuts frames: its steps and runs belong together.
    Whole,
    /// One run: the inputs in the session's order, and what becomes of the outputs.
    Once { inputs: Vec<Tensor>, plan: Arc<Plan> },
}

/// With what a question can share a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mates {
    /// Equal for questions whose inputs differ in the number of items only.
    pub key: u64,
    /// Its items: the first dimension of every input.
    pub items: u32,
}

/// What a run gave for one question.
#[derive(Debug)]
pub struct Given(Inner);

#[derive(Debug)]
enum Inner {
    Outputs(Vec<Tensor>),
    Reply(Box<Reply>),
}

impl Given {
    /// Bytes of its tensors.
    pub fn size_bytes(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.data().len()).sum()
    }

    /// As the session gave them.
    pub(crate) fn tensors(&self) -> &[Tensor] {
        match &self.0 {
            Inner::Outputs(outputs) => outputs,
            Inner::Reply(reply) => &reply.outputs,
        }
    }
}

/// What became of questions that were asked together.
#[derive(Debug)]
pub struct Asked {
    /// In the order of the questions.
    pub given: Vec<Result<Given, RunError>>,
    /// How long the run took; `None` when it failed, which says nothing of how long runs take.
    pub ran: Option<Duration>,
}

impl Question {
    /// Whose the question is.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Its mates; `None` for one that runs alone.
    pub fn mates(&self) -> Option<Mates> {
        let Form::Once { inputs, plan } = &self.form else { return None };
        let items = *inputs.first()?.shape().first()?;
        if items < 1 || inputs.iter().any(|input| input.shape().first() != Some(&items)) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        for input in inputs {
            (input.name(), input.datatype(), &input.shape()[1..]).hash(&mut hasher);
        }
        self.ask(plan).hash(&mut hasher);
        Some(Mates { key: hasher.finish(), items: u32::try_from(items).ok()? })
    }

    /// What the session takes; nothing of a question that is no single run.
    pub(crate) fn inputs(&self) -> &[Tensor] {
        match &self.form {
            Form::Once { inputs, .. } => inputs,
            Form::Whole => &[],
        }
    }

    /// A model without a manifest is asked as the request asks.
    fn ask<'q>(&'q self, plan: &'q Plan) -> &'q [String] {
        if plan.ask.is_empty() { &self.job.outputs } else { &plan.ask }
    }

    fn call(&self) -> Call<'_> {
        let Job { inputs, outputs, deadline } = &self.job;
        Call { inputs, outputs, deadline: *deadline, stream: None }
    }
}

impl Pipelines {
    /// Whether this request goes to the session as it is: making a question of it costs nothing.
    pub fn takes_as_it_is(&self, job: &Job) -> bool {
        self.is_whole() || self.preprocess.takes_as_it_is(&job.inputs)
    }

    fn is_whole(&self) -> bool {
        self.feedback.has_state() || self.preprocess.cuts_frames()
    }

    /// Pre-processes a request and checks what comes of it against what the model takes and gives.
    ///
    /// # Errors
    /// [`RunError`] of a request that cannot be used.
    pub fn question(
        &self,
        (takes, gives): (&[TensorSpec], &[TensorSpec]),
        job: Job,
    ) -> Result<Question, RunError> {
        if self.is_whole() {
            return Ok(Question { job, form: Form::Whole });
        }
        let call = Call {
            inputs: &job.inputs,
            outputs: &job.outputs,
            deadline: job.deadline,
            stream: None,
        };
        let plan = self.postprocess.plan(call.outputs)?;
        let mut inputs = self.preprocess.apply(call.inputs, &call.moment())?.tensors;
        self.feedback.add_constants(&mut inputs);
        check_request((takes, gives), &inputs, call.ask(&plan))?;
        let place = |input: &Tensor| takes.iter().position(|spec| spec.name == input.name());
        inputs.sort_by_key(place);
        Ok(Question { job, form: Form::Once { inputs, plan } })
    }

    /// Makes of what a run gave what the request wanted.
    ///
    /// # Errors
    /// [`RunError`], of this request alone.
    pub fn reply(&self, question: &Question, given: Given) -> Result<Reply, RunError> {
        match (given.0, &question.form) {
            (Inner::Outputs(outputs), Form::Once { inputs, plan }) => {
                let applied = self.postprocess.apply(plan, inputs, outputs);
                let (outputs, reading) =
                    applied.map_err(|error| blame(error, &question.job.inputs))?;
                Ok(Reply { outputs, reading, stream: None })
            }
            (Inner::Reply(reply), _) => Ok(*reply),
            (Inner::Outputs(_), Form::Whole) => Err(RunError::Failed("no reply".to_owned())),
        }
    }
}

impl Runner {
    /// Asks the session once for all of these questions, which are mates, or a single one.
    ///
    /// # Errors
    /// [`RunError::Lost`]: the session ended under them. Any other failure is one of a question.
    pub fn ask(&mut self, questions: &[&Question]) -> Result<Asked, RunError> {
        let began = Instant::now();
        if let [only] = questions {
            let given = caught(|| self.ask_one(only));
            let ran = given.is_ok().then(|| began.elapsed());
            return lost(Asked { given: vec![given], ran });
        }
        match caught(|| self.ask_all(questions)) {
            Ok(given) => {
                let given = given.into_iter().map(Ok).collect();
                Ok(Asked { given, ran: Some(began.elapsed()) })
            }
            Err(error) if error.is_lost() => Err(error),
            Err(_) => {
                let alone = |question: &&Question| match question.job.deadline {
                    Some(deadline) if deadline <= Instant::now() => Err(RunError::Expired),
                    _ => caught(|| self.ask_one(question)),
                };
                lost(Asked { given: questions.iter().map(alone).collect(), ran: None })
            }
        }
    }

    /// The same without holding a thread, where the session runs elsewhere. `None` where a thread must be
    /// held after all: for a question that is several runs, or mates who have to be asked one by one.
    pub async fn ask_elsewhere(
        &mut self,
        questions: &[&Question],
    ) -> Option<Result<Asked, RunError>> {
        let came = match questions {
            [only] => self.ask_one_elsewhere(only).await?,
            _ => self.ask_all_elsewhere(questions).await?,
        };
        match came {
            Ok((given, ran)) => {
                let given = given.into_iter().map(Ok).collect();
                Some(Ok(Asked { given, ran: Some(ran) }))
            }
            Err(error) if error.is_lost() => Some(Err(error)),
            Err(error) if questions.len() == 1 => {
                Some(Ok(Asked { given: vec![Err(error)], ran: None }))
            }
            Err(_) => None,
        }
    }

    async fn ask_one_elsewhere(&mut self, question: &Question) -> Option<Came> {
        let Form::Once { inputs, plan } = &question.form else { return None };
        let (ask, deadline) = (question.ask(plan), question.job.deadline);
        let came = self.session.run_elsewhere(inputs, ask, deadline)?.await;
        Some(came.map(|(outputs, ran)| (vec![Given(Inner::Outputs(outputs))], ran)))
    }

    async fn ask_all_elsewhere(&mut self, questions: &[&Question]) -> Option<Came> {
        let (inputs, items) = join(questions).ok()?;
        let first = questions.first()?;
        let Form::Once { plan, .. } = &first.form else { return None };
        let run = self.session.run_elsewhere(&inputs, first.ask(plan), last(questions))?;
        let came = run.await;
        Some(came.and_then(|(outputs, ran)| Ok((split(&outputs, &items)?, ran))))
    }

    fn ask_one(&mut self, question: &Question) -> Result<Given, RunError> {
        match &question.form {
            Form::Whole => Ok(Given(Inner::Reply(Box::new(self.answer(question.call())?)))),
            Form::Once { inputs, plan } => {
                let (ask, deadline) = (question.ask(plan), question.job.deadline);
                let outputs = self.session.run_until(inputs, ask, deadline)?;
                Ok(Given(Inner::Outputs(outputs)))
            }
        }
    }

    fn ask_all(&mut self, questions: &[&Question]) -> Result<Vec<Given>, RunError> {
        let (inputs, items) = join(questions)?;
        let Some((first, Form::Once { plan, .. })) = questions.first().map(|q| (*q, &q.form))
        else {
            return Ok(Vec::new());
        };
        let outputs = self.session.run_until(&inputs, first.ask(plan), last(questions))?;
        split(&outputs, &items)
    }
}

/// What a run elsewhere gave for each question, and how long it took.
type Came = Result<(Vec<Given>, Duration), RunError>;

/// When the answer is of no use to any of them any more; never while one waits for ever.
fn last(questions: &[&Question]) -> Option<Instant> {
    let all: Option<Vec<_>> = questions.iter().map(|question| question.job.deadline).collect();
    all.and_then(|deadlines| deadlines.into_iter().max())
}

fn lost(asked: Asked) -> Result<Asked, RunError> {
    let found = asked.given.iter().find_map(|given| given.as_ref().err().filter(|e| e.is_lost()));
    found.cloned().map_or(Ok(asked), Err)
}

/// A panicking model leaves nothing of ours half-changed: a runner keeps no state between runs.
fn caught<T>(run: impl FnOnce() -> Result<T, RunError>) -> Result<T, RunError> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(RunError::Panicked(panic_text(&*panic))))
}

/// The inputs of all questions, one after the other, and how many items each has. Keys are hashes,
/// so that the inputs really agree is looked at here.
fn join(questions: &[&Question]) -> Result<(Vec<Tensor>, Vec<i64>), RunError> {
    let first = questions.first().map_or(&[][..], |question| question.inputs());
    let strangers = || RunError::Failed("requests of different shapes do not share a run".into());
    let mut items = Vec::with_capacity(questions.len());
    for question in questions {
        let inputs = question.inputs();
        let agree = |(a, b): (&Tensor, &Tensor)| {
            (a.name(), a.datatype(), a.shape().get(1..))
                == (b.name(), b.datatype(), b.shape().get(1..))
        };
        let all_agree = inputs.len() == first.len() && inputs.iter().zip(first).all(agree);
        let own = question.mates().filter(|_| all_agree).ok_or_else(strangers)?;
        items.push(i64::from(own.items));
    }
    let total: i64 = items.iter().sum();
    let joined = (0..first.len()).map(|at| joined(questions, at, total));
    Ok((joined.collect::<Result<_, _>>()?, items))
}

/// One input of all questions. The bytes of one item follow those of the other in every datatype.
fn joined(questions: &[&Question], at: usize, total: i64) -> Result<Tensor, RunError> {
    let first = &questions[0].inputs()[at];
    let size = questions.iter().map(|question| question.inputs()[at].data().len()).sum();
    let mut data = BytesMut::with_capacity(size);
    questions.iter().for_each(|question| data.extend_from_slice(question.inputs()[at].data()));
    tensor(first.meta(), total, data.freeze())
}

/// A tensor like `like`, of so many items.
fn tensor(like: &TensorMeta, items: i64, data: bytes::Bytes) -> Result<Tensor, RunError> {
    let shape = [&[items], like.shape.get(1..).unwrap_or_default()].concat();
    let build = || Tensor::new(TensorMeta::new(&like.name, like.datatype, shape)?, data);
    build().map_err(|error| failed(&error))
}

/// The outputs of each question. They share the memory of the whole.
fn split(outputs: &[Tensor], items: &[i64]) -> Result<Vec<Given>, RunError> {
    let total: i64 = items.iter().sum();
    let rows = |output: &Tensor| {
        output.datatype().size_bytes().and_then(|_| output.shape().first().copied())
    };
    if let Some(output) = outputs.iter().find(|output| rows(output) != Some(total)) {
        let text = format!("the output {:?} has not one row for each item", output.name());
        return Err(RunError::Failed(text));
    }
    let mut begin = 0;
    let cut = |count: &i64| {
        let part = |output: &Tensor| {
            let row = output.data().len() / usize::try_from(total).unwrap_or(1).max(1);
            let at = |item: i64| usize::try_from(item).unwrap_or(0) * row;
            tensor(output.meta(), *count, output.data().slice(at(begin)..at(begin + count)))
        };
        let parts = outputs.iter().map(part).collect::<Result<_, _>>()?;
        begin += count;
        Ok(Given(Inner::Outputs(parts)))
    };
    items.iter().map(cut).collect()
}
