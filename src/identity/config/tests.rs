//! Files, and what is found in them.

use super::*;
use crate::identity::IssuerConfiguration;
use crate::identity::Issuers;

/// What is found in a file, one finding a line.
fn findings(text: &str) -> Vec<String> {
    let findings = match Issuers::parse("id.yaml", text) {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    };
    findings.iter().map(without_code).collect()
}

/// Codes have tests of their own.
fn without_code(finding: &Finding) -> String {
    finding
        .to_string()
        .replacen(&format!("[{}] ", finding.code), "", 1)
}

fn entry_at(url: &str, settings: &str) -> String {
    format!("  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n{settings}")
}

fn file(settings: &str) -> String {
    format!("oidc-issuers:\n{}", entry_at("https://a.example", settings))
}

const YAML: &str = r#"
define:
  - &type email
oidc-issuers:
  https://b.example/auth:
    issuer-url: https://b.example/auth
    client-id: yes
    type: *type
    issuer-claim: $.federated_claims.connector_id
    contact:
    description: ~
    environment: staging
  https://a.example:
    issuer-url: https://a.example
    client-id: 0123
    type: uri
    subject-domain: https://a.example
    challenge-claim: sub
meta-issuers:
  https://*.tenants.example/:
    client-id: sigstore
    type: github-workflow
ci-issuer-metadata:
  *type:
    default-template-values:
      url: https://github.com
    extension-templates:
      build-signer-uri: "{{ .url }}"
    subject-alternative-name-template: "{{ .url }}"
"#;

#[test]
fn a_file_of_fulcio_is_read_as_it_is() {
    let (issuers, warnings) = Issuers::parse("id.yaml", YAML).unwrap();
    let warnings: Vec<String> = warnings.iter().map(without_code).collect();
    assert_eq!(
        warnings,
        [
            "id.yaml:12:18: environment has no effect (this server issues for every entry; leave out what it must not trust)",
            "id.yaml:22:11: the type github-workflow is deprecated (use type ci-provider, whose templates say what certificates carry)",
            "id.yaml:24:3: no issuer uses the ci-provider \"email\"",
        ]
    );
    let row = |url: &str, audience: &str, challenge_claim, issuer_type, subject_domain: &str| {
        IssuerConfiguration {
            url: url.to_owned(),
            is_wildcard: url.contains('*'),
            audience: audience.to_owned(),
            challenge_claim,
            issuer_type,
            subject_domain: subject_domain.to_owned(),
            spiffe_trust_domain: String::new(),
            skip_email_verification: false,
        }
    };
    assert_eq!(
        issuers.configuration(),
        [
            row(
                "https://a.example",
                "0123",
                "sub",
                "uri",
                "https://a.example"
            ),
            row("https://b.example/auth", "yes", "email", "email", ""),
            row(
                "https://*.tenants.example/",
                "sigstore",
                "sub",
                "github-workflow",
                ""
            ),
        ]
    );
    let ids: Vec<_> = issuers
        .all()
        .iter()
        .map(|issuer| issuer.id.to_string())
        .collect();
    assert_eq!(ids, ["a.example", "b.example-auth", "x.tenants.example"]);
}

#[test]
fn a_file_in_json_is_read_as_it_is() {
    let text = r#"{
TAB"OIDCIssuers": {
TAB"https://a.example": {
TAB"IssuerURL": "https:\/\/a.example", "ClientID": "sigstore", "Type": "email",
TAB"IssuerClaim": "$.federated_claims.connector_id", "Contact": "a@b.example", "SkipEmailVerification": true
TAB}
TAB},
TAB"MetaIssuers": { "https://*.b.example/": { "ClientID": "sigstore", "Type": "github-workflow" } },
TAB"CIIssuerMetadata": { "x": { "SubjectAlternativeNameTemplate": "", "ExtensionTemplates": { "BuildTrigger": "x" } } }
}"#;
    let (issuers, warnings) = Issuers::parse("id.json", &text.replace("TAB", "\t")).unwrap();
    assert!(issuers.lookup("https://a.example").is_some());
    assert!(issuers.lookup("https://x.b.example/").is_some());
    let codes: Vec<Code> = warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(
        codes,
        [Code::UnverifiedEmail, Code::Superfluous, Code::Superfluous]
    );
}

