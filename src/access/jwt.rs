//! Access tokens of an identity provider (OpenID Connect): signed JWTs (RFC 7519), checked against
//! a file of the provider's public keys (RFC 7517).
//!
//! The keys come from a file and not from a URL. So the node opens no connection of its own, and an
//! operator sees which keys it trusts. A changed file is read again at the next token.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation, decode, decode_header};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;

use crate::access::users::Rights;

/// Maximum length of a token in bytes. Tokens with many groups have some thousand.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// The longest file of keys, in bytes. Providers have some five keys of a kilobyte.
const MAX_KEYS_BYTES: u64 = 1 << 20;

/// Keys of a file. A token without a key ID is tried with all of them.
const MAX_KEYS: usize = 32;

/// Time between two checks of the file of keys.
const CHECK_AGAIN: Duration = Duration::from_secs(5);

/// A signature algorithm that a token may have. `none` is missing, and so are algorithms with a
/// shared secret, such as HS256. With those, anyone who has the public key could make a token.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Issuer whose tokens are accepted, and the rights that its roles give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The `iss` of the tokens, exactly.
    pub issuer: String,
    /// Values of `aud`, one of which a token must have.
    pub audiences: Vec<String>,
    /// The file of the issuer's keys.
    pub keys: PathBuf,
    /// Names of [`ALGORITHMS`] that tokens may be signed with.
    pub algorithms: Vec<String>,
    /// The claim that has the roles. Full stops lead into objects, as in `realm_access.roles`.
    pub claim: String,
    /// Roles that may search and retrieve.
    pub read_roles: BTreeSet<String>,
    /// Roles that may store.
    pub store_roles: BTreeSet<String>,
    /// By how much the clocks of issuer and node may differ. Larger: an expired token is accepted
    /// longer. Smaller: a new token is refused where the node's clock is behind.
    pub leeway: Duration,
}

/// Reason why a file of keys cannot be used. The texts repeat nothing of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("cannot read the keys of the issuer, {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is too long.
    #[error("{} has more than 1 MiB: it is no file of keys", .0.display())]
    TooLong(PathBuf),
    /// It is not JSON, or not a JWK Set.
    #[error("{} is not a JWK Set (RFC 7517), as the `jwks_uri` of the issuer gives it", .0.display())]
    NotKeys(PathBuf),
    /// No key can verify a signature.
    #[error("{} has no public key that can verify signatures of the algorithms that are allowed", .0.display())]
    NoKey(PathBuf),
}

/// Checks tokens. The file of keys is read again when it has changed.
#[derive(Clone, Debug)]
pub struct TokenCheck(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: Issuer,
    algorithms: Vec<Algorithm>,
    keys: Mutex<KnownKeys>,
}

/// The keys as they were read.
struct KnownKeys {
    known: Arc<Vec<VerifyingKey>>,
    /// Size and time of the file then.
    version: Option<(u64, SystemTime)>,
    checked: Instant,
}

impl std::fmt::Debug for KnownKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownKeys").field("count", &self.known.len()).finish_non_exhaustive()
    }
}

