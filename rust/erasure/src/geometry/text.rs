//! Geometries as text.

use std::fmt;
use std::str::FromStr;

use dwk_base::{Error, Result, codes};

use super::level::{self, Figures, Level};
use super::{Geometry, Placement};
use crate::matrix;
use crate::spec::{CodeSpec, SHARDS_MAX};

/// Drives and legs beyond this are taken for a slip.
const COUNT_MAX: usize = 1 << 16;

/// Trees deeper than this are taken for a slip.
const DEPTH_MAX: usize = 8;

/// No geometry is as long, so that a refusal can repeat what it was given.
const TEXT_BYTES_MAX: usize = 500;

pub(super) fn parse(text: &str) -> Result<Geometry> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(invalid(format!("the text is longer than {TEXT_BYTES_MAX} bytes")));
    }
    if text.matches('(').count() != text.matches(')').count() {
        return Err(invalid(format!("a parenthesis of {text:?} has no partner")));
    }
    geometry(text, 0)
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(&codes::GEOMETRY_INVALID, why)
}

fn too_deep() -> Error {
    invalid(format!("a tree deeper than {DEPTH_MAX} levels"))
}

fn geometry(text: &str, depth: usize) -> Result<Geometry> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid("the geometry is empty"));
    }
    let (name, figures) = match text.split_once(':') {
        Some((name, figures)) => (name, Some(figures)),
        None if text.starts_with(|c: char| c.is_ascii_digit()) && text.contains('+') => {
            // "5+0" and "0+1" are names that people use; "4+2" is not.
            let (name, plain) = level::find(text).map_or(("rs", true), |_| (text, false));
            (name, plain.then_some(text))
        }
        None => (text, None),
    };
    let level = level::find(name)
        .ok_or_else(|| invalid(format!("there is no level {name:?}")).with("geometry", text))?;
    let built = match figures {
        Some(figures) => with_figures(level, figures.trim(), depth)?,
        None => with_figures(level, level.smallest, depth)?,
    };
    if built.drives() > COUNT_MAX {
        return Err(invalid(format!("{text} has more than {COUNT_MAX} drives")));
    }
    Ok(built)
}

fn with_figures(level: &'static Level, figures: &str, depth: usize) -> Result<Geometry> {
    if let Some((count, inner)) = split_tree(figures) {
        return tree(level, number(count)?, inner, depth);
    }
    if let Figures::Tree { .. } = level.figures {
        return whole_tree(level, number(figures)?, depth);
    }
    leaf(level, strip(figures))
}

/// `"2x(4+1)"` into `"2"` and `"4+1"`.
fn split_tree(figures: &str) -> Option<(&str, &str)> {
    let (count, inner) = figures.split_once(['x', 'X', '×'])?;
    digits(count).then(|| (count, strip(inner)))
}

/// Without the parentheses around it.
fn strip(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(text).trim()
}

fn digits(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn number(text: &str) -> Result<usize> {
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid("a number is missing"));
    }
    if !digits(text) {
        return Err(invalid(format!("{text:?} is no number of drives")));
    }
    let number = text.parse::<usize>().ok().filter(|&n| n <= COUNT_MAX);
    number.ok_or_else(|| invalid(format!("{text} is more than {COUNT_MAX} drives")))
}

/// `COUNTx(inner)`: the inner part is figures of the level's own legs, or a geometry.
fn tree(level: &'static Level, count: usize, inner: &str, depth: usize) -> Result<Geometry> {
    if count == 0 {
        return Err(invalid(format!("{} has no legs", level.name)));
    }
    // What stands in deeper parentheses is of the legs' own legs: "3x(mirror:2)" has no name.
    let head = inner.split('(').next().unwrap_or(inner);
    let named = head.contains(':') || head.starts_with(|c: char| c.is_alphabetic());
    let child = match level.figures {
        Figures::Tree { inner: name, .. } if !named => {
            let of = level::find(name).ok_or_else(|| invalid(format!("no level {name}")))?;
            with_figures(of, inner, depth + 1)?
        }
        _ if depth >= DEPTH_MAX => return Err(too_deep()),
        _ => geometry(inner, depth + 1)?,
    };
    let (level, code) = outer(level, count, &child)?;
    let children = vec![child; count];
    Ok(Geometry { level, code, own_drives: 0, children })
}

