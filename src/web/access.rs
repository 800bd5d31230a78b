//! Who may do what over HTTP: a file of users, their passwords and tokens, and a trusted proxy.
//!
//! Passwords are kept as argon2 hashes, tokens as SHA-256 of 256 random bits. A password that was
//! found right is remembered as a keyed digest, so that a viewer's hundred requests cost one hash.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, Params};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Lines of a file of users. A site has some hundred.
const MAX_USERS: usize = 10_000;

/// The longest password or token that is looked at, in bytes.
const MAX_SECRET_BYTES: usize = 1024;

/// Memory that a hash in the file may ask for, in KiB. The default of argon2 is 19 MiB.
const MAX_HASH_KIB: u32 = 256 << 10;

/// Passes that a hash in the file may ask for.
const MAX_HASH_PASSES: u32 = 32;

/// Passwords that are checked at one time. Each takes the memory of its hash and a processor.
const CHECKS_AT_ONE_TIME: usize = 2;

/// Passwords that were found right and are remembered.
const REMEMBERED: usize = 1024;

/// What somebody may do.
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

/// What proves who somebody is.
#[derive(Clone)]
enum Secret {
    Password(Box<PasswordHash>),
    /// SHA-256 of a bearer token.
    Token([u8; 32]),
    /// The word of a trusted proxy.
    Proxy,
}

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

/// What is wrong with a file of users. The texts repeat nothing of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct UsersError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
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

    /// How many there are.
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

    fn by_token(&self, token: &[u8]) -> Option<&User> {
        let sought = sha256(token);
        self.0.iter().find(|user| match &user.secret {
            Secret::Token(known) => is_equal(known, &sought),
            Secret::Password(_) | Secret::Proxy => false,
        })
    }

    /// The user whom a proxy names; `*` in the file is everyone whom it names.
    fn by_proxy(&self, name: &str) -> Option<&User> {
        let mut of_proxy = self.0.iter().filter(|user| matches!(user.secret, Secret::Proxy));
        let everyone = of_proxy.clone().find(|user| user.name == "*");
        of_proxy.find(|user| user.name == name).or(everyone)
    }

    fn have_passwords(&self) -> bool {
        self.0.iter().any(|user| matches!(user.secret, Secret::Password(_)))
    }

    fn have_tokens(&self) -> bool {
        self.0.iter().any(|user| user.secret.is_token())
    }
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

const TOKEN_PREFIX: &str = "sha256:";

/// Why no line of a file of users can be made.
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

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Compares without stopping at the first difference.
fn is_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

/// The users of the moment, and what was found out about their passwords.
#[derive(Clone)]
pub struct SharedUsers(Arc<Shared>);

struct Shared {
    /// `None`: there is no file of users, and callers need no credentials.
    users: RwLock<Option<Arc<Users>>>,
    checks: Semaphore,
    /// Keyed digests of credentials that were right. The key is made at the start and never leaves the process.
    right: Mutex<HashMap<[u8; 32], Rights>>,
    key: hmac::Key,
}

impl fmt::Debug for SharedUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedUsers").field(&self.current()).finish()
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody of the file of users.
    Known(Rights),
    /// Anyone, where there is no such file.
    Anyone,
}

/// Nobody of the file of users: how one can say who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) basic: bool,
    pub(super) bearer: bool,
}

/// Where a request comes from, as far as access is concerned.
pub(super) struct Claims<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) address: IpAddr,
    pub(super) trusted_proxies: &'a [IpAddr],
    pub(super) user_header: Option<&'a HeaderName>,
}

/// What is verified where no such user exists, so that a name cannot be guessed by the time that the answer takes.
static NOBODY: LazyLock<Option<PasswordHash>> = LazyLock::new(|| Argon2::default().hash_password(b"nobody").ok());

