//! The CA's key and its certificates: what a server does not start with, and what it never takes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::Value;

use crate::support::http::{self, Request};
use crate::support::process::{Instance, Process, mayfly, run};

type Ca = CertifiedIssuer<'static, KeyPair>;

const ANY_PATH: IsCa = IsCa::Ca(BasicConstraints::Unconstrained);

/// What a CA certificate of these tests says.
struct Says {
    is_ca: IsCa,
    usage: KeyUsagePurpose,
    for_code: bool,
}

/// A sound issuing CA.
const SOUND: Says = Says {
    is_ca: ANY_PATH,
    usage: KeyUsagePurpose::KeyCertSign,
    for_code: true,
};

fn params(name: &str, says: Says) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = says.is_ca;
    params.key_usages = vec![says.usage];
    if says.for_code {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    }
    params
}

fn new_root(is_ca: IsCa) -> Ca {
    let says = Says {
        is_ca,
        for_code: false,
        ..SOUND
    };
    CertifiedIssuer::self_signed(params("root", says), KeyPair::generate().unwrap()).unwrap()
}

fn below(above: &Ca, name: &str, says: Says) -> Ca {
    let key = KeyPair::generate().unwrap();
    CertifiedIssuer::signed_by(params(name, says), key, above).unwrap()
}

