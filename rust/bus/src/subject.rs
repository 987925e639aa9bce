//! Subjects, and patterns of subjects.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use dwk_base::{Code, Error, Result, codes};

/// The longest subject or pattern, in bytes of UTF-8.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// Stands for exactly one token.
const ANY: &str = "*";
/// Stands, as the last token, for one or more tokens.
const REST: &str = ">";

/// What a message is about: 1 to 255 bytes of tokens joined by `.`, such as `sensors.a.temp`.
///
/// No token is empty or has `*`, `>`, white space or control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

impl Subject {
    /// Checks and takes a subject.
    ///
    /// # Errors
    /// `bus.subject`
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self> {
        let text = text.into();
        match fault(&text, false) {
            Some(why) => Err(invalid(&codes::BUS_SUBJECT, "subject", &text, why)),
            None => Ok(Self(text)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tokens, in order; at least one.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        tokens(&self.0)
    }
}

/// Which subjects somebody wants to hear: tokens as in a [`Subject`], of which `*` stands for any one
/// token, and a last `>` for one or more.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    /// `bus.pattern`
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self> {
        let text = text.into();
        match fault(&text, true) {
            Some(why) => Err(invalid(&codes::BUS_PATTERN, "pattern", &text, why)),
            None => Ok(Self(text)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the pattern stands for `subject`.
    pub fn matches(&self, subject: &Subject) -> bool {
        let mut subject = subject.tokens();
        for part in self.parts() {
            let Some(token) = subject.next() else { return false };
            match part {
                Part::Rest => return true,
                Part::Any => {}
                Part::Literal(literal) if literal == token => {}
                Part::Literal(_) => return false,
            }
        }
        subject.next().is_none()
    }

    /// True if it says what it is about: its first token is no wildcard.
    pub fn names(&self) -> bool {
        matches!(self.parts().next(), Some(Part::Literal(_)))
    }

    /// True if this pattern stands for every subject that `other` stands for.
    pub fn covers(&self, other: &Self) -> bool {
        let mut others = other.parts();
        for part in self.parts() {
            let Some(other) = others.next() else { return false };
            let covered = match part {
                Part::Rest => return true,
                Part::Any => other != Part::Rest,
                Part::Literal(_) => part == other,
            };
            if !covered {
                return false;
            }
        }
        others.next().is_none()
    }

    /// True if some subject is meant by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut mine, mut its) = (self.parts(), other.parts());
        loop {
            match (mine.next(), its.next()) {
                (None, None) | (Some(Part::Rest), Some(_)) | (Some(_), Some(Part::Rest)) => {
                    return true;
                }
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Part::Literal(a)), Some(Part::Literal(b))) if a != b => return false,
                (Some(_), Some(_)) => {}
            }
        }
    }

    /// The tokens and what they mean.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        tokens(&self.0).map(|token| match token {
            ANY => Part::Any,
            REST => Part::Rest,
            literal => Part::Literal(literal),
        })
    }
}

/// One token of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// This token.
    Literal(&'a str),
    /// Any one token.
    Any,
    /// One or more tokens.
    Rest,
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split('.')
}

/// Why `text` is no subject, or no pattern if `wild`.
fn fault(text: &str, wild: bool) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > SUBJECT_BYTES_MAX {
        return Some("it is longer than 255 bytes");
    }
    let mut tokens = tokens(text).peekable();
    while let Some(token) = tokens.next() {
        if token.is_empty() {
            return Some("a token is empty");
        }
        if token.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Some("it has white space or control characters");
        }
        if !token.contains(['*', '>']) {
            continue;
        }
        match token {
            _ if !wild => return Some("it has a wildcard"),
            ANY => {}
            REST if tokens.peek().is_none() => {}
            REST => return Some("'>' is not the last token"),
            _ => return Some("a wildcard is only a part of a token"),
        }
    }
    None
}

fn invalid(code: &'static Code, what: &str, text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(SUBJECT_BYTES_MAX).collect();
    Error::new(code, format!("not a {what}: {shown:?}: {why}")).with("value", shown)
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &self.0)
            }
        }
    )*};
}

