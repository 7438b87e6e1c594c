//! What stands in a lane: which tensors, how long, and where; or why there is no answer.
//!
//! A description is a row of 64-bit words. Tensors go by their place in the model's own lists, which
//! both sides know, so there are no names to be parsed. The server believes nothing of an answer: it
//! is copied before it is looked at, and every number in it is checked.

use bytes::Bytes;
use models::error::{InvalidRequest, RunError};
use protocol::limits::{TENSOR_MAX_RANK, TENSORS_MAX_COUNT};
use protocol::manifest::TensorSpec;
use protocol::tensor::{DataType, Tensor, TensorMeta};

use super::lane::{DATA_MAX_BYTES, HEAD_MAX_BYTES, Lane, Way};

/// Tensors begin at multiples of this, where numbers of any kind may lie.
const ALIGN_BYTES: usize = 64;
/// What is kept of a reason.
const WORDS_MAX_BYTES: usize = 2000;

const TYPES: [DataType; 14] = [
    DataType::Bool,
    DataType::Uint8,
    DataType::Uint16,
    DataType::Uint32,
    DataType::Uint64,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Fp16,
    DataType::Bf16,
    DataType::Fp32,
    DataType::Fp64,
    DataType::Bytes,
];

/// What a model takes and gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Specs<'s> {
    pub(super) inputs: &'s [TensorSpec],
    pub(super) outputs: &'s [TensorSpec],
}

/// The kinds of answer.
mod kind {
    pub(super) const TENSORS: u64 = 0;
    pub(super) const FAILED: u64 = 1;
    pub(super) const ELEMENT: u64 = 2;
}

/// What one element of an input may have to be, as the runtime says it.
const EXPECTED: [&str; 2] = ["a BOOL, which is 0 or 1", "UTF-8 text without NUL"];

/// Why there is nothing in a lane that could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker's answer is none: {0}")]
pub(super) struct Garbled(&'static str);

/// Writes a description. Its first word is its length in bytes.
#[derive(Debug, Default)]
struct Head(Vec<u8>);

impl Head {
    fn new() -> Self {
        Self(vec![0; 8])
    }

    fn push(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    /// Puts tensors into the lane and describes them; the bytes that they take, or would take.
    fn tensors(&mut self, lane: &Lane, way: Way, tensors: &[Tensor], all: &[TensorSpec]) -> usize {
        let mut end = 0_usize;
        self.push(tensors.len() as u64);
        for tensor in tensors {
            let place = all.iter().position(|spec| spec.name == tensor.name());
            let kind = TYPES.iter().position(|known| *known == tensor.datatype());
            let (offset, len) = (end, tensor.data().len());
            end = (end + len).next_multiple_of(ALIGN_BYTES);
            let shape = tensor.shape();
            let row = [place.unwrap_or(usize::MAX), kind.unwrap_or(0), offset, len, shape.len()];
            row.iter().for_each(|word| self.push(*word as u64));
            shape.iter().for_each(|dimension| self.push(dimension.cast_unsigned()));
            if end <= DATA_MAX_BYTES {
                lane.write_data(way, offset, tensor.data());
            }
        }
        end
    }

    fn finish(mut self, lane: &Lane, way: Way) {
        let len = self.0.len() as u64;
        self.0[..8].copy_from_slice(&len.to_le_bytes());
        lane.write_head(way, &self.0);
    }
}

/// Reads a description.
struct Words<'w>(&'w [u8]);

impl Words<'_> {
    fn next(&mut self) -> Result<u64, Garbled> {
        let (word, rest) = self.0.split_first_chunk::<8>().ok_or(Garbled("it is cut off"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*word))
    }

    fn small(&mut self, most: usize) -> Result<usize, Garbled> {
        let word = usize::try_from(self.next()?).ok();
        word.filter(|word| *word <= most).ok_or(Garbled("a number is beyond its limit"))
    }

    fn tensors(
        &mut self,
        all: &[TensorSpec],
        data: impl Fn(usize, usize) -> Option<Bytes>,
    ) -> Result<Vec<Tensor>, Garbled> {
        let count = self.small(TENSORS_MAX_COUNT)?;
        let mut tensors = Vec::with_capacity(count);
        for _ in 0..count {
            let spec = all.get(self.small(TENSORS_MAX_COUNT)?);
            let spec = spec.ok_or(Garbled("the model has no such tensor"))?;
            let datatype = *TYPES.get(self.small(TYPES.len())?).ok_or(Garbled("no datatype"))?;
            let (offset, len) = (self.small(DATA_MAX_BYTES)?, self.small(DATA_MAX_BYTES)?);
            let rank = self.small(TENSOR_MAX_RANK)?;
            let shape = (0..rank).map(|_| Ok(self.next()?.cast_signed()));
            let shape = shape.collect::<Result<Vec<i64>, Garbled>>()?;
            let data = data(offset, len).ok_or(Garbled("a tensor is outside of the lane"))?;
            let tensor = TensorMeta::new(&spec.name, datatype, shape);
            let tensor = tensor.and_then(|meta| Tensor::new(meta, data));
            tensors.push(tensor.map_err(|_| Garbled("a tensor's bytes do not fill its shape"))?);
        }
        Ok(tensors)
    }
}

