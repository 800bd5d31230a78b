//! Rows of the table of settings, and the types of their values.

use std::marker::PhantomData;

use toml::Value;

/// Environment variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "DCMDEX_CONFIG";

/// One setting. Everything about it is in its row of the table.
#[derive(Debug)]
pub struct Key {
    /// Dotted name in `dcmdex.toml`.
    pub path: &'static str,
    /// Type of the value, and its limits.
    pub kind: ValueKind,
    /// Default value, as written in TOML.
    pub default: &'static str,
    /// Meaning, in a few sentences.
    pub help: &'static str,
    /// Unit, or the possible values.
    pub unit: &'static str,
    /// Cost of a value that is too low, or of the first choice. It is empty if there is none.
    pub too_low: &'static str,
    /// Cost of a value that is too high, or of the last choice. It is empty if there is none.
    pub too_high: &'static str,
    /// The command line option that sets it, if there is one.
    pub flag: Option<KeyFlag>,
}

/// The command line option of a setting.
#[derive(Clone, Copy, Debug)]
pub struct KeyFlag {
    /// The command that has the option.
    pub command: &'static str,
    /// The option, for example `--port`.
    pub option: &'static str,
    /// Whether it takes a value.
    pub form: FlagForm,
    /// Help text of the option.
    pub help: &'static str,
    /// Another setting that the option sets, and its value as written in TOML.
    pub also: Option<(&'static str, &'static str)>,
}

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug)]
pub enum FlagForm {
    /// It takes a value with this name.
    Value(&'static str),
    /// It takes none, and sets this value, as written in TOML.
    Switch(&'static str),
}

/// Type of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// True or false.
    Boolean,
    /// A whole number from the first to the second one.
    Integer(u64, u64),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A text.
    Text,
    /// A list of texts.
    Texts,
}

/// A row of the table whose value has type `T`: see [`settings`](super::keys::settings).
#[derive(Debug)]
pub(super) struct KeyOf<T>(&'static Key, PhantomData<fn() -> T>);

impl<T> Clone for KeyOf<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for KeyOf<T> {}

impl<T> KeyOf<T> {
    pub(super) const fn new(key: &'static Key) -> Self {
        Self(key, PhantomData)
    }

    /// Returns the name.
    pub(super) const fn path(self) -> &'static str {
        self.0.path
    }

    /// Returns the type and its limits.
    pub(super) const fn kind(self) -> ValueKind {
        self.0.kind
    }
}

/// Type of a value in Rust.
pub(super) trait SettingValue {
    /// The value.
    type Read<'a>;

    /// Reads the value. `None` if it has another type.
    fn read(value: &Value) -> Option<Self::Read<'_>>;
}

/// See [`ValueKind::Boolean`].
#[derive(Debug)]
pub(super) enum Boolean {}

/// See [`ValueKind::Integer`].
#[derive(Debug)]
pub(super) enum Integer {}

/// See [`ValueKind::Text`].
#[derive(Debug)]
pub(super) enum Text {}

/// See [`ValueKind::Texts`].
#[derive(Debug)]
pub(super) enum Texts {}

/// See [`ValueKind::Choice`]. `N` is the number of choices.
#[derive(Debug)]
pub(super) enum Choice<const N: usize> {}

impl SettingValue for Boolean {
    type Read<'a> = bool;

    fn read(value: &Value) -> Option<bool> {
        value.as_bool()
    }
}

impl SettingValue for Integer {
    type Read<'a> = i64;

    fn read(value: &Value) -> Option<i64> {
        value.as_integer()
    }
}

impl SettingValue for Text {
    type Read<'a> = &'a str;

    fn read(value: &Value) -> Option<&str> {
        value.as_str()
    }
}

impl<const N: usize> SettingValue for Choice<N> {
    type Read<'a> = &'a str;

    fn read(value: &Value) -> Option<&str> {
        value.as_str()
    }
}

impl SettingValue for Texts {
    type Read<'a> = &'a [Value];

    fn read(value: &Value) -> Option<&[Value]> {
        value.as_array().map(Vec::as_slice)
    }
}

impl Key {
    /// Returns the default as a value.
    #[must_use]
    pub fn default_value(&self) -> Value {
        parse_value(self.default).expect("the defaults of the table are valid TOML; a test reads them all")
    }

    /// Returns the environment variable that sets it. For `network.max_associations` it is
    /// `DCMDEX_NETWORK__MAX_ASSOCIATIONS`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }
}

/// Prefix of our environment variables.
pub(super) const VARIABLE_PREFIX: &str = "DCMDEX_";

/// The table whose keys are AE titles instead of names of settings.
pub(super) const PEERS: &str = "peers";

/// Parses one TOML value.
pub(crate) fn parse_value(text: &str) -> Option<Value> {
    let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    table.remove("value")
}
