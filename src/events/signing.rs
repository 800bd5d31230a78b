//! Signatures of events, as "Standard Webhooks" has them: HMAC-SHA256 over number, time and body.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use ring::hmac;

/// Prefix of a signing key.
const PREFIX: &str = "whsec_";

/// Length of a key in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A key that signs events.
pub(super) struct SigningKey(hmac::Key);

/// Reason why a file gives no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{} holds no key: it is whsec_ and 24 to 64 bytes in base64; hint: \
         `echo whsec_$(openssl rand -base64 32)` makes one",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
    },
}

impl SigningKey {
    /// Reads the key in a file.
    pub(super) fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let text =
            fs::read_to_string(path).map_err(|source| SigningKeyError::Read { path: path.to_owned(), source })?;
        Self::of_text(text.trim()).ok_or_else(|| SigningKeyError::Form { path: path.to_owned() })
    }

    fn of_text(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text.strip_prefix(PREFIX)?.as_bytes()).ok()?;
        KEY_BYTES.contains(&bytes.len()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of the header `webhook-signature`.
    pub(super) fn signature(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of the specification and of its libraries.
        let key = SigningKey::of_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = key.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_key_is_marked_and_long_enough() {
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_MfKQ9r8=", "whsec_not base64"] {
            assert!(SigningKey::of_text(text).is_none(), "{text}");
        }
    }
}
