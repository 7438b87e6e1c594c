use super::*;
use proptest::prelude::*;

/// Two ends, and what is on its way between them.
struct Pair {
    agent: Mux,
    cloud: Mux,
}

impl Pair {
    fn new() -> Self {
        Self { agent: Mux::new(Side::Opens), cloud: Mux::new(Side::Accepts) }
    }

    /// Lets both say all that they can, in pieces of `cut` bytes.
    fn settle(&mut self, cut: usize) {
        while carry(&mut self.agent, &mut self.cloud, cut)
            | carry(&mut self.cloud, &mut self.agent, cut)
        {}
    }
}

fn carry(from: &mut Mux, to: &mut Mux, cut: usize) -> bool {
    let mut moved = false;
    while from.has_output() {
        let mut out = Vec::new();
        from.write_output(&mut out, 64 << 10);
        for piece in out.chunks(cut) {
            to.handle_input(piece).unwrap();
        }
        if out.is_empty() {
            break;
        }
        moved = true;
    }
    moved
}

fn chunk(length: usize) -> Bytes {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn drain(mux: &mut Mux, id: StreamId) -> (Vec<u8>, Read) {
    let mut all = Vec::new();
    loop {
        match mux.read(id, 1 << 16) {
            Read::Chunk(bytes) => all.extend_from_slice(&bytes),
            other => return (all, other),
        }
    }
}

fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.poll_event()).collect()
}

#[test]
fn a_question_and_its_answer_however_they_are_cut() {
    for cut in [1, 2, 7, 9, 10, 4096, 1 << 20] {
        let mut pair = Pair::new();
        let id = pair.agent.open().unwrap();
        assert_eq!(pair.agent.write(id, &chunk(50_000)), Write::Taken);
        assert!(pair.agent.finish(id));
        pair.settle(cut);
        let there = pair.cloud.accept().unwrap();
        assert_eq!(drain(&mut pair.cloud, there), (chunk(50_000).to_vec(), Read::End));
        assert_eq!(pair.agent.stopped(id), Stopped::Received);
        pair.cloud.write(there, &chunk(3));
        pair.cloud.finish(there);
        pair.settle(cut);
        assert_eq!(drain(&mut pair.agent, id), (chunk(3).to_vec(), Read::End));
        for mux in [&mut pair.agent, &mut pair.cloud] {
            mux.release_sender(id);
            mux.release_receiver(id);
        }
        pair.settle(cut);
        assert_eq!((pair.agent.open_streams(), pair.cloud.open_streams()), (0, 0));
    }
}

#[test]
fn what_is_urgent_goes_first_and_equals_take_turns() {
    let mut pair = Pair::new();
    let ids: Vec<_> = (0..4).map(|_| pair.agent.open().unwrap()).collect();
    let priorities = [Priority::Blob, Priority::Answer, Priority::Answer, Priority::Control];
    for (id, priority) in ids.iter().zip(priorities) {
        pair.agent.set_priority(*id, priority);
        pair.agent.write(*id, &chunk(2 * DATA_MAX_BYTES));
    }
    let mut order = Vec::new();
    let mut out = Vec::new();
    pair.agent.write_output(&mut out, 0); // the words, no data
    while pair.agent.has_output() {
        out.clear();
        pair.agent.write_output(&mut out, 1);
        order.push(out[1]);
    }
    assert_eq!(order, [1, 2, 1, 2, 3, 3, 0, 0]);
}

#[test]
fn nobody_sends_more_than_is_read() {
    let mut pair = Pair::new();
    let id = pair.agent.open().unwrap();
    let piece = chunk(1 << 20);
    let mut taken = 0_u32;
    while pair.agent.write(id, &piece) == Write::Taken {
        taken += 1;
        pair.settle(1 << 16);
    }
    assert_eq!(taken, 5, "a window, and one more that waits here");
    let there = pair.cloud.accept().unwrap();
    let (first, _) = drain(&mut pair.cloud, there);
    assert_eq!(first.len(), 4 << 20);
    events(&mut pair.agent);
    pair.settle(1 << 16);
    assert!(events(&mut pair.agent).contains(&Event::Writable(id)));
    assert_eq!(drain(&mut pair.cloud, there).0.len(), 1 << 20);
}

#[test]
fn a_connection_has_a_window_too() {
    let mut pair = Pair::new();
    let mut sent = 0;
    for _ in 0..16 {
        let id = pair.agent.open().unwrap();
        for _ in 0..4 {
            sent += usize::from(pair.agent.write(id, &chunk(1 << 20)) == Write::Taken);
            pair.settle(1 << 16);
        }
    }
    let ids: Vec<_> = std::iter::from_fn(|| pair.cloud.accept()).collect();
    let held = |pair: &mut Pair| -> usize {
        ids.iter().map(|id| drain(&mut pair.cloud, *id).0.len()).sum()
    };
    assert_eq!(held(&mut pair), 32 << 20);
    pair.settle(1 << 16);
    assert_eq!(held(&mut pair) + (32 << 20), sent << 20);
}

