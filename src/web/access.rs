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
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, StatusCode};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::problem::{Problem, WAIT_FOR_TURN};
use crate::access::jwt::{MAX_TOKEN_BYTES, TokenCheck};
use crate::access::users::{HashMemory, MAX_SECRET_BYTES, Rights, Users};
use crate::shares::{CountedPeer, Turns};

/// Maximum number of passwords checked at a time, and of signatures of tokens. Each check takes a
/// processor, and that of a password takes the memory of its hash. One peer has one at a time.
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
    /// Turns to check passwords.
    passwords: Arc<Turns>,
    /// Memory for their hashes.
    hashes: Arc<HashMemory>,
    /// Turns to check signatures of tokens.
    signatures: Arc<Turns>,
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
#[derive(Clone, Copy, Debug)]
struct Unknown {
    basic: bool,
    bearer: bool,
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "credentials are needed");
        if unknown.bearer {
            problem = problem.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"dcmdex\""));
        }
        if unknown.basic || !unknown.bearer {
            let challenge = "Basic realm=\"dcmdex\", charset=\"UTF-8\"";
            problem = problem.with(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        problem
    }
}

/// Origin of a request, as far as access needs it.
pub(super) struct Claims<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) address: IpAddr,
    /// The peer for which the check of its credentials counts.
    pub(super) peer: &'a CountedPeer,
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
            passwords: Turns::new(CHECKS_AT_ONE_TIME),
            hashes: Arc::default(),
            signatures: Turns::new(CHECKS_AT_ONE_TIME),
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

    /// Returns the caller. The error is the answer to one without valid credentials.
    pub(super) async fn caller(&self, claims: &Claims<'_>) -> Result<Caller, Problem> {
        let Some(users) = self.current() else { return Ok(Caller::Anyone) };
        let unknown = Unknown { basic: users.have_passwords(), bearer: users.have_tokens() || self.0.tokens.is_some() };
        if let Some(header) = claims.user_header
            && claims.trusted_proxies.contains(&claims.address)
            && let Some(name) = single(claims.headers, header)
        {
            let name = name.trim();
            let rights = users.rights_by_proxy(name).ok_or(unknown)?;
            return Ok(Caller::Known(rights, name.to_owned()));
        }
        let credentials = single(claims.headers, &AUTHORIZATION).ok_or(unknown)?;
        let (scheme, rest) = credentials.split_once(' ').ok_or(unknown)?;
        let rest = rest.trim();
        if rest.len() > MAX_TOKEN_BYTES.max(2 * MAX_SECRET_BYTES) {
            return Err(unknown.into());
        }
        let mut name = String::new();
        let rights = match scheme.to_ascii_lowercase().as_str() {
            // Our own tokens have no full stop.
            "bearer" => match &self.0.tokens {
                Some(tokens) if rest.contains('.') => self.rights_of_jwt(claims.peer, tokens, rest).await?,
                _ => users.rights_of_token(rest.as_bytes()),
            },
            "basic" => {
                name = name_in(rest);
                self.rights_of_password(claims.peer, users, rest).await?
            }
            _ => None,
        };
        Ok(Caller::Known(rights.ok_or(unknown)?, name))
    }

    async fn rights_of_password(
        &self,
        peer: &CountedPeer,
        users: Arc<Users>,
        basic: &str,
    ) -> Result<Option<Rights>, Problem> {
        let decoded = BASE64.decode(basic.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(decoded) = decoded else { return Ok(None) };
        let mut seen = [0; 32];
        seen.copy_from_slice(hmac::sign(&self.0.key, decoded.as_bytes()).as_ref());
        if let Some(rights) = self.remembered().get(&seen) {
            return Ok(Some(*rights));
        }
        let (checked, memory) = (Arc::clone(&users), Arc::clone(&self.0.hashes));
        let rights = check(&self.0.passwords, peer, move || checked.rights_of_password(&decoded, &memory)).await?;
        // Users that were replaced meanwhile are not remembered.
        if let Some(rights) = rights
            && self.current().is_some_and(|now| Arc::ptr_eq(&now, &users))
        {
            let mut remembered = self.remembered();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(seen, rights);
        }
        Ok(rights)
    }

    async fn rights_of_jwt(
        &self,
        peer: &CountedPeer,
        tokens: &TokenCheck,
        token: &str,
    ) -> Result<Option<Rights>, Problem> {
        let (tokens, token) = (tokens.clone(), token.to_owned());
        check(&self.0.signatures, peer, move || tokens.rights(&token)).await
    }
}

/// Checks credentials when the turn of this peer comes, on a thread that may block.
async fn check(
    turns: &Arc<Turns>,
    peer: &CountedPeer,
    rights: impl FnOnce() -> Option<Rights> + Send + 'static,
) -> Result<Option<Rights>, Problem> {
    let turn = timeout(WAIT_FOR_TURN, turns.take(peer)).await;
    let turn = turn.map_err(|_| Problem::busy("many passwords or tokens are being checked; try again"))?;
    let checked = spawn_blocking(move || {
        // A client that goes away does not end the check.
        let _until_its_end = turn;
        rights()
    });
    checked.await.map_err(|_| Problem::ours())
}

/// Returns the name that a request claims with a password, whether or not it is right.
pub(super) fn claimed_name(headers: &HeaderMap) -> String {
    let credentials = single(headers, &AUTHORIZATION).filter(|text| text.len() <= 2 * MAX_SECRET_BYTES);
    let (scheme, rest) = credentials.and_then(|text| text.split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("basic") { name_in(rest.trim()) } else { String::new() }
}

/// The name in the credentials of a password.
fn name_in(basic: &str) -> String {
    let decoded = BASE64.decode(basic.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.and_then(|text| Some(text.split_once(':')?.0.to_owned())).unwrap_or_default()
}

/// Returns the value of a header that occurs once.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
