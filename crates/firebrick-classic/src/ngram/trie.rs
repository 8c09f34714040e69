//! The n-grams of all orders as one trie in flat arrays.

use std::ops::Range;

use super::vocabulary::BOS;

/// The n-grams of one length, sorted: the last token of each, and the place of the rest in the level before.
#[derive(Debug, Clone, Default)]
pub(super) struct Level {
    pub tokens: Vec<u32>,
    /// Never decreasing.
    pub parents: Vec<u32>,
}

/// Nodes are numbered level by level: 0 is the empty n-gram, then come all tokens in order of their number, then all
/// bigrams sorted, and so on. So the children of a node are a range, sorted by their last token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trie {
    /// `levels[n]..levels[n + 1]` are the n-grams of length `n`.
    levels: Vec<u32>,
    /// Last token of a node's n-gram; of the root, nothing.
    tokens: Vec<u32>,
    /// The children of `i` are `first_child[i]..first_child[i + 1]`; for nodes above the last level.
    first_child: Vec<u32>,
    /// The n-gram without its first token, or the longest end of that which is a node.
    suffix: Vec<u32>,
}

impl Trie {
    /// `levels[0]` holds every token once, in order. At most `u32::MAX` n-grams in all, at least one level.
    pub fn new(levels: &[Level]) -> Self {
        let mut starts = vec![0, 1];
        let mut tokens = vec![0];
        let mut first_child = vec![];
        let mut above = 1;
        for level in levels {
            let mut next = 0;
            for parent in 0..above {
                first_child.push(starts[starts.len() - 1] + next as u32);
                next += level.parents[next..].iter().take_while(|p| **p == parent).count();
            }
            above = level.tokens.len() as u32;
            starts.push(starts[starts.len() - 1] + above);
            tokens.extend_from_slice(&level.tokens);
        }
        first_child.push(tokens.len() as u32);
        let mut trie = Self { levels: starts, suffix: vec![0; tokens.len()], tokens, first_child };
        trie.link();
        trie
    }

    /// Fills `suffix`, the failure links of Aho and Corasick.
    fn link(&mut self) {
        for parent in 1..self.inner() {
            for child in self.children(parent) {
                let token = self.tokens[child as usize];
                let mut end = self.suffix[parent as usize];
                self.suffix[child as usize] = loop {
                    match self.child(end, token) {
                        Some(node) => break node,
                        None => end = self.suffix[end as usize], // ends at the root, which has all tokens
                    }
                };
            }
        }
    }

    pub fn order(&self) -> usize {
        self.levels.len() - 2
    }

    /// Number of different tokens.
    pub fn vocabulary(&self) -> usize {
        self.level(1).len()
    }

    /// Number of nodes, the root included.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The n-grams of length `n`.
    pub fn level(&self, n: usize) -> Range<u32> {
        self.levels[n]..self.levels[n + 1]
    }

    /// Nodes below this number can have children.
    pub fn inner(&self) -> u32 {
        self.levels[self.order()]
    }

    pub fn children(&self, node: u32) -> Range<u32> {
        self.first_child[node as usize]..self.first_child[node as usize + 1]
    }

    pub fn child(&self, node: u32, token: u32) -> Option<u32> {
        if node == 0 {
            return ((token as usize) < self.vocabulary()).then_some(1 + token);
        }
        let Range { start, end } = self.children(node);
        let place = self.tokens[start as usize..end as usize].binary_search(&token).ok()?;
        Some(start + place as u32)
    }

    pub fn token(&self, node: u32) -> u32 {
        self.tokens[node as usize]
    }

    pub fn suffix(&self, node: u32) -> u32 {
        self.suffix[node as usize]
    }

    /// The nodes of length `n` that begin with `<s>`.
    pub fn begins(&self, n: usize) -> Range<u32> {
        let mut range = 1 + BOS..2 + BOS;
        for _ in 1..n {
            range = self.first_child[range.start as usize]..self.first_child[range.end as usize];
        }
        range
    }

    /// Parent of every node; of the root, the root.
    pub fn parents(&self) -> Vec<u32> {
        let mut parents = vec![0; self.len()];
        for node in 0..self.inner() {
            for child in self.children(node) {
                parents[child as usize] = node;
            }
        }
        parents
    }

    /// Without the nodes for which `keep` is false; their children must go too, and the tokens must stay.
    pub fn retain(&self, keep: &[bool]) -> Self {
        let parents = self.parents();
        let mut place = vec![0; self.len()]; // among the kept nodes of its level
        let levels: Vec<Level> = (1..=self.order())
            .map(|n| {
                let mut level = Level::default();
                for node in self.level(n).map(|node| node as usize).filter(|node| keep[*node]) {
                    place[node] = level.tokens.len() as u32;
                    level.tokens.push(self.tokens[node]);
                    level.parents.push(place[parents[node] as usize]);
                }
                level
            })
            .collect();
        Self::new(&levels)
    }
}