#[test]
fn a_reset_throws_away_what_waits_and_gives_its_room_back() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        let id = pair.agent.open().unwrap();
        pair.agent.write(id, &chunk(1 << 20));
        pair.settle(1 << 16);
        pair.agent.write(id, &chunk(1 << 20));
        pair.agent.reset(id, 7);
        pair.agent.stop(id, 7);
        let there = pair.cloud.accept().unwrap();
        pair.settle(1 << 16);
        assert_eq!(pair.cloud.read(there, 9), Read::Reset(7));
        assert_eq!(pair.cloud.ended(there), Some(Some(7)));
        assert_eq!(pair.cloud.stopped(there), Stopped::Yes(7));
        assert_eq!(pair.cloud.write(there, &chunk(1)), Write::Stopped(7));
        for mux in [&mut pair.agent, &mut pair.cloud] {
            mux.release_sender(id);
            mux.release_receiver(id);
        }
        pair.settle(1 << 16);
        assert_eq!((pair.agent.open_streams(), pair.cloud.open_streams()), (0, 0));
    }
}

#[test]
fn a_refusal_is_heard_before_everything_was_sent() {
    let mut pair = Pair::new();
    let id = pair.agent.open().unwrap();
    while pair.agent.write(id, &chunk(1 << 20)) == Write::Taken {
        pair.settle(1 << 16);
    }
    let there = pair.cloud.accept().unwrap();
    pair.cloud.stop(there, 3);
    pair.cloud.write(there, &chunk(10));
    pair.cloud.finish(there);
    pair.settle(1 << 16);
    assert_eq!(pair.agent.write(id, &chunk(1)), Write::Stopped(3));
    assert!(pair.agent.finish(id), "whoever was stopped may end");
    assert_eq!(drain(&mut pair.agent, id), (chunk(10).to_vec(), Read::End));
}

#[test]
fn streams_are_bounded_and_come_back() {
    let mut pair = Pair::new();
    let mut ids: Vec<_> = std::iter::from_fn(|| pair.agent.open()).collect();
    assert_eq!(ids.len(), STREAMS_PER_CONNECTION as usize);
    for _ in 0..1000 {
        pair.settle(1 << 16);
        while pair.cloud.accept().is_some() {}
        let id = ids.remove(0);
        for mux in [&mut pair.agent, &mut pair.cloud] {
            mux.release_sender(id);
            mux.release_receiver(id);
        }
        pair.settle(1 << 16);
        ids.extend(pair.agent.open());
    }
    assert!(ids.len() > STREAMS_PER_CONNECTION as usize / 2, "{}", ids.len());
    assert!(pair.cloud.open_streams() <= STREAMS_PER_CONNECTION as usize);
}

#[test]
fn a_flood_that_is_not_read_makes_nothing_grow() {
    let mut cloud = Mux::new(Side::Accepts);
    let mut flood = Vec::new();
    for stream in 0..STREAMS_PER_CONNECTION {
        for kind in [Kind::Open, Kind::Last, Kind::Stop] {
            Header { kind, stream, value: 0 }.write(&mut flood);
        }
    }
    for _ in 0..10_000 {
        Header { kind: Kind::Ping, stream: 0, value: 0 }.write(&mut flood);
    }
    cloud.handle_input(&flood).unwrap();
    while let Some(id) = cloud.accept() {
        cloud.release_sender(id);
        cloud.release_receiver(id);
    }
    let mut next = Vec::new();
    Header { kind: Kind::Open, stream: STREAMS_PER_CONNECTION, value: 0 }.write(&mut next);
    let refused = cloud.handle_input(&next);
    assert_eq!(refused, Err(MuxError::Stream(STREAMS_PER_CONNECTION)), "nothing was granted");
    let mut out = Vec::new();
    cloud.write_output(&mut out, usize::MAX);
    assert!(out.len() <= STREAMS_PER_CONNECTION as usize * 4 * HEADER_BYTES + 64, "{}", out.len());
}

#[test]
fn single_bytes_take_no_more_memory() {
    let mut cloud = Mux::new(Side::Accepts);
    let mut bytes = Vec::new();
    Header { kind: Kind::Open, stream: 0, value: 0 }.write(&mut bytes);
    for _ in 0..100_000 {
        Header { kind: Kind::Data, stream: 0, value: 1 }.write(&mut bytes);
        bytes.push(1);
    }
    cloud.handle_input(&bytes).unwrap();
    let id = cloud.accept().unwrap();
    let mut pieces = 0;
    while let Read::Chunk(_) = cloud.read(id, usize::MAX) {
        pieces += 1;
    }
    assert!(pieces < 150, "{pieces}");
}

