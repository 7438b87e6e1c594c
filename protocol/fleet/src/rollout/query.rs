//! Which devices a roll-out is for: a query over their labels, such as `site=lyon AND gpu!=none`.
//!
//! ```text
//! query  := term (OR term)*
//! term   := factor (AND factor)*
//! factor := NOT factor | ( query ) | * | key | key = value | key != value | key IN ( value, ... )
//! ```
//!
//! A key alone asks whether the device has that label; `key != value` holds for a device without it. Every device is
//! asked for with `*` and in no other way: an empty query is refused, so that nobody means all of a fleet by forgetting.
//! Words (`AND`, `OR`, `NOT`, `IN`) are read in any case.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The labels of a device: key to value.
pub type Labels = BTreeMap<String, String>;

/// The longest query, in bytes.
pub const QUERY_MAX_BYTES: usize = 1024;
/// The deepest nesting of parentheses and `NOT`.
pub const QUERY_DEPTH_MAX: usize = 16;

/// A query that was understood; kept as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Query {
    text: String,
    root: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    All,
    Has(String),
    In(String, Vec<String>),
    Not(Box<Node>),
    Every(Vec<Node>),
    Any(Vec<Node>),
}

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    /// Nothing was asked for.
    #[error("an empty query; `*` asks for every device")]
    Empty,
    /// Too long, or nested too deeply.
    #[error("a query has at most {QUERY_MAX_BYTES} bytes and {QUERY_DEPTH_MAX} levels")]
    Large,
    /// A character that stands for nothing.
    #[error("a query holds no {0:?}; values with spaces are not supported")]
    Character(char),
    /// Something else was expected there.
    #[error("expected {expected} at {found:?}")]
    Unexpected {
        /// What could have stood there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
}

impl Query {
    /// Whether a device with these labels is asked for.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.root.matches(labels)
    }

    /// Whether it asks for every device, whatever its labels.
    pub fn is_all(&self) -> bool {
        self.root == Node::All
    }
}

impl Node {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Node::All => true,
            Node::Has(key) => labels.contains_key(key),
            Node::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Node::Not(inner) => !inner.matches(labels),
            Node::Every(nodes) => nodes.iter().all(|node| node.matches(labels)),
            Node::Any(nodes) => nodes.iter().any(|node| node.matches(labels)),
        }
    }
}

impl FromStr for Query {
    type Err = InvalidQuery;

    fn from_str(text: &str) -> Result<Self, InvalidQuery> {
        if text.len() > QUERY_MAX_BYTES {
            return Err(InvalidQuery::Large);
        }
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
        if parser.tokens.is_empty() {
            return Err(InvalidQuery::Empty);
        }
        let root = parser.any()?;
        match parser.peek() {
            None => Ok(Self { text: text.trim().to_owned(), root }),
            Some(_) => Err(parser.unexpected("AND, OR or the end")),
        }
    }
}

impl TryFrom<String> for Query {
    type Error = InvalidQuery;
    fn try_from(text: String) -> Result<Self, InvalidQuery> {
        text.parse()
    }
}

impl From<Query> for String {
    fn from(query: Query) -> String {
        query.text
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Words that mean something in a query, in any case.
pub(crate) const RESERVED: [&str; 4] = ["AND", "OR", "NOT", "IN"];

/// Whether a label may hold this character.
pub(crate) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':')
}

