//! Patterns and who gave them, so that a subject finds them in a walk over its tokens.

use std::collections::HashMap;

use crate::subject::Part;
use crate::{Pattern, Subject};

/// Patterns, each with any number of members.
#[derive(Debug)]
pub(crate) struct Trie<T> {
    root: Node<T>,
}

/// Where the tokens so far lead. There is none that leads to nobody, but the root.
#[derive(Debug)]
struct Node<T> {
    literal: HashMap<Box<str>, Node<T>>,
    any: Option<Box<Node<T>>>,
    /// Whose pattern ends here.
    here: Vec<T>,
    /// Whose pattern ends here with `>`.
    rest: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literal: HashMap::new(), any: None, here: Vec::new(), rest: Vec::new() }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Trie<T> {
    /// Adds a member to `pattern`.
    pub(crate) fn insert(&mut self, pattern: &Pattern, member: T) {
        let mut node = &mut self.root;
        for part in pattern.parts() {
            node = match part {
                Part::Rest => return node.rest.push(member),
                Part::Any => node.any.get_or_insert_default(),
                Part::Literal(token) => node.literal.entry(token.into()).or_default(),
            };
        }
        node.here.push(member);
    }

    /// Takes the first member of `pattern` out that `is` says yes to, and every node that leads to nobody
    /// then.
    pub(crate) fn remove(&mut self, pattern: &Pattern, is: impl Fn(&T) -> bool) -> Option<T> {
        let parts: Vec<Part<'_>> = pattern.parts().collect();
        remove(&mut self.root, &parts, &is)
    }

    /// Calls `found` for every member whose pattern stands for `subject`.
    pub(crate) fn matching<'a>(&'a self, subject: &Subject, found: &mut impl FnMut(&'a T)) {
        walk(&self.root, subject.as_str(), found);
    }

    /// How many nodes there are beside the root.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> usize {
        fn below<T>(node: &Node<T>) -> usize {
            let children = node.literal.values().chain(node.any.as_deref());
            children.map(|child| 1 + below(child)).sum()
        }
        below(&self.root)
    }
}

/// Goes as deep as a pattern has tokens, which are at most 128.
fn remove<T>(node: &mut Node<T>, parts: &[Part<'_>], is: &impl Fn(&T) -> bool) -> Option<T> {
    match parts {
        [] => take(&mut node.here, is),
        [Part::Rest, ..] => take(&mut node.rest, is),
        [Part::Any, behind @ ..] => {
            let child = node.any.as_mut()?;
            let removed = remove(child, behind, is);
            if child.is_empty() {
                node.any = None;
            }
            removed
        }
        [Part::Literal(token), behind @ ..] => {
            let child = node.literal.get_mut(*token)?;
            let removed = remove(child, behind, is);
            if child.is_empty() {
                node.literal.remove(*token);
            }
            removed
        }
    }
}

fn take<T>(members: &mut Vec<T>, is: &impl Fn(&T) -> bool) -> Option<T> {
    let index = members.iter().position(is)?;
    Some(members.remove(index))
}

/// `subject` is what is left of it: never empty. Its walk branches at each token into at most two.
fn walk<'a, T>(node: &'a Node<T>, subject: &str, found: &mut impl FnMut(&'a T)) {
    node.rest.iter().for_each(&mut *found);
    let (token, behind) = match subject.split_once('.') {
        Some((token, behind)) => (token, Some(behind)),
        None => (subject, None),
    };
    for child in node.literal.get(token).into_iter().chain(node.any.as_deref()) {
        match behind {
            Some(behind) => walk(child, behind, found),
            None => child.here.iter().for_each(&mut *found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern() -> impl Strategy<Value = Pattern> {
        "[ab*](\\.[ab*]){0,3}|([ab*]\\.){0,3}>".prop_map(|text| Pattern::new(text).unwrap())
    }

    fn subject() -> impl Strategy<Value = Subject> {
        "[ab](\\.[ab]){0,4}".prop_map(|text| Subject::new(text).unwrap())
    }

    /// What the trie finds, in the order of members.
    fn found(trie: &Trie<usize>, subject: &Subject) -> Vec<usize> {
        let mut found = vec![];
        trie.matching(subject, &mut |&member| found.push(member));
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_a_linear_scan_finds(
            patterns in prop::collection::vec(pattern(), 0..30),
            leaving in prop::collection::vec(any::<bool>(), 30),
            subjects in prop::collection::vec(subject(), 1..10),
        ) {
            let mut trie = Trie::default();
            for (member, pattern) in patterns.iter().enumerate() {
                trie.insert(pattern, member);
            }
            let mut scan: Vec<_> = patterns.iter().enumerate().collect();
            for (member, pattern) in patterns.iter().enumerate().filter(|(m, _)| leaving[*m]) {
                prop_assert_eq!(trie.remove(pattern, |&known| known == member), Some(member));
                prop_assert_eq!(trie.remove(pattern, |&known| known == member), None);
                scan.retain(|(known, _)| *known != member);
                for subject in &subjects {
                    let slow = scan.iter().filter(|(_, pattern)| pattern.matches(subject));
                    let slow: Vec<_> = slow.map(|(member, _)| *member).collect();
                    prop_assert_eq!(found(&trie, subject), slow);
                }
            }
        }

        #[test]
        fn nodes_that_lead_to_nobody_vanish(patterns in prop::collection::vec(pattern(), 0..20)) {
            let mut trie = Trie::default();
            for (member, pattern) in patterns.iter().enumerate() {
                trie.insert(pattern, member);
            }
            let mut smaller = Trie::default();
            let half = patterns.len() / 2;
            for (member, pattern) in patterns.iter().enumerate() {
                if member < half {
                    trie.remove(pattern, |&known| known == member);
                } else {
                    smaller.insert(pattern, member);
                }
            }
            prop_assert_eq!(trie.nodes(), smaller.nodes());
            for (member, pattern) in patterns.iter().enumerate().skip(half) {
                trie.remove(pattern, |&known| known == member);
            }
            prop_assert_eq!(trie.nodes(), 0);
        }
    }

    #[test]
    fn what_was_never_given_is_not_removed() {
        let mut trie = Trie::default();
        trie.insert(&Pattern::new("a.b").unwrap(), 1);
        for text in ["a", "a.*", "a.>", "b", "*", ">", "a.b.c"] {
            assert_eq!(trie.remove(&Pattern::new(text).unwrap(), |_| true), None, "{text}");
        }
        assert_eq!(trie.nodes(), 2);
    }
}
