//! A place in a trace, as it travels: the headers of W3C Trace Context (levels 1 and 2), and the same
//! in an agent's request. Whatever is not as the standard has it is as good as absent: tracing never
//! costs a request its answer.

use std::fmt;
use std::sync::Arc;

use crate::wire;

/// Longer lists of vendors' own state are left out; the standard wants at least this much passed on.
pub const STATE_MAX_BYTES: usize = 512;
/// Vendors in one list at most, by the standard.
const STATE_MAX_MEMBERS: usize = 32;
/// Bytes of a `traceparent` of version 00.
const PARENT_BYTES: usize = 55;

const SAMPLED: u8 = 0b01;
/// The trace's id is random, so that decisions may be drawn from it.
const RANDOM: u8 = 0b10;

/// Names a trace. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Names a span within its trace. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// A span's place in its trace, as it is told to those who are asked on its behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    flags: u8,
    state: Option<Arc<str>>,
}

impl TraceId {
    /// Drawn from random bytes.
    pub fn from_entropy(bytes: [u8; 16]) -> Self {
        Self::new(bytes).unwrap_or(Self([1; 16]))
    }

    fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl SpanId {
    /// Drawn from random bytes.
    pub fn from_entropy(bytes: [u8; 8]) -> Self {
        Self::new(bytes).unwrap_or(Self([1; 8]))
    }

    fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl TraceContext {
    /// The first place of a new trace.
    pub fn begin(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        Self { trace, span, flags: RANDOM | if sampled { SAMPLED } else { 0 }, state: None }
    }

    /// Another place in the same trace.
    #[must_use]
    pub fn at(&self, span: SpanId, sampled: bool) -> Self {
        let flags = (self.flags & RANDOM) | if sampled { SAMPLED } else { 0 };
        Self { span, flags, ..self.clone() }
    }

    /// What the headers `traceparent` and `tracestate` say. Several lists of state count as one; a list
    /// that is malformed or too long is left out, and with a bad parent both are.
    pub fn from_headers<'h>(
        parents: impl IntoIterator<Item = &'h [u8]>,
        states: impl IntoIterator<Item = &'h [u8]>,
    ) -> Option<Self> {
        let mut parents = parents.into_iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None; // there is no telling which one is meant
        }
        let mut context = parse_parent(trimmed(parent))?;
        context.state = parse_state(states);
        Some(context)
    }

    /// What an agent's request says.
    pub fn from_wire(said: &wire::TraceContext) -> Option<Self> {
        let trace = TraceId::new(said.trace_id.as_ref().try_into().ok()?)?;
        let span = SpanId::new(said.span_id.as_ref().try_into().ok()?)?;
        let flags = u8::try_from(said.flags & u32::from(SAMPLED | RANDOM)).unwrap_or(0);
        Some(Self { trace, span, flags, state: parse_state([said.state.as_bytes()]) })
    }

    /// The same, as it is sent.
    pub fn to_wire(&self) -> wire::TraceContext {
        wire::TraceContext {
            trace_id: self.trace.0.to_vec().into(),
            span_id: self.span.0.to_vec().into(),
            flags: self.flags.into(),
            state: self.state.as_deref().unwrap_or_default().to_owned(),
        }
    }

    /// The trace.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// The span.
    pub fn span(&self) -> SpanId {
        self.span
    }

