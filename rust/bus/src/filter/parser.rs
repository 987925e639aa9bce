//! A filter's tokens as a tree. It goes down one level for each parenthesis and each `not`.

use std::fmt;

use dwk_base::{Error, Result};

use super::ast::{Condition, Field, Literal, Operand, Relation};
use super::lexer::{Placed, Token, tokens, wrong};

/// How deep parentheses and `not` may be nested.
pub(super) const DEPTH_MAX: usize = 64;

/// The longest glob, in bytes: matching takes at most this many steps for each byte of the text.
pub(super) const GLOB_BYTES_MAX: usize = 256;

/// Words that mean something, as people are shown them.
const OPERAND: &str = "a field (headers.NAME, headers['NAME'], subject, token(N), size, priority, \
                       principal, schema, key), a text or a number";
const RELATION: &str =
    "== != < <= > >= in, contains, startswith, endswith or matches behind the value";

/// # Errors
/// `bus.filter`
pub(super) fn parse(filter: &str) -> Result<Condition> {
    let tokens = tokens(filter)?;
    let mut parser = Parser { filter, tokens: &tokens, depth: 0 };
    let condition = parser.any()?;
    match parser.peek() {
        Token::End => Ok(condition),
        _ => Err(parser.expected("\"and\", \"or\" or the end")),
    }
}

struct Parser<'a> {
    filter: &'a str,
    /// What is left; the end stays.
    tokens: &'a [Placed],
    depth: usize,
}

impl<'a> Parser<'a> {
    /// `a or b or …`
    fn any(&mut self) -> Result<Condition> {
        let parts = self.joined("or", Self::all)?;
        Ok(one_or(parts, Condition::Some))
    }

    /// `a and b and …`
    fn all(&mut self) -> Result<Condition> {
        let parts = self.joined("and", Self::single)?;
        Ok(one_or(parts, Condition::All))
    }

    fn joined(
        &mut self,
        by: &str,
        part: impl Fn(&mut Self) -> Result<Condition>,
    ) -> Result<Vec<Condition>> {
        let mut parts = vec![part(self)?];
        while self.takes_word(by) {
            parts.push(part(self)?);
        }
        Ok(parts)
    }

    fn single(&mut self) -> Result<Condition> {
        let column = self.column();
        if self.takes_word("not") {
            let inner = self.deeper(column, Self::single)?;
            return Ok(Condition::Not(Box::new(inner)));
        }
        if self.takes_word("exists") {
            return match self.field()? {
                Some(field) => Ok(Condition::Exists(field)),
                None => Err(self.expected("a field behind \"exists\", such as headers.unit")),
            };
        }
        if self.takes_sign("(") {
            let inner = self.deeper(column, Self::any)?;
            self.sign(")")?;
            return Ok(inner);
        }
        self.comparison()
    }

    fn deeper(
        &mut self,
        column: usize,
        part: impl Fn(&mut Self) -> Result<Condition>,
    ) -> Result<Condition> {
        if self.depth == DEPTH_MAX {
            let why = format!("nested deeper than {DEPTH_MAX}");
            return Err(wrong(self.filter, column, why));
        }
        self.depth += 1;
        let inner = part(self);
        self.depth -= 1;
        inner
    }

    fn comparison(&mut self) -> Result<Condition> {
        let column = self.column();
        let left = self.operand()?;
        if self.takes_word("in") {
            return self.one_of(left, column);
        }
        if self.takes_word("matches") {
            self.text_side(&left, column, "matches")?;
            return Ok(Condition::Matches(left, self.glob()?));
        }
        let Some(relation) = self.relation() else { return Err(self.expected(RELATION)) };
        let right_column = self.column();
        let right = self.operand()?;
        if relation.is_of_texts() {
            self.text_side(&left, column, relation.name())?;
            self.text_side(&right, right_column, relation.name())?;
        }
        self.comparable(&left, &right, right_column)?;
        Ok(Condition::Compare(left, relation, right))
    }

    fn relation(&mut self) -> Option<Relation> {
        let found = Relation::ALL.into_iter().find(|relation| match self.peek() {
            Token::Sign(sign) => *sign == relation.name(),
            Token::Word(word) => word == relation.name(),
            _ => false,
        })?;
        self.advance();
        Some(found)
    }

    /// Fails where a number that is never text would be compared with text that is never a number.
    fn comparable(&self, left: &Operand, right: &Operand, column: usize) -> Result<()> {
        let text = |operand: &Operand| matches!(operand, Operand::Literal(Literal::Text(_)));
        if (left.is_number() && text(right)) || (text(left) && right.is_number()) {
            return Err(wrong(self.filter, column, "a number and a text are never equal"));
        }
        Ok(())
    }

