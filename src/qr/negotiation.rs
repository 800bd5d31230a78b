//! SOP Class Extended Negotiation of the FIND SOP Classes (PS3.4 C.5.2.1.1).

/// Options agreed for one association and one SOP Class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NegotiatedOptions {
    /// Byte 1: keys of any level are allowed, in any combination.
    pub relational_queries: bool,
    /// Byte 2: a date range and a time range together form one range of moments.
    pub combined_date_time: bool,
    /// Byte 3: names are matched by their words, in any order.
    pub fuzzy_names: bool,
    /// Byte 6: a key of two quotation marks matches an attribute without a value.
    pub empty_value: bool,
    /// Byte 7: the stored value must have all values of a key.
    pub multiple_value: bool,
}

/// Number of bytes with a meaning (PS3.4 table C.5-3).
const LENGTH: usize = 7;

impl NegotiatedOptions {
    /// Answers the Service-class-application-information of a request.
    ///
    /// Each byte that was sent gets an answer: 1 if the option was requested and is supported,
    /// otherwise 0. Byte 4 (timezone query adjustment) and byte 5 (enhanced multi-frame image
    /// conversion) are always 0, because they are not supported.
    #[must_use]
    pub fn answer(requested: &[u8]) -> (Self, Vec<u8>) {
        let agreed = Self::of_bytes(requested);
        let mut answer = agreed.to_bytes().to_vec();
        answer.truncate(requested.len());
        (agreed, answer)
    }

    /// Reads the requested or agreed options from these bytes. Missing bytes are 0.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let asked = |number: usize| bytes.get(number - 1) == Some(&1);
        Self {
            relational_queries: asked(1),
            combined_date_time: asked(2),
            fuzzy_names: asked(3),
            empty_value: asked(6),
            multiple_value: asked(7),
        }
    }

    /// Returns the Service-class-application-information of these options (PS3.4 table C.5-3).
    /// Bytes 4 and 5 are 0: neither option is supported.
    #[must_use]
    pub fn to_bytes(self) -> [u8; LENGTH] {
        [
            u8::from(self.relational_queries),
            u8::from(self.combined_date_time),
            u8::from(self.fuzzy_names),
            0,
            0,
            u8::from(self.empty_value),
            u8::from(self.multiple_value),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PS3.4 C.5.2.1.1.
    #[test]
    fn only_what_is_asked_for_and_there_is_agreed() {
        let (agreed, answer) = NegotiatedOptions::answer(&[1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(answer, [1, 1, 1, 0, 0, 1, 1]);
        assert_eq!(NegotiatedOptions::of_bytes(&answer), agreed);
        let (agreed, answer) = NegotiatedOptions::answer(&[1, 0, 1]);
        assert_eq!(answer, [1, 0, 1]);
        assert!(agreed.relational_queries && agreed.fuzzy_names && !agreed.combined_date_time);
    }

    #[test]
    fn bytes_that_mean_nothing_are_answered_with_zero() {
        assert_eq!(NegotiatedOptions::answer(&[2, 255]).1, [0, 0]);
        assert_eq!(NegotiatedOptions::answer(&[]), (NegotiatedOptions::default(), vec![]));
        assert_eq!(NegotiatedOptions::answer(&[0; 40]).1.len(), 7);
    }
}