/// The code over `count` legs, and the name that the tree has then.
fn outer(
    level: &'static Level,
    count: usize,
    child: &Geometry,
) -> Result<(&'static Level, CodeSpec)> {
    let named = |name: &str| level::LEVELS.iter().find(|level| level.name == name).unwrap_or(level);
    let checked = |code: CodeSpec| code.check().map(|()| code);
    match level.figures {
        Figures::Tree { inner, copies } => {
            if child.level.name != inner {
                let why =
                    format!("the legs of {} are {inner}, not {}", level.name, child.level.name);
                return Err(invalid(format!("{why}: write raid0:{count}x({child})")));
            }
            let code =
                if copies { CodeSpec::Copies { n: count } } else { CodeSpec::None { k: count } };
            Ok((level, checked(code)?))
        }
        Figures::None if level.placement == Placement::RoundRobin => {
            let own = level::LEVELS.iter().find(|tree| {
                tree.figures == Figures::Tree { inner: child.level.name, copies: false }
            });
            Ok((own.unwrap_or(level), checked(CodeSpec::None { k: count })?))
        }
        Figures::Copies => {
            let own = if child.level.name == "raid0" { named("raid01") } else { level };
            Ok((own, checked(CodeSpec::Copies { n: count })?))
        }
        Figures::Parity(m) if count > m && level.spare == super::Spare::None => {
            Ok((level, checked(parity_code(count - m, m))?))
        }
        _ => Err(invalid(format!(
            "{} is not made of legs: write raid0:{count}x({child}), mirror:… or raid5:… around them",
            level.name
        ))),
    }
}

/// `raid50:10`: two legs (of raid10, pairs).
fn whole_tree(level: &'static Level, drives: usize, depth: usize) -> Result<Geometry> {
    let pairs = level.name == "raid10";
    let legs = if pairs { drives / 2 } else { 2 };
    if legs == 0 || !drives.is_multiple_of(legs) || (pairs && !drives.is_multiple_of(2)) {
        return Err(invalid(format!("{} of {drives} drives has no equal legs", level.name)));
    }
    let mut inner = (drives / legs).to_string();
    if level.name == "raid100" {
        inner = format!("raid10:{inner}");
    }
    tree(level, legs, &inner, depth)
}

fn leaf(level: &'static Level, figures: &str) -> Result<Geometry> {
    let (figures, wide) = match figures.split_once('@') {
        Some((figures, drives)) => (strip(figures), Some(number(drives)?)),
        None => (figures, None),
    };
    let terms: Vec<usize> = figures.split('+').map(number).collect::<Result<_>>()?;
    let (code, least) = code_of(level, &terms)?;
    code.check()?;
    let own_drives = wide.unwrap_or(least);
    if own_drives < least {
        return Err(invalid(format!("{code} needs {least} drives, not {own_drives}")));
    }
    if own_drives > least && level.placement != Placement::Permuted {
        return Err(invalid(format!(
            "{} has as many drives as its stripe: leave @ out",
            level.name
        )));
    }
    Ok(Geometry { level, code, own_drives, children: Vec::new() })
}

fn parity_code(k: usize, m: usize) -> CodeSpec {
    match m {
        1 => CodeSpec::Xor { k },
        2 => CodeSpec::PQ { k },
        _ => CodeSpec::ReedSolomon { k, m },
    }
}

