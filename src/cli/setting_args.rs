//! Command line options that set settings. They come from the table of settings.

use std::fmt;
use std::marker::PhantomData;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};
use toml::Value;

use crate::config::{Flag, FlagForm, Key, KeyFlag, ValueKind, parse_value};

/// A command that has options from the table.
pub(super) trait HasSettings {
    /// Name of the command in the table.
    const COMMAND: &'static str;
}

/// The options of a command that set settings, as given by the user.
pub(super) struct SettingArgs<C>(Vec<Flag>, PhantomData<fn() -> C>);

impl<C> SettingArgs<C> {
    /// Returns the options that were given.
    pub(super) fn flags(&self) -> impl Iterator<Item = Flag> {
        self.0.iter().cloned()
    }
}

impl<C> fmt::Debug for SettingArgs<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SettingArgs").field(&self.0).finish()
    }
}

impl<C: HasSettings> Args for SettingArgs<C> {
    fn augment_args(command: Command) -> Command {
        Key::with_flag_of(C::COMMAND).fold(command, |command, (key, flag)| command.arg(arg(key, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C: HasSettings> FromArgMatches for SettingArgs<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Vec::new();
        for (key, flag) in Key::with_flag_of(C::COMMAND) {
            let Some(value) = value(key, flag, matches) else { continue };
            flags.push(Flag { path: key.path.to_owned(), value, flag: flag.option });
            if let Some((path, value)) = flag.also.and_then(|(path, value)| Some((path, parse_value(value)?))) {
                flags.push(Flag { path: path.to_owned(), value, flag: flag.option });
            }
        }
        Ok(Self(flags, PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn arg(key: &'static Key, flag: KeyFlag) -> Arg {
    let arg = Arg::new(key.path).long(flag.option.trim_start_matches('-')).help(flag.help);
    let FlagForm::Value(name) = flag.form else { return arg.action(ArgAction::SetTrue) };
    let hint = if matches!(name, "FILE" | "DIR") { ValueHint::AnyPath } else { ValueHint::Unknown };
    let arg = arg.value_name(name).value_hint(hint);
    match key.kind {
        ValueKind::Texts => arg.action(ArgAction::Append),
        ValueKind::Integer(from, to) => {
            let limit = |number| i64::try_from(number).unwrap_or(i64::MAX);
            arg.value_parser(clap::value_parser!(i64).range(limit(from)..=limit(to)))
        }
        ValueKind::Choice(names) => arg.value_parser(ValueParser::from(PossibleValuesParser::new(names))),
        ValueKind::Boolean | ValueKind::Text => arg,
    }
}

/// Returns the value of an option. `None` if it was not given.
fn value(key: &Key, flag: KeyFlag, matches: &ArgMatches) -> Option<Value> {
    match (flag.form, key.kind) {
        (FlagForm::Switch(sets), _) => matches.get_flag(key.path).then(|| parse_value(sets)).flatten(),
        (FlagForm::Value(_), ValueKind::Texts) => {
            let values = matches.get_many::<String>(key.path)?;
            Some(Value::Array(values.map(|value| value.as_str().into()).collect()))
        }
        (FlagForm::Value(_), ValueKind::Integer(..)) => matches.get_one::<i64>(key.path).map(|value| (*value).into()),
        (FlagForm::Value(_), ValueKind::Boolean | ValueKind::Choice(_) | ValueKind::Text) => {
            matches.get_one::<String>(key.path).map(|value| value.as_str().into())
        }
    }
}
