//! The items of the association PDUs (PS3.8 9.3.1), read by their lengths.
//!
//! dicom-ul reads the fields of an item one after the other and refuses unknown items. By the
//! Standard, the length of an item decides and unknown items are ignored.

/// Kinds of items and sub-items (PS3.8 9.3.2 and D; PS3.7 D.3.3).
pub(crate) mod kind {
    pub(crate) const APPLICATION_CONTEXT: u8 = 0x10;
    pub(crate) const PROPOSED_CONTEXT: u8 = 0x20;
    pub(crate) const CONTEXT_RESULT: u8 = 0x21;
    pub(crate) const ABSTRACT_SYNTAX: u8 = 0x30;
    pub(crate) const TRANSFER_SYNTAX: u8 = 0x40;
    pub(crate) const USER_INFORMATION: u8 = 0x50;
    pub(crate) const MAXIMUM_LENGTH: u8 = 0x51;
    pub(crate) const ROLE_SELECTION: u8 = 0x54;
    pub(crate) const EXTENDED_NEGOTIATION: u8 = 0x56;
    pub(crate) const USER_IDENTITY: u8 = 0x58;
}

/// Length of the header of an item.
const HEADER: usize = 4;

/// An item or sub-item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) kind: u8,
    pub(crate) content: &'a [u8],
}

/// The reason why the other items cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemError {
    /// The header of an item is cut off.
    CutHeader,
    /// An item ends after the end of its container.
    TooLong,
    /// An item is shorter than its fields.
    TooShort,
}

/// Iterates over the items in these bytes. It ends after an error.
pub(crate) fn items(bytes: &[u8]) -> impl Iterator<Item = Result<Item<'_>, ItemError>> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let item = split_first(left);
        left = item.as_ref().map_or(&[][..], |(_, rest)| rest);
        Some(item.map(|(item, _)| item))
    })
}

fn split_first(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), ItemError> {
    let &[kind, _, high, low, ..] = bytes else { return Err(ItemError::CutHeader) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let rest = bytes.get(HEADER..).unwrap_or_default();
    let (content, rest) = rest.split_at_checked(length).ok_or(ItemError::TooLong)?;
    Ok((Item { kind, content }, rest))
}

/// Appends an item.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    // The content was an item, or a part of one, so its length fits.
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(content.get(..usize::from(length)).unwrap_or(content));
}

/// Returns the content of a Presentation Context Item of an A-ASSOCIATE-RQ without unknown
/// sub-items.
pub(crate) fn proposed_context(content: &[u8]) -> Result<Vec<u8>, ItemError> {
    let (fixed, sub_items) = content.split_at_checked(4).ok_or(ItemError::TooShort)?;
    let mut bytes = fixed.to_vec();
    for item in items(sub_items) {
        let Item { kind, content } = item?;
        if matches!(kind, kind::ABSTRACT_SYNTAX | kind::TRANSFER_SYNTAX) {
            put(&mut bytes, kind, content);
        }
    }
    Ok(bytes)
}

/// Returns the content of a User Information Item. Its sub-items are cut to the length of their
/// fields.
pub(crate) fn user_information(content: &[u8]) -> Result<Vec<u8>, ItemError> {
    let mut bytes = Vec::with_capacity(content.len());
    for item in items(content) {
        let Item { kind, content } = item?;
        let length = match kind {
            kind::MAXIMUM_LENGTH => 4,
            // PS3.7 tables D.3-9 and D.3-10.
            kind::ROLE_SELECTION => text_at(content, 0)? + 2,
            // Application information has no length of its own.
            kind::EXTENDED_NEGOTIATION => text_at(content, 0).map(|_| content.len())?,
            // PS3.7 table D.3-14: two texts after two bytes.
            kind::USER_IDENTITY => text_at(content, text_at(content, 2)?)?,
            _ => content.len(),
        };
        put(&mut bytes, kind, content.get(..length).ok_or(ItemError::TooShort)?);
    }
    Ok(bytes)
}

/// Returns the end of a text whose length is at `at`.
fn text_at(content: &[u8], at: usize) -> Result<usize, ItemError> {
    let length = content.get(at..).and_then(|rest| rest.first_chunk::<2>()).ok_or(ItemError::TooShort)?;
    let end = at + 2 + usize::from(u16::from_be_bytes(*length));
    if end <= content.len() { Ok(end) } else { Err(ItemError::TooShort) }
}

/// Reads a role selection (PS3.7 D.3.3.4): the SOP Class, and whether the requestor is its SCU and
/// SCP.
pub(crate) fn role_selection(content: &[u8]) -> Option<(&[u8], bool, bool)> {
    let end = text_at(content, 0).ok()?;
    let &[scu, scp, ..] = content.get(end..)? else { return None };
    Some((content.get(2..end)?, scu != 0, scp != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_item_governs() {
        let role = [0, 3, b'1', b'.', b'2', 1, 0];
        let mut longer = Vec::new();
        put(&mut longer, kind::ROLE_SELECTION, &[&role[..], &[9]].concat());
        put(&mut longer, kind::MAXIMUM_LENGTH, &[0, 0, 0x40, 0, 7, 7]);
        put(&mut longer, 0x77, b"unknown");
        let mut exact = Vec::new();
        put(&mut exact, kind::ROLE_SELECTION, &role);
        put(&mut exact, kind::MAXIMUM_LENGTH, &[0, 0, 0x40, 0]);
        put(&mut exact, 0x77, b"unknown");
        assert_eq!(user_information(&longer), Ok(exact));
        assert_eq!(role_selection(&role), Some((&b"1.2"[..], true, false)));
    }

    #[test]
    fn fields_do_not_reach_into_the_next_item() {
        for (kind, content) in [
            (kind::MAXIMUM_LENGTH, &[0, 0, 0x40][..]),
            (kind::ROLE_SELECTION, &[0, 3, b'1', b'.', b'2', 1]),
            (kind::ROLE_SELECTION, &[0, 9, b'1']),
            (kind::EXTENDED_NEGOTIATION, &[0, 9, b'1']),
            (kind::USER_IDENTITY, &[1, 0, 0, 1, b'u', 0, 1]),
        ] {
            let mut bytes = Vec::new();
            put(&mut bytes, kind, content);
            put(&mut bytes, kind::MAXIMUM_LENGTH, &[0, 0, 0x40, 0]);
            assert_eq!(user_information(&bytes), Err(ItemError::TooShort), "{kind:02X}");
        }
        assert_eq!(items(&[0x10, 0, 0, 2, 1]).last(), Some(Err(ItemError::TooLong)));
        assert_eq!(items(&[0x10, 0, 0]).last(), Some(Err(ItemError::CutHeader)));
    }
}
