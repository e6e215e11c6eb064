//! The `sigstore` crate's Fulcio client as a command line.
//!
//! ```text
//! sigstore-client v1 URL TOKEN CHALLENGE SCHEME    a key, and a signature over the challenge
//! sigstore-client v2 URL TOKEN EMAIL               a certificate signing request
//! ```
//!
//! Prints PEM: the public key that it made, then the certificates of the answer.

use std::env;
use std::error::Error;
use std::str::FromStr;

use openidconnect::core::CoreIdToken;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{EncodePublicKey, LineEnding};
use sigstore::crypto::SigningScheme;
use sigstore::fulcio::{FulcioClient, TokenProvider};
use sigstore::oauth::IdentityToken;
use url::Url;
use x509_cert::builder::{Builder, RequestBuilder};
use x509_cert::der::EncodePem;
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::name::Name;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["v1", url, token, challenge, scheme] => {
            let scheme = match scheme.strip_prefix("RSA_PKCS1_SHA256:") {
                Some(bits) => SigningScheme::RSA_PKCS1_SHA256(bits.parse()?),
                None => SigningScheme::try_from(scheme)?,
            };
            v1(client(url, token, challenge)?, scheme).await
        }
        ["v2", url, token, email] => v2(client(url, token, email)?, token, email).await,
        _ => Err("see the first lines of main.rs".into()),
    }
}

fn client(url: &str, token: &str, challenge: &str) -> Result<FulcioClient, Box<dyn Error>> {
    let token = TokenProvider::Static((CoreIdToken::from_str(token)?, challenge.to_owned()));
    Ok(FulcioClient::new(Url::parse(url)?, token))
}

async fn v1(client: FulcioClient, scheme: SigningScheme) -> Result<(), Box<dyn Error>> {
    let (signer, answer) = client.request_cert(scheme).await?;
    // The client hands over any answer, a refusal too.
    let answer = answer.to_string();
    if !answer.starts_with("-----BEGIN CERTIFICATE-----") {
        return Err(answer.into());
    }
    print!("{}", signer.to_sigstore_keypair()?.public_key_to_pem()?);
    print!("{answer}");
    Ok(())
}

async fn v2(client: FulcioClient, token: &str, email: &str) -> Result<(), Box<dyn Error>> {
    let key = SigningKey::generate();
    let mut request = RequestBuilder::new(Name::from_str(&format!("emailAddress={email}"))?)?;
    request.add_extension(&BasicConstraints {
        ca: false,
        path_len_constraint: None,
    })?;
    let request = request.build::<_, DerSignature>(&key)?;
    let answer = client
        .request_cert_v2(request, &IdentityToken::try_from(token)?)
        .await?;
    if answer.detached_sct.is_some() {
        return Err("the SCT is outside the certificate".into());
    }
    print!("{}", key.verifying_key().to_public_key_pem(LineEnding::LF)?);
    for certificate in [&answer.cert].into_iter().chain(&answer.chain) {
        print!("{}", certificate.to_pem(LineEnding::LF)?);
    }
    Ok(())
}
