//! Filters against a stack machine, their text against their tree, and what people write.

use bytes::Bytes;
use dwk_base::codes;
use proptest::option::of;
use proptest::prelude::*;

use super::ast::{Condition, Field, Literal, Operand, Relation};
use super::*;
use crate::envelope::Stamped;
use crate::{Message, MessageId, Subject};

// --- The slow twin: the tree becomes a postfix program, values are owned ------------------------------

enum Step {
    Push(bool),
    Not,
    /// Joins the last so many.
    And(usize),
    Or(usize),
}

#[derive(Clone)]
enum Value {
    Missing,
    Text(String),
    Number(f64),
}

fn program(condition: &Condition, envelope: &Envelope, steps: &mut Vec<Step>) {
    match condition {
        Condition::All(parts) => {
            parts.iter().rev().for_each(|part| program(part, envelope, steps));
            steps.push(Step::And(parts.len()));
        }
        Condition::Some(parts) => {
            parts.iter().rev().for_each(|part| program(part, envelope, steps));
            steps.push(Step::Or(parts.len()));
        }
        Condition::Not(inner) => {
            program(inner, envelope, steps);
            steps.push(Step::Not);
        }
        Condition::Exists(field) => {
            let there = !matches!(look_up(field, envelope), Value::Missing);
            steps.push(Step::Push(there));
        }
        Condition::Compare(left, relation, right) => {
            let values = (value(left, envelope), value(right, envelope));
            let number = left.is_number() || right.is_number();
            steps.push(Step::Push(related(&values.0, *relation, &values.1, number)));
        }
        Condition::OneOf(operand, literals) => {
            let left = value(operand, envelope);
            let equal = |literal: &Literal| {
                let right = value(&Operand::Literal(literal.clone()), envelope);
                let number = matches!(literal, Literal::Number(_));
                related(&left, Relation::Equal, &right, number)
            };
            let found = literals.iter().filter(|literal| equal(literal)).count();
            steps.push(Step::Push(found > 0));
        }
        Condition::Matches(operand, glob) => {
            let like = match value(operand, envelope) {
                Value::Text(text) => {
                    let glob: Vec<char> = glob.chars().collect();
                    like(&glob, &text.chars().collect::<Vec<_>>())
                }
                _ => false,
            };
            steps.push(Step::Push(like));
        }
    }
}

fn run(condition: &Condition, envelope: &Envelope) -> bool {
    let (mut steps, mut stack) = (vec![], Vec::<bool>::new());
    program(condition, envelope, &mut steps);
    for step in steps {
        let value = match step {
            Step::Push(value) => value,
            Step::Not => !stack.pop().unwrap(),
            Step::And(count) => !stack.split_off(stack.len() - count).contains(&false),
            Step::Or(count) => stack.split_off(stack.len() - count).contains(&true),
        };
        stack.push(value);
    }
    assert_eq!(stack.len(), 1);
    stack[0]
}

fn look_up(field: &Field, envelope: &Envelope) -> Value {
    let message = envelope.message();
    let text = |text: Option<&str>| text.map_or(Value::Missing, |text| Value::Text(text.into()));
    match field {
        Field::Header(name) => {
            let mut values = Value::Missing;
            for (known, value) in message.headers.iter().rev() {
                if known == name {
                    values = Value::Text(value.clone());
                }
            }
            values
        }
        Field::Subject => Value::Text(message.subject.to_string()),
        Field::Token(n) => {
            let all: Vec<&str> = message.subject.as_str().split('.').collect();
            text(all.get(n - 1).copied())
        }
        Field::Size => Value::Number(message.data.len() as f64),
        Field::Priority => Value::Number(message.priority.into()),
        Field::Principal => text(message.principal.as_deref()),
        Field::Schema => text(message.schema.as_deref()),
        Field::Key => text(message.key.as_deref()),
    }
}

fn value(operand: &Operand, envelope: &Envelope) -> Value {
    match operand {
        Operand::Field(field) => look_up(field, envelope),
        Operand::Literal(Literal::Text(text)) => Value::Text(text.clone()),
        Operand::Literal(Literal::Number(number)) => Value::Number(*number),
    }
}

fn related(left: &Value, relation: Relation, right: &Value, as_numbers: bool) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let number = |value: &Value| match value {
        Value::Number(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        Value::Missing => None,
    };
    let order = if as_numbers {
        let Some((left, right)) = number(left).zip(number(right)) else { return false };
        left.partial_cmp(&right).unwrap()
    } else {
        let (Value::Text(left), Value::Text(right)) = (left, right) else { return false };
        match relation {
            Relation::Contains => return left.match_indices(&**right).next().is_some(),
            Relation::StartsWith => return left.find(&**right) == Some(0),
            Relation::EndsWith => return left.strip_suffix(&**right).is_some(),
            _ => left.as_bytes().cmp(right.as_bytes()),
        }
    };
    match relation {
        Relation::Equal => order == Equal,
        Relation::NotEqual => order != Equal,
        Relation::Less => order == Less,
        Relation::LessOrEqual => order != Greater,
        Relation::Greater => order == Greater,
        Relation::GreaterOrEqual => order != Less,
        _ => false,
    }
}

