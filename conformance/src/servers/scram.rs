//! What PostgreSQL keeps of a password (RFC 5802), made here because it would choose thousands of rounds: a client that was
//! compiled without optimization then takes longer for each login than a test has.

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

const BLOCK: usize = 64;
const SALT: &[u8] = b"test";

/// With a single round. The password is taken as it is, so it has to be ASCII.
pub(super) fn verifier(password: &str) -> String {
    let round = hmac(password.as_bytes(), &[SALT, &1_u32.to_be_bytes()].concat());
    let client = hash(&hmac(&round, b"Client Key"));
    let server = hmac(&round, b"Server Key");
    let encoded = |bytes: &[u8]| BASE64.encode(bytes);
    format!(
        "SCRAM-SHA-256$1:{}${}:{}",
        encoded(SALT),
        encoded(&client),
        encoded(&server)
    )
}

fn hash(text: &[u8]) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut key = if key.len() > BLOCK {
        hash(key)
    } else {
        key.to_vec()
    };
    key.resize(BLOCK, 0);
    let padded = |pad: u8| key.iter().map(move |byte| byte ^ pad);
    let inner: Vec<u8> = padded(0x36).chain(text.iter().copied()).collect();
    let outer: Vec<u8> = padded(0x5c).chain(hash(&inner)).collect();
    hash(&outer)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn the_example_of_rfc_4231() {
        let code = hmac(b"Jefe", b"what do ya want for nothing?");
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(HEXLOWER.encode(&code), wanted);
    }
}