#[test]
fn everything_that_is_wrong_is_found_at_once_with_its_place() {
    let text = "
oidc-issuer:
  x: y
oidc-issuers:
  https://a.example:
    issuer-url: https://b.example
    clientid: sigstore
    type: emial
  https://c.example/?x:
    issuer-url: https://c.example/?x
    client-id: ' '
    type: ci-provider
  https://d.example:
    type: github-workflow
    issuer-claim: $.x
meta-issuers:
  https://*.com/:
    client-id: sigstore
    type: email
    ca-cert: none
";
    assert_eq!(
        findings(text),
        [
            "id.yaml:2:1: unknown key \"oidc-issuer\" (did you mean `oidc-issuers`?)",
            "id.yaml:5:3: client-id is missing or empty (give the value that tokens have as `aud`, usually sigstore)",
            "id.yaml:6:17: issuer-url differs from the key \"https://a.example\" (the key must be the same URL, octet for octet, or a name that is no URL)",
            "id.yaml:7:5: unknown key \"clientid\" (did you mean `client-id`?)",
            "id.yaml:8:11: unknown type \"emial\" (did you mean `email`? expected one of buildkite-job, chainguard-identity, ci-provider, codefresh-workflow, email, github-workflow, gitlab-pipeline, kubernetes, spiffe, uri, username)",
            "id.yaml:9:3: an issuer of type ci-provider must have ci-provider (the name of an entry of ci-issuer-metadata)",
            "id.yaml:10:17: issuer-url cannot be used: it has a user name, a query or a fragment",
            "id.yaml:11:16: client-id is missing or empty (give the value that tokens have as `aud`, usually sigstore)",
            "id.yaml:13:3: the entry has no issuer-url (add issuer-url: https://d.example)",
            "id.yaml:13:3: client-id is missing or empty (give the value that tokens have as `aud`, usually sigstore)",
            "id.yaml:14:11: the type github-workflow is deprecated (use type ci-provider, whose templates say what certificates carry)",
            "id.yaml:15:19: only issuers of type email can have issuer-claim",
            "id.yaml:17:3: the pattern cannot be used: the last two labels of the host, and the port, must be written out",
            "id.yaml:20:14: ca-cert cannot be used: it is not one or more PEM blocks of type CERTIFICATE",
        ]
    );
}

#[test]
fn texts_that_are_not_an_identity_file_are_refused_with_their_place() {
    let nothing =
        "id.yaml:1:1: the configuration has no issuer (list at least one under oidc-issuers)";
    let twice = format!(
        "{}{}",
        file("    type: email\n"),
        entry_at("https://a.example", "    type: email\n")
    );
    for (text, finding) in [
        ("", nothing),
        ("# nothing\n", nothing),
        ("oidc-issuers: {}\n", nothing),
        (
            "- a\n",
            "id.yaml:1:1: invalid type: sequence, expected a mapping",
        ),
        (
            "oidc-issuers:\n\tx: y\n",
            "id.yaml:2:2: tabs disallowed within this context (block indentation)",
        ),
        (
            &file("    type: [email]\n"),
            "id.yaml:5:11: expected string scalar",
        ),
        (
            &file("    type: email\n    type: uri\n"),
            "id.yaml:6:5: the key `type` stands twice",
        ),
        (
            &file("    type: email\n    Type: uri\n"),
            "id.yaml:3:5: duplicate field `type`",
        ),
        (
            &file("    type: email\n    skip-email-verification: yes\n"),
            "id.yaml:6:30: invalid boolean (strict mode expects true/false)",
        ),
        (
            &twice,
            "id.yaml:6:3: the key `https://a.example` stands twice",
        ),
    ] {
        assert_eq!(findings(text), [finding]);
    }
    let level = |level: usize| match level.checked_sub(1) {
        None => format!("- &a{level} [x]\n"),
        Some(below) => format!(
            "- &a{level} [{}]\n",
            vec![format!("*a{below}"); 9].join(", ")
        ),
    };
    let bomb: String = (0..30).map(level).collect();
    assert!(findings(&format!("define:\n{bomb}"))[0].contains("alias replay limit"));
    assert_eq!(
        findings(&" ".repeat((4 << 20) + 1)),
        ["id.yaml:1:1: the configuration is larger than 4 MiB"]
    );
}

