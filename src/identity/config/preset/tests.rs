//! Entries that use presets. What certificates of each preset carry is tested beside their encoding.

use super::*;
use crate::identity::Issuers;

/// A file with one entry, which has a preset and says the rest itself.
fn file(url: &str, preset: &str, settings: &str) -> String {
    format!("oidc-issuers:\n  it:\n    issuer-url: {url}\n    preset: {preset}\n{settings}")
}

/// What is found in a file, warnings too, but for those that presets know to be no mistakes.
fn findings(text: &str) -> Vec<String> {
    let findings = match Issuers::parse("id.yaml", text) {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    };
    let shown = findings
        .iter()
        .filter(|finding| ![Code::OpenIssuer, Code::Lookalike].contains(&finding.code));
    shown.map(ToString::to_string).collect()
}

#[test]
fn every_preset_is_an_identity_file_that_says_what_lasts() {
    for preset in PRESETS {
        let (issuers, _) = Issuers::parse(preset.name, preset.text)
            .unwrap_or_else(|findings| panic!("{}: {findings:?}", preset.name));
        assert!(!issuers.all().is_empty(), "{}", preset.name);
        let found = findings(preset.text);
        assert!(found.is_empty(), "{}: {found:?}", preset.name);
        assert!(!preset.description().is_empty(), "{}", preset.name);
        // `Immutable: a, b.` names claims that tokens have, and ends with the sentence.
        let (_, lasting) = preset.text.split_once("# Immutable: ").unwrap();
        let lasting = lasting
            .split(['\n', ' '])
            .take_while(|word| !word.is_empty());
        for claim in lasting {
            let is_last = claim.ends_with('.');
            let claim = claim.trim_end_matches(['.', ',']);
            let is_named = claim == "none" || preset.tests.contains(&format!(" {claim}: "));
            assert!(is_named, "{}: {claim}", preset.name);
            if is_last {
                break;
            }
        }
    }
}

#[test]
fn presets_are_listed_by_name_and_nothing_is_left_out() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/presets");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.strip_suffix(".yaml")?.to_owned();
            (!name.ends_with(".test")).then_some(name)
        })
        .collect();
    names.sort_unstable();
    let listed: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    assert_eq!(names, listed);
}

#[test]
fn an_entry_says_only_what_its_preset_cannot_know() {
    for (text, url, audience) in [
        (
            "oidc-issuers: { ours: { preset: github } }".to_owned(),
            "https://token.actions.githubusercontent.com",
            "sigstore",
        ),
        (
            "oidc-issuers: { https://git.example.com: { preset: gitlab } }".to_owned(),
            "https://git.example.com",
            "sigstore",
        ),
        (
            "meta-issuers: { https://token.actions.githubusercontent.com/*: { preset: github } }"
                .to_owned(),
            "https://token.actions.githubusercontent.com/acme",
            "sigstore",
        ),
        (
            file(
                "https://git.example.com/api/actions",
                "forgejo",
                "    client-id: signing\n",
            ),
            "https://git.example.com/api/actions",
            "signing",
        ),
        (
            file(
                "https://git.example.com/api/actions",
                "forgejo",
                "    client-ids: [signing]\n",
            ),
            "https://git.example.com/api/actions",
            "signing",
        ),
    ] {
        assert_eq!(findings(&text), Vec::<String>::new(), "{text}");
        let (issuers, _) = Issuers::parse("id.yaml", &text).unwrap();
        let issuer = issuers.lookup(url).unwrap().issuer;
        assert_eq!(issuer.audiences, [audience], "{text}");
        assert_eq!(issuer.rule.type_name(), "ci-provider", "{text}");
    }
}

#[test]
fn what_an_entry_says_comes_before_its_preset() {
    let text = file(
        "https://gitlab.com",
        "gitlab",
        "    type: uri\n    subject-domain: https://gitlab.com\n",
    );
    let (issuers, _) = Issuers::parse("id.yaml", &text).unwrap();
    let issuer = issuers.lookup("https://gitlab.com").unwrap().issuer;
    assert_eq!(issuer.rule.type_name(), "uri");

    let text = file("https://gitlab.com", "gitlab", "    ci-provider: mine\n")
        + "ci-issuer-metadata:\n  mine:\n    subject-alternative-name-template: https://x.example/{{ .sub }}\n";
    let (issuers, _) = Issuers::parse("id.yaml", &text).unwrap();
    let issuer = issuers.lookup("https://gitlab.com").unwrap().issuer;
    let crate::identity::claims::IdentityRule::CiProvider(provider) = &issuer.rule else {
        panic!("{issuer:?}");
    };
    assert_eq!(provider.name(), "mine");
}

#[test]
fn a_preset_is_for_its_own_issuers() {
    let of = |url: &str, preset: &str| findings(&file(url, preset, ""));
    assert_eq!(
        of("https://codeberg.org/api/actions", "forgeo"),
        ["id.yaml:4:13: [MF126] unknown preset \"forgeo\" (did you mean `forgejo`?)",]
    );
    for (url, preset) in [
        ("https://token.actions.githubusercontent.com/", "github"),
        ("https://token.actions.githubusercontent.org", "github"),
        ("https://token.actions.a/b.ghe.com", "github"),
        ("https://git.example.com/_services/token/", "github"),
        ("https://oidc.circleci.com/org/a/b", "circleci"),
        ("https://accounts.google.com/", "google"),
        ("https://evil.example/-oidc.buddyusercontent.com", "buddy"),
        ("http://codeberg.org/api/actions", "forgejo"),
    ] {
        let found = of(url, preset);
        assert!(
            found.iter().any(|line| line.contains(&format!(
                "[MF126] the preset {preset} is not for this issuer"
            ))),
            "{url}: {found:?}"
        );
    }
}

#[test]
fn urls_are_not_made_of_a_pattern() {
    let text = "meta-issuers:\n  https://*.example.com/api/actions:\n    preset: forgejo\n";
    assert_eq!(
        findings(text),
        [
            "id.yaml:3:13: [MF126] the preset forgejo cannot make URLs of a pattern's host (give each issuer an entry of its own under oidc-issuers)"
        ]
    );
}

#[test]
fn what_a_preset_leaves_open_must_be_said() {
    let text = "oidc-issuers:\n  spire:\n    preset: spire\n";
    assert_eq!(
        findings(text),
        [
            "id.yaml:2:3: [MF107] the entry has no issuer-url (it must equal the `iss` of the tokens, octet for octet)",
            "id.yaml:2:3: [MF114] a spiffe issuer must have spiffe-trust-domain (such as example.com)",
        ]
    );
    let url = "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc";
    assert_eq!(
        findings(&file(url, "bitbucket", "")),
        [
            "id.yaml:2:3: [MF105] client-id is missing or empty (give the value that tokens have as `aud`, usually sigstore)"
        ]
    );
}