/// Puts a request into a lane; the bytes that its tensors take there.
///
/// # Errors
/// They do not fit, in number or in size.
pub(super) fn write_request(
    lane: &Lane,
    specs: Specs<'_>,
    inputs: &[Tensor],
    outputs: &[String],
) -> Result<usize, RunError> {
    let mut head = Head::new();
    fits(inputs.len().max(outputs.len()), inputs.iter().map(|input| input.data().len()).sum())?;
    let end = head.tensors(lane, Way::Request, inputs, specs.inputs);
    fits(0, end)?;
    head.push(outputs.len() as u64);
    for output in outputs {
        let place = specs.outputs.iter().position(|spec| spec.name == *output);
        head.push(place.unwrap_or(usize::MAX) as u64);
    }
    head.finish(lane, Way::Request);
    Ok(end)
}

fn fits(count: usize, bytes: usize) -> Result<(), RunError> {
    if count <= TENSORS_MAX_COUNT && bytes <= DATA_MAX_BYTES {
        return Ok(());
    }
    let most = DATA_MAX_BYTES >> 20;
    let text = format!(
        "a run takes and gives at most {TENSORS_MAX_COUNT} tensors and {most} MiB in a worker"
    );
    Err(RunError::Failed(text))
}

/// Takes a request out of a lane, without copying its tensors.
///
/// # Errors
/// It is none.
pub(super) fn read_request(
    lane: &Lane,
    specs: Specs<'_>,
) -> Result<(Vec<Tensor>, Vec<String>), Garbled> {
    let head = read_head(lane, Way::Request)?;
    let mut words = Words(&head);
    let inputs =
        words.tensors(specs.inputs, |offset, len| lane.lend_data(Way::Request, offset, len))?;
    let count = words.small(TENSORS_MAX_COUNT)?;
    let mut outputs = Vec::with_capacity(count);
    for _ in 0..count {
        let spec = specs.outputs.get(words.small(TENSORS_MAX_COUNT)?);
        outputs.push(spec.ok_or(Garbled("the model has no such output"))?.name.clone());
    }
    Ok((inputs, outputs))
}

/// The description without its first word.
fn read_head(lane: &Lane, way: Way) -> Result<Vec<u8>, Garbled> {
    let mut head = Vec::new();
    lane.read_head(way, 8, &mut head);
    let len = Words(&head).small(HEAD_MAX_BYTES)?;
    lane.read_head(way, len, &mut head);
    if head.len() < 8 {
        return Err(Garbled("it is cut off"));
    }
    Ok(head.split_off(8))
}