#[test]
fn urls_of_issuers_have_one_form() {
    let found = |url: &str| {
        findings(&format!(
            "oidc-issuers:\n{}",
            entry_at(url, "    type: email\n")
        ))
    };
    for url in [
        "https://a.example",
        "https://a.example:8443/x",
        "http://127.0.0.1:5555/dev",
        "http://[::1]",
    ] {
        assert_eq!(found(url), [""; 0], "{url}");
    }
    for url in [
        "ftp://a.example",
        "a.example",
        "https:a.example",
        "https:/a.example",
        "https://",
        "https://u@a.example",
        "https://u:p@a.example",
        "https://@a.example",
        "https://a.example?",
        "https://a.example?x=y",
        "https://a.example\\x",
        "https://*.a.example/",
    ] {
        let found = found(url);
        assert!(
            found.len() == 1 && found[0].contains("issuer-url cannot be used"),
            "{url}: {found:?}"
        );
    }
}

#[test]
fn settings_that_weaken_the_server_are_pointed_out() {
    let settings = "    type: email\n    skip-email-verification: true\n    challenge-claim: sub\n";
    assert_eq!(
        findings(&format!(
            "oidc-issuers:\n{}",
            entry_at("http://a.example", settings)
        )),
        [
            "id.yaml:3:17: the issuer's keys are fetched over http (whoever can change its answers can sign for every one of its users)",
            "id.yaml:6:30: addresses are not verified by the issuer (whoever can register an address there can sign as its owner)",
            "id.yaml:7:22: challenge-claim has no effect: type email uses `email`",
        ]
    );
}

#[test]
fn settings_of_other_types_are_refused() {
    let settings = "    type: uri\n    subject-domain: https://a.example\n    issuer-claim: $.x\n    ci-provider: y\n";
    assert_eq!(
        findings(&file(settings)),
        [
            "id.yaml:7:19: only issuers of type email can have issuer-claim",
            "id.yaml:8:18: only issuers of type ci-provider can have ci-provider",
        ]
    );
    assert_eq!(
        findings(&file(
            "    type: email\n    issuer-claim: federated_claims.connector_id\n"
        )),
        [
            "id.yaml:6:19: issuer-claim cannot be used: expected $ and one or more names, such as $.federated_claims.connector_id"
        ]
    );
}

#[test]
fn types_need_the_domain_of_their_subjects() {
    for (settings, finding) in [
        (
            "    type: uri\n",
            "2:3: a uri issuer must have subject-domain (such as https://example.com)",
        ),
        (
            "    type: username\n",
            "2:3: a username issuer must have subject-domain (such as example.com)",
        ),
        (
            "    type: spiffe\n",
            "2:3: a spiffe issuer must have spiffe-trust-domain (such as example.com)",
        ),
        (
            "    type: uri\n    subject-domain: a.example\n",
            "6:21: subject-domain cannot be used: it has no scheme; expected scheme and host, such as https://example.com",
        ),
        (
            "    type: username\n    subject-domain: b.example\n",
            "6:21: subject-domain cannot be used: its host b.example is neither that of the issuer, a.example, nor in the same domain",
        ),
        (
            "    type: spiffe\n    spiffe-trust-domain: A\n",
            "6:26: spiffe-trust-domain cannot be used: expected the name of a trust domain: 1 to 255 of a-z, 0-9, . - _",
        ),
    ] {
        assert_eq!(findings(&file(settings)), [format!("id.yaml:{finding}")]);
    }
    let wildcard = "meta-issuers:\n  https://*.a.example/:\n    client-id: x\n    type: spiffe\n    spiffe-trust-domain: a\n";
    assert_eq!(
        findings(wildcard),
        ["id.yaml:2:3: a pattern cannot have type spiffe"]
    );
}