fn refused(frames: &[(Kind, u32, u32)]) -> MuxError {
    let mut cloud = Mux::new(Side::Accepts);
    let mut bytes = Vec::new();
    for (kind, stream, value) in frames {
        Header { kind: *kind, stream: *stream, value: *value }.write(&mut bytes);
        if matches!(kind, Kind::Data | Kind::Last) {
            bytes.resize(bytes.len() + *value as usize, 0);
        }
    }
    cloud.handle_input(&bytes).unwrap_err()
}

#[test]
fn hostile_frames() {
    use Kind::{Credit, Data, Last, Open, Received, Reset, Stop, Streams};
    let most = u32::try_from(DATA_MAX_BYTES).unwrap();
    assert_eq!(refused(&[(Open, 1, 0)]), MuxError::Stream(1));
    assert_eq!(refused(&[(Open, 0, 0), (Open, 0, 0)]), MuxError::Stream(0));
    assert_eq!(refused(&[(Data, 0, 1)]), MuxError::Stream(0));
    assert_eq!(refused(&[(Open, 0, 0), (Data, 0, most + 1)]), MuxError::TooLong(most + 1));
    assert_eq!(refused(&[(Open, 0, 0), (Last, 0, 0), (Data, 0, 1)]), MuxError::AfterEnd(0));
    assert_eq!(refused(&[(Open, 0, 0), (Reset, 0, 0), (Reset, 0, 0)]), MuxError::AfterEnd(0));
    assert_eq!(refused(&[(Open, 0, 0), (Received, 0, 0)]), MuxError::Unasked);
    assert_eq!(refused(&[(Streams, 0, 9)]), MuxError::Limit(9));
    for kind in [Stop, Credit, Received, Reset] {
        assert_eq!(refused(&[(kind, 5, 1)]), MuxError::Stream(5));
    }
    let mut window = vec![(Open, 0, 0)];
    window.extend(std::iter::repeat_n((Data, 0, most), (4 << 20) / DATA_MAX_BYTES + 1));
    assert_eq!(refused(&window), MuxError::Credit(0));
    let mut unknown = Mux::new(Side::Accepts);
    assert_eq!(unknown.handle_input(&[77; 9]), Err(MuxError::Kind(77)));
}

#[test]
fn the_end_has_a_code_and_a_reason() {
    let mut pair = Pair::new();
    let id = pair.agent.open().unwrap();
    pair.agent.write(id, &chunk(9));
    pair.agent.close(5, &"because ".repeat(100));
    pair.settle(3);
    assert_eq!(events(&mut pair.cloud), [Event::Closed { code: 5 }]);
    assert!(pair.cloud.reason().starts_with("because ") && pair.cloud.reason().len() == 256);
    assert_eq!(pair.agent.open(), None);
    assert!(!pair.agent.has_output());
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Write(usize, usize),
    Finish(usize),
    Reset(usize),
    Stop(usize),
    Release(usize),
    Carry(usize),
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Open),
        (0..8_usize, 0..40_000_usize).prop_map(|(at, length)| Step::Write(at, length)),
        (0..8_usize).prop_map(Step::Finish),
        (0..8_usize).prop_map(Step::Reset),
        (0..8_usize).prop_map(Step::Stop),
        (0..8_usize).prop_map(Step::Release),
        (1..5_000_usize).prop_map(Step::Carry),
        (0..8_usize).prop_map(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two honest ends do, neither takes the other for a liar, and in the end nothing is left.
    #[test]
    fn honest_ends_agree(steps in prop::collection::vec(step(), 1..200)) {
        let mut pair = Pair::new();
        let (mut open, mut all) = (Vec::new(), Vec::new());
        for step in steps {
            let at = |at: usize| -> Option<StreamId> { open.get(at).copied() };
            match step {
                Step::Open => {
                    let id = pair.agent.open();
                    open.extend(id);
                    all.extend(id);
                }
                Step::Write(n, length) => {
                    if let Some(id) = at(n) {
                        pair.agent.write(id, &chunk(length));
                    }
                }
                Step::Finish(n) => { at(n).map(|id| pair.agent.finish(id)); }
                Step::Reset(n) => if let Some(id) = at(n) { pair.agent.reset(id, 1) },
                Step::Stop(n) => if let Some(id) = at(n) { pair.cloud.stop(id, 2) },
                Step::Release(n) => if n < open.len() {
                    let id = open.remove(n);
                    pair.agent.release_sender(id);
                    pair.agent.release_receiver(id);
                },
                Step::Carry(cut) => pair.settle(cut),
                Step::Read(n) => if let Some(id) = at(n) { drain(&mut pair.cloud, id); },
            }
        }
        pair.settle(777);
        while pair.cloud.accept().is_some() {}
        for id in all {
            for mux in [&mut pair.agent, &mut pair.cloud] {
                mux.release_sender(id);
                mux.release_receiver(id);
            }
        }
        pair.settle(777);
        prop_assert_eq!((pair.agent.open_streams(), pair.cloud.open_streams()), (0, 0));
    }
}
