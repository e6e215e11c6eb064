//! Private keys as OpenSSL and Go encrypted them before PKCS#8: the DER in AES-CBC, the cipher named in the headers of the
//! PEM block (RFC 1423), the key made from the passphrase by one round of MD5 (OpenSSL's `EVP_BytesToKey`).
//!
//! Weak against whoever can guess: read for the sake of the CAs that have such a file, and never written.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use md5::{Digest as _, Md5};
use zeroize::{Zeroize as _, Zeroizing};

use super::Passphrase;

/// Why such a block is not decrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rfc1423Error {
    /// The cipher is none of AES-128-CBC, AES-192-CBC and AES-256-CBC, or its header is damaged.
    Cipher,
    /// What the passphrase gives is no key.
    WrongPassphrase,
}

/// Decrypts the contents of a block with this `DEK-Info` header.
pub(super) fn decrypt(
    header: &str,
    mut contents: Zeroizing<Vec<u8>>,
    passphrase: &Passphrase,
) -> Result<Zeroizing<Vec<u8>>, Rfc1423Error> {
    let (cipher, iv) = header.split_once(',').ok_or(Rfc1423Error::Cipher)?;
    let (algorithm, length): (&Algorithm, usize) = match cipher.trim() {
        "AES-128-CBC" => (&AES_128, 16),
        "AES-192-CBC" => (&AES_192, 24),
        "AES-256-CBC" => (&AES_256, 32),
        _ => return Err(Rfc1423Error::Cipher),
    };
    let iv = octets_16(iv.trim()).ok_or(Rfc1423Error::Cipher)?;
    let key = stretch(passphrase.0.as_bytes(), &iv, length);
    let key = UnboundCipherKey::new(algorithm, &key)
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .map_err(|_| Rfc1423Error::Cipher)?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let length = key
        .decrypt(&mut contents, context)
        .map_err(|_| Rfc1423Error::WrongPassphrase)?
        .len();
    contents.truncate(length);
    // The padding alone holds up for one wrong passphrase in 256; every key is a SEQUENCE.
    if contents.first() == Some(&0x30) {
        Ok(contents)
    } else {
        Err(Rfc1423Error::WrongPassphrase)
    }
}

/// Sixteen octets from their digits.
fn octets_16(digits: &str) -> Option<[u8; 16]> {
    let is_plain = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(digits, 16).ok()?;
    is_plain.then(|| number.to_be_bytes())
}

/// A key of `length` bytes from a passphrase: each block of it is the MD5 of the one before, the passphrase, and the first
/// half of the initialization vector.
fn stretch(passphrase: &[u8], iv: &[u8; 16], length: usize) -> Zeroizing<Vec<u8>> {
    let (salt, _) = iv.split_at(8);
    // Room for all of it, so that no copy of a part stays behind.
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut block = Zeroizing::new([0; 16]);
    while key.len() < length {
        let mut hash = Md5::new();
        if !key.is_empty() {
            hash.update(block.as_slice());
        }
        hash.update(passphrase);
        hash.update(salt);
        let mut digest = hash.finalize();
        block.copy_from_slice(&digest);
        digest.as_mut_slice().zeroize();
        key.extend_from_slice(block.as_slice());
    }
    key.truncate(length);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned()))
    }

    /// Header and contents of a file that OpenSSL wrote.
    fn read(name: &str) -> (String, Zeroizing<Vec<u8>>) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
        let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let block = pem::parse(text).unwrap();
        let header = block.headers().get("DEK-Info").unwrap_or_default();
        (header.to_owned(), Zeroizing::new(block.into_contents()))
    }

    #[test]
    fn keys_that_openssl_encrypted_are_the_key_that_it_was_given() {
        let (_, plain) = read("openssl.key.pem");
        for length in [128, 192, 256] {
            let (header, contents) = read(&format!("openssl-aes-{length}.key.pem"));
            let key = decrypt(&header, contents.clone(), &passphrase("correct horse")).unwrap();
            assert_eq!(*key, *plain, "AES-{length}");
            for wrong in (0..300).map(|number| passphrase(&number.to_string())) {
                let refused = decrypt(&header, contents.clone(), &wrong);
                assert_eq!(refused, Err(Rfc1423Error::WrongPassphrase));
            }
        }
    }

    #[test]
    fn other_ciphers_and_damaged_headers_are_refused() {
        let (_, contents) = read("openssl-aes-128.key.pem");
        for header in [
            "",
            "AES-128-CBC",
            "AES-128-CBC,",
            "AES-128-CBC,00",
            "AES-128-CBC,+0000000000000000000000000000000",
            "AES-128-CBC,zz000000000000000000000000000000",
            "AES-128-CBC,000000000000000000000000000000000000",
            "DES-EDE3-CBC,0000000000000000",
            "AES-128-CFB,00000000000000000000000000000000",
        ] {
            let refused = decrypt(header, contents.clone(), &passphrase("correct horse"));
            assert_eq!(refused, Err(Rfc1423Error::Cipher), "{header}");
        }
    }

    #[test]
    fn cut_contents_are_refused() {
        let (header, contents) = read("openssl-aes-256.key.pem");
        for length in 0..contents.len() {
            let cut = Zeroizing::new(contents.iter().copied().take(length).collect());
            let refused = decrypt(&header, cut, &passphrase("correct horse"));
            assert_eq!(refused, Err(Rfc1423Error::WrongPassphrase), "{length}");
        }
    }
}
