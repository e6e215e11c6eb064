//! Issuers that answer wrongly, one for each code.

use serde_json::json;

use super::*;
use crate::dev::oidc::TestIssuer;
use crate::fetch::FetchError;
use crate::identity::testing::{Answer, FakeFetcher, entry, keys};

const NOW: OffsetDateTime = time::macros::datetime!(2026-01-02 03:04:05 UTC);

/// What is found at an issuer, whose network is prepared by `answer`; as lines without the place, which is always the same.
async fn found(url: &str, answer: impl Fn(&FakeFetcher, &str)) -> Vec<String> {
    let network = FakeFetcher::default();
    let clock = Arc::new(crate::clock::FixedClock::at("2026-01-02T03:04:05Z"));
    network.serve(&TestIssuer::new(url.to_owned(), keys(), clock));
    answer(&network, url);
    let sources = [Source::new("id.yaml", entry(url, "type: email"))];
    let metrics = Metrics::new().unwrap();
    let findings = match load(&sources, NOW, &network, &metrics).await {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    };
    let lines = findings.iter().map(|finding| {
        let line = finding.to_string();
        let (place, rest) = line.split_once(' ').unwrap();
        assert_eq!(place, "id.yaml:3:17:", "{line}");
        format!("{} {rest}", finding.severity.name())
    });
    lines.collect()
}

fn discovery(url: &str) -> String {
    format!("{url}/.well-known/openid-configuration")
}

const URL: &str = "https://issuer.example.com";

#[tokio::test]
async fn an_issuer_that_is_in_order_is_passed_over() {
    assert_eq!(found(URL, |_, _| ()).await, Vec::<String>::new());
}

#[tokio::test]
async fn each_mistake_of_an_issuer_has_its_code() {
    let document = |document: serde_json::Value| {
        move |network: &FakeFetcher, url: &str| network.document(&discovery(url), &document)
    };
    let failure = |error: FetchError| {
        move |network: &FakeFetcher, url: &str| {
            network.set(&discovery(url), Answer::Failure(error.clone()));
        }
    };
    let cases = [
        (
            found(URL, failure(FetchError::Status(404))).await,
            "error [MF130] discovery document: the server answered with status 404, expected 200 (jwks-uri or jwks-file names the keys of an issuer that has no such document)",
        ),
        (
            found(URL, document(json!([]))).await,
            "error [MF130] discovery document: ",
        ),
        (
            found(URL, document(json!({ "issuer": format!("{URL}/") }))).await,
            "error [MF131] discovery document: it is that of issuer \"https://issuer.example.com/\" (the entry says \"https://issuer.example.com\"; both must be the same, octet for octet)",
        ),
        (
            found(
                URL,
                document(json!({ "issuer": URL, "jwks_uri": "http://issuer.example.com/jwks" })),
            )
            .await,
            "error [MF132] discovery document: its member `jwks_uri` is not an https URL",
        ),
        (
            found(URL, |network, url| {
                let document =
                    json!({ "issuer": url, "jwks_uri": "https://keys.example.org/jwks" });
                network.document(&discovery(url), document);
                let clock = Arc::new(crate::clock::FixedClock::at("2026-01-02T03:04:05Z"));
                let other = TestIssuer::new("https://keys.example.org".to_owned(), keys(), clock);
                network.serve(&other);
            })
            .await,
            "warning [MF132] the issuer keeps its keys at another site, keys.example.org (whoever serves that site can sign for every one of its users)",
        ),
        (
            found(URL, |network, url| {
                network.document(&format!("{url}/jwks"), json!({ "keys": [] }));
            })
            .await,
            "error [MF133] key set: it has no key that can be used",
        ),
        (
            found(URL, |network, url| {
                network.set(&format!("{url}/jwks"), Answer::Failure(FetchError::Timeout));
            })
            .await,
            "error [MF133] key set: no complete answer within the time limit",
        ),
        (
            found(URL, failure(FetchError::Redirect)).await,
            "error [MF134] discovery document: the server redirects to another scheme, host or port, or more than three times (the server follows none to another scheme, host or port)",
        ),
        (
            found(URL, failure(FetchError::Tls)).await,
            "error [MF135] discovery document: the TLS handshake failed; the certificate may be expired, for another host, or from an unknown authority (a CA of your own is named by ca-cert)",
        ),
    ];
    for (found, expected) in cases {
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{found:?}, not {expected}"
        );
    }
}

#[test]
fn an_issuer_that_is_slow_is_warned_of() {
    let text = entry(URL, "type: email");
    let (issuers, _) = Issuers::parse("id.yaml", &text).unwrap();
    let issuer = issuers.lookup(URL).unwrap().issuer;
    let answer = Ok(PublishedKeys {
        usable: 1,
        location: None,
    });
    let codes = |took| {
        let found = mistakes(&issuer, &answer, Duration::from_millis(took));
        let codes: Vec<Code> = found.iter().map(|mistake| mistake.code).collect();
        codes
    };
    assert_eq!(codes(2_000), []);
    assert_eq!(codes(3_000), [Code::Slow]);
}

/// Nobody is asked who is not used.
#[tokio::test]
async fn patterns_and_disabled_entries_are_not_asked() {
    let network = FakeFetcher::default();
    let text = entry(URL, "type: email\n    disabled: true")
        + "meta-issuers:\n  https://*.idp.example.com:\n    client-id: x\n    type: email\n";
    let metrics = Metrics::new().unwrap();
    let sources = [Source::new("id.yaml", text)];
    load(&sources, NOW, &network, &metrics).await.unwrap();
    assert_eq!(network.urls(), Vec::<String>::new());
}