/// Puts an answer into a lane.
pub(super) fn write_answer(lane: &Lane, specs: Specs<'_>, answer: Result<Vec<Tensor>, RunError>) {
    let written = answer.and_then(|outputs| {
        let mut head = Head::new();
        head.push(kind::TENSORS);
        fits(outputs.len(), outputs.iter().map(|output| output.data().len()).sum())?;
        let end = head.tensors(lane, Way::Answer, &outputs, specs.outputs);
        fits(0, end)?;
        head.finish(lane, Way::Answer);
        Ok(())
    });
    if let Err(error) = written {
        write_error(lane, specs, &error);
    }
}

fn write_error(lane: &Lane, specs: Specs<'_>, error: &RunError) {
    let mut head = Head::new();
    match error {
        RunError::Request(InvalidRequest::Element { name, index, expected }) => {
            head.push(kind::ELEMENT);
            let place = specs.inputs.iter().position(|spec| spec.name == *name);
            let words = EXPECTED.iter().position(|words| words == expected);
            let row = [place.unwrap_or(usize::MAX), *index, words.unwrap_or(0)];
            row.iter().for_each(|word| head.push(*word as u64));
        }
        other => {
            let text = match other {
                RunError::Failed(text) => text.clone(),
                other => other.to_string(),
            };
            head.push(kind::FAILED);
            let text = &text.as_bytes()[..text.len().min(WORDS_MAX_BYTES)];
            head.push(text.len() as u64);
            head.0.extend_from_slice(text);
        }
    }
    head.finish(lane, Way::Answer);
}

/// Takes the answer to a request for these outputs out of a lane; with the bytes that it took there.
///
/// # Errors
/// It is none. Inside is what the worker said.
pub(super) fn read_answer(
    lane: &Lane,
    specs: Specs<'_>,
    wanted: &[String],
) -> Result<Result<Vec<Tensor>, RunError>, Garbled> {
    let head = read_head(lane, Way::Answer)?;
    let mut words = Words(&head);
    match words.next()? {
        kind::TENSORS => {
            let copy = |offset, len| lane.copy_data(Way::Answer, offset, len).map(Bytes::from);
            let outputs = words.tensors(specs.outputs, copy)?;
            as_wanted(&outputs, specs.outputs, wanted)?;
            Ok(Ok(outputs))
        }
        kind::FAILED => {
            let len = words.small(WORDS_MAX_BYTES)?;
            let text = words.0.get(..len).ok_or(Garbled("it is cut off"))?;
            Ok(Err(RunError::Failed(String::from_utf8_lossy(text).into_owned())))
        }
        kind::ELEMENT => {
            let spec = specs.inputs.get(words.small(TENSORS_MAX_COUNT)?);
            let name = spec.ok_or(Garbled("the model has no such input"))?.name.clone();
            let index = words.small(usize::MAX)?;
            let expected = EXPECTED[words.small(EXPECTED.len() - 1)?];
            Ok(Err(InvalidRequest::Element { name, index, expected }.into()))
        }
        _ => Err(Garbled("no kind of answer")),
    }
}

fn as_wanted(outputs: &[Tensor], all: &[TensorSpec], wanted: &[String]) -> Result<(), Garbled> {
    let names = outputs.iter().map(Tensor::name);
    let same = match wanted {
        [] => names.eq(all.iter().map(|spec| spec.name.as_str())),
        some => names.eq(some.iter().map(String::as_str)),
    };
    same.then_some(()).ok_or(Garbled("other outputs than were asked for"))
}

