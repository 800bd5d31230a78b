//! One message from a stream, within limits of length and time.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};
use tokio::time::{Instant, timeout_at};

/// Begins a message.
const START: u8 = 0x0B;
/// Ends a message, followed by [`AFTER_END`].
const END: u8 = 0x1C;
const AFTER_END: u8 = 0x0D;

/// Bytes between two messages that are passed over. Some senders write line ends there.
const MOST_BETWEEN: usize = 1024;

/// The first byte of TLS (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 22;

const NO_MLLP: &str = "what came is no MLLP: no message begins with the byte 0B";

/// Result of waiting for a message.
#[derive(Debug)]
pub(super) enum MllpFrame {
    /// A whole message.
    Message(Vec<u8>),
    /// The sender closed the connection between two messages, or was silent. Nothing but line ends
    /// came.
    Over,
    /// Bytes came that are no message. The reason is for the list of problems.
    Bad(&'static str),
}

/// Limits of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameLimits {
    pub(super) longest: usize,
    /// Time until it begins.
    pub(super) idle: Duration,
    /// Time from its first byte to its last.
    pub(super) whole: Duration,
}

/// Reads the next message.
pub(super) async fn next(stream: &mut (impl AsyncBufRead + Unpin), limits: FrameLimits) -> io::Result<MllpFrame> {
    let mut deadline = Instant::now() + limits.idle;
    let (mut passed, mut is_strange) = (0, false);
    let over = |is_strange| if is_strange { MllpFrame::Bad(NO_MLLP) } else { MllpFrame::Over };
    let mut message: Option<Vec<u8>> = None;
    loop {
        let has_begun = message.is_some();
        let bytes = match timeout_at(deadline, stream.fill_buf()).await {
            Ok(bytes) => bytes?,
            Err(_) if has_begun => return Ok(MllpFrame::Bad("a message did not end in time")),
            Err(_) => return Ok(over(is_strange)),
        };
        if bytes.is_empty() {
            return Ok(if has_begun {
                MllpFrame::Bad("the connection ended inside a message")
            } else {
                over(is_strange)
            });
        }
        let Some(whole) = &mut message else {
            let start = bytes.iter().position(|byte| *byte == START);
            let used = start.map_or(bytes.len(), |at| at + 1);
            if passed == 0 && bytes.first() == Some(&TLS_HANDSHAKE) {
                return Ok(MllpFrame::Bad("the sender speaks TLS, and this port does not"));
            }
            passed += start.unwrap_or(bytes.len());
            let between = bytes.iter().take(start.unwrap_or(bytes.len()));
            is_strange |= between.into_iter().any(|byte| !matches!(*byte, b'\r' | b'\n' | b' ' | 0 | END));
            stream.consume(used);
            if passed > MOST_BETWEEN {
                return Ok(MllpFrame::Bad(NO_MLLP));
            }
            if start.is_some() {
                deadline = Instant::now() + limits.whole;
                message = Some(Vec::new());
            }
            continue;
        };
        // The end is two bytes, of which the second may come later.
        let mut used = 0;
        let mut is_whole = false;
        for byte in bytes {
            used += 1;
            if *byte == AFTER_END && whole.last() == Some(&END) {
                is_whole = true;
                break;
            }
            whole.push(*byte);
            if whole.len() > limits.longest {
                break;
            }
        }
        stream.consume(used);
        if is_whole {
            whole.pop();
            return Ok(MllpFrame::Message(std::mem::take(whole)));
        }
        if whole.len() > limits.longest {
            return Ok(MllpFrame::Bad("a message is too long"));
        }
    }
}

/// Returns an acknowledgment as it goes to the sender.
pub(super) fn framed(acknowledgment: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(acknowledgment.len() + 3);
    bytes.push(START);
    bytes.extend_from_slice(acknowledgment);
    bytes.extend([END, AFTER_END]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], longest: usize) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut found = Vec::new();
            for capacity in [1, 7, 4096] {
                let mut stream = tokio::io::BufReader::with_capacity(capacity, bytes);
                let limits = FrameLimits { longest, idle: Duration::from_secs(60), whole: Duration::from_secs(60) };
                let mut of_this = Vec::new();
                loop {
                    match next(&mut stream, limits).await.unwrap() {
                        MllpFrame::Message(message) => of_this.push(String::from_utf8(message).unwrap()),
                        MllpFrame::Over => break,
                        MllpFrame::Bad(reason) => {
                            of_this.push(reason.to_owned());
                            break;
                        }
                    }
                }
                assert!(found.is_empty() || found == of_this, "{found:?} {of_this:?}");
                found = of_this;
            }
            found
        })
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        assert_eq!(frames(b"\x0Bone\x1C\x0D\x0Btwo\rmore\x1C\x0D", 100), ["one", "two\rmore"]);
        assert_eq!(frames(b"\r\n\x0Ba\x1C\x0D\r\n", 100), ["a"]);
        assert_eq!(frames(b"\x0Ba\x1Cb\x1C\x0D", 100), ["a\x1Cb"], "a lone 1C is part of the message");
        assert_eq!(frames(b"\x0B\x1C\x0D", 100), [""]);
    }

    #[test]
    fn what_is_no_message_ends_the_connection_with_its_reason() {
        assert_eq!(frames(b"\x0Bnever ends", 100), ["the connection ended inside a message"]);
        assert_eq!(frames(&[b"\x0B".as_slice(), &[b'x'; 200]].concat(), 100), ["a message is too long"]);
        assert_eq!(frames(&[b'x'; 3000], 100), ["what came is no MLLP: no message begins with the byte 0B"]);
        let no_mllp = ["what came is no MLLP: no message begins with the byte 0B"];
        assert_eq!(frames(b"GET / HTTP/1.1\r\n\r\n", 100), no_mllp);
        assert_eq!(frames(b"\r\n\r\n", 100), [""; 0]);
        assert_eq!(frames(b"\x0Bone\x1C\x0D\x0Btw", 100), ["one", "the connection ended inside a message"]);
    }
}
