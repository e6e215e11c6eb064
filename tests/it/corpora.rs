//! The fuzz targets with what fuzzing found: every input of `fuzz/corpus/` still holds what its target asserts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[expect(
    unreachable_pub,
    reason = "the files are a library of their own for the fuzzer"
)]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

macro_rules! replay {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )+

        /// Every target has a test, a binary for the fuzzer, and a corpus.
        #[test]
        fn no_target_is_left_out() {
            let targets: BTreeSet<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(targets, [$(stringify!($name)),+].into(), "tests");
            let names = |folder: &str| names(&fuzz().join(folder));
            assert!(names("fuzz_targets").iter().eq(&targets), "binaries");
            assert!(names("corpus").iter().eq(&targets), "corpora");
            let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
            for name in &targets {
                let path = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"");
                assert!(manifest.contains(&path), "{name} in fuzz/Cargo.toml");
            }
        }
    };
}

replay! {
    certificate certificate_file checkpoint_parse csr data_tile discovery http_raw identity_yaml issuer_match journal_frame jwks jws_parse
    jwt_claims pem precert_pair proof pubkey request_grpc request_json rules sct_parse server_yaml template tile_path
    trusted_root
}

fn replay(name: &str) {
    let (_, target) = targets::TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let mut accepted = 0;
    let files = files(&fuzz().join("corpus").join(name));
    for file in &files {
        // What a failure shows last is the input that failed.
        println!("{}", file.display());
        accepted += usize::from(target(&std::fs::read(file).unwrap()));
    }
    // A corpus that is only refused, as after a change of format, says little.
    assert!(accepted > 0, "no input of {name} is accepted");
    assert!(accepted < files.len(), "no input of {name} is refused");
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The names of the files in a folder, without what follows a dot.
fn names(folder: &Path) -> BTreeSet<String> {
    let files = files(folder);
    let names = files.iter().map(|file| file.file_stem().unwrap());
    names
        .map(|name| name.to_str().unwrap().to_owned())
        .collect()
}