/// The bytes that these tensors take in a lane.
pub(super) fn size_bytes(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|tensor| tensor.data().len().next_multiple_of(ALIGN_BYTES)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::lane::SHARED_BYTES;
    use super::super::shared_memory::SharedMemory;
    use super::*;
    use std::sync::Arc;

    fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
    }

    struct Fixture {
        lane: Lane,
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
    }

    impl Fixture {
        fn new() -> Self {
            let lane = Lane::new(Arc::new(SharedMemory::create(SHARED_BYTES).unwrap()), 0);
            let inputs =
                vec![spec("x", DataType::Fp32, &[-1, 2]), spec("t", DataType::Bytes, &[-1])];
            let outputs =
                vec![spec("y", DataType::Fp32, &[-1, 2]), spec("z", DataType::Int64, &[])];
            Self { lane, inputs, outputs }
        }

        fn specs(&self) -> Specs<'_> {
            Specs { inputs: &self.inputs, outputs: &self.outputs }
        }
    }

    fn z(value: i64) -> Tensor {
        let meta = TensorMeta::new("z", DataType::Int64, vec![]).unwrap();
        Tensor::new(meta, Bytes::copy_from_slice(&value.to_le_bytes())).unwrap()
    }

    #[test]
    fn a_request_arrives_as_it_was_sent_and_lies_aligned() {
        let fixture = Fixture::new();
        let texts = Tensor::from_byte_strings("t", vec![2], &["a", "bc"]).unwrap();
        let x = Tensor::from_f32("x", vec![1, 2], &[1.0, -2.5]).unwrap();
        let inputs = [texts, x];
        let wanted = ["z".to_owned()];
        write_request(&fixture.lane, fixture.specs(), &inputs, &wanted).unwrap();
        let (read, outputs) = read_request(&fixture.lane, fixture.specs()).unwrap();
        assert_eq!((read.as_slice(), outputs.as_slice()), (&inputs[..], &wanted[..]));
        assert!(read.iter().all(|t| t.data().as_ptr().addr().is_multiple_of(ALIGN_BYTES)));
    }

    #[test]
    fn answers_and_reasons_arrive_as_they_were_sent() {
        let fixture = Fixture::new();
        let y = Tensor::from_f32("y", vec![1, 2], &[0.5, 0.25]).unwrap();
        let element = InvalidRequest::Element { name: "t".into(), index: 7, expected: EXPECTED[1] };
        for (answer, wanted) in [
            (Ok(vec![y.clone(), z(5)]), vec![]),
            (Ok(vec![z(-1), y]), vec!["z".to_owned(), "y".to_owned()]),
            (Err(RunError::Failed("told to fail".into())), vec![]),
            (Err(RunError::Request(element)), vec![]),
        ] {
            write_answer(&fixture.lane, fixture.specs(), answer.clone());
            assert_eq!(read_answer(&fixture.lane, fixture.specs(), &wanted), Ok(answer));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_sent() {
        let fixture = Fixture::new();
        let x = Tensor::from_f32("x", vec![8 << 20, 2], &vec![0.0; 16 << 20]).unwrap(); // 64 MiB
        let sent = write_request(&fixture.lane, fixture.specs(), &[x.clone(), x.clone()], &[]);
        assert_eq!(sent, Ok(DATA_MAX_BYTES));
        let sent = write_request(&fixture.lane, fixture.specs(), &[x.clone(), x.clone(), x], &[]);
        assert!(matches!(sent, Err(RunError::Failed(_))));
    }

    #[test]
    fn nothing_that_a_worker_writes_is_believed() {
        let fixture = Fixture::new();
        let far = DATA_MAX_BYTES as u64;
        let cases: [(&[u64], &str); 10] = [
            (&[9000, 0], "a number is beyond its limit"),
            (&[0], "it is cut off"),
            (&[8], "it is cut off"),
            (&[16, 3], "no kind of answer"),
            (&[24, 0, 65], "a number is beyond its limit"),
            (&[32, 0, 1, 2], "the model has no such tensor"),
            (&[64, 0, 1, 0, 14, 0, 0, 0], "no datatype"),
            (&[72, 0, 1, 1, 8, far, 8, 0], "a tensor is outside of the lane"),
            (&[72, 0, 1, 1, 8, 0, 4, 0], "a tensor's bytes do not fill its shape"),
            (&[72, 0, 1, 1, 8, 0, 8, 0], "other outputs than were asked for"),
        ];
        for (words, expected) in cases {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.resize(96, 0);
            fixture.lane.write_head(Way::Answer, &bytes);
            let read = read_answer(&fixture.lane, fixture.specs(), &[]);
            assert_eq!(read, Err(Garbled(expected)), "{words:?}");
        }
    }
}
