//! Inference nodes, as the control node sees them: they enrol by a token (`enrol`), keep one
//! connection (`session`) on which they are told what changed and say how they are, and get a
//! certificate that bears nobody else's name.
//!
//! The other end of all this is [`crate::join`].

use link::connection::Connection;
use protocol::id::NodeId;
use protocol::problem::ProblemCode;
use protocol::wire::NodeReport;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) mod enrol;
pub(crate) mod session;

/// The nodes that are connected.
#[derive(Debug)]
pub struct Nodes {
    /// Of this process: what a node knows of another epoch is void.
    epoch: [u8; 16],
    connected: Mutex<HashMap<NodeId, Connected>>,
}

#[derive(Debug)]
struct Connected {
    connection: Connection,
    report: NodeReport,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { epoch: link::entropy(), connected: Mutex::default() }
    }
}

impl Nodes {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node said last; `None` while it is not connected.
    pub fn report(&self, node: &NodeId) -> Option<NodeReport> {
        self.lock().get(node).map(|connected| connected.report)
    }

    /// A newer connection takes the place of an older one.
    fn enter(&self, node: &NodeId, connection: &Connection) {
        let connected = Connected { connection: connection.clone(), report: NodeReport::default() };
        if let Some(old) = self.lock().insert(node.clone(), connected) {
            old.connection.close(ProblemCode::None, "connected anew");
        }
    }

    fn leave(&self, node: &NodeId, connection: &Connection) {
        let mut all = self.lock();
        let same = |c: &Connected| c.connection.stable_id() == connection.stable_id();
        if all.get(node).is_some_and(same) {
            all.remove(node);
        }
    }

    fn said(&self, node: &NodeId, report: NodeReport) {
        if let Some(connected) = self.lock().get_mut(node) {
            connected.report = report;
        }
    }

    /// Ends the connection of a node that was shut out.
    pub(crate) fn expel(&self, node: &NodeId) {
        if let Some(connected) = self.lock().get(node) {
            let reason = session::REMOVED;
            connected.connection.close(ProblemCode::Unauthorised, reason);
        }
    }
}
