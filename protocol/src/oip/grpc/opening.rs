//! Which model a call asks, read off the first bytes of its message: enough to admit or refuse it
//! before the tensors have arrived. Encoders write fields in the order of their numbers, so the names
//! (fields 1 and 2) stand in front. Where they do not, or where the message is compressed, nothing is
//! lost: the call is admitted once its message was decoded.

use prost::encoding::{WireType, decode_key, decode_varint};

use crate::id::{ModelName, Version};

use super::parse_names;

/// Names are looked for in so many bytes; longer ones are none.
pub const OPENING_MAX_BYTES: usize = 1024;
/// gRPC's own: whether the message is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// What the first bytes of a call say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// More bytes are needed.
    Unfinished,
    /// The names, and the length of the message.
    Names {
        /// The model.
        model: ModelName,
        /// Its version, if it names one.
        version: Option<Version>,
        /// As announced; nobody has counted.
        message_bytes: u32,
    },
    /// They do not say it.
    Silent,
}

impl Opening {
    /// Reads the first bytes of the body of a `ModelInfer` call.
    pub fn read(body: &[u8]) -> Self {
        let Some((prefix, message)) = body.split_at_checked(PREFIX_BYTES) else {
            return Self::Unfinished;
        };
        let message_bytes = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        if prefix[0] != 0 {
            return Self::Silent; // compressed
        }
        let whole = usize::try_from(message_bytes).unwrap_or(usize::MAX);
        let message = message.get(..whole).unwrap_or(message);
        match names(message, message.len() == whole) {
            Found::Unfinished if message.len() < OPENING_MAX_BYTES => Self::Unfinished,
            Found::Unfinished => Self::Silent,
            Found::Names(model, version) => match parse_names(model, version) {
                Ok((model, version)) => Self::Names { model, version, message_bytes },
                Err(_) => Self::Silent, // whoever decodes it says what is wrong
            },
        }
    }
}

enum Found<'m> {
    Unfinished,
    Names(&'m str, &'m str),
}

fn names(mut message: &[u8], is_whole: bool) -> Found<'_> {
    let mut names = ["", ""];
    loop {
        let whole = Found::Names(names[0], names[1]);
        if message.is_empty() {
            return if is_whole { whole } else { Found::Unfinished };
        }
        let Ok((field @ (1 | 2), WireType::LengthDelimited)) = decode_key(&mut message) else {
            return whole; // another field: the names stand in front of it, or nowhere
        };
        let len = decode_varint(&mut message).ok().and_then(|len| usize::try_from(len).ok());
        let text = len.and_then(|len| message.split_at_checked(len));
        let Some((text, rest)) = text else { return Found::Unfinished };
        let Ok(text) = std::str::from_utf8(text) else { return whole };
        names[field as usize - 1] = text;
        message = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::inference::ModelInferRequest;
    use prost::Message as _;

    fn framed(message: &[u8]) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], &len[..], message].concat()
    }

    fn call(model: &str, version: &str) -> Vec<u8> {
        let message = ModelInferRequest {
            model_name: model.into(),
            model_version: version.into(),
            id: "x".into(),
            raw_input_contents: vec![vec![7; 4000].into()],
            ..Default::default()
        };
        framed(&message.encode_to_vec())
    }

    fn named(model: &str, version: Option<u64>, body: &[u8]) -> Opening {
        let message_bytes = u32::from_be_bytes([body[1], body[2], body[3], body[4]]);
        let version = version.map(|version| version.to_string().parse().unwrap());
        Opening::Names { model: model.parse().unwrap(), version, message_bytes }
    }

    #[test]
    fn the_names_are_known_as_soon_as_they_have_arrived() {
        let body = call("fashion", "3");
        let known = PREFIX_BYTES + "..fashion..3".len() + 1; // and the next field's key
        for end in 0..known {
            assert_eq!(Opening::read(&body[..end]), Opening::Unfinished, "{end}");
        }
        for end in known..body.len() {
            assert_eq!(Opening::read(&body[..end]), named("fashion", Some(3), &body), "{end}");
        }
        let body = call("fashion", "");
        assert_eq!(Opening::read(&body), named("fashion", None, &body));
    }

    #[test]
    fn a_message_of_names_alone_ends() {
        let message = ModelInferRequest { model_name: "a".into(), ..Default::default() };
        let body = framed(&message.encode_to_vec());
        assert_eq!(Opening::read(&body), named("a", None, &body));
    }

    #[test]
    fn what_names_no_model_in_front_is_left_to_decoding() {
        let mut compressed = call("fashion", "");
        compressed[0] = 1;
        let inputs_first = framed(&[0x2a, 0, 0x0a, 1, b'a']);
        let no_text = framed(&[0x0a, 1, 0xff, 0x1a, 0]);
        let endless = framed(&[&[0x0a, 0xff, 0x7f], &[b'a'; 2000][..]].concat());
        let no_version = call("fashion", "x");
        for body in [compressed, inputs_first, no_text, endless, no_version, call("a b", "")] {
            assert_eq!(Opening::read(&body), Opening::Silent, "{:?}", &body[..12]);
        }
        assert_eq!(Opening::read(&framed(&[])), Opening::Silent);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(body: Vec<u8>) {
            let _ = Opening::read(&body);
        }
    }
}