/// A public key, and what it is for.
struct VerifyingKey {
    id: Option<String>,
    /// Allowed algorithms that the key is for.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl TokenCheck {
    /// Reads the keys of the provider from its file. [`TokenCheck::rights`] reads the file again
    /// when it has changed. After an error the keys stay as they were.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn new(issuer: Issuer) -> Result<Self, KeysError> {
        static PROVIDER: CryptoProvider = CryptoProvider {
            signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
            verifier_factory: verifier,
            key_utils: KeyUtils::new_unimplemented(),
        };
        static INSTALLED: Once = Once::new();
        // The library asks for a provider of the whole process. Nothing else here uses it.
        INSTALLED.call_once(|| {
            let _ = PROVIDER.install_default();
        });
        let is_allowed = |name: &str| issuer.algorithms.iter().any(|allowed| allowed == name);
        let algorithms: Vec<_> =
            ALGORITHMS.iter().filter(|(name, _)| is_allowed(name)).map(|(_, algorithm)| *algorithm).collect();
        let version = version(&issuer.keys);
        let known = Arc::new(read_keys(&issuer.keys, &algorithms)?);
        let keys = Mutex::new(KnownKeys { known, version, checked: Instant::now() });
        Ok(Self(Arc::new(Inner { issuer, algorithms, keys })))
    }

    /// Reads the file of keys again, whether or not it seems to have changed.
    ///
    /// # Errors
    /// See [`KeysError`]. The keys stay as they were then.
    pub fn read_again(&self) -> Result<(), KeysError> {
        let Inner { issuer, algorithms, keys } = &*self.0;
        let version = version(&issuer.keys);
        let known = Arc::new(read_keys(&issuer.keys, algorithms)?);
        *keys.lock().unwrap_or_else(PoisonError::into_inner) = KnownKeys { known, version, checked: Instant::now() };
        Ok(())
    }

    /// Returns the rights of the owner of a token; `None` where the token is not valid.
    #[must_use]
    pub fn rights(&self, token: &str) -> Option<Rights> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let header = decode_header(token).ok()?;
        let issuer = &self.0.issuer;
        let keys = self.keys();
        let is_for = |key: &&VerifyingKey| {
            key.algorithms.contains(&header.alg) && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(std::slice::from_ref(&issuer.issuer));
        validation.set_audience(&issuer.audiences);
        validation.validate_nbf = true;
        validation.leeway = issuer.leeway.as_secs();
        let mut valid = keys.iter().filter(is_for).filter_map(|key| decode::<Value>(token, &key.key, &validation).ok());
        let claims = valid.next()?.claims;
        // The library also takes a list in which the issuer is. RFC 7519 4.1.1 has one text.
        let is_of_issuer = claims.get("iss").and_then(Value::as_str) == Some(issuer.issuer.as_str());
        is_of_issuer.then(|| issuer.rights_of(&claims))
    }

    /// The keys of now. A file that cannot be read leaves those from before.
    fn keys(&self) -> Arc<Vec<VerifyingKey>> {
        let Inner { issuer, algorithms, keys } = &*self.0;
        let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.checked.elapsed() >= CHECK_AGAIN {
            keys.checked = Instant::now();
            let now = version(&issuer.keys);
            if now != keys.version {
                match read_keys(&issuer.keys, algorithms) {
                    Ok(known) => (keys.known, keys.version) = (Arc::new(known), now),
                    Err(error) => tracing::error!(%error, "the keys of the issuer stay as they were"),
                }
            }
        }
        Arc::clone(&keys.known)
    }
}

impl Issuer {
    /// The rights that the roles of a token give.
    fn rights_of(&self, claims: &Value) -> Rights {
        // A URL is a usual name of a claim, and has full stops of its own.
        let whole = claims.get(&self.claim);
        let value = whole.or_else(|| self.claim.split('.').try_fold(claims, |value, name| value.get(name)));
        let roles: Vec<&str> = match value {
            // As `scope` (RFC 8693 4.2).
            Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let has_one_of = |known: &BTreeSet<String>| roles.iter().any(|role| known.contains(*role));
        Rights { read: has_one_of(&self.read_roles), store: has_one_of(&self.store_roles) }
    }
}

fn version(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

fn read_keys(path: &Path, algorithms: &[Algorithm]) -> Result<Vec<VerifyingKey>, KeysError> {
    let failed = |source| KeysError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_KEYS_BYTES + 1).read_to_string(&mut text));
    if read.map_err(failed)? as u64 > MAX_KEYS_BYTES {
        return Err(KeysError::TooLong(path.to_owned()));
    }
    let set: JwkSet = serde_json::from_str(&text).map_err(|_| KeysError::NotKeys(path.to_owned()))?;
    let keys: Vec<_> = set.keys.iter().take(MAX_KEYS).filter_map(|jwk| VerifyingKey::of(jwk, algorithms)).collect();
    if keys.is_empty() { Err(KeysError::NoKey(path.to_owned())) } else { Ok(keys) }
}

