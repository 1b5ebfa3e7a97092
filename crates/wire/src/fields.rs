//! The forms that fields have.

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
pub struct Writer(Vec<u8>);

/// Takes fields from the front. What an error leaves to be read says nothing.
pub struct Reader<'b>(&'b [u8]);

impl Writer {
    /// One byte.
    #[inline]
    pub fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// A flag.
    #[inline]
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.byte(u8::from(value))
    }

    /// Bytes as they are, without their length: for a reader that knows it.
    #[inline]
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Eight bytes: for random numbers, which LEB128 would lengthen.
    #[inline]
    pub fn fixed_number(&mut self, value: u64) -> &mut Self {
        self.fixed(&value.to_be_bytes())
    }

    /// A number, in its one spelling.
    #[inline]
    pub fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0])
    }

    /// Bytes with their length.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.number(value.len() as u64).fixed(value)
    }

    /// A text.
    #[inline]
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// What may be missing.
    #[inline]
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T) -> &mut Self) -> &mut Self {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    /// Items, with their number.
    #[inline]
    pub fn list<T>(
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

    /// All that was written.
    #[inline]
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

impl<'b> Reader<'b> {
    /// A reader of these.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`WireError::Short`].
    #[inline]
    pub fn byte(&mut self) -> Result<u8, WireError> {
        let (first, rest) = self.0.split_first().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A flag.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Value`] for a byte that is neither 0 nor 1.
    #[inline]
    pub fn flag(&mut self) -> Result<bool, WireError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value),
        }
    }

    /// Bytes without a length.
    ///
    /// # Errors
    /// [`WireError::Short`].
    #[inline]
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    /// A number of eight bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    #[inline]
    pub fn fixed_number(&mut self) -> Result<u64, WireError> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// A number.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Number`] for any other spelling than the one that is written.
    #[inline]
    pub fn number(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // One spelling each: neither bits beyond the 64th nor a last byte that adds none.
                let is_long = (shift == 63 && byte > 1) || (shift > 0 && byte == 0);
                return if is_long { Err(WireError::Number) } else { Ok(value) };
            }
        }
        Err(WireError::Number)
    }

    /// Bytes with their length.
    ///
    /// # Errors
    /// [`WireError::Short`], [`WireError::Number`].
    #[inline]
    pub fn bytes(&mut self) -> Result<&'b [u8], WireError> {
        let length = usize::try_from(self.number()?).map_err(|_| WireError::Short)?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    /// A text.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes); [`WireError::Text`].
    #[inline]
    pub fn text(&mut self) -> Result<&'b str, WireError> {
        str::from_utf8(self.bytes()?).map_err(|_| WireError::Text)
    }

    /// What may be missing.
    ///
    /// # Errors
    /// As [`flag`](Self::flag), and what `read` says.
    #[inline]
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, WireError>) -> Result<Option<T>, WireError> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// At most `limit` items. Nothing is allocated for items that the bytes cannot hold.
    ///
    /// # Errors
    /// As [`number`](Self::number), and what `read` says; [`WireError::Value`] for more than `limit`, or than the bytes can
    /// hold.
    #[inline]
    pub fn list<T>(
        &mut self,
        limit: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let length = usize::try_from(self.number()?).map_err(|_| WireError::Value)?;
        if length > limit || length > self.0.len() {
            return Err(WireError::Value);
        }
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// That nothing is left.
    ///
    /// # Errors
    /// [`WireError::Trailing`].
    #[inline]
    pub fn finish(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn fields_come_back(
            (number, random, option, flag) in any::<(u64, u64, Option<u64>, bool)>(),
            bytes in vec(any::<u8>(), 0..9), text in "\\PC{0,9}", list in vec(any::<u64>(), 0..5),
        ) {
            let mut w = Writer::default();
            w.number(number).bytes(&bytes).text(&text).fixed(&[1, 2]).fixed_number(random).flag(flag);
            w.option(option, Writer::number);
            w.list(list.iter(), |w, value| w.number(*value));
            let written = w.finish();
            let mut r = Reader::new(&written);
            prop_assert_eq!(r.number(), Ok(number));
            prop_assert_eq!(r.bytes(), Ok(bytes.as_slice()));
            prop_assert_eq!(r.text(), Ok(text.as_str()));
            prop_assert_eq!(r.fixed(), Ok([1, 2]));
            prop_assert_eq!(r.fixed_number(), Ok(random));
            prop_assert_eq!(r.flag(), Ok(flag));
            prop_assert_eq!(r.option(Reader::number), Ok(option));
            prop_assert_eq!(r.list(list.len(), Reader::number), Ok(list));
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn a_number_has_one_spelling(bytes in vec(any::<u8>(), 0..12)) {
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
    fn a_number_that_is_too_long_is_refused() {
        let nines = |last| [&[0xff; 9][..], &[last]].concat();
        assert_eq!(Reader::new(&nines(1)).number(), Ok(u64::MAX));
        for bytes in [nines(2), vec![0x80; 11], vec![0x80, 0], vec![0xff, 0x80, 0]] {
            assert_eq!(Reader::new(&bytes).number(), Err(WireError::Number), "{bytes:?}");
        }
    }

    #[test]
    fn each_form_has_its_bytes() {
        let mut w = Writer::default();
        w.number(300).fixed_number(258).bytes(&[7]).text("é").flag(true);
        w.option(None, Writer::number).option(Some(5), Writer::number);
        w.list([1, 128].into_iter(), Writer::number);
        let expected = b"\xac\x02\0\0\0\0\0\0\x01\x02\x01\x07\x02\xc3\xa9\x01\0\x01\x05\x02\x01\x80\x01";
        assert_eq!(w.finish(), expected);
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        assert_eq!(Reader::new(&[2]).flag(), Err(WireError::Value));
        assert_eq!(Reader::new(&[2, 0]).option(Reader::number), Err(WireError::Value));
        assert_eq!(Reader::new(&[1, 0xff]).text(), Err(WireError::Text));
        assert_eq!(Reader::new(&[0]).finish(), Err(WireError::Trailing));
    }

    #[test]
    fn a_field_that_is_cut_short_is_refused() {
        assert_eq!(Reader::new(&[]).byte(), Err(WireError::Short));
        assert_eq!(Reader::new(&[0x80]).number(), Err(WireError::Short));
        assert_eq!(Reader::new(&[0; 7]).fixed_number(), Err(WireError::Short));
        assert_eq!(Reader::new(&[2, 0]).bytes(), Err(WireError::Short));
        assert_eq!(Reader::new(&[1]).option(Reader::byte), Err(WireError::Short));
    }

    #[test]
    fn a_list_longer_than_its_bytes_is_refused_before_it_is_allocated() {
        let mut w = Writer::default();
        w.number(1 << 40);
        assert_eq!(Reader::new(&w.finish()).list(usize::MAX, Reader::byte), Err(WireError::Value));
        assert_eq!(Reader::new(&[3, 0, 0, 0]).list(2, Reader::byte), Err(WireError::Value));
    }
}
