//! The users of the HTTP side: a file with a line for each, with name, rights and secret.
//!
//! Passwords are kept as argon2 hashes, tokens as SHA-256 of 256 random bits.

use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::model::checksum::sha256;

/// Lines of a file of users. A site has some hundred.
const MAX_USERS: usize = 10_000;

/// The longest password or token of the file that is looked at, in bytes.
pub const MAX_SECRET_BYTES: usize = 1024;

/// Memory that a hash in the file may ask for, in KiB. The default of argon2 is 19 MiB.
const MAX_HASH_KIB: u32 = 256 << 10;

/// Longest memory of a hash that is kept for the next one, in KiB. The system takes longer ones
/// back.
const MAX_KEPT_KIB: usize = 32 << 10;

/// Passes that a hash in the file may ask for.
const MAX_HASH_PASSES: u32 = 32;

/// Rights of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Search and retrieve.
    pub read: bool,
    /// Store.
    pub store: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self { read: true, store: true };
    /// Search and retrieve.
    pub const READ: Self = Self { read: true, store: false };
    /// Nothing.
    pub const NONE: Self = Self { read: false, store: false };

    fn parse(text: &str) -> Option<Self> {
        text.split(',').try_fold(Self::NONE, |rights, name| match name {
            "read" => Some(Self { read: true, ..rights }),
            "store" => Some(Self { store: true, ..rights }),
            _ => None,
        })
    }
}

/// As it stands in the file of users.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.read, self.store) {
            (true, true) => "read,store",
            (true, false) => "read",
            (false, true) => "store",
            (false, false) => "",
        })
    }
}

/// Credential of a user.
#[derive(Clone)]
enum Secret {
    Password(Box<PasswordHash>),
    /// SHA-256 of a bearer token.
    Token([u8; 32]),
    /// The word of a trusted proxy.
    Proxy,
}

/// One line of the file.
#[derive(Clone)]
struct User {
    name: String,
    rights: Rights,
    secret: Secret,
}

/// The users of a node, as their file has them: a line for each, with name, rights and secret.
#[derive(Clone, Default)]
pub struct Users(Vec<User>);

/// Without names and secrets.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.0.len()).finish()
    }
}

/// Fault in a file of users. The texts repeat nothing of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct UsersError {
    /// The line, from 1.
    pub line: usize,
    /// Fault of the line.
    pub what: &'static str,
}

impl Users {
    /// Reads a file of users.
    ///
    /// # Errors
    /// The first line that cannot be used.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut users: Vec<User> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| UsersError { line: number + 1, what };
            if users.len() == MAX_USERS {
                return Err(wrong("more than 10,000 users"));
            }
            let user = User::parse(line).map_err(wrong)?;
            let same = |other: &&User| other.name == user.name && other.secret.is_token() == user.secret.is_token();
            if !user.secret.is_token() && users.iter().any(|other| same(&other)) {
                return Err(wrong("this name stands there already"));
            }
            users.push(user);
        }
        Ok(Self(users))
    }

    /// Number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn by_password(&self, name: &str) -> Option<(&User, &PasswordHash)> {
        self.0.iter().find_map(|user| match &user.secret {
            Secret::Password(hash) if user.name == name => Some((user, &**hash)),
            Secret::Password(_) | Secret::Token(_) | Secret::Proxy => None,
        })
    }

    /// The rights of a token.
    #[must_use]
    pub fn rights_of_token(&self, token: &[u8]) -> Option<Rights> {
        let sought = sha256(token);
        let found = self.0.iter().find(|user| match &user.secret {
            Secret::Token(known) => is_equal(known, &sought),
            Secret::Password(_) | Secret::Proxy => false,
        });
        found.map(|user| user.rights)
    }

    /// The rights of a user whom a proxy names. `*` in the file is everyone whom it names.
    #[must_use]
    pub fn rights_by_proxy(&self, name: &str) -> Option<Rights> {
        let mut of_proxy = self.0.iter().filter(|user| matches!(user.secret, Secret::Proxy));
        let everyone = of_proxy.clone().find(|user| user.name == "*");
        of_proxy.find(|user| user.name == name).or(everyone).map(|user| user.rights)
    }

    /// The rights of a name and a password with a colon between. It takes some milliseconds, and as
    /// long where there is no such user.
    #[must_use]
    pub fn rights_of_password(&self, credentials: &str, memory: &HashMemory) -> Option<Rights> {
        let (name, password) = credentials.split_once(':')?;
        if password.len() > MAX_SECRET_BYTES {
            return None;
        }
        match self.by_password(name) {
            Some((user, hash)) => memory.is_password_of(hash, password).then_some(user.rights),
            None => {
                if let Some(nobody) = &*NOBODY {
                    let _ = memory.is_password_of(nobody, password);
                }
                None
            }
        }
    }

    /// Whether somebody has a password.
    #[must_use]
    pub fn have_passwords(&self) -> bool {
        self.0.iter().any(|user| matches!(user.secret, Secret::Password(_)))
    }

    /// Whether somebody has a token.
    #[must_use]
    pub fn have_tokens(&self) -> bool {
        self.0.iter().any(|user| user.secret.is_token())
    }
}

