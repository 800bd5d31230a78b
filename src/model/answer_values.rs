//! The values of an answer, in one text.

use std::ops::{Index, Range};

/// Values in a fixed order. An empty one says that there is none.
///
/// An answer has some forty values. One text for all of them asks for memory twice, and forty texts
/// ask forty times. A million answers that another thread frees feel that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerValues {
    text: String,
    /// Ends of the values in the text.
    ends: Vec<usize>,
}

impl AnswerValues {
    /// Makes a list without values, with room for `values` values and `bytes` bytes of text.
    #[must_use]
    pub fn with_capacity(values: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(values) }
    }

    /// The number of values.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all values together.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Appends a value.
    pub fn push(&mut self, value: &str) {
        self.text.push_str(value);
        self.ends.push(self.text.len());
    }

    /// Appends a value that the caller writes at the end of the text.
    ///
    /// # Errors
    /// Those of the caller. No value is appended then.
    pub fn try_push_with<E>(&mut self, write: impl FnOnce(&mut String) -> Result<(), E>) -> Result<(), E> {
        let start = self.text.len();
        write(&mut self.text).inspect_err(|_| self.text.truncate(start))?;
        self.ends.push(self.text.len());
        Ok(())
    }

    /// Returns a value. `None` if there are fewer.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&str> {
        self.text.get(self.range(at)?)
    }

    /// Returns a value. It is empty if there are fewer.
    #[must_use]
    pub fn text(&self, at: usize) -> &str {
        self.get(at).unwrap_or_default()
    }

    /// Puts another value into a place. Nothing happens if there are fewer values.
    pub fn set(&mut self, at: usize, value: &str) {
        let Some(range) = self.range(at) else { return };
        let (longer, shorter) = (value.len(), range.len());
        self.text.replace_range(range, value);
        for end in self.ends.iter_mut().skip(at) {
            *end = *end + longer - shorter;
        }
    }

    /// The values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        (0..self.len()).map(|at| self.text(at))
    }

    /// Takes the values with these places away.
    pub fn remove(&mut self, places: Range<usize>) {
        let texts = self.to_vec();
        let kept = texts.iter().enumerate().filter(|(at, _)| !places.contains(at));
        *self = kept.map(|(_, text)| text).collect();
    }

    /// All values, as texts of their own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<String> {
        self.texts(0..self.len())
    }

    /// The values with these places, as texts of their own.
    #[must_use]
    pub fn texts(&self, places: Range<usize>) -> Vec<String> {
        places.filter_map(|at| self.get(at)).map(str::to_owned).collect()
    }

    fn range(&self, at: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before));
        Some(start.copied().unwrap_or_default()..end)
    }
}

impl Index<usize> for AnswerValues {
    type Output = str;

    /// # Panics
    /// If there are fewer values.
    fn index(&self, at: usize) -> &str {
        self.get(at).expect("an answer has a value for each key")
    }
}

impl<T: AsRef<str>> Extend<T> for AnswerValues {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push(value.as_ref()));
    }
}

impl<T: AsRef<str>> FromIterator<T> for AnswerValues {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut this = Self::default();
        this.extend(values);
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_places() {
        let mut values: AnswerValues = ["a", "", "ccc", "d"].into_iter().collect();
        assert_eq!(values.iter().collect::<Vec<_>>(), ["a", "", "ccc", "d"]);
        assert_eq!((values.len(), values.bytes(), values.get(4), values.text(4)), (4, 5, None, ""));
        values.set(2, "é");
        values.set(1, "bb");
        values.set(9, "no such place");
        assert_eq!(values.texts(0..9), ["a", "bb", "é", "d"]);
        assert_eq!(values.texts(1..3), ["bb", "é"]);
        assert_eq!((&values[0], &values[3]), ("a", "d"));
        values.remove(1..3);
        assert_eq!(values.texts(0..9), ["a", "d"]);
        values.remove(2..5);
        assert_eq!(values.len(), 2);
    }
}