#[test]
fn ids_are_unique() {
    let two = |first: &str, second: &str| {
        let first = entry_at("https://a.example/X", &format!("    type: email\n{first}"));
        let second = entry_at("https://a.example/x", &format!("    type: email\n{second}"));
        format!("oidc-issuers:\n{first}{second}")
    };
    let ids = |text: &str| {
        let (issuers, _) = Issuers::parse("id.yaml", text).unwrap();
        let id = |url: &str| issuers.lookup(url).unwrap().issuer.id.to_string();
        [id("https://a.example/X"), id("https://a.example/x")]
    };
    assert_eq!(ids(&two("", "")), ["a.example-x", "a.example-x-2"]);
    assert_eq!(
        ids(&two("", "    id: a.example-x\n")),
        ["a.example-x-2", "a.example-x"]
    );
    assert_eq!(
        findings(&two("    id: x\n", "    id: x\n")),
        ["id.yaml:11:9: the id `x` stands twice"]
    );
    assert_eq!(
        findings(&two("    id: X y\n", "")),
        ["id.yaml:6:9: the id cannot be used (expected 1 to 64 of a-z, 0-9, . _ -)"]
    );
}

#[test]
fn patterns_that_could_both_match_are_refused_unless_one_is_more_specific() {
    let file = |patterns: [&str; 2]| {
        let entries =
            patterns.map(|pattern| format!("  {pattern}:\n    client-id: x\n    type: email\n"));
        format!("meta-issuers:\n{}", entries.concat())
    };
    assert_eq!(
        findings(&file([
            "https://*.idp.example/a",
            "https://b.idp.example/*"
        ])),
        [
            "id.yaml:5:3: the pattern matches the same URLs as https://*.idp.example/a (of patterns that match one URL, one must have more literal characters)"
        ]
    );
    let text = file(["https://*.idp.example/*", "https://*.idp.example/a-*"]);
    let (issuers, _) = Issuers::parse("id.yaml", &text).unwrap();
    let pattern_of = |iss: &str| {
        issuers
            .lookup(iss)
            .map(|found| found.issuer.endpoint.issuer.clone())
    };
    assert_eq!(
        pattern_of("https://x.idp.example/a-1").as_deref(),
        Some("https://*.idp.example/a-*")
    );
    assert_eq!(
        pattern_of("https://x.idp.example/b-1").as_deref(),
        Some("https://*.idp.example/*")
    );
    assert_eq!(pattern_of("https://x.idp.example/"), None);
}

#[test]
fn an_exact_entry_comes_before_a_pattern() {
    let exact = file("    type: email\n");
    let text = format!(
        "meta-issuers:\n  https://a.*.example.org:\n    client-id: x\n    type: email\n{exact}"
    );
    let text = text
        .replace("https://a.example:", "https://a.b.example.org:")
        .replace("https://a.example\n", "https://a.b.example.org\n");
    let (issuers, _) = Issuers::parse("id.yaml", &text).unwrap();
    assert_eq!(
        issuers
            .lookup("https://a.b.example.org")
            .unwrap()
            .issuer
            .audiences,
        ["sigstore"]
    );
    assert_eq!(
        issuers
            .lookup("https://a.c.example.org")
            .unwrap()
            .issuer
            .audiences,
        ["x"]
    );
}