/// Memory for hashes of passwords, used again by the next checks. The allocator would keep as much
/// for each thread that ever made a check.
#[derive(Default)]
pub struct HashMemory(Mutex<Vec<Vec<Block>>>);

impl fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashMemory").finish_non_exhaustive()
    }
}

impl HashMemory {
    fn is_password_of(&self, hash: &PasswordHash, password: &str) -> bool {
        let mut blocks = self.kept().pop().unwrap_or_default();
        let computed = computed_again(hash, password, &mut blocks);
        if blocks.len() <= MAX_KEPT_KIB {
            self.kept().push(blocks);
        }
        // The comparison of two outputs takes the same time wherever they differ.
        computed.is_some_and(|computed| Some(computed) == hash.hash)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Block>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of a password with salt and cost of another hash.
fn computed_again(hash: &PasswordHash, password: &str, blocks: &mut Vec<Block>) -> Option<Output> {
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let params = Params::try_from(hash).ok()?;
    blocks.resize(params.block_count(), Block::new());
    let mut output = vec![0; hash.hash.as_ref()?.len()];
    let argon2 = Argon2::new(algorithm, version, params);
    argon2.hash_password_into_with_memory(password.as_bytes(), hash.salt.as_ref()?, &mut output, blocks).ok()?;
    Output::new(&output).ok()
}

impl Secret {
    fn is_token(&self) -> bool {
        matches!(self, Self::Token(_))
    }
}

impl User {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let mut fields = line.split_whitespace();
        let (Some(name), Some(rights), Some(secret), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err("not three fields: name, rights, secret");
        };
        if name.contains(':') {
            return Err("a name cannot have a colon");
        }
        let rights = Rights::parse(rights).ok_or("rights are `read`, `store` or `read,store`")?;
        let secret = if secret == "proxy" {
            Secret::Proxy
        } else if let Some(hex) = secret.strip_prefix(TOKEN_PREFIX) {
            let bytes =
                HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| "the hash of the token is not hexadecimal")?;
            Secret::Token(bytes.try_into().map_err(|_| "the hash of the token has not 32 bytes")?)
        } else if secret.starts_with("$argon2") {
            let hash = PasswordHash::new(secret).map_err(|_| "the hash of the password cannot be read")?;
            let cost = Params::try_from(&hash).map_err(|_| "the hash of the password cannot be read")?;
            if cost.m_cost() > MAX_HASH_KIB || cost.t_cost() > MAX_HASH_PASSES {
                return Err("the hash of the password takes more than 256 MiB or 32 passes");
            }
            Secret::Password(Box::new(hash))
        } else {
            return Err("a secret is `$argon2...`, `sha256:...` or `proxy`");
        };
        Ok(Self { name: name.to_owned(), rights, secret })
    }
}

/// Hash for unknown users. It makes their answer as slow as that of known ones, so that nobody can
/// find out names by time.
static NOBODY: LazyLock<Option<PasswordHash>> = LazyLock::new(|| Argon2::default().hash_password(b"nobody").ok());

