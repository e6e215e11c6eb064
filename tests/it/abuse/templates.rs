//! Claims on their way through templates into certificates.

use mayfly::dev::oidc::TestAlgorithm;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::support::http::{Answer, Request};
use crate::support::issuer::{HostileIssuer, signed_by, with_token};
use crate::support::server::{EMAIL, TestServer, test_keys};

/// A server that trusts `forge`, a build service described by templates.
struct Forge {
    server: TestServer,
    issuer: HostileIssuer,
}

/// What the certificate of a token says: its name, and the values of extensions by their last arc.
struct Described {
    name: String,
    extensions: Vec<(u64, Vec<u8>)>,
}

impl Forge {
    fn start() -> Self {
        let issuer = HostileIssuer::start();
        issuer.serve("forge");
        let url = issuer.url("forge");
        let file = format!(
            r#"  {url}:
    issuer-url: {url}
    client-id: sigstore
    type: ci-provider
    ci-provider: forge
ci-issuer-metadata:
  forge:
    default-template-values: {{ url: https://forge.example, environment: "" }}
    claim-patterns:
      owner: '[a-z]+'
    subject-alternative-name-template: "{{{{ .url }}}}/{{{{ .repository }}}}"
    extension-templates:
      issuer: nowhere
      subject: '{{{{ .nowhere }}}}'
      github-workflow-name: workflow
      build-config-uri: '{{{{ .url }}}}/{{{{ .workflow }}}}'
      deployment-environment: environment
      source-repository-identifier: id
"#
        );
        let server = TestServer::start_with(|_| {}, &file);
        Self { server, issuer }
    }

    /// A request with a token whose claims differ from those of a good one in these; `"absent"` takes a claim away.
    fn request(&self, changes: &Value) -> Request {
        let mut claims = self.issuer.claims("forge");
        let good =
            json!({ "repository": "acme/app", "workflow": "release", "id": 7, "owner": "acme" });
        for changes in [&good, changes] {
            for (name, value) in changes.as_object().unwrap() {
                claims[name] = value.clone();
            }
        }
        let claims = claims.as_object_mut().unwrap();
        claims.retain(|_, value| *value != "absent");
        let header = json!({ "alg": "ES256", "kid": TestAlgorithm::Es256.key_id() });
        with_token(&signed_by(test_keys(), &header, &json!(claims)))
    }

    fn issues(&self, changes: &Value) -> Described {
        describe(
            &self
                .server
                .issues(&changes.to_string(), &self.request(changes)),
        )
    }

    /// The message of the refusal.
    fn refuses(&self, changes: &Value) -> String {
        let what = format!("{changes:.80}");
        let answer = self
            .server
            .refuses(&what, &self.request(changes), &["template_error"]);
        answer.json()["message"].as_str().unwrap().to_owned()
    }
}

fn describe(answer: &Answer) -> Described {
    let chain = mayfly::client::certificates_of_answer(&answer.body).unwrap();
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let [GeneralName::URI(name)] = &names.value.general_names[..] else {
        panic!("{names:?}");
    };
    let extensions = leaf.extensions().iter().filter_map(|extension| {
        let id = extension.oid.to_id_string();
        let number = id.strip_prefix("1.3.6.1.4.1.57264.1.")?;
        Some((number.parse().unwrap(), extension.value.to_vec()))
    });
    Described {
        name: (*name).to_owned(),
        extensions: extensions.collect(),
    }
}

impl Described {
    fn raw(&self, number: u64) -> Option<&[u8]> {
        let extension = self.extensions.iter().find(|(known, _)| *known == number);
        extension.map(|(_, value)| &value[..])
    }

    /// The text of an extension that is a UTF8String of less than 128 octets.
    fn text(&self, number: u64) -> Option<&str> {
        let [0x0c, length, text @ ..] = self.raw(number)? else {
            panic!("{number}: {:?}", self.raw(number));
        };
        assert_eq!(usize::from(*length), text.len());
        Some(str::from_utf8(text).unwrap())
    }
}

/// C01, C08, C09, C10, C12
#[test]
fn claims_are_copied_as_they_are_and_only_where_a_template_names_them() {
    let forge = Forge::start();
    for text in [
        "{{ .repository }}",
        "{{ printf \"%1000d\" 1 }}",
        "${repository} $(id) %s %{x}",
        "<a href='x'>&amp;</a>",
        "größe 🦀",
    ] {
        let described = forge.issues(
            &json!({ "workflow": text, "email": "private@example.com", "actor": "private" }),
        );
        assert_eq!(described.name, "https://forge.example/acme/app");
        assert_eq!(described.raw(4), Some(text.as_bytes()));
        assert_eq!(
            described.text(18),
            Some(&*format!("https://forge.example/{text}"))
        );
        assert_eq!(described.text(8), Some(&*forge.issuer.url("forge")));
        assert_eq!(described.text(24), Some(EMAIL));
        let numbers: Vec<_> = described
            .extensions
            .iter()
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(numbers, [1, 4, 8, 15, 18, 24]);
    }
}

/// C02, C03
#[test]
fn a_missing_claim_is_named_with_its_template() {
    let forge = Forge::start();
    let described =
        forge.issues(&json!({ "environment": "production", "url": "https://other.example" }));
    assert_eq!(described.text(23), Some("production"));
    assert_eq!(described.name, "https://other.example/acme/app");
    for (claim, message) in [
        (
            "workflow",
            "value <workflow> not present in either claims or defaults (in github-workflow-name)",
        ),
        (
            "repository",
            "template: :1:14: executing \"\" at <.repository>: map has no entry for key \"repository\" (in subject-alternative-name-template)",
        ),
    ] {
        assert_eq!(
            forge.refuses(&json!({ claim: "absent", "actor": "private" })),
            message
        );
    }
}

/// C04
#[test]
fn numbers_and_booleans_are_texts_and_nothing_else_is() {
    let forge = Forge::start();
    for (value, text) in [
        (json!(4711), "4711"),
        (
            json!(12_345_678_901_234_567_890_u64),
            "12345678901234567890",
        ),
        (json!(1e21), "1000000000000000000000"),
        (json!(-1), "-1"),
        (json!(true), "true"),
        (json!(false), "false"),
    ] {
        assert_eq!(forge.issues(&json!({ "id": value })).text(15), Some(text));
    }
    for (value, found) in [
        (json!(0.1), "a fraction"),
        (Value::Null, "null"),
        (json!({ "a": "b" }), "an object"),
        (json!(["a"]), "an array"),
    ] {
        // Also where there is a default.
        for (claim, template) in [
            ("id", "source-repository-identifier"),
            ("environment", "deployment-environment"),
        ] {
            assert_eq!(
                forge.refuses(&json!({ claim: value })),
                format!(
                    "the claim `{claim}` is {found}, expected a string, a whole number or a boolean (in {template})"
                )
            );
        }
    }
}

/// C05
#[test]
fn a_name_is_an_absolute_uri_with_a_host() {
    let forge = Forge::start();
    for url in [
        "",
        "//",
        "javascript:alert(1)//",
        "data:text/plain,",
        "http://forge.example",
        "https:",
        "https://",
        "https:///",
        "https://user@forge.example",
        "https://forge.example\n",
        "https://forge.example\u{202e}",
        " https://forge.example",
        "https://forge.example/a b",
        "https://forge.example/#",
        "https://forge.example/%zz",
        &format!("https://forge.example/{}", "x".repeat(2048)),
    ] {
        let message = forge.refuses(&json!({ "url": url }));
        assert!(
            message.contains("subject-alternative-name-template"),
            "{url}: {message}"
        );
        assert!(url.len() < 30 || !message.contains(url), "{url}: {message}");
    }
    for (repository, name) in [
        ("a/../b//c", "https://forge.example/a/../b//c"),
        ("größe", "https://forge.example/gr%C3%B6%C3%9Fe"),
        ("a%20b", "https://forge.example/a%20b"),
    ] {
        assert_eq!(
            forge.issues(&json!({ "repository": repository })).name,
            name
        );
    }
    // Too long for a template's output, though each claim is within its limit.
    let long = "x".repeat(8192);
    let message = forge.refuses(&json!({ "workflow": long }));
    assert!(
        message.starts_with("the output is longer than 8192 octets"),
        "{message}"
    );
}

/// C06
#[test]
fn a_claim_with_a_pattern_must_match_it() {
    let forge = Forge::start();
    for owner in [
        "acme/x", "acme@x", "acme#", "acme?", "acme%2f", "acme\n", "",
    ] {
        assert_eq!(
            forge.refuses(&json!({ "owner": owner })),
            "the claim `owner` does not match the pattern that the configuration has for it"
        );
    }
    forge.issues(&json!({ "owner": "absent" }));
}