impl VerifyingKey {
    /// A key that verifies signatures of one of these algorithms.
    fn of(jwk: &Jwk, algorithms: &[Algorithm]) -> Option<Self> {
        let common = &jwk.common;
        let is_to_verify = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|it| it.contains(&KeyOperations::Verify));
        if !is_to_verify {
            return None;
        }
        let fits = |algorithm: &Algorithm| match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => algorithm.family() == AlgorithmFamily::Rsa,
            AlgorithmParameters::EllipticCurve(key) => match algorithm {
                Algorithm::ES256 => key.curve == EllipticCurve::P256,
                Algorithm::ES384 => key.curve == EllipticCurve::P384,
                _ => false,
            },
            AlgorithmParameters::OctetKeyPair(key) => {
                *algorithm == Algorithm::EdDSA && key.curve == EllipticCurve::Ed25519
            }
            // A shared secret has no place in a file of public keys. The library may learn of more
            // kinds.
            _ => false,
        };
        // A key that names another kind of algorithm, as for encryption, is for none of ours.
        let is_named =
            |algorithm: &Algorithm| common.key_algorithm.is_none_or(|name| Algorithm::try_from(name) == Ok(*algorithm));
        let algorithms: Vec<_> =
            algorithms.iter().copied().filter(|algorithm| fits(algorithm) && is_named(algorithm)).collect();
        if algorithms.is_empty() {
            return None;
        }
        Some(Self { id: common.key_id.clone(), algorithms, key: DecodingKey::from_jwk(jwk).ok()? })
    }
}