const TOKEN_PREFIX: &str = "sha256:";

/// Reason why no line of a file of users can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NewUserError {
    /// The name has white space or a colon, or is empty.
    #[error("a name has no spaces and no colon")]
    Name,
    /// The password is empty or longer than 1,024 bytes.
    #[error("a password has 1 to 1,024 bytes")]
    Password,
    /// The system gives no random numbers, or no memory.
    #[error("the system gives no random numbers or no memory")]
    System,
}

fn checked_name(name: &str) -> Result<&str, NewUserError> {
    let is_bad = name.is_empty() || name.starts_with('#') || name.contains(|c: char| c.is_whitespace() || c == ':');
    if is_bad { Err(NewUserError::Name) } else { Ok(name) }
}

/// The line of the file of users for a name and a password.
///
/// # Errors
/// See [`NewUserError`].
pub fn line_with_password(name: &str, rights: Rights, password: &str) -> Result<String, NewUserError> {
    let name = checked_name(name)?;
    if password.is_empty() || password.len() > MAX_SECRET_BYTES {
        return Err(NewUserError::Password);
    }
    let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).map_err(|_| NewUserError::System)?;
    Ok(format!("{name} {rights} {hash}"))
}

/// A new bearer token, and the line of the file of users for it.
///
/// # Errors
/// See [`NewUserError`].
pub fn line_with_token(name: &str, rights: Rights) -> Result<(String, String), NewUserError> {
    let name = checked_name(name)?;
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).map_err(|_| NewUserError::System)?;
    let token = BASE64URL_NOPAD.encode(&random);
    let hash = HEXLOWER.encode(&sha256(token.as_bytes()));
    Ok((token, format!("{name} {rights} {TOKEN_PREFIX}{hash}")))
}

/// Compares without stopping at the first difference.
fn is_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_made_is_a_line_that_is_read() {
        let anna = line_with_password("anna", Rights::READ, "secret").unwrap();
        let (token, ct) = line_with_token("ct1", Rights::ALL).unwrap();
        let users = Users::parse(&format!("# users\n\n{anna}\n{ct}\nbob store proxy\n")).unwrap();
        let memory = HashMemory::default();
        assert_eq!(users.len(), 3);
        assert_eq!(users.rights_of_password("anna:secret", &memory), Some(Rights::READ));
        for wrong in ["anna:Secret", "anna:", "bob:secret", "nobody:secret", "anna"] {
            assert_eq!(users.rights_of_password(wrong, &memory), None, "{wrong}");
        }
        assert_eq!(users.rights_of_token(token.as_bytes()), Some(Rights::ALL));
        assert!(users.rights_of_token(b"another").is_none());
        assert_eq!(users.rights_by_proxy("bob"), Some(Rights { read: false, store: true }));
        assert!(users.rights_by_proxy("anna").is_none(), "a password is not replaced by the word of a proxy");
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named() {
        let fault = |text: &str| Users::parse(text).unwrap_err();
        assert_eq!(fault("\nanna read").line, 2);
        for bad in [
            "anna write proxy",
            "anna read plain-text",
            "a:b read proxy",
            "anna read sha256:12",
            "anna read sha256:xyz",
            "anna read $argon2id$nonsense",
            "anna read $argon2id$v=19$m=99999999,t=2,p=1$MTIzNDU2Nzg5MDEyMzQ1Ng$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI",
            "anna read proxy\nanna store proxy",
        ] {
            assert!(!fault(bad).what.contains("anna"), "{bad}");
        }
    }

    #[test]
    fn names_and_passwords_that_could_not_be_used_are_refused() {
        assert_eq!(line_with_password("a b", Rights::READ, "x"), Err(NewUserError::Name));
        assert_eq!(line_with_password("a:b", Rights::READ, "x"), Err(NewUserError::Name));
        assert_eq!(line_with_password("a", Rights::READ, ""), Err(NewUserError::Password));
        assert_eq!(line_with_token("", Rights::READ), Err(NewUserError::Name));
    }
}
