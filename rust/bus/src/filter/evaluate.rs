//! Whether a condition holds: a walk over its tree, which allocates nothing.

use super::ast::{Condition, Field, Literal, Operand, Relation};
use crate::Envelope;

impl Condition {
    /// True if it holds for `envelope`. What is not there is in no relation to anything.
    pub(super) fn holds(&self, envelope: &Envelope) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(envelope)),
            Self::Some(parts) => parts.iter().any(|part| part.holds(envelope)),
            Self::Not(inner) => !inner.holds(envelope),
            Self::Exists(field) => field.is_number() || field.text(envelope).is_some(),
            Self::Compare(left, relation, right) => {
                if left.is_number() || right.is_number() {
                    let numbers = left.number(envelope).zip(right.number(envelope));
                    numbers.is_some_and(|(left, right)| relation.of_numbers(left, right))
                } else {
                    let texts = left.text(envelope).zip(right.text(envelope));
                    texts.is_some_and(|(left, right)| relation.of_texts(left, right))
                }
            }
            Self::OneOf(operand, literals) => literals.iter().any(|literal| match literal {
                Literal::Text(text) => operand.text(envelope) == Some(text),
                Literal::Number(number) => operand.number(envelope) == Some(*number),
            }),
            Self::Matches(operand, glob) => {
                operand.text(envelope).is_some_and(|text| is_like(text, glob))
            }
        }
    }
}

impl Operand {
    fn text<'a>(&'a self, envelope: &'a Envelope) -> Option<&'a str> {
        match self {
            Self::Field(field) => field.text(envelope),
            Self::Literal(Literal::Text(text)) => Some(text),
            Self::Literal(Literal::Number(_)) => None,
        }
    }

    fn number(&self, envelope: &Envelope) -> Option<f64> {
        match self {
            Self::Field(Field::Size) => Some(envelope.data().len() as f64),
            Self::Field(Field::Priority) => Some(f64::from(envelope.message().priority)),
            Self::Field(field) => {
                let number = field.text(envelope)?.trim().parse::<f64>().ok();
                number.filter(|number| number.is_finite())
            }
            Self::Literal(Literal::Number(number)) => Some(*number),
            Self::Literal(Literal::Text(_)) => None,
        }
    }
}

impl Field {
    /// What is there, if it is text and there.
    fn text<'a>(&self, envelope: &'a Envelope) -> Option<&'a str> {
        let message = envelope.message();
        match self {
            Self::Header(name) => envelope.header(name),
            Self::Subject => Some(message.subject.as_str()),
            Self::Token(number) => message.subject.tokens().nth(number - 1),
            Self::Principal => message.principal.as_deref(),
            Self::Schema => message.schema.as_deref(),
            Self::Key => message.key.as_deref(),
            Self::Size | Self::Priority => None,
        }
    }
}

impl Relation {
    fn of_texts(self, left: &str, right: &str) -> bool {
        match self {
            Self::Contains => left.contains(right),
            Self::StartsWith => left.starts_with(right),
            Self::EndsWith => left.ends_with(right),
            _ => self.of_ordered(&left, &right),
        }
    }

    fn of_numbers(self, left: f64, right: f64) -> bool {
        self.of_ordered(&left, &right)
    }

    fn of_ordered<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Contains | Self::StartsWith | Self::EndsWith => false,
        }
    }
}

/// True if all of `text` is as `glob` says: `*` stands for any characters, `?` for one. Takes at most as many
/// steps as the lengths' product, because only the last `*` is ever tried again.
fn is_like(text: &str, glob: &str) -> bool {
    let (mut text, mut glob) = (text.chars(), glob.chars());
    let mut again = None;
    loop {
        let (here, wanted) = (text.clone().next(), glob.clone().next());
        let fits = match (here, wanted) {
            (_, Some('*')) => {
                glob.next();
                again = Some((text.clone(), glob.clone()));
                continue;
            }
            (None, None) => return true,
            (Some(_), Some('?')) => true,
            (here, wanted) => here == wanted,
        };
        if fits {
            text.next();
            glob.next();
            continue;
        }
        // The last `*` takes one character more.
        let Some((after, behind)) = &mut again else { return false };
        if after.next().is_none() {
            return false;
        }
        (text, glob) = (after.clone(), behind.clone());
    }
}
