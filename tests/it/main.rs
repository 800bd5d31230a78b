//! One binary of behaviour tests.
