//! A filter's text in tokens.

use std::fmt;

use dwk_base::units::parse_size;
use dwk_base::{Error, Result, codes};

use super::ast::{continues_name, starts_name};

/// The longest filter, in bytes.
pub(super) const FILTER_BYTES_MAX: usize = 4096;

/// A piece of a filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A keyword or a name.
    Word(String),
    /// Text in quotes.
    Text(String),
    /// A finite number, with its unit if it has one.
    Number(f64),
    /// `(`, `==` and so on.
    Sign(&'static str),
    /// Nothing more.
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word:?}"),
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Sign(sign) => write!(f, "{sign:?}"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// A token and the column where it begins, from 1, in characters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub token: Token,
    pub column: usize,
}

/// Longer ones first: the first that fits is taken.
const SIGNS: [&str; 12] = ["==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ".", ","];

const UNITS: [&str; 13] =
    ["b", "kb", "kib", "mb", "mib", "gb", "gib", "tb", "tib", "pb", "pib", "eb", "eib"];

/// Says where a filter is wrong, and how.
pub(super) fn wrong(filter: &str, column: usize, why: impl fmt::Display) -> Error {
    let shown: String = filter.chars().take(200).collect();
    Error::new(&codes::BUS_FILTER, format!("the filter, column {column}: {why}"))
        .with("column", column)
        .with("filter", shown)
}

/// The tokens of `filter`, the last of which is the end.
///
/// # Errors
/// `bus.filter`
pub(super) fn tokens(filter: &str) -> Result<Vec<Placed>> {
    if filter.len() > FILTER_BYTES_MAX {
        let column = filter.char_indices().take_while(|(at, _)| *at < FILTER_BYTES_MAX).count();
        let why = format!("it is longer than {FILTER_BYTES_MAX} bytes");
        return Err(wrong(filter, column, why));
    }
    let mut lexer = Lexer { filter, rest: filter, column: 1 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip(char::is_whitespace);
        let column = lexer.column;
        let token = lexer.next()?;
        let is_end = token == Token::End;
        tokens.push(Placed { token, column });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    filter: &'a str,
    rest: &'a str,
    column: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Token> {
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        match first {
            '\'' | '"' => self.text(first),
            '0'..='9' => self.number(),
            '-' if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            _ if starts_name(first) => Ok(Token::Word(self.skip(continues_name).to_owned())),
            _ => match SIGNS.into_iter().find(|sign| self.rest.starts_with(sign)) {
                Some(sign) => {
                    self.advance(sign.len());
                    Ok(Token::Sign(sign))
                }
                None if first == '=' => Err(self.wrong("'=' alone; equality is \"==\"")),
                None => Err(self.wrong(format!("unexpected {first:?}"))),
            },
        }
    }

    fn text(&mut self, quote: char) -> Result<Token> {
        let opening = self.column;
        self.advance(quote.len_utf8());
        let mut text = String::new();
        loop {
            let Some(c) = self.take() else {
                return Err(wrong(
                    self.filter,
                    opening,
                    format!("no closing {quote} of this text"),
                ));
            };
            match c {
                _ if c == quote => return Ok(Token::Text(text)),
                '\\' => text.push(self.escaped()?),
                _ => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char> {
        let meant = match self.rest.chars().next() {
            Some(c @ ('\'' | '"' | '\\')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            _ => return Err(self.wrong("expected one of \\ ' \" n r t behind a backslash")),
        };
        self.take();
        Ok(meant)
    }

    fn number(&mut self) -> Result<Token> {
        let start = (self.rest, self.column);
        let sign = usize::from(self.rest.starts_with('-'));
        self.advance(sign);
        let digits = self.skip(|c| c.is_ascii_digit() || c == '.');
        let text = &start.0[..sign + digits.len()];
        let plain = text.parse::<f64>().ok().filter(|number| number.is_finite());
        let bad = || wrong(self.filter, start.1, format!("{text:?} is not a number"));
        let plain = plain.filter(|_| !digits.is_empty() && !digits.ends_with('.'));
        let number = plain.ok_or_else(bad)?;
        let Some(unit) = self.unit() else { return Ok(Token::Number(number)) };
        let size = parse_size(&format!("{digits} {unit}"));
        match size {
            Ok(bytes) if sign == 0 => Ok(Token::Number(bytes as f64)),
            _ => Err(wrong(self.filter, start.1, format!("{text} {unit} is not a size"))),
        }
    }

    /// The unit behind a number, if one is there.
    fn unit(&mut self) -> Option<&'a str> {
        let behind = self.rest.trim_start();
        let end = behind.find(|c| !continues_name(c)).unwrap_or(behind.len());
        let word = &behind[..end];
        if !UNITS.contains(&&*word.to_ascii_lowercase()) {
            return None;
        }
        self.skip(char::is_whitespace);
        Some(self.skip(continues_name))
    }

    fn skip(&mut self, while_true: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !while_true(c)).unwrap_or(self.rest.len());
        self.advance(end)
    }

    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.advance(c.len_utf8());
        Some(c)
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.column += taken.chars().count();
        taken
    }

    fn wrong(&self, why: impl fmt::Display) -> Error {
        wrong(self.filter, self.column, why)
    }
}
