//! What a filter says, as a tree, and as text again.

use std::fmt;

/// A condition on an envelope.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// Every one of two or more holds.
    All(Vec<Condition>),
    /// At least one of two or more holds.
    Some(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// The field is there.
    Exists(Field),
    /// Two values stand in a relation.
    Compare(Operand, Relation, Operand),
    /// The value is one of these.
    OneOf(Operand, Vec<Literal>),
    /// The whole text is as the glob says.
    Matches(Operand, String),
}

/// A part of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The first header of that name.
    Header(String),
    /// The subject.
    Subject,
    /// The subject's n-th token, from 1.
    Token(usize),
    /// The data's length in bytes.
    Size,
    /// The priority.
    Priority,
    /// Who sent it.
    Principal,
    /// How the data is to be read.
    Schema,
    /// The ordering key.
    Key,
}

impl Field {
    /// True if it is a number and never text; the others are text, and numbers where they look like one.
    pub(super) const fn is_number(&self) -> bool {
        matches!(self, Self::Size | Self::Priority)
    }
}

/// A value that stands in the filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    /// Text.
    Text(String),
    /// A finite number; of a size, its bytes.
    Number(f64),
}

/// One side of a relation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// From the envelope.
    Field(Field),
    /// From the filter.
    Literal(Literal),
}

impl Operand {
    pub(super) const fn is_number(&self) -> bool {
        match self {
            Self::Field(field) => field.is_number(),
            Self::Literal(literal) => matches!(literal, Literal::Number(_)),
        }
    }
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// The left text has the right one in it.
    Contains,
    /// The left text begins with the right one.
    StartsWith,
    /// The left text ends with the right one.
    EndsWith,
}

impl Relation {
    pub(super) const ALL: [Self; 9] = [
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Contains => "contains",
            Self::StartsWith => "startswith",
            Self::EndsWith => "endswith",
        }
    }

    /// True if it is one of texts only.
    pub(super) const fn is_of_texts(self) -> bool {
        matches!(self, Self::Contains | Self::StartsWith | Self::EndsWith)
    }
}

/// True if `name` may stand behind a dot.
pub(super) fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(starts_name) && characters.all(continues_name)
}

pub(super) const fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

pub(super) const fn continues_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => joined(f, parts, " and "),
            Self::Some(parts) => joined(f, parts, " or "),
            Self::Not(inner) => {
                f.write_str("not ")?;
                grouped(f, inner, inner.is_joined())
            }
            Self::Exists(field) => write!(f, "exists {field}"),
            Self::Compare(left, relation, right) => {
                write!(f, "{left} {} {right}", relation.name())
            }
            Self::OneOf(operand, literals) => {
                write!(f, "{operand} in (")?;
                for (index, literal) in literals.iter().enumerate() {
                    write!(f, "{}{literal}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::Matches(operand, glob) => {
                write!(f, "{operand} matches ")?;
                quoted(f, glob)
            }
        }
    }
}

impl Condition {
    const fn is_joined(&self) -> bool {
        matches!(self, Self::All(_) | Self::Some(_))
    }
}

/// A joined condition inside another one keeps its parentheses: they say which tree it is.
fn joined(f: &mut fmt::Formatter<'_>, parts: &[Condition], by: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { by })?;
        grouped(f, part, part.is_joined())?;
    }
    Ok(())
}

fn grouped(f: &mut fmt::Formatter<'_>, inner: &Condition, parentheses: bool) -> fmt::Result {
    if parentheses { write!(f, "({inner})") } else { write!(f, "{inner}") }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) if is_name(name) => write!(f, "headers.{name}"),
            Self::Header(name) => {
                f.write_str("headers[")?;
                quoted(f, name)?;
                f.write_str("]")
            }
            Self::Subject => f.write_str("subject"),
            Self::Token(number) => write!(f, "token({number})"),
            Self::Size => f.write_str("size"),
            Self::Priority => f.write_str("priority"),
            Self::Principal => f.write_str("principal"),
            Self::Schema => f.write_str("schema"),
            Self::Key => f.write_str("key"),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => quoted(f, text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => field.fmt(f),
            Self::Literal(literal) => literal.fmt(f),
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("'")?;
    for c in text.chars() {
        match c {
            '\'' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("'")
}