    /// Whether whoever asks records it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags of the standard that are known here.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// What vendors keep in it, passed on as it came.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// A `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (hex::encode(self.trace.0), hex::encode(self.span.0));
        write!(f, "00-{trace}-{span}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// `version-trace-span-flags` in lower-case hexadecimal. Versions to come may say more behind it.
fn parse_parent(text: &[u8]) -> Option<TraceContext> {
    let (known, more) = text.split_at_checked(PARENT_BYTES)?;
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    let [version] = from_hex(&known[..2])?;
    let ends = match version {
        0 => more.is_empty(),
        0xff => false,
        _ => more.is_empty() || more[0] == b'-',
    };
    if !dashes || !ends {
        return None;
    }
    let trace = TraceId::new(from_hex(&known[3..35])?)?;
    let span = SpanId::new(from_hex(&known[36..52])?)?;
    let [flags] = from_hex(&known[53..])?;
    Some(TraceContext { trace, span, flags: flags & (SAMPLED | RANDOM), state: None })
}

fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return None; // the standard has lower case only
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// `vendor=value` with commas between; empty members are allowed, and left out.
fn parse_state<'h>(lists: impl IntoIterator<Item = &'h [u8]>) -> Option<Arc<str>> {
    let mut joined = String::new();
    let mut keys: Vec<&[u8]> = Vec::new();
    let members = lists.into_iter().flat_map(|list| list.split(|byte| *byte == b','));
    for member in members.map(trimmed).filter(|member| !member.is_empty()) {
        let equals = member.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(std::str::from_utf8(member).ok()?);
        if keys.len() > STATE_MAX_MEMBERS || joined.len() > STATE_MAX_BYTES {
            return None;
        }
    }
    (!joined.is_empty()).then(|| joined.into())
}

/// `name`, or `tenant@system`.
fn is_key(key: &[u8]) -> bool {
    let follows =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(byte);
    let named = |name: &[u8], max: usize, digit_first: bool| {
        let first = name.first().is_some_and(|first| {
            first.is_ascii_lowercase() || (digit_first && first.is_ascii_digit())
        });
        first && name.len() <= max && name.iter().all(follows)
    };
    match key.iter().position(|byte| *byte == b'@') {
        Some(at) => named(&key[..at], 241, true) && named(&key[at + 1..], 14, false),
        None => named(key, 256, true),
    }
}

fn is_value(value: &[u8]) -> bool {
    let printable = |byte: &u8| (0x20..=0x7e).contains(byte) && !b",=".contains(byte);
    !value.is_empty() && value.len() <= 256 && value.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(parent: &str) -> Option<TraceContext> {
        TraceContext::from_headers([parent.as_bytes()], [])
    }

    fn state(lists: &[&str]) -> Option<String> {
        let lists = lists.iter().map(|list| list.as_bytes());
        let context = TraceContext::from_headers([GOOD.as_bytes()], lists).unwrap();
        context.state().map(str::to_owned)
    }

    #[test]
    fn a_parent_is_taken_as_the_standard_has_it() {
        let context = parse(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert!(context.is_sampled());
        assert!(!parse(&GOOD.replace("-01", "-00")).unwrap().is_sampled());
        assert_eq!(parse(&format!(" {GOOD}\t")).unwrap(), context, "white space around it");
        let flags = parse(&GOOD.replace("-01", "-ff")).unwrap();
        assert_eq!(flags.flags(), 3, "unknown flags are not passed on");
        for later in ["cc", "01"] {
            let parent = GOOD.replacen("00", later, 1);
            assert_eq!(parse(&parent), Some(context.clone()));
            assert_eq!(parse(&format!("{parent}-what-the-future-has")), Some(context.clone()));
            assert_eq!(parse(&format!("{parent}.no")), None);
        }
    }

    #[test]
    fn what_is_malformed_is_as_good_as_absent() {
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let no_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        let more = format!("{GOOD}-01");
        let upper = GOOD.to_uppercase();
        let (never, short) = (GOOD.replacen("00", "ff", 1), &GOOD[..54]);
        let dash = GOOD.replace('-', "_");
        let no_hex = GOOD.replace('a', "g");
        for bad in ["", "00", zeros, no_span, &more, &upper, &never, short, &dash, &no_hex] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let twice = TraceContext::from_headers([GOOD.as_bytes(), GOOD.as_bytes()], []);
        assert_eq!(twice, None);
    }

    #[test]
    fn state_is_passed_on_whole_or_not_at_all() {
        assert_eq!(state(&["a=1,b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&["a=1, ,", "", "t@b=2 3"]).as_deref(), Some("a=1,t@b=2 3"));
        let long = format!("a={}", "x".repeat(256));
        assert_eq!(state(&[&long]).as_deref(), Some(long.as_str()));
        let many: Vec<_> = (0..33).map(|n| format!("k{n}=1")).collect();
        assert_eq!(state(&[&many[..32].join(",")]).map(|s| s.len()), Some(32 * 6 - 11));
        let (many, longer) =
            (many.join(","), [long.as_str(), &long.replacen('a', "b", 1)].join(","));
        let bad = ["a", "A=1", "a=1,a=2", "a=", "a=\u{e4}", "@b=1", "t@1=1", "a=b=c"];
        for bad in bad.into_iter().chain([many.as_str(), &longer]) {
            assert_eq!(state(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn the_wire_says_the_same() {
        let context = TraceContext::from_headers([GOOD.as_bytes()], [&b"a=1"[..]]).unwrap();
        assert_eq!(TraceContext::from_wire(&context.to_wire()), Some(context.clone()));
        let child = context.at(SpanId::from_entropy([7; 8]), true);
        assert_eq!(child.trace(), context.trace());
        let short = wire::TraceContext { trace_id: vec![1; 15].into(), ..context.to_wire() };
        assert_eq!(TraceContext::from_wire(&short), None);
        let zero = wire::TraceContext { span_id: vec![0; 8].into(), ..context.to_wire() };
        assert_eq!(TraceContext::from_wire(&zero), None);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_says_itself_again(
            parent in prop::collection::vec(any::<u8>(), 0..70),
            state in prop::collection::vec(any::<u8>(), 0..40),
            at in 0usize..55,
        ) {
            let _ = TraceContext::from_headers([&parent[..]], [&state[..]]);
            let mut near = GOOD.as_bytes().to_vec();
            near[at] = parent.first().copied().unwrap_or(b'0');
            if let Some(context) = TraceContext::from_headers([&near[..]], [&state[..]]) {
                let said = context.to_string();
                let state = context.state().map(str::as_bytes);
                let again = TraceContext::from_headers([said.as_bytes()], state);
                prop_assert_eq!(again, Some(context));
            }
        }
    }
}