/// The code of a leaf from its figures, and its drives.
fn code_of(level: &Level, terms: &[usize]) -> Result<(CodeSpec, usize)> {
    let wrong = |what: &str| {
        let example = level.smallest;
        invalid(format!("{} takes {what}, such as {}:{example}", level.name, level.name))
    };
    let spares = usize::from(matches!(level.spare, super::Spare::AtEnd | super::Spare::Rotating));
    match (level.figures, terms) {
        (Figures::None, &[n]) => {
            let single = matches!(level.placement, Placement::Separate | Placement::Concat);
            let most = if single { COUNT_MAX } else { SHARDS_MAX };
            if n == 0 || n > most {
                return Err(wrong(&format!("between 1 and {most} drives")));
            }
            Ok((CodeSpec::None { k: if single { 1 } else { n } }, n))
        }
        (Figures::Copies, &[n]) => Ok((CodeSpec::Copies { n }, n)),
        (Figures::Dup, &[1]) => Ok((CodeSpec::Copies { n: 2 }, 1)),
        (Figures::Dup, _) => Err(wrong("one drive")),
        (Figures::TwoCopies, &[n]) => {
            let least = number(level.smallest)?;
            if n < least {
                return Err(wrong(&format!("at least {least} drives")));
            }
            Ok((CodeSpec::Copies { n: 2 }, n))
        }
        (Figures::Hamming, &[n]) => {
            let k = (1..n.min(SHARDS_MAX)).find(|&k| k + matrix::hamming_checks(k) == n);
            let k = k.ok_or_else(|| wrong("a number of drives that data and checks add up to (4, 6, 7, 8, 10 to 16, 18 …)"))?;
            Ok((CodeSpec::Hamming { k }, n))
        }
        (Figures::Parity(m), &[n]) if n > m + spares => Ok((parity_code(n - m - spares, m), n)),
        (Figures::Parity(m), &[k, given]) if given == m && k > 0 => {
            Ok((parity_code(k, m), k + m + spares))
        }
        (Figures::Parity(m), _) => {
            Err(wrong(&format!("more than {} drives in all, or k+{m}", m + spares)))
        }
        (Figures::Any, &[k, m]) => Ok((CodeSpec::ReedSolomon { k, m }, k + m)),
        (Figures::Any, _) => Err(wrong("k+m")),
        (Figures::Local, &[k, l, g]) => Ok((CodeSpec::Lrc { k, l, g }, k + l + g)),
        (Figures::Local, _) => Err(wrong("k+l+g: data shards, local groups, global parities")),
        (Figures::None | Figures::Copies | Figures::TwoCopies | Figures::Hamming, _) => {
            Err(wrong("one number, that of all drives"))
        }
        (Figures::Tree { .. }, _) => Err(wrong("legs")),
    }
}

impl FromStr for Geometry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.level.name != "rs" || !self.children.is_empty() {
            write!(f, "{}:", self.level.name)?;
        }
        self.write_figures(f, false)
    }
}

impl Geometry {
    /// What stands after the colon; as a leg of a named tree, parity is written as `k+m`.
    fn write_figures(&self, f: &mut fmt::Formatter<'_>, as_leg: bool) -> fmt::Result {
        if let Some(child) = self.children.first() {
            write!(f, "{}x(", self.children.len())?;
            if let Figures::Tree { .. } = self.level.figures {
                child.write_figures(f, true)?;
            } else {
                write!(f, "{child}")?;
            }
            return write!(f, ")");
        }
        match (self.level.figures, self.code) {
            (Figures::Any, code) => write!(f, "{}+{}", code.k(), code.m())?,
            (Figures::Local, CodeSpec::Lrc { k, l, g }) => write!(f, "{k}+{l}+{g}")?,
            (Figures::Parity(m), code) if as_leg => write!(f, "{}+{m}", code.k())?,
            _ => write!(f, "{}", self.own_drives)?,
        }
        let stripe = self.code.k() + self.code.m();
        if self.level.placement == Placement::Permuted && self.own_drives > stripe {
            write!(f, "@{}", self.own_drives)?;
        }
        Ok(())
    }
}