fn like(glob: &[char], text: &[char]) -> bool {
    match (glob, text) {
        ([], []) => true,
        (['*', behind @ ..], _) => (0..=text.len()).any(|taken| like(behind, &text[taken..])),
        (['?', glob @ ..], [_, text @ ..]) => like(glob, text),
        ([wanted, glob @ ..], [here, text @ ..]) => wanted == here && like(glob, text),
        _ => false,
    }
}

// --- Random filters and envelopes over the same few words ----------------------------------------------

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "7", "-2.5", "", "it's \\", "é\n"])
        .prop_map(str::to_owned)
}

fn field() -> impl Strategy<Value = Field> {
    let name = prop::sample::select(vec!["a", "b", "x-y", "it's", "and"]);
    prop_oneof![
        name.prop_map(|name| Field::Header(name.to_owned())),
        (1usize..4).prop_map(Field::Token),
        Just(Field::Subject),
        Just(Field::Principal),
        Just(Field::Schema),
        Just(Field::Key),
    ]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![(-30i32..30).prop_map(|n| f64::from(n) / 2.0), any::<u32>().prop_map(f64::from)]
}

fn numeric() -> impl Strategy<Value = Operand> {
    prop_oneof![
        number().prop_map(|n| Operand::Literal(Literal::Number(n))),
        prop_oneof![Just(Field::Size), Just(Field::Priority)].prop_map(Operand::Field),
    ]
}

fn textual() -> impl Strategy<Value = Operand> {
    prop_oneof![
        field().prop_map(Operand::Field),
        word().prop_map(|text| Operand::Literal(Literal::Text(text))),
    ]
}

