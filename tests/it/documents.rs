//! What stands in the documents and examples is what the program does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use mayfly::config::Settings;
use mayfly::identity::config::Code;
use mayfly::identity::config::preset::PRESETS;
use mayfly::identity::{Finding, Issuers};
use mayfly::metrics::{HttpRequest, Issued, IssuerKeys, Metrics, Procedure, Reloadable};
use mayfly::reason::Reason;
use regex::Regex;

use crate::architecture::rust_files;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_reason_has_a_section_and_every_section_a_reason() {
    let text = read("docs/refusal-reasons.md");
    let sections: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(
        sections, reasons,
        "docs/refusal-reasons.md, in the order of src/reason.rs"
    );
}

#[test]
fn every_log_line_has_an_event_that_the_document_explains() {
    // The loudest first: that is the one of an event with several.
    const SEVERITIES: [(&str, &str); 4] = [
        ("error", "ERROR"),
        ("warn", "WARNING"),
        ("info", "INFO"),
        ("debug", "DEBUG"),
    ];
    let mut written = BTreeMap::new();
    let sources: Vec<String> = rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let event = Regex::new(r#"^\s*event = "([^"]+)""#).unwrap();
    for (level, severity) in SEVERITIES {
        let of_requests = Regex::new(&format!(r#"line!\(\s*{level},\s*"([^"]+)""#)).unwrap();
        let line = Regex::new(&format!(r"tracing::{level}!\(([^;]{{0,200}})")).unwrap();
        for source in &sources {
            let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
            for name in of_requests.captures_iter(source) {
                written.entry(name[1].to_owned()).or_insert(severity);
            }
            for line in line.captures_iter(source) {
                let name = event.captures(&line[1]);
                let name = name.unwrap_or_else(|| panic!("a line without event: {}", &line[1]));
                written.entry(name[1].to_owned()).or_insert(severity);
            }
        }
    }
    assert!(written.contains_key("certificate_issued") && written.len() > 40);
    let text = read("docs/logs.md");
    let rows = text.lines().filter_map(|line| {
        let (event, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let severity = rest.split_once(" |")?.0;
        let is_event = SEVERITIES.iter().any(|(_, known)| *known == severity);
        is_event.then(|| (event.to_owned(), severity))
    });
    let documented: BTreeMap<String, &str> = rows.collect();
    assert_eq!(documented, written, "docs/logs.md, and the events in src/");
}

#[test]
fn every_metric_is_in_the_document_with_its_type_and_labels() {
    let metrics = Metrics::new().unwrap();
    metrics.http_request(&HttpRequest {
        endpoint: "v2_signing_cert",
        method: "post",
        status: 200,
        duration: std::time::Duration::from_millis(1),
        request_bytes: 1,
        response_bytes: 1,
        procedure: Some((Procedure::CREATE_SIGNING_CERTIFICATE, 0)),
    });
    let issued = Issued {
        issuer: "i",
        issuer_type: "email",
        key: "p256",
        proof: "csr",
        sct: "embedded",
        api: "v2",
    };
    metrics.issued(&issued, std::time::Duration::from_millis(1));
    metrics.refused(
        "i",
        Reason::BadProof,
        false,
        std::time::Duration::from_millis(1),
    );
    use_every_family(&metrics);
    let text = String::from_utf8(metrics.encode().unwrap()).unwrap();

    let mut served = BTreeSet::new();
    for line in text.lines() {
        let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        served.insert((name.to_owned(), kind.to_owned(), labels_of(&text, name)));
    }
    let mut documented = BTreeSet::new();
    for row in read("docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3]
            .split(", ")
            .map(|label| label.trim_matches('`').to_owned());
        let labels = labels
            .filter(|label| !label.is_empty())
            .collect::<BTreeSet<_>>();
        documented.insert((
            cells[1].trim_matches('`').to_owned(),
            cells[2].to_owned(),
            labels,
        ));
    }
    let missing: Vec<_> = served.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&served).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in the document: {missing:#?}\nnot served: {gone:#?}"
    );
}

/// Makes a series in each family that has none from the start.
fn use_every_family(metrics: &Metrics) {
    metrics.tuf_expires("root", 0);
    let _in_flight = metrics.begin_http_request("healthz");
    metrics.log_sizes("main", 1, 1);
    let _ = metrics.log("main");
    let _ = metrics.ct_log("main");
    let _ = metrics.signing("ca", "file");
    let _ = metrics.store("folder");
    metrics.oidc_request("i", "jwks", "ok", std::time::Duration::ZERO);
    metrics.oidc_refresh("i", "startup");
    metrics.issuer_keys(&IssuerKeys {
        issuer: "i",
        is_up: true,
        keys: 1,
        last_success: 0,
    });
    metrics.ca_certificate("root", 0);
    metrics.configuration("identity", "0123", None);
    metrics.loaded(Reloadable::Tls, 1);
    metrics.tls_certificate(1);
    metrics.reloaded(Reloadable::Identity, 2);
    metrics.configured_issuers(1, 0, 0);
    metrics.insecure_settings("server", 0);
    metrics.ready_check("ca_key", true);
    metrics.tls_handshake("ok");
}

/// The names of a metric's labels, but for a histogram's `le`.
fn labels_of(text: &str, name: &str) -> BTreeSet<String> {
    let is_sample = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| {
            ["{", " ", "_count{", "_count "]
                .iter()
                .any(|next| rest.starts_with(next))
        })
    };
    let sample = text.lines().find(is_sample).unwrap_or_default();
    let inside = sample
        .split_once('{')
        .and_then(|(_, rest)| rest.rsplit_once('}'))
        .map_or("", |(inside, _)| inside);
    let names = inside
        .split("\",")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, _)| name.to_owned());
    names.collect()
}