    fn text_side(&self, operand: &Operand, column: usize, relation: &str) -> Result<()> {
        if operand.is_number() {
            let why = format!("{relation:?} compares texts, and {operand} is a number");
            return Err(wrong(self.filter, column, why));
        }
        Ok(())
    }

    fn one_of(&mut self, left: Operand, column: usize) -> Result<Condition> {
        self.sign("(")?;
        let mut literals = Vec::new();
        loop {
            let at = self.column();
            let Some(literal) = self.literal() else {
                return Err(self.expected("a text or a number"));
            };
            let literal = Operand::Literal(literal);
            self.comparable(&left, &literal, at)?;
            let Operand::Literal(literal) = literal else { unreachable!("it was just made") };
            literals.push(literal);
            if !self.takes_sign(",") {
                break;
            }
        }
        self.sign(")")?;
        if matches!(left, Operand::Literal(_)) {
            return Err(wrong(self.filter, column, "expected a field before \"in\""));
        }
        Ok(Condition::OneOf(left, literals))
    }

    fn glob(&mut self) -> Result<String> {
        let column = self.column();
        match self.literal() {
            Some(Literal::Text(glob)) if glob.len() <= GLOB_BYTES_MAX => Ok(glob),
            Some(Literal::Text(_)) => {
                let why = format!("the glob is longer than {GLOB_BYTES_MAX} bytes");
                Err(wrong(self.filter, column, why))
            }
            _ => Err(wrong(self.filter, column, "expected a text with * and ? behind \"matches\"")),
        }
    }

    fn operand(&mut self) -> Result<Operand> {
        if let Some(literal) = self.literal() {
            return Ok(Operand::Literal(literal));
        }
        match self.field()? {
            Some(field) => Ok(Operand::Field(field)),
            None => Err(self.expected(OPERAND)),
        }
    }

    fn literal(&mut self) -> Option<Literal> {
        let literal = match self.peek() {
            Token::Text(text) => Literal::Text(text.clone()),
            Token::Number(number) => Literal::Number(*number),
            _ => return None,
        };
        self.advance();
        Some(literal)
    }

    /// A field, if a word is there that names one.
    fn field(&mut self) -> Result<Option<Field>> {
        let Token::Word(word) = self.peek() else { return Ok(None) };
        let field = match &**word {
            "headers" => {
                self.advance();
                return self.header().map(Some);
            }
            "token" => {
                self.advance();
                return self.token_number().map(Some);
            }
            "subject" => Field::Subject,
            "size" => Field::Size,
            "priority" => Field::Priority,
            "principal" => Field::Principal,
            "schema" => Field::Schema,
            "key" => Field::Key,
            _ => return Ok(None),
        };
        self.advance();
        Ok(Some(field))
    }

    fn header(&mut self) -> Result<Field> {
        if self.takes_sign(".") {
            let Token::Word(name) = self.peek() else {
                return Err(self.expected("a header's name; others are written headers['x-y']"));
            };
            self.advance();
            return Ok(Field::Header(name.clone()));
        }
        if !self.takes_sign("[") {
            return Err(self.expected("\".\" or \"[\" behind \"headers\""));
        }
        let Token::Text(name) = self.peek() else {
            return Err(self.expected("a header's name in quotes"));
        };
        self.advance();
        self.sign("]")?;
        Ok(Field::Header(name.clone()))
    }

    fn token_number(&mut self) -> Result<Field> {
        self.sign("(")?;
        let number = match self.peek() {
            Token::Number(number) if (1.0..=128.0).contains(number) && number.fract() == 0.0 => {
                *number as usize
            }
            _ => return Err(self.expected("a token's number, from 1 to 128")),
        };
        self.advance();
        self.sign(")")?;
        Ok(Field::Token(number))
    }

    fn takes_word(&mut self, word: &str) -> bool {
        self.takes(|token| matches!(token, Token::Word(known) if known == word))
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        self.takes(|token| matches!(token, Token::Sign(known) if *known == sign))
    }

    fn takes(&mut self, is: impl Fn(&Token) -> bool) -> bool {
        let yes = is(self.peek());
        if yes {
            self.advance();
        }
        yes
    }

    fn sign(&mut self, sign: &str) -> Result<()> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.expected(format!("{sign:?}"))) }
    }

    fn peek(&self) -> &'a Token {
        &self.tokens[0].token
    }

    fn column(&self) -> usize {
        self.tokens[0].column
    }

    fn advance(&mut self) {
        if self.tokens.len() > 1 {
            self.tokens = &self.tokens[1..];
        }
    }

    fn expected(&self, what: impl fmt::Display) -> Error {
        let why = format!("expected {what}, found {}", self.peek());
        wrong(self.filter, self.column(), why)
    }
}

/// A part that stands alone is itself.
fn one_or(mut parts: Vec<Condition>, many: impl FnOnce(Vec<Condition>) -> Condition) -> Condition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}
