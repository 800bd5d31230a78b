//! Person names (PS3.5 6.2.1): the normal form in which they are searched.
