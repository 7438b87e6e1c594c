//! ONNX Runtime's execution providers: registering one, and asking a session what it took.

use std::ffi::{CStr, c_char};
use std::num::NonZeroUsize;
use std::ptr;

use ort::AsPointer;
use ort::ep::{self, ExecutionProvider};
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use crate::backend::SessionOptions;
use crate::providers::{NodeCount, Provider, Reason, nvidia_driver};

/// Lets a session tell afterwards which nodes went where.
pub(super) const RECORD_ASSIGNMENT: &str = "session.record_ep_graph_assignment_info";

/// Whether it is worth trying.
pub(super) fn offers(provider: Provider) -> Result<(), Reason> {
    let built_in = match provider {
        Provider::Cpu => Ok(true),
        Provider::TensorRt => ep::TensorRT::is_available(),
        Provider::Cuda => ep::CUDA::is_available(),
        Provider::OpenVino => ep::OpenVINO::is_available(),
        Provider::CoreMl => ep::CoreML::is_available(),
        Provider::DirectMl => ep::DirectML::is_available(),
        Provider::Qnn => ep::QNN::is_available(),
        Provider::Xnnpack => ep::XNNPACK::is_available(),
    };
    if !built_in.unwrap_or(false) {
        return Err(Reason::NotBuiltIn);
    }
    match provider {
        Provider::TensorRt | Provider::Cuda => Ok(nvidia_driver()?),
        _ => Ok(()),
    }
}

/// Registers a provider; an error where it cannot work here, never a silent way around it. The CPU's
/// provider is added by ONNX Runtime itself.
pub(super) fn register(
    builder: &mut SessionBuilder,
    options: &SessionOptions,
) -> Result<(), ort::Error> {
    let limit = options.device_memory_bytes.map(|b| usize::try_from(b).unwrap_or(usize::MAX));
    let threads = NonZeroUsize::new(options.threads).unwrap_or(NonZeroUsize::MIN);
    let device = i32::try_from(options.device).unwrap_or(i32::MAX);
    let tensor_rt = || ep::TensorRT::default().with_device_id(device);
    let cuda = || ep::CUDA::default().with_device_id(device);
    match options.provider {
        Provider::Cpu => Ok(()),
        Provider::TensorRt => match limit {
            Some(bytes) => tensor_rt().with_max_workspace_size(bytes),
            None => tensor_rt(),
        }
        .register(builder),
        Provider::Cuda => match limit {
            Some(bytes) => cuda().with_memory_limit(bytes),
            None => cuda(),
        }
        .register(builder),
        Provider::OpenVino => {
            ep::OpenVINO::default().with_num_threads(threads.get()).register(builder)
        }
        Provider::CoreMl => ep::CoreML::default().register(builder),
        Provider::DirectMl => ep::DirectML::default().register(builder),
        Provider::Qnn => ep::QNN::default().register(builder),
        Provider::Xnnpack => {
            ep::XNNPACK::default().with_intra_op_num_threads(threads).register(builder)
        }
    }
}

/// How ONNX Runtime itself calls a provider.
fn own_name(provider: Provider) -> &'static str {
    match provider {
        Provider::Cpu => ep::CPU::NAME,
        Provider::TensorRt => ep::TensorRT::NAME,
        Provider::Cuda => ep::CUDA::NAME,
        Provider::OpenVino => ep::OpenVINO::NAME,
        Provider::CoreMl => ep::CoreML::NAME,
        Provider::DirectMl => ep::DirectML::NAME,
        Provider::Qnn => ep::QNN::NAME,
        Provider::Xnnpack => ep::XNNPACK::NAME,
    }
}

/// How many nodes of a session's graph went to its provider; `None` where the library does not say.
pub(super) fn nodes(session: &Session, provider: Provider) -> Option<NodeCount> {
    let mut count = NodeCount { taken: 0, all: 0 };
    for (name, nodes) in assignment(session)? {
        count.all += nodes;
        if name == own_name(provider) {
            count.taken += nodes;
        }
    }
    Some(count)
}

/// The parts of a session's graph: by whom each is computed, and how many nodes it has.
#[allow(unsafe_code)] // the bindings have no safe call for it yet
fn assignment(session: &Session) -> Option<Vec<(String, usize)>> {
    let api = ort::api();
    let mut parts = ptr::null();
    let mut count = 0;
    // SAFETY: the session is alive, and both results are written before the call returns. The array
    // and all that it refers to belong to the session.
    let status = unsafe {
        (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut parts, &raw mut count)
    };
    succeeded(status)?;
    let mut read = Vec::with_capacity(count);
    for index in 0..count {
        let mut name: *const c_char = ptr::null();
        let mut nodes = ptr::null();
        let mut node_count = 0;
        // SAFETY: `parts` has `count` elements, each valid for as long as the session, as are the
        // name and the nodes that are read from it here.
        unsafe {
            let part = *parts.add(index);
            succeeded((api.EpAssignedSubgraph_GetEpName)(part, &raw mut name))?;
            let status =
                (api.EpAssignedSubgraph_GetNodes)(part, &raw mut nodes, &raw mut node_count);
            succeeded(status)?;
            read.push((CStr::from_ptr(name).to_string_lossy().into_owned(), node_count));
        }
    }
    Some(read)
}

/// Takes a call's result: nothing on success, else an error, which has to be released.
#[allow(unsafe_code)]
fn succeeded(status: ort::sys::OrtStatusPtr) -> Option<()> {
    if status.0.is_null() {
        return Some(());
    }
    // SAFETY: the status came from the library just now, and nobody else has it.
    unsafe { (ort::api().ReleaseStatus)(status.0) };
    None
}