impl SharedUsers {
    /// These, until they are replaced; `None` where callers need no credentials.
    #[must_use]
    pub fn new(users: Option<Users>) -> Self {
        let mut random = [0; 32];
        // Without random numbers the digests are merely not secret from who reads this process's memory.
        let _ = SystemRandom::new().fill(&mut random);
        Self(Arc::new(Shared {
            users: RwLock::new(users.map(Arc::new)),
            checks: Semaphore::new(CHECKS_AT_ONE_TIME),
            right: Mutex::new(HashMap::new()),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random),
        }))
    }

    /// Takes others from the next request on. A node that began with users never goes without.
    pub fn replace(&self, users: Users) {
        *self.0.users.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(users));
        self.remembered().clear();
    }

    fn current(&self) -> Option<Arc<Users>> {
        self.0.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Rights>> {
        self.0.right.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks.
    pub(super) async fn caller(&self, claims: &Claims<'_>) -> Result<Caller, Unknown> {
        let Some(users) = self.current() else { return Ok(Caller::Anyone) };
        let unknown = Unknown { basic: users.have_passwords(), bearer: users.have_tokens() };
        if let Some(header) = claims.user_header
            && claims.trusted_proxies.contains(&claims.address)
            && let Some(name) = single(claims.headers, header)
        {
            return users.by_proxy(name.trim()).map(|user| Caller::Known(user.rights)).ok_or(unknown);
        }
        let credentials = single(claims.headers, &AUTHORIZATION).ok_or(unknown)?;
        let (scheme, rest) = credentials.split_once(' ').ok_or(unknown)?;
        let rest = rest.trim();
        if rest.len() > 2 * MAX_SECRET_BYTES {
            return Err(unknown);
        }
        let rights = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => users.by_token(rest.as_bytes()).map(|user| user.rights),
            "basic" => self.rights_of_password(users, rest).await,
            _ => None,
        };
        rights.map(Caller::Known).ok_or(unknown)
    }

    async fn rights_of_password(&self, users: Arc<Users>, basic: &str) -> Option<Rights> {
        let decoded = String::from_utf8(BASE64.decode(basic.as_bytes()).ok()?).ok()?;
        let mut seen = [0; 32];
        seen.copy_from_slice(hmac::sign(&self.0.key, decoded.as_bytes()).as_ref());
        if let Some(rights) = self.remembered().get(&seen) {
            return Some(*rights);
        }
        let _turn = self.0.checks.acquire().await.ok()?;
        let checked = Arc::clone(&users);
        let rights = spawn_blocking(move || check_password(&checked, &decoded)).await.ok().flatten()?;
        // Users that were replaced meanwhile are not to be remembered.
        if self.current().is_some_and(|now| Arc::ptr_eq(&now, &users)) {
            let mut remembered = self.remembered();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(seen, rights);
        }
        Some(rights)
    }
}

fn check_password(users: &Users, credentials: &str) -> Option<Rights> {
    let (name, password) = credentials.split_once(':')?;
    if password.len() > MAX_SECRET_BYTES {
        return None;
    }
    match users.by_password(name) {
        Some((user, hash)) => {
            Argon2::default().verify_password(password.as_bytes(), hash).is_ok().then_some(user.rights)
        }
        None => {
            if let Some(nobody) = &*NOBODY {
                let _ = Argon2::default().verify_password(password.as_bytes(), nobody);
            }
            None
        }
    }
}

/// The value of a header that stands there once.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_made_is_a_line_that_is_read() {
        let anna = line_with_password("anna", Rights::READ, "secret").unwrap();
        let (token, ct) = line_with_token("ct1", Rights::ALL).unwrap();
        let users = Users::parse(&format!("# users\n\n{anna}\n{ct}\nbob store proxy\n")).unwrap();
        assert_eq!(users.len(), 3);
        assert_eq!(check_password(&users, "anna:secret"), Some(Rights::READ));
        for wrong in ["anna:Secret", "anna:", "bob:secret", "nobody:secret", "anna"] {
            assert_eq!(check_password(&users, wrong), None, "{wrong}");
        }
        assert_eq!(users.by_token(token.as_bytes()).map(|user| user.rights), Some(Rights::ALL));
        assert!(users.by_token(b"another").is_none());
        assert_eq!(users.by_proxy("bob").map(|user| user.rights), Some(Rights { read: false, store: true }));
        assert!(users.by_proxy("anna").is_none(), "a password is not replaced by the word of a proxy");
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