/// Writes a file that only its owner can read.
fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// Checks that a command ends with the exit code of a wrong configuration and one line, which says this.
fn refuses(what: &str, command: &mut Command, words: &str) {
    let outcome = run(command);
    assert_eq!(outcome.code, 3, "{what}: {}", outcome.stderr);
    let lines = outcome.stderr.lines();
    let named: Vec<&str> = lines.filter(|line| line.starts_with("mayfly: ")).collect();
    assert!(
        matches!(named[..], [line] if line.contains(words)),
        "{what}: not one line with {words:?}: {}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

/// Serves as the instance says, with another file for one setting.
fn serve_with(instance: &Instance, flag: &str, file: &Path) -> Command {
    let mut command = instance.serve();
    command.arg(flag).arg(file);
    command
}

/// K01
#[test]
fn certificates_that_are_no_chain_of_a_ca_are_refused_at_the_start() {
    let instance = Instance::new();
    let folder = tempfile::tempdir().unwrap();
    let root = new_root(ANY_PATH);
    let stranger = new_root(ANY_PATH);
    let narrow = new_root(IsCa::Ca(BasicConstraints::Constrained(0)));
    let issuing = below(&root, "issuing", SOUND);
    let leaf = below(
        &root,
        "leaf",
        Says {
            is_ca: IsCa::NoCa,
            ..SOUND
        },
    );
    let cannot_sign = below(
        &root,
        "cannot sign",
        Says {
            usage: KeyUsagePurpose::DigitalSignature,
            ..SOUND
        },
    );
    let not_for_code = below(
        &root,
        "not for code",
        Says {
            for_code: false,
            ..SOUND
        },
    );
    let too_deep = below(&narrow, "too deep", SOUND);
    let text = |chain: &[&Ca]| chain.iter().map(|one| one.pem()).collect::<String>();
    for (what, chain, words) in [
        ("not PEM", "hello".to_owned(), "no certificate"),
        ("empty", String::new(), "no certificate"),
        (
            "a key in its place",
            issuing.key().serialize_pem(),
            "there is a block `PRIVATE KEY`",
        ),
        (
            "the order turned round",
            text(&[&root, &issuing]),
            "certificate 1 (CN=root) is not signed by the one after it; the order is issuing CA first",
        ),
        (
            "a stranger's root",
            text(&[&issuing, &stranger]),
            "certificate 1 (CN=issuing) is not signed by the one after it",
        ),
        (
            "without its root",
            text(&[&issuing]),
            "does not end in a self-signed root",
        ),
        (
            "a leaf",
            text(&[&leaf, &root]),
            "certificate 1 (CN=leaf) is not a CA certificate",
        ),
        (
            "without keyCertSign",
            text(&[&cannot_sign, &root]),
            "certificate 1 (CN=cannot sign) is not a CA certificate",
        ),
        (
            "without code signing",
            text(&[&not_for_code, &root]),
            "certificate 1 (CN=not for code) must have extended key usage code signing",
        ),
        (
            "more than the path allows",
            text(&[&too_deep, &narrow]),
            "certificate 2 (CN=root) has a path length constraint that this chain exceeds",
        ),
        (
            "SHA-1",
            include_str!("../../vectors/sha-1-ca.pem").to_owned(),
            "SHA-2",
        ),
        (
            "RSA-1024",
            include_str!("../../vectors/rsa-1024-ca.pem").to_owned(),
            "RSA of at least 2048 bits",
        ),
        (
            "another CA's",
            text(&[&issuing, &root]),
            "the CA key does not belong to the CA certificate",
        ),
    ] {
        let file = write(folder.path(), "chain.pem", &chain);
        refuses(what, &mut serve_with(&instance, "--ca-cert", &file), words);
    }
    let missing = folder.path().join("missing.pem");
    let words = "missing.pem: No such file or directory";
    refuses(
        "missing",
        &mut serve_with(&instance, "--ca-cert", &missing),
        words,
    );
}

/// K01
#[test]
fn a_key_that_cannot_be_read_is_refused_at_the_start() {
    let instance = Instance::new();
    let folder = tempfile::tempdir().unwrap();
    let certificate = std::fs::read_to_string(instance.data_dir().join("ca/current/chain.pem"));
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let other = KeyPair::generate().unwrap().serialize_pem();
    for (what, text, words) in [
        ("not PEM", "hello", "no private key: not a PEM file"),
        ("empty", "", "no private key: not a PEM file"),
        (
            "a certificate",
            certificate.unwrap().as_str(),
            "no private key: the PEM block is a CERTIFICATE",
        ),
        (
            "garbage",
            garbage,
            "key.pem: not a PKCS#8, SEC1 or PKCS#1 private key",
        ),
        (
            "another key",
            other.as_str(),
            "the CA key does not belong to the CA certificate",
        ),
    ] {
        let file = write(folder.path(), "key.pem", text);
        refuses(what, &mut serve_with(&instance, "--ca-key", &file), words);
    }
    let missing = folder.path().join("missing.pem");
    let mut command = serve_with(&instance, "--ca-key", &missing);
    refuses("missing", &mut command, "missing.pem: No such file");
}

/// K01, K05
#[test]
fn an_encrypted_key_needs_its_passphrase_from_a_file() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let password = |name: &str, text: &str| write(folder.path(), name, text);
    let right = password("right", "correct horse\n");
    let data_dir = folder.path().join("data");
    let arguments = ["init", "--public-url", "http://ca.example.com"];
    let outcome = run(mayfly(arguments)
        .arg("--data-dir")
        .arg(&data_dir)
        .arg("--password-file")
        .arg(&right));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let url = "https://accounts.example.com";
    write(
        &data_dir,
        "identity.yaml",
        &format!(
            "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"
        ),
    );
    let serve = |password: Option<&Path>| {
        let mut command = mayfly([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
        ]);
        command
            .args(["--log-format", "json", "--workers", "1", "--config"])
            .arg(data_dir.join("mayfly.yaml"));
        if let Some(file) = password {
            command.arg("--ca-key-password-file").arg(file);
        }
        command
    };
    refuses(
        "none",
        &mut serve(None),
        "this key is encrypted; name the file that holds its passphrase with --ca-key-password-file",
    );
    for (name, text, words) in [
        (
            "wrong",
            "wrong horse",
            "the passphrase does not decrypt this key",
        ),
        ("empty", "\n", "the passphrase file is empty"),
    ] {
        refuses(name, &mut serve(Some(&password(name, text))), words);
    }
    let missing = folder.path().join("missing");
    refuses(
        "missing",
        &mut serve(Some(&missing)),
        "missing: No such file",
    );

    let process = Process::start(&mut serve(Some(&right)));
    process.terminate();
    let (code, lines) = process.end();
    assert_eq!(code, 0, "{lines:?}");
    assert!(!lines.concat().contains("correct horse"));
}

/// K02
#[test]
fn a_key_that_others_can_replace_is_refused_at_the_start() {
    let instance = Instance::new();
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    for folder in [instance.data_dir().join("ca/current"), instance.log()] {
        set_mode(&folder, 0o707);
        refuses(
            "a folder",
            &mut instance.serve(),
            "everyone can replace this private key, as its folder has mode 0707; run `chmod o-w` on the folder",
        );
        let process = Process::start(instance.serve().arg("--allow-insecure-permissions"));
        process.terminate();
        assert_eq!(process.end().0, 0);
        set_mode(&folder, 0o700);
    }
}

/// K05
#[test]
fn no_argument_holds_a_passphrase() {
    for command in [&["serve"][..], &["init"], &["dev"], &["trust", "export"]] {
        let help = run(&mut mayfly(command.iter().copied().chain(["--help"])));
        assert_eq!(help.code, 0, "{help:?}");
        let flags = help
            .stdout
            .split(|character: char| !(character.is_ascii_alphanumeric() || character == '-'))
            .filter(|word| word.starts_with("--"));
        for flag in flags.filter(|flag| flag.contains("pass")) {
            let is_harmless = flag.ends_with("-file") || flag == "--no-password";
            assert!(is_harmless, "{command:?} {flag}");
        }
    }
    let outcome = run(&mut mayfly(["serve", "--ca-key-password", "correct horse"]));
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(!outcome.stderr.contains("correct horse"), "{outcome:?}");
}

/// K10
#[test]
fn only_dev_makes_a_ca_to_throw_away_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let serve = run(mayfly(["serve", "--data-dir"]).arg(&data_dir));
    assert_eq!(serve.code, 3, "{serve:?}");
    assert!(!data_dir.exists(), "nothing is made in passing");

    let arguments = [
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
    ];
    let dev = Process::start(mayfly(arguments).current_dir(folder.path()));
    let banner = "DEV MODE: test identity provider enabled, do not expose";
    assert!(
        dev.lines().contains(&banner.to_owned()),
        "{:?}",
        dev.lines()
    );
    let answer = http::send(dev.address, &Request::get("/api/v2/trustBundle"));
    let chains: Value = answer.json();
    let chain = chains["chains"][0]["certificates"].as_array().unwrap();
    for certificate in chain {
        let (_, block) =
            x509_parser::pem::parse_x509_pem(certificate.as_str().unwrap().as_bytes()).unwrap();
        let subject = block.parse_x509().unwrap().subject().to_string();
        assert!(subject.contains("Mayfly dev"), "{subject}");
    }
    dev.terminate();
    assert_eq!(dev.end().0, 0);
}