as_text!(Subject, Pattern);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow twin: it says what the words of the documentation say.
    fn stands_for(pattern: &[&str], subject: &[&str]) -> bool {
        match (pattern, subject) {
            ([], []) | ([">"], [_, ..]) => true,
            (["*", pattern @ ..], [_, subject @ ..]) => stands_for(pattern, subject),
            ([token, pattern @ ..], [same, subject @ ..]) => {
                token == same && stands_for(pattern, subject)
            }
            _ => false,
        }
    }

    fn split(text: &str) -> Vec<&str> {
        text.split('.').collect()
    }

    /// Every subject of up to four tokens from `a`, `b`.
    fn world() -> Vec<Subject> {
        let mut all = vec![];
        let mut longest = vec![String::new()];
        for _ in 0..4 {
            let longer = |text: &String| ["a", "b"].map(|token| format!("{text}.{token}"));
            longest = longest.iter().flat_map(longer).collect();
            all.extend(longest.iter().map(|text| Subject::new(&text[1..]).unwrap()));
        }
        all
    }

    /// A pattern of up to three tokens over the same words: the world tells any two of them apart.
    fn patterns() -> impl Strategy<Value = Pattern> {
        let token = prop::sample::select(vec!["a", "b", "*"]);
        (prop::collection::vec(token, 0..=3), any::<bool>()).prop_filter_map(
            "empty",
            |(mut tokens, rest)| {
                if rest {
                    tokens.truncate(2);
                    tokens.push(">");
                }
                Pattern::new(tokens.join(".")).ok()
            },
        )
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_words_say(pattern in patterns()) {
            for subject in world() {
                let slow = stands_for(&split(pattern.as_str()), &split(subject.as_str()));
                prop_assert_eq!(pattern.matches(&subject), slow, "{} {}", pattern, subject);
            }
        }

        #[test]
        fn covering_is_matching_all_that_the_other_matches(a in patterns(), b in patterns()) {
            let world = world();
            let covered = world.iter().filter(|subject| b.matches(subject)).all(|s| a.matches(s));
            prop_assert_eq!(a.covers(&b), covered, "{} {}", a, b);
            prop_assert!(!a.covers(&b) || a.overlaps(&b));
        }

        #[test]
        fn overlapping_is_to_have_a_subject_in_common(a in patterns(), b in patterns()) {
            let common = world().iter().any(|subject| a.matches(subject) && b.matches(subject));
            prop_assert_eq!(a.overlaps(&b), common, "{} {}", a, b);
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        }

        #[test]
        fn any_text_is_taken_or_refused_and_never_a_panic(text in "\\PC{0,12}|[a.*> \\n\u{a0}é]{0,8}") {
            let token = |token: &str| !token.is_empty()
                && !token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c));
            prop_assert_eq!(Subject::new(&*text).is_ok(), split(&text).iter().all(|t| token(t)));
            if let Ok(subject) = Subject::new(&*text) {
                prop_assert!(Pattern::new(&*text).unwrap().matches(&subject));
            }
        }
    }

    #[test]
    fn what_is_no_subject_is_refused_with_its_code() {
        let long = "a".repeat(256);
        for text in ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\u{7f}", "*", "a.>", "a*", &long]
        {
            let error = Subject::new(text).unwrap_err();
            assert!(error.is(&codes::BUS_SUBJECT), "{text:?}");
        }
        assert!(Subject::new(&long[..255]).is_ok());
        assert!("größe.b-1_2".parse::<Subject>().is_ok());
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_code() {
        for text in ["", ">.a", "a.>.b", "a.b*", "a.>>", "**", "a..>", "a. "] {
            let error = Pattern::new(text).unwrap_err();
            assert!(error.is(&codes::BUS_PATTERN), "{text:?}");
        }
        for text in [">", "*", "*.>", "a.*.c", "a.>"] {
            assert!(Pattern::new(text).is_ok(), "{text}");
        }
    }
}