fn comparison() -> impl Strategy<Value = Condition> {
    let relation = || prop::sample::select(Relation::ALL.to_vec());
    let ordered = prop::sample::select(Relation::ALL[..6].to_vec());
    let either = prop_oneof![numeric(), field().prop_map(Operand::Field)];
    let literal = prop_oneof![word().prop_map(Literal::Text), number().prop_map(Literal::Number)];
    let literals = prop::collection::vec(literal, 1..4);
    prop_oneof![
        (textual(), relation(), textual()).prop_map(|(a, r, b)| Condition::Compare(a, r, b)),
        (numeric(), ordered, either).prop_map(|(a, r, b)| Condition::Compare(a, r, b)),
        (field(), literals).prop_map(|(f, all)| Condition::OneOf(Operand::Field(f), all)),
        (textual(), "[ab*?é]{0,6}").prop_map(|(text, glob)| Condition::Matches(text, glob)),
        field().prop_map(Condition::Exists),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    comparison().prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Condition::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Condition::Some),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

prop_compose! {
    fn envelopes()(
        subject in "[ab7](\\.[ab7]{1,2}){0,3}",
        data in 0usize..20,
        headers in prop::collection::vec(
            (prop::sample::select(vec!["a", "b", "x-y", "it's"]), word()), 0..4),
        (principal, schema, key) in (of(word()), of(word()), of(word())),
        priority in 0u8..9,
    ) -> Envelope {
        let mut message = Message::new(Subject::new(subject).unwrap(), vec![0; data]);
        message.headers = headers.into_iter().map(|(name, value)| (name.into(), value)).collect();
        message.principal = principal.map(Into::into);
        message.schema = schema.map(Into::into);
        message.key = key.map(Into::into);
        message.priority = priority;
        stamped(message)
    }
}

fn stamped(message: Message) -> Envelope {
    let id = MessageId::from_bytes([0; 16]);
    Envelope::new(Stamped { id, unix_ns: 0, tenant: None, message, is_announcement: false })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_filter_accepts_what_the_stack_machine_accepts(
        condition in condition(), envelope in envelopes(),
    ) {
        prop_assert_eq!(condition.holds(&envelope), run(&condition, &envelope), "{}", condition);
    }

    #[test]
    fn what_is_printed_reads_as_the_same_condition(condition in condition()) {
        let text = condition.to_string();
        let read = Filter::new(&text);
        prop_assert!(read.is_ok(), "{}: {:?}", text, read);
        prop_assert_eq!(read.unwrap().0, condition, "{}", text);
    }

    #[test]
    fn any_text_is_a_filter_or_an_error_with_a_column(
        text in "\\PC{0,30}|([(]|not |and|or|a |headers|[.]|'x'|==|in|size|<|1 KiB|,|[)]| ){0,12}",
    ) {
        if let Err(error) = Filter::new(&text) {
            prop_assert!(error.is(&codes::BUS_FILTER));
            let column: usize = error.detail("column").unwrap().parse().unwrap();
            prop_assert!((1..=text.chars().count() + 1).contains(&column), "{} {}", text, column);
        }
    }
}

// --- What people write -----------------------------------------------------------------------------------

fn sample() -> Envelope {
    let mut message = Message::new(Subject::new("sensors.a.temp").unwrap(), Bytes::from("21"))
        .header("unit", "C")
        .header("x-y", "b")
        .header("level", "10")
        .header("unit", "F")
        .keyed("k1");
    message.principal = Some("alice".into());
    message.priority = 5;
    stamped(message)
}

#[test]
fn what_people_write_means_what_they_mean() {
    for (text, accepts) in [
        ("headers.unit == 'C' and size < 1 KiB", true),
        ("headers.unit == \"F\"", false),
        ("headers['x-y'] in ('a', 'b')", true),
        ("token(1) == 'sensors' and token(3) != 'humidity'", true),
        ("token(4) == 'x' or token(2) == 'a'", true),
        ("not headers.unit == 'C'", false),
        ("headers.level > 9", true),
        ("headers.level > '9'", false),
        ("9 < headers.level and headers.level in (10, 11)", true),
        ("headers.unit > 1", false),
        ("size == 2 and priority >= 5 and priority < 6", true),
        ("size > 0.001kb", true),
        ("subject matches 'sensors.*.t?mp' and not subject matches 'sensors'", true),
        (
            "principal startswith 'al' and principal endswith 'ce' and principal contains 'lic'",
            true,
        ),
        ("key == 'k1' and exists principal and not exists schema", true),
        ("exists headers.level and not exists headers.z and exists size", true),
        ("headers.level == 10 or headers.level == 10 and size > 99", true),
        ("(headers.level == 10 or headers.level == 10) and size > 99", false),
    ] {
        let filter = Filter::new(text).unwrap();
        assert_eq!(filter.accepts(&sample()), accepts, "{text}");
    }
}

#[test]
fn what_is_not_there_makes_a_comparison_false_and_no_error() {
    for text in ["headers.z == 'a'", "headers.z != 'a'", "headers.z < 1", "schema != 'x'"] {
        assert!(!Filter::new(text).unwrap().accepts(&sample()), "{text}");
        assert!(Filter::new(&format!("not {text}")).unwrap().accepts(&sample()), "{text}");
    }
}

#[test]
fn an_error_points_at_the_column_and_says_what_was_expected() {
    let deep = format!("{}size == 1{}", "(".repeat(65), ")".repeat(65));
    let long = format!("key == '{}'", "x".repeat(4096));
    let glob = format!("key matches '{}'", "x".repeat(257));
    for (text, column, part) in [
        ("", 1, "expected a field"),
        ("size <", 7, "found the end"),
        ("size < 'a'", 8, "never equal"),
        ("size == 1 size", 11, "\"and\", \"or\" or the end"),
        ("headers.a = 'b'", 11, "equality is \"==\""),
        ("headers-a == 'b'", 8, "unexpected"),
        ("headers. == 'b'", 10, "a header's name"),
        ("headers['a' == 'b'", 13, "\"]\""),
        ("temperature == 1", 1, "expected a field"),
        ("key == 'é' or key == 'x", 22, "no closing '"),
        ("key == 'é' and (size == 1", 26, "expected \")\""),
        ("key in ('a', size)", 14, "expected a text or a number"),
        ("key in 'a'", 8, "\"(\""),
        ("size contains '1'", 1, "compares texts"),
        ("key contains 1", 14, "compares texts"),
        ("key matches 5", 13, "expected a text"),
        ("token(0) == 'a'", 7, "from 1 to 128"),
        ("size < 1.2.3", 8, "not a number"),
        ("size < -1 KiB", 8, "not a size"),
        ("key == 'a\\q'", 11, "behind a backslash"),
        ("exists 'a'", 8, "a field"),
        (&deep, 65, "deeper than 64"),
        (&long, 4096, "longer than 4096"),
        (&glob, 13, "longer than 256"),
    ] {
        let error = Filter::new(text).unwrap_err();
        assert!(error.is(&codes::BUS_FILTER), "{text}");
        let shown = error.to_string();
        assert!(shown.contains(part), "{text}: {shown}");
        assert_eq!(error.detail("column"), Some(&*column.to_string()), "{text}: {shown}");
    }
}

#[test]
fn a_hostile_glob_ends_soon() {
    let glob = "*a".repeat(120) + "b";
    let message = Message::new(Subject::new("s").unwrap(), "").header("h", "a".repeat(60_000));
    let filter = Filter::new(&format!("headers.h matches '{glob}'")).unwrap();
    assert!(!filter.accepts(&stamped(message)));
}