/// A verifier of ring, which TLS uses too.
struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, JwtError> {
    if algorithm.family() != key.family() || algorithm.family() == AlgorithmFamily::Hmac {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl ::signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), ::signature::Error> {
        let rsa = match self.algorithm {
            Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            _ => None,
        };
        let curve: Option<&'static dyn VerificationAlgorithm> = match self.algorithm {
            Algorithm::ES256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => Some(&signature::ED25519),
            _ => None,
        };
        let verified = match (self.key.kind(), rsa, curve) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, Some(rsa), _) => {
                RsaPublicKeyComponents { n, e }.verify(rsa, message, signed)
            }
            (DecodingKeyKind::SecretOrDer(key), _, Some(curve)) => {
                UnparsedPublicKey::new(curve, key).verify(message, signed)
            }
            _ => return Err(::signature::Error::new()),
        };
        verified.map_err(|_| ::signature::Error::new())
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://login.example";

    fn base64(bytes: impl AsRef<[u8]>) -> String {
        BASE64URL_NOPAD.encode(bytes.as_ref())
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn claims() -> Value {
        json!({ "iss": ISSUER, "aud": "dcmdex", "exp": now() + 300, "sub": "anna", "roles": ["radiologist"] })
    }

    fn issuer(keys: &Path) -> Issuer {
        Issuer {
            issuer: ISSUER.into(),
            audiences: vec!["dcmdex".into(), "pacs".into()],
            keys: keys.to_owned(),
            algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).into(),
            claim: "roles".into(),
            read_roles: ["radiologist".to_owned(), "https://roles.example/read".to_owned()].into(),
            store_roles: ["modality".to_owned()].into(),
            leeway: Duration::from_secs(60),
        }
    }

    /// A key that signs, and its public part as a provider publishes it.
    struct Signer {
        key: EcdsaKeyPair,
        jwk: Value,
    }

    impl Signer {
        fn new(id: &str) -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
            let (x, y) = key.public_key().as_ref()[1..].split_at(32);
            let jwk = json!({
                "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": base64(x), "y": base64(y),
            });
            Self { key, jwk }
        }

        fn token(&self, header: &Value, claims: &Value) -> String {
            let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
            let signed = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
            format!("{message}.{}", base64(signed))
        }

        fn of(&self, claims: &Value) -> String {
            self.token(&json!({ "alg": "ES256", "kid": self.jwk["kid"], "typ": "JWT" }), claims)
        }
    }

    fn check(jwks: &[&Value], change: impl FnOnce(&mut Issuer)) -> (TokenCheck, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys.json");
        fs::write(&file, json!({ "keys": jwks }).to_string()).unwrap();
        let mut issuer = issuer(&file);
        change(&mut issuer);
        (TokenCheck::new(issuer).unwrap(), directory)
    }

    #[test]
    fn a_token_of_the_issuer_gives_what_its_roles_give() {
        let signer = Signer::new("1");
        let (check, _directory) = check(&[&signer.jwk], |_| {});
        let of = |roles: Value| {
            let mut claims = claims();
            claims["roles"] = roles;
            check.rights(&signer.of(&claims)).unwrap()
        };
        assert_eq!(of(json!(["other", "radiologist"])), Rights::READ);
        assert_eq!(of(json!(["radiologist", "modality"])), Rights::ALL);
        assert_eq!(of(json!("openid modality")), Rights { read: false, store: true });
        for nothing in [json!([]), json!(null), json!(7), json!({ "radiologist": true }), json!(["Radiologist", 1])] {
            assert_eq!(of(nothing.clone()), Rights::NONE, "{nothing}");
        }
    }

    #[test]
    fn roles_may_lie_deeper_or_under_a_url() {
        let signer = Signer::new("1");
        let of = |name: &str, more: Value| {
            let (check, _directory) = check(&[&signer.jwk], |issuer| issuer.claim = name.to_owned());
            let mut claims = claims();
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            check.rights(&signer.of(&claims)).unwrap()
        };
        assert_eq!(of("realm_access.roles", json!({ "realm_access": { "roles": ["radiologist"] } })), Rights::READ);
        assert_eq!(of("https://x.example/roles", json!({ "https://x.example/roles": ["radiologist"] })), Rights::READ);
        assert_eq!(of("realm_access.roles", json!({ "realm_access": [] })), Rights::NONE);
        assert_eq!(of("nothing", json!({})), Rights::NONE);
    }

    #[test]
    fn what_is_not_for_this_node_now_is_refused() {
        let signer = Signer::new("1");
        let (check, _directory) = check(&[&signer.jwk], |_| {});
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            check.rights(&signer.of(&claims))
        };
        let without = |name: &str| {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            check.rights(&signer.of(&claims))
        };
        assert_eq!(with("aud", json!(["other", "pacs"])), Some(Rights::READ));
        assert_eq!(with("exp", json!(now() - 30)), Some(Rights::READ), "within the leeway");
        assert_eq!(with("nbf", json!(now() + 30)), Some(Rights::READ), "within the leeway");
        for (name, value) in [
            ("iss", json!("https://login.example/")),
            ("iss", json!("https://evil.example")),
            ("iss", json!([])),
            ("iss", json!([ISSUER])),
            ("iss", json!(["https://evil.example", ISSUER])),
            ("aud", json!("other")),
            ("aud", json!([])),
            ("exp", json!(now() - 300)),
            ("exp", json!("tomorrow")),
            ("exp", json!(0)),
            ("exp", json!(-1)),
            ("nbf", json!(now() + 300)),
            ("nbf", json!("yesterday")),
        ] {
            assert_eq!(with(name, value.clone()), None, "{name}: {value}");
        }
        for name in ["iss", "aud", "exp"] {
            assert_eq!(without(name), None, "{name}");
        }
    }

    // RFC 8725 2.1 and 3.1.
    #[test]
    fn only_the_listed_algorithms_sign() {
        let signer = Signer::new("1");
        let (of_curve, _directory) = check(&[&signer.jwk], |_| {});
        let claims = claims();
        let good = signer.of(&claims);
        assert!(of_curve.rights(&good).is_some());
        let unsigned = format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(claims.to_string()));
        let (message, signed) = good.rsplit_once('.').unwrap();
        // The public key as a shared secret.
        let of_secret = |secret: &[u8]| {
            let message = format!("{}.{}", base64(r#"{"alg":"HS256","kid":"1"}"#), base64(claims.to_string()));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            format!("{message}.{}", base64(ring::hmac::sign(&key, message.as_bytes())))
        };
        for bad in [
            unsigned.clone(),
            unsigned.replace("none", "None"),
            of_secret(signer.key.public_key().as_ref()),
            of_secret(signer.jwk.to_string().as_bytes()),
            of_secret(b""),
            format!("{message}."),
            message.to_owned(),
            format!("{message}.{}", &signed[..signed.len() - 2]),
            format!("{}.{signed}", message.replacen('e', "f", 1)),
            format!("{good}.{signed}"),
            signer.token(&json!({ "alg": "RS256", "kid": "1" }), &claims),
            signer.token(&json!({ "alg": "ES384", "kid": "1" }), &claims),
            signer.token(&json!({ "kid": "1" }), &claims),
            signer.token(&json!({ "alg": "ES256", "kid": "1", "crit": ["x"], "x": 1 }), &claims),
            Signer::new("1").of(&claims),
            String::new(),
            "..".to_owned(),
            "a.b.c".to_owned(),
            format!("{good}{}", "x".repeat(MAX_TOKEN_BYTES)),
        ] {
            assert_eq!(of_curve.rights(&bad), None, "{bad:.80}");
        }
        // A key of the right kind whose algorithm was not allowed.
        let error = |jwk: &Value, allowed: &str| {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("keys.json");
            fs::write(&file, json!({ "keys": [jwk] }).to_string()).unwrap();
            TokenCheck::new(Issuer { algorithms: vec![allowed.to_owned()], ..issuer(&file) }).unwrap_err()
        };
        assert!(matches!(error(&signer.jwk, "RS256"), KeysError::NoKey(_)));
        let secret = json!({ "kty": "oct", "k": base64("secret"), "kid": "1" });
        for allowed in ["RS256", "ES256", "HS256", "none"] {
            assert!(matches!(error(&secret, allowed), KeysError::NoKey(_)), "{allowed}");
        }
        let mut to_encrypt = signer.jwk.clone();
        to_encrypt["use"] = json!("enc");
        assert!(matches!(error(&to_encrypt, "ES256"), KeysError::NoKey(_)));
    }

    #[test]
    fn a_key_is_found_by_its_id_or_tried() {
        let (one, other) = (Signer::new("1"), Signer::new("2"));
        let mut nameless = other.jwk.clone();
        nameless.as_object_mut().unwrap().remove("kid");
        let claims = claims();
        let (check_both, _directory) = check(&[&one.jwk, &nameless], |_| {});
        for (signer, header) in [
            (&one, json!({ "alg": "ES256", "kid": "1" })),
            (&one, json!({ "alg": "ES256" })),
            (&other, json!({ "alg": "ES256" })),
            (&other, json!({ "alg": "ES256", "kid": "9" })),
        ] {
            assert_eq!(check_both.rights(&signer.token(&header, &claims)), Some(Rights::READ), "{header}");
        }
        assert_eq!(check_both.rights(&one.token(&json!({ "alg": "ES256", "kid": "2" }), &claims)), None);
    }

    #[test]
    fn edwards_keys_verify_too() {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(key.public_key()) });
        let (check, _directory) = check(&[&jwk], |_| {});
        let message = format!("{}.{}", base64(r#"{"alg":"EdDSA"}"#), base64(claims().to_string()));
        let token = format!("{message}.{}", base64(key.sign(message.as_bytes())));
        assert_eq!(check.rights(&token), Some(Rights::READ));
        assert_eq!(check.rights(&token.replace('.', "..")), None);
    }

    // RFC 7515 A.2: the key, the header and the signature of the standard's own example.
    #[test]
    fn the_example_of_the_standard_has_a_true_signature() {
        let key = json!({
            "kty": "RSA", "e": "AQAB",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
                  T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
                  dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
                  GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        });
        let jwk: Jwk = serde_json::from_value(key).unwrap();
        let key = VerifyingKey::of(&jwk, &[Algorithm::RS256]).unwrap();
        let message = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signed = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJd\
                      bF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN\
                      9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AX\
                      LIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        let signed = BASE64URL_NOPAD.decode(signed.as_bytes()).unwrap();
        let verifier = verifier(&Algorithm::RS256, &key.key).unwrap();
        assert!(verifier.verify(message.as_bytes(), &signed).is_ok());
        assert!(verifier.verify(&message.as_bytes()[1..], &signed).is_err());
        assert!(super::verifier(&Algorithm::HS256, &key.key).is_err());
    }

    #[test]
    fn keys_that_change_are_read_again_and_broken_ones_are_not_taken() {
        let (one, other) = (Signer::new("1"), Signer::new("2"));
        let (check, directory) = check(&[&one.jwk], |_| {});
        let file = directory.path().join("keys.json");
        fs::write(&file, "{").unwrap();
        assert!(matches!(check.read_again().unwrap_err(), KeysError::NotKeys(_)));
        assert!(check.rights(&one.of(&claims())).is_some());
        fs::write(&file, json!({ "keys": [other.jwk] }).to_string()).unwrap();
        check.read_again().unwrap();
        assert!(check.rights(&one.of(&claims())).is_none() && check.rights(&other.of(&claims())).is_some());
        fs::write(&file, " ".repeat(2 << 20)).unwrap();
        assert!(matches!(check.read_again().unwrap_err(), KeysError::TooLong(_)));
        fs::remove_file(&file).unwrap();
        assert!(matches!(check.read_again().unwrap_err(), KeysError::Read { .. }));
    }
}
