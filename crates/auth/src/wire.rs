//! Bytes in and out: numbers, texts, options, lists. What tickets and the register are made of.

/// Why bytes could not be read as what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end in the middle of a field.
    #[error("a field is cut short")]
    Short,
    /// A number has more than 64 bits, or is longer than it needs to be.
    #[error("a number is too long")]
    Number,
    /// A text is not UTF-8.
    #[error("a text is not utf-8")]
    Text,
    /// A field has a value without a meaning.
    #[error("a field has no such value")]
    Value,
    /// Bytes are left over.
    #[error("bytes are left over")]
    Trailing,
}

/// Appends fields.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

/// Takes fields from the front.
pub(crate) struct Reader<'b>(&'b [u8]);

impl Writer {
    pub(crate) fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// LEB128.
    pub(crate) fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0])
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.number(value.len() as u64).fixed(value.as_bytes())
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T) -> &mut Self) -> &mut Self {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    pub(crate) fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> &mut Self,
    ) -> &mut Self {
        self.number(items.len() as u64);
        for item in items {
            write(self, item);
        }
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, WireError> {
        let (first, rest) = self.0.split_first().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn number(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // One spelling each: neither bits beyond the 64th nor a last byte that adds none.
            if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
                return Err(WireError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Number)
    }

    pub(crate) fn text(&mut self) -> Result<&'b str, WireError> {
        let length = usize::try_from(self.number()?).map_err(|_| WireError::Short)?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(WireError::Short)?;
        self.0 = rest;
        str::from_utf8(head).map_err(|_| WireError::Text)
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(WireError::Value),
        }
    }

    /// At most `limit` items. Nothing is allocated for items that the bytes cannot hold.
    pub(crate) fn list<T>(
        &mut self,
        limit: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let length = usize::try_from(self.number()?).map_err(|_| WireError::Value)?;
        if length > limit || length > self.0.len() {
            return Err(WireError::Value);
        }
        (0..length).map(|_| read(self)).collect()
    }

    pub(crate) fn finish(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_come_back(number: u64, text in "\\PC{0,9}", option: Option<u64>, list in prop::collection::vec(any::<u64>(), 0..5)) {
            let mut w = Writer::default();
            w.number(number).text(&text).fixed(&[1, 2]);
            w.option(option, Writer::number);
            w.list(list.iter(), |w, value| w.number(*value));
            let bytes = w.finish();
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(r.number(), Ok(number));
            prop_assert_eq!(r.text(), Ok(text.as_str()));
            prop_assert_eq!(r.fixed(), Ok([1, 2]));
            prop_assert_eq!(r.option(Reader::number), Ok(option));
            prop_assert_eq!(r.list(list.len(), Reader::number), Ok(list));
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn a_number_has_one_spelling(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut r = Reader::new(&bytes);
            if let Ok(number) = r.number() {
                let mut w = Writer::default();
                w.number(number);
                let read = bytes.len() - r.0.len();
                prop_assert_eq!(w.finish(), &bytes[..read]);
            }
        }
    }

    #[test]
    fn a_list_longer_than_its_bytes_is_refused_before_it_is_allocated() {
        let mut w = Writer::default();
        w.number(1 << 40);
        assert_eq!(Reader::new(&w.finish()).list(usize::MAX, Reader::byte), Err(WireError::Value));
        assert_eq!(Reader::new(&[3, 0, 0, 0]).list(2, Reader::byte), Err(WireError::Value));
    }
}