fn tokens(text: &str) -> Result<Vec<String>, InvalidQuery> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            _ if c.is_whitespace() => {}
            '(' | ')' | ',' | '=' | '*' => tokens.push(c.to_string()),
            '!' if chars.next_if_eq(&'=').is_some() => tokens.push("!=".to_owned()),
            _ if is_word(c) => {
                let mut word = String::from(c);
                while let Some(next) = chars.next_if(|c| is_word(*c)) {
                    word.push(next);
                }
                tokens.push(word);
            }
            _ => return Err(InvalidQuery::Character(c)),
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    /// Takes the next token where it is this one; words in any case.
    fn take(&mut self, token: &str) -> bool {
        let found = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(token));
        self.at += usize::from(found);
        found
    }

    fn unexpected(&self, expected: &'static str) -> InvalidQuery {
        let found = self.tokens[self.at.min(self.tokens.len())..].join(" ");
        let found = if found.is_empty() { "the end".to_owned() } else { found };
        InvalidQuery::Unexpected { expected, found }
    }

    fn any(&mut self) -> Result<Node, InvalidQuery> {
        let mut nodes = vec![self.every()?];
        while self.take("OR") {
            nodes.push(self.every()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn every(&mut self) -> Result<Node, InvalidQuery> {
        let mut nodes = vec![self.factor()?];
        while self.take("AND") {
            nodes.push(self.factor()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Every(nodes) })
    }

    fn factor(&mut self) -> Result<Node, InvalidQuery> {
        self.depth += 1;
        if self.depth > QUERY_DEPTH_MAX {
            return Err(InvalidQuery::Large);
        }
        let node = if self.take("NOT") {
            Node::Not(Box::new(self.factor()?))
        } else if self.take("(") {
            let inner = self.any()?;
            self.close()?;
            inner
        } else if self.take("*") {
            Node::All
        } else {
            self.label()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn label(&mut self) -> Result<Node, InvalidQuery> {
        let key = self.word("a label")?;
        Ok(if self.take("=") {
            Node::In(key, vec![self.word("a value")?])
        } else if self.take("!=") {
            Node::Not(Box::new(Node::In(key, vec![self.word("a value")?])))
        } else if self.take("IN") {
            Node::In(key, self.values()?)
        } else {
            Node::Has(key)
        })
    }

    fn values(&mut self) -> Result<Vec<String>, InvalidQuery> {
        if !self.take("(") {
            return Err(self.unexpected("("));
        }
        let mut values = vec![self.word("a value")?];
        while self.take(",") {
            values.push(self.word("a value")?);
        }
        self.close()?;
        Ok(values)
    }

    fn close(&mut self) -> Result<(), InvalidQuery> {
        if self.take(")") { Ok(()) } else { Err(self.unexpected(")")) }
    }

    fn word(&mut self, expected: &'static str) -> Result<String, InvalidQuery> {
        let word = self.peek().filter(|token| {
            token.starts_with(is_word) && !RESERVED.iter().any(|r| r.eq_ignore_ascii_case(token))
        });
        let Some(word) = word.map(str::to_owned) else { return Err(self.unexpected(expected)) };
        self.at += 1;
        Ok(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        text.split_whitespace().map(pair).collect()
    }

    #[test]
    fn queries_mean_what_they_say() {
        let check =
            |query: &str, device: &str| query.parse::<Query>().unwrap().matches(&labels(device));
        for (query, yes, no) in [
            ("site=lyon", "site=lyon", "site=nice"),
            ("site=lyon AND gpu=none", "site=lyon gpu=none", "site=lyon gpu=t4"),
            ("site=lyon or site=nice", "site=nice", "site=metz"),
            ("site IN (lyon, nice)", "site=nice", "site=metz"),
            ("site", "site=x", "gpu=none"),
            ("not site", "gpu=none", "site=x"),
            ("gpu!=none", "site=x", "gpu=none"),
            ("a=1 AND (b=1 OR NOT c=1)", "a=1 c=2", "a=1 c=1"),
            ("a=1 OR b=1 AND c=1", "a=1", "b=1"), // AND binds more tightly
            ("arch=x86_64", "arch=x86_64", "arch=aarch64"),
        ] {
            assert!(check(query, yes), "{query} on {yes}");
            assert!(!check(query, no), "{query} on {no}");
        }
        assert!(check("*", "") && "*".parse::<Query>().unwrap().is_all());
        assert!(!"a OR NOT a".parse::<Query>().unwrap().is_all());
    }

    #[test]
    fn what_is_no_query_is_refused_with_the_place() {
        let why = |text: &str| text.parse::<Query>().unwrap_err().to_string();
        assert_eq!(why("  "), "an empty query; `*` asks for every device");
        assert_eq!(why("site="), "expected a value at \"the end\"");
        assert_eq!(why("site=lyon gpu"), "expected AND, OR or the end at \"gpu\"");
        assert_eq!(why("site IN lyon"), "expected ( at \"lyon\"");
        assert_eq!(why("(a=1"), "expected ) at \"the end\"");
        assert_eq!(why("and=1"), "expected a label at \"and = 1\"");
        assert_eq!(why("a;b"), "a query holds no ';'; values with spaces are not supported");
        assert!(matches!("(".repeat(40).parse::<Query>(), Err(InvalidQuery::Large)));
        assert!(matches!("a".repeat(2000).parse::<Query>(), Err(InvalidQuery::Large)));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z()=!*, NOTAND]{0,60}") {
            if let Ok(query) = text.parse::<Query>() {
                let again: Query = query.to_string().parse().unwrap();
                proptest::prop_assert_eq!(again, query);
            }
        }
    }
}
