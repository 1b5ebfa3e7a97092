//! A log, read into a register: synchronous, and without a clock.
//!
//! It begins at the first record, or at a checkpoint that stands where it was taken. What stands before such a checkpoint and
//! was not trimmed yet, or only in part, is passed over.

use tailwater_auth::{
    RegisterError,
    register::{Applied, Register},
};
use tailwater_log::{Command, Record};

/// A register, and how far it is read.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    register: Register,
    /// Where the log begins, if that is no place for a register to begin.
    passed: Option<u64>,
    /// How many records stand behind the last checkpoint.
    since_checkpoint: u64,
}

impl Fold {
    /// Takes the record; whether more is known than before.
    ///
    /// # Errors
    /// [`RegisterError`]; what was known stays.
    pub(crate) fn take(&mut self, record: &Record) -> Result<bool, RegisterError> {
        if record.headers.first().is_some_and(|header| header.name.is_empty()) {
            return self.take_command(record);
        }
        match self.register.apply(record.seq, record.timestamp / 1000, &record.body) {
            Ok(applied) => {
                let is_new = applied != Applied::Before;
                self.since_checkpoint += u64::from(is_new);
                Ok(is_new)
            }
            Err(_) if self.next() == 0 && record.seq > 0 => {
                self.passed.get_or_insert(record.seq);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether all of it was read, now that the log ends at `tail`.
    ///
    /// # Errors
    /// [`RegisterError`], where what was there does not make a register.
    pub(crate) fn finish(&self, tail: u64) -> Result<(), RegisterError> {
        if self.next() == 0 && (self.passed.is_some() || tail > 0) {
            return Err(RegisterError::Start { position: self.passed.unwrap_or(tail) });
        }
        // A session crosses a trim in silence.
        if tail > self.next() {
            return Err(RegisterError::Gap { expected: self.next(), found: tail });
        }
        Ok(())
    }

    /// Where the next record stands; 0 while no beginning was found.
    pub(crate) fn next(&self) -> u64 {
        self.register.next()
    }

    /// What is known.
    pub(crate) fn register(&self) -> &Register {
        &self.register
    }

    /// How many records stand behind the last checkpoint.
    pub(crate) fn since_checkpoint(&self) -> u64 {
        self.since_checkpoint
    }

    fn take_command(&mut self, record: &Record) -> Result<bool, RegisterError> {
        match self.register.pass(record.seq) {
            Ok(()) => {}
            Err(_) if self.next() == 0 && record.seq > 0 => {
                self.passed.get_or_insert(record.seq);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        // It is appended with a checkpoint, and by nobody else.
        if matches!(record.command(), Some(Command::Trim(_))) {
            self.since_checkpoint = 0;
        }
        Ok(false)
    }
}
