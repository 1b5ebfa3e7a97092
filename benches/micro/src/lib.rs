//! The operations of the hot paths, one by one, ready to be measured.
//!
//! An [`Operation`] is made from fixed bytes and numbers and does the same thing whenever it is called, so that two things
//! can be asked of it: how long it takes (`benches/micro.rs`, by criterion), and how many instructions it is (the
//! program of this package, under callgrind). Time depends on the machine and on what else it does; instructions hardly
//! do, so they are what `benches/instructions` holds against committed numbers.
//!
//! | group | what is measured |
//! |---|---|
//! | `encode` | Server-Sent Events: frames, and the bursts made of them |
//! | `fold` | the state of a stream: 10,000 records, a checkpoint; what may be appended next |
//! | `ring` | recent batches: pushing, letting go, looking |
//! | `cursor`, `offset` | the tokens on the wire, 100 at a time |
//! | `json` | bodies to messages and back |
//!
//! This is a package of its own because it needs neither S2 nor a runtime: it builds in seconds, the measurements of the
//! whole program beside it do not. Memory comes from the system's allocator, not from the program's own, which gives
//! memory back by the clock and so never does the same thing twice.

mod encode;
mod fold;
mod json;
mod payload;
mod ring;
mod tokens;

/// Something to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// What it belongs to.
    pub group: &'static str,
    /// What it is called within its group.
    pub name: &'static str,
    /// What one call does.
    pub work: Work,
    /// How many calls are enough to count the instructions of one: what is done only now and then is to weigh what it
    /// does in the long run.
    pub calls: u32,
    /// Prepares it. What is prepared is not measured; each call of what comes back is the operation once.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// How much a call does, for rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// So many records, or whatever else is done one after the other.
    Elements(u64),
    /// So many bytes of payload.
    Bytes(u64),
}

/// All operations, group by group.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    [encode::OPERATIONS, fold::OPERATIONS, ring::OPERATIONS, tokens::OPERATIONS, json::OPERATIONS].into_iter().flatten()
}

impl Operation {
    /// The group and the name.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_can_be_done_again_and_again() {
        for operation in operations() {
            let mut run = (operation.prepare)();
            (0..3).for_each(|_| run());
            assert!(operation.calls > 0, "{}", operation.id());
        }
    }

    #[test]
    fn every_operation_has_a_committed_number_of_instructions_and_no_other_has() {
        let committed: toml::Table = toml::from_str(include_str!("../../instructions.toml")).unwrap();
        let counts = committed["instructions"].as_table().unwrap();
        let named: BTreeSet<String> = operations().map(Operation::id).collect();
        assert_eq!(named.len(), operations().count(), "no two share a name");
        assert_eq!(counts.keys().cloned().collect::<BTreeSet<_>>(), named);
        assert!(counts.values().all(|count| count.as_integer().is_some_and(|count| count > 0)));
    }
}