#[test]
fn keys_come_from_one_place() {
    let found = |settings: &str| findings(&file(&format!("    type: email\n{settings}")));
    assert_eq!(found("    jwks-uri: https://keys.example/x\n"), [""; 0]);
    for (settings, finding) in [
        (
            "    jwks-uri: http://keys.example/x\n",
            "6:15: jwks-uri cannot be used: it is not an https URL",
        ),
        (
            "    jwks-uri: https://keys.example\n    jwks-file: keys.json\n",
            "6:15: jwks-uri and jwks-file stand together",
        ),
        (
            "    jwks-file: keys.json\n",
            "6:16: jwks-file cannot be used: keys.json: files are read only for a configuration that is itself in a file",
        ),
        (
            "    token-file: /run/token\n",
            "6:17: only issuers of type kubernetes that are no pattern can have token-file (whoever a pattern names would be sent the token)",
        ),
    ] {
        assert_eq!(found(settings), [format!("id.yaml:{finding}")]);
    }
}

#[test]
fn files_that_are_named_lie_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id.yaml");
    let text = file("    type: kubernetes\n    jwks-file: keys.json\n    token-file: token\n");
    std::fs::write(&path, text).unwrap();
    let load = || Issuers::load(&source::read(&path).unwrap(), None);
    let missing = load().unwrap_err()[0].to_string();
    assert!(
        missing.contains("keys.json: there is no such file"),
        "{missing}"
    );
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, "{}").unwrap();
    let wrong = load().unwrap_err()[0].to_string();
    assert!(
        wrong.contains("key set: its member `keys` is missing"),
        "{wrong}"
    );
    let jwks = crate::identity::testing::keys().jwks().to_string();
    std::fs::write(&keys, &jwks).unwrap();
    let (issuers, _) = load().unwrap();
    assert_eq!(issuers.given_key_sets().collect::<Vec<_>>(), [jwks]);
    assert!(issuers.all()[0].endpoint.has_cluster_access());
}

#[test]
fn the_schema_has_every_key_and_no_other() {
    use crate::identity::ci_provider::EXTENSION_TEMPLATES;
    use crate::identity::claims::SUPPORTED_TYPES;
    use crate::identity::config::preset::PRESETS;
    use crate::identity::jws::Algorithm;

    let schema = include_str!("../../../config/schema/identity.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let keys = |pointer: &str| -> HashSet<String> {
        let properties = schema.pointer(pointer).and_then(|value| value.as_object());
        properties.unwrap().keys().cloned().collect()
    };
    let set = |known: &[&str]| known.iter().map(|&key| key.to_owned()).collect();
    let extensions: Vec<&str> = EXTENSION_TEMPLATES
        .iter()
        .flat_map(|(_, yaml, json)| [*yaml, *json])
        .chain(["issuer", "Issuer", "subject", "Subject"])
        .collect();
    for (pointer, known) in [
        ("/properties", RawFile::KEYS),
        ("/$defs/issuer/properties", raw::RawIssuer::KEYS),
        ("/$defs/metadata/properties", raw::RawMetadata::KEYS),
        ("/$defs/extension-templates/properties", &extensions),
    ] {
        assert_eq!(keys(pointer), set(known), "{pointer}");
    }
    let values = |pointer: &str| -> Vec<&str> {
        let values = schema.pointer(pointer).and_then(|value| value.as_array());
        let values = values.unwrap().iter().map(|value| value.as_str().unwrap());
        values.collect()
    };
    assert_eq!(
        values("/$defs/issuer/properties/type/enum"),
        SUPPORTED_TYPES
    );
    let presets: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    assert_eq!(values("/$defs/issuer/properties/preset/enum"), presets);
    let algorithms: HashSet<&str> = values("/$defs/issuer/properties/algorithms/items/enum")
        .into_iter()
        .collect();
    let known = Algorithm::ALL.into_iter().map(Algorithm::name).collect();
    assert_eq!(algorithms, known);
}
