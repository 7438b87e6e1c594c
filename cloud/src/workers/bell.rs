//! How a worker tells a task of the server, which may not sleep, that an answer is there: it rings an
//! `eventfd` that both hold, and the runtime wakes whoever listens for one of the worker's lanes.
//!
//! What rings without need only makes listeners look at their lanes again. The counter behind it is
//! never read: every ring is an event of its own.

use futures_util::task::AtomicWaker;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::lane::{LANES_MAX, Lane, Waited};

/// The `eventfd`.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// Makes one.
    ///
    /// # Errors
    /// The system has none.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Rings.
    pub(super) fn ring(&self) {
        // An error would mean that it has rung 2^64 times.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Gives it to the other side of a socket as well, as the first thing that is said there.
    ///
    /// # Errors
    /// Nobody is there.
    pub(super) fn send(&self, to: impl AsFd) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let given = [self.0.as_fd()];
        rights.push(SendAncillaryMessage::ScmRights(&given)); // there is room for one
        sendmsg(to, &[IoSlice::new(&[0])], &mut rights, SendFlags::empty())?;
        Ok(())
    }

    /// Takes what the other side gives.
    ///
    /// # Errors
    /// It gave nothing.
    pub(super) fn receive(from: impl AsFd) -> io::Result<Self> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let into = &mut [IoSliceMut::new(&mut byte)];
        recvmsg(from, into, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
        let given = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut given) => given.next(),
            _ => None,
        });
        given.map(Self).ok_or_else(|| io::Error::other("the server gave no bell"))
    }
}

/// Who waits for the answers of one worker.
#[derive(Debug)]
pub(super) struct Listeners {
    bell: Bell,
    lanes: [AtomicWaker; LANES_MAX],
    /// Whether the runtime listens for them, once one of them has asked.
    hears: OnceLock<bool>,
}

impl Listeners {
    /// Nobody yet.
    ///
    /// # Errors
    /// The system has no `eventfd`.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { bell: Bell::new()?, lanes: Default::default(), hears: OnceLock::new() })
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Whether a task can wait here: in a runtime, which has room for one more descriptor.
    pub(super) fn hear(self: &Arc<Self>) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        *self.hears.get_or_init(|| {
            let bell = self.bell.0.try_clone().and_then(listen);
            let heard = bell.map(|bell| drop(runtime.spawn(pass_on(bell, Arc::downgrade(self)))));
            heard.is_ok()
        })
    }

    /// Waits until a lane has an answer, or its worker is gone.
    pub(super) async fn wait(&self, lane: &Lane) -> Waited {
        let waker = &self.lanes[lane.index()];
        poll_fn(|context| {
            waker.register(context.waker()); // before it looks, so that no ring is missed
            lane.waited().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.bell.ring(); // for `pass_on`, which then ends
    }
}

fn listen(bell: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: what is owned is one and the same descriptor until it is dropped.
    #[allow(unsafe_code)]
    let listening = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) };
    Ok(listening?)
}

/// Wakes everybody who waits, whenever it rings.
async fn pass_on(bell: AsyncFd<OwnedFd>, listeners: Weak<Listeners>) {
    while let Ok(mut rung) = bell.readable().await {
        rung.clear_ready();
        let Some(listeners) = listeners.upgrade() else { return };
        listeners.lanes.iter().for_each(AtomicWaker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::{Heard, SHARED_BYTES};
    use super::super::shared_memory::SharedMemory;
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[tokio::test]
    async fn a_task_hears_of_answers_and_of_the_end() {
        let listeners = Arc::new(Listeners::new().unwrap());
        let (ours, theirs) = UnixStream::pair().unwrap();
        listeners.bell().send(&ours).unwrap();
        let bell = Bell::receive(&theirs).unwrap();
        let lane = Lane::new(Arc::new(SharedMemory::create(SHARED_BYTES).unwrap()), 2);
        assert!(listeners.hear());
        let worker = lane.clone();
        let worker = std::thread::spawn(move || {
            for _ in 0..100 {
                let heard = worker.wait_for_request().unwrap();
                assert_eq!(heard, Heard::Bell);
                worker.answer(Duration::ZERO, heard, &bell);
            }
        });
        for _ in 0..100 {
            assert!(lane.hand_over(Heard::Bell));
            assert_eq!(listeners.wait(&lane).await, Waited::Answered);
        }
        worker.join().unwrap();
        assert!(lane.hand_over(Heard::Bell));
        let (own, gone) = (listeners.clone(), lane.clone());
        let waiting = tokio::spawn(async move { own.wait(&gone).await });
        tokio::task::yield_now().await;
        lane.gone();
        listeners.bell().ring();
        assert_eq!(waiting.await.unwrap(), Waited::Gone);
    }

    #[test]
    fn without_a_runtime_nobody_hears() {
        assert!(!Arc::new(Listeners::new().unwrap()).hear());
    }

    #[test]
    fn what_is_no_bell_is_none() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(Bell::receive(&theirs).is_err());
    }
}
