//! Access over HTTP: what a request says of its caller, and the current users.
//!
//! A password that was right is remembered as a keyed digest. So a hundred requests of a viewer
//! cost one hash.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use data_encoding::BASE64;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::access::jwt::{MAX_TOKEN_BYTES, TokenCheck};
use crate::access::users::{MAX_SECRET_BYTES, Rights, Users};

/// Maximum number of passwords checked at a time. Each check takes the memory of its hash and a
/// processor.
const CHECKS_AT_ONE_TIME: usize = 2;

/// Maximum number of right passwords that are remembered.
const REMEMBERED: usize = 1024;

/// The current users, and which of their passwords were right.
#[derive(Clone)]
pub struct SharedUsers(Arc<Shared>);

struct Shared {
    /// The file of users. `None` means that there is none, and callers need no credentials.
    users: ArcSwapOption<Users>,
    /// The check of tokens of an identity provider.
    tokens: Option<TokenCheck>,
    checks: Semaphore,
    /// Keyed digests of credentials that were right. The key is made at the start and never leaves
    /// the process.
    right: Mutex<HashMap<[u8; 32], Rights>>,
    key: hmac::Key,
}

impl fmt::Debug for SharedUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedUsers").field(&self.current()).finish()
    }
}

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A user of the file, by name, or the bearer of a token, without one.
    Known(Rights, String),
    /// Anyone, if there are neither users nor tokens.
    Anyone,
}

/// A caller without valid credentials, with the ways to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) basic: bool,
    pub(super) bearer: bool,
}

/// Origin of a request, as far as access needs it.
pub(super) struct Claims<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) address: IpAddr,
    pub(super) trusted_proxies: &'a [IpAddr],
    pub(super) user_header: Option<&'a HeaderName>,
}

impl SharedUsers {
    /// Returns users that hold until they are replaced. Bearers of a valid token have access too.
    /// Without users and tokens, callers need no credentials.
    ///
    /// # Errors
    /// Fails if there is no source of random numbers. The key of remembered passwords needs them.
    pub fn new(users: Option<Users>, tokens: Option<TokenCheck>) -> io::Result<Self> {
        let users = users.or_else(|| tokens.is_some().then(Users::default));
        let mut random = [0; 32];
        let filled = SystemRandom::new().fill(&mut random);
        filled.map_err(|_| io::Error::other("there is no source of random numbers"))?;
        Ok(Self(Arc::new(Shared {
            users: ArcSwapOption::new(users.map(Arc::new)),
            tokens,
            checks: Semaphore::new(CHECKS_AT_ONE_TIME),
            right: Mutex::new(HashMap::new()),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random),
        })))
    }

    /// Uses other users from the next request on. A node that began with users always has some.
    pub fn replace(&self, users: Users) {
        self.0.users.store(Some(Arc::new(users)));
        self.remembered().clear();
    }

    fn current(&self) -> Option<Arc<Users>> {
        self.0.users.load_full()
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Rights>> {
        self.0.right.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the caller.
    pub(super) async fn caller(&self, claims: &Claims<'_>) -> Result<Caller, Unknown> {
        let Some(users) = self.current() else { return Ok(Caller::Anyone) };
        let unknown = Unknown { basic: users.have_passwords(), bearer: users.have_tokens() || self.0.tokens.is_some() };
        if let Some(header) = claims.user_header
            && claims.trusted_proxies.contains(&claims.address)
            && let Some(name) = single(claims.headers, header)
        {
            let name = name.trim();
            return users.rights_by_proxy(name).map(|rights| Caller::Known(rights, name.to_owned())).ok_or(unknown);
        }
        let credentials = single(claims.headers, &AUTHORIZATION).ok_or(unknown)?;
        let (scheme, rest) = credentials.split_once(' ').ok_or(unknown)?;
        let rest = rest.trim();
        if rest.len() > MAX_TOKEN_BYTES.max(2 * MAX_SECRET_BYTES) {
            return Err(unknown);
        }
        let mut name = String::new();
        let rights = match scheme.to_ascii_lowercase().as_str() {
            // Our own tokens have no full stop.
            "bearer" => match &self.0.tokens {
                Some(tokens) if rest.contains('.') => rights_of_jwt(tokens, rest).await,
                _ => users.rights_of_token(rest.as_bytes()),
            },
            "basic" => {
                name = name_in(rest);
                self.rights_of_password(users, rest).await
            }
            _ => None,
        };
        rights.map(|rights| Caller::Known(rights, name)).ok_or(unknown)
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
        let rights = spawn_blocking(move || checked.rights_of_password(&decoded)).await.ok().flatten()?;
        // Users that were replaced meanwhile are not remembered.
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

/// The name in the credentials of a password.
fn name_in(basic: &str) -> String {
    let decoded = BASE64.decode(basic.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.and_then(|text| Some(text.split_once(':')?.0.to_owned())).unwrap_or_default()
}

/// Checks a token of an identity provider on a thread that may read the file of keys.
async fn rights_of_jwt(tokens: &TokenCheck, token: &str) -> Option<Rights> {
    let (tokens, token) = (tokens.clone(), token.to_owned());
    spawn_blocking(move || tokens.rights(&token)).await.ok().flatten()
}

/// Returns the value of a header that occurs once.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