fn warns_only_of(warnings: &[Finding], codes: &[Code]) {
    for warning in warnings {
        assert!(codes.contains(&warning.code), "{warning}");
    }
}

#[test]
fn the_examples_of_the_configuration_are_read() {
    for path in files_in("config") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        match name {
            "mayfly.example.yaml" => drop(Settings::parse(name, &text, HashMap::new()).unwrap()),
            "identity.example.yaml" => {
                let (issuers, warnings) = Issuers::parse(name, &text).unwrap();
                assert_eq!(issuers.configuration().len(), 7);
                warns_only_of(&warnings, &[]);
            }
            "identity.public.yaml" => {
                let (issuers, warnings) = Issuers::parse(name, &text).unwrap();
                assert_eq!(issuers.configuration().len(), 31);
                warns_only_of(&warnings, &[Code::OpenIssuer]);
            }
            other => panic!("nobody reads config/{other}"),
        }
    }
}

#[test]
fn the_provider_that_the_document_on_templates_shows_is_read() {
    let text = read("docs/templates.md");
    let (_, example) = text.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let url = "https://forge.example.com";
    let issuer = format!(
        "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: ci-provider\n    ci-provider: forge\n"
    );
    let (_, warnings) = Issuers::parse("templates.md", &(issuer + example)).unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn the_configurations_of_the_cookbook_hold_up() {
    let text = read("docs/policy.md");
    let blocks = text.split("```yaml\n").skip(1);
    let mut configurations = 0;
    for block in blocks {
        let block = block.split("```").next().unwrap();
        let indent = block.len() - block.trim_start_matches(' ').len();
        let lines: Vec<&str> = block
            .lines()
            .map(|line| line.get(indent..).unwrap_or(""))
            .collect();
        if lines[0] == "oidc-issuers:" {
            let (_, warnings) = Issuers::parse("docs/policy.md", &lines.join("\n"))
                .unwrap_or_else(|findings| panic!("{block}: {findings:#?}"));
            warns_only_of(&warnings, &[Code::Lookalike]);
            configurations += 1;
        }
    }
    assert_eq!(configurations, 4);
}

/// Every setting stands in the example, as it is or behind a comment sign.
#[test]
fn the_example_of_the_server_names_every_setting() {
    use clap::{Args, Command};
    let text = read("config/mayfly.example.yaml");
    let settings = Settings::augment_args(Command::new("settings"));
    for argument in settings.get_arguments() {
        let name = argument.get_long().unwrap();
        let stands = ["", "# "].iter().any(|comment| {
            text.lines()
                .any(|line| line.starts_with(&format!("{comment}{name}:")))
        });
        assert!(stands, "config/mayfly.example.yaml lacks {name}");
    }
}

/// What a configuration file says, as JSON.
fn as_json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn examples_have_the_form_that_their_schema_tells() {
    for (schema, files) in [
        ("server", vec!["config/mayfly.example.yaml".to_owned()]),
        (
            "identity",
            std::iter::once("config/identity.example.yaml".to_owned())
                .chain(["config/identity.public.yaml".to_owned()])
                .chain(
                    PRESETS
                        .iter()
                        .map(|preset| format!("config/presets/{}.yaml", preset.name)),
                )
                .collect(),
        ),
    ] {
        let document: serde_json::Value =
            serde_json::from_str(&read(&format!("config/schema/{schema}.schema.json"))).unwrap();
        jsonschema::meta::validate(&document).unwrap();
        let validator = jsonschema::validator_for(&document).unwrap();
        for file in files {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
            let instance = as_json(&path);
            let errors: Vec<String> = validator
                .iter_errors(&instance)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{file}: {errors:#?}");
            // Editors find the schema by the first line.
            let up = "../".repeat(file.matches('/').count() - 1);
            let line = format!("# yaml-language-server: $schema={up}schema/{schema}.schema.json\n");
            assert!(
                read(&file).starts_with(&line),
                "{file} does not begin with {line}"
            );
        }
    }
}

/// Files with errors may have the right form, files of the wrong form have errors.
#[test]
fn files_that_are_checked_without_errors_have_the_form_that_the_schema_tells() {
    let document: serde_json::Value =
        serde_json::from_str(&read("config/schema/identity.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&document).unwrap();
    let mut refused = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    for fixture in std::fs::read_dir(folder).unwrap() {
        let path = fixture.unwrap().path().join("identity.yaml");
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let Ok(instance) = serde_saphyr::from_str::<serde_json::Value>(&text) else {
            continue;
        };
        if !validator.is_valid(&instance) {
            let found = Issuers::parse("identity.yaml", &text);
            assert!(found.is_err(), "{}", path.display());
            let name = path.parent().unwrap().file_name().unwrap();
            refused.insert(name.to_str().unwrap().to_owned());
        }
    }
    for form in [
        "MF101-unknown-extension",
        "MF101-unknown-key",
        "MF103-unknown-type",
        "MF126-unknown-preset",
    ] {
        assert!(refused.contains(form), "{form} is not among {refused:?}");
    }
}

#[test]
fn the_schema_of_the_server_has_every_setting_and_no_other() {
    let schema: serde_json::Value =
        serde_json::from_str(&read("config/schema/server.schema.json")).unwrap();
    for (pointer, text) in [
        ("", "unknown-key: x"),
        ("/properties/ct", "ct: { unknown-key: x }"),
        ("/properties/trust", "trust: { unknown-key: x }"),
        (
            "/properties/trust/properties/external",
            "trust: { external: { unknown-key: x } }",
        ),
        (
            "/properties/trust/properties/external/properties/transparency-logs/items",
            "trust: { external: { transparency-logs: [{ unknown-key: x }] } }",
        ),
        (
            "/properties/trust/properties/external/properties/timestamp-authorities/items",
            "trust: { external: { timestamp-authorities: [{ unknown-key: x }] } }",
        ),
    ] {
        // What the reader says of an unknown key names those that it knows.
        let error = Settings::parse("x", text, HashMap::new()).unwrap_err();
        let error = error.to_string();
        let (_, known) = error.split_once("expected ").unwrap();
        let known = known.trim_start_matches("one of ");
        let known: BTreeSet<&str> = known.split(", ").collect();
        let properties = schema.pointer(&format!("{pointer}/properties")).unwrap();
        let properties = properties.as_object().unwrap();
        let properties: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(properties, known, "{pointer}");
    }
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).collect()
}
