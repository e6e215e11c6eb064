//! Logs on a disk, good and damaged, looked at from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::runtime;
use url::Url;

use super::certificate::Stamped;
use super::entries::{CtEntries, EntryDetails, EntryKind};
use super::export::{ExportError, export};
use super::follow::{ContradictionKind, FollowError, Follower, entries_from};
use super::fsck::{Report, check, check_journal};
use super::source::FolderSource;
use super::tree::CheckedTree;
use super::*;
use crate::clock::SystemClock;
use crate::ctlog::embedded::{EmbeddedLog, EmbeddedLogConfig, EmbeddedLogParts};
use crate::ctlog::sct::SctExtensions;
use crate::ctlog::testing::chain;
use crate::ctlog::{CtLog as _, Submission};
use crate::keys::Signer as _;
use crate::keys::deterministic::DeterministicKey;
use crate::random::SeededRandom;
use crate::store::Folder;
use crate::store::folder::FolderOptions;
use crate::tlog::tree::{leaf_hash, sha256, verify_consistency, verify_inclusion};
use crate::x509::chain::CertificateChain;

/// Where a log lives.
struct Place {
    folder: TempDir,
    chain: CertificateChain,
    sct_extensions: SctExtensions,
}

impl Place {
    /// A log with so many entries, all of them published.
    fn with(entries: usize) -> Self {
        Self::created(SctExtensions::LeafIndex).grown(entries)
    }

    fn created(sct_extensions: SctExtensions) -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            chain: chain(),
            sct_extensions,
        };
        EmbeddedLog::create(&place.settings(), &place.parts()).unwrap();
        place
    }

    fn settings(&self) -> crate::ctlog::embedded::EmbeddedLogSettings {
        let config = EmbeddedLogConfig {
            sct_extensions: self.sct_extensions,
            ..EmbeddedLogConfig::default()
        };
        let url = Url::parse("https://ca.example").unwrap();
        config.check(&url).unwrap()
    }

    fn parts(&self) -> EmbeddedLogParts {
        let random = Arc::new(SeededRandom::new(1));
        let options = FolderOptions {
            allow_volatile: true,
            allow_network: true,
        };
        let folder = Folder::open(self.folder.path(), options, random.clone());
        EmbeddedLogParts {
            store: Arc::new(folder.unwrap()),
            signer: Arc::new(DeterministicKey::new(0x11)),
            clock: Arc::new(SystemClock),
            random,
            metrics: None,
            on_fatal: Arc::new(|why| panic!("{why}")),
        }
    }

    fn open(&self) -> EmbeddedLog {
        EmbeddedLog::open(self.settings(), &self.parts()).unwrap()
    }

    /// The same log with so many entries more.
    fn grown(self, entries: usize) -> Self {
        let log = self.open();
        self.submit(&log, entries);
        log.shutdown();
        self
    }

    fn submit(&self, log: &EmbeddedLog, entries: usize) {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let submission = Arc::new(self.submission());
        let submitted = (0..entries).map(|_| log.submit(Arc::clone(&submission)));
        for answer in runtime.unwrap().block_on(join_all(submitted)) {
            answer.unwrap();
        }
    }

    /// A precertificate that is one, as far as a log looks.
    fn submission(&self) -> Submission {
        let golden = crate::ctlog::testing::submission();
        Submission {
            issuer_key_hash: sha256(&[self.chain.issuing().public_key_der()]),
            chain: Arc::new(self.chain.clone()),
            ..golden
        }
    }

    fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files(self.folder.path()) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::create_dir_all(folder.path().join("tmp")).unwrap();
        Self {
            folder,
            chain: self.chain.clone(),
            sct_extensions: self.sct_extensions,
        }
    }

    fn source(&self) -> FolderSource {
        source(self.folder.path())
    }

    /// The log's files as a web server would have them.
    fn exported(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let source = self.source();
        let checkpoint = checkpoint(&source);
        let all = |_| ();
        export(&source, None, &CtEntries, &checkpoint, folder.path(), &all).unwrap();
        folder
    }
}

fn key() -> Vec<u8> {
    DeterministicKey::new(0x11).public_key_der().to_vec()
}

fn source(folder: &Path) -> FolderSource {
    FolderSource::new(folder, &key(), Arc::new(CtEntries))
}

fn checkpoint(source: &FolderSource) -> Checkpoint {
    Checkpoint::read(source, &key(), Some("ca.example/ct/main")).unwrap()
}

/// Everything that `fsck` finds in a folder.
fn fsck(folder: &Path) -> Report {
    let source = source(folder);
    let checkpoint = checkpoint(&source);
    let mut report = check(&source, &CtEntries, &checkpoint, &|_| ()).unwrap();
    if source.has_journal() {
        check_journal(&source, &CtEntries, &checkpoint, &mut report).unwrap();
    }
    report
}

fn findings(folder: &Path) -> Vec<String> {
    let report = fsck(folder);
    let findings = report.findings.iter();
    findings
        .map(|finding| format!("{}: {}", finding.place, finding.what))
        .collect()
}

/// The files below a folder: relative name → content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_good_log_has_no_findings_in_the_folder_of_a_server_and_in_an_export() {
    for entries in [0, 1, 255, 256, 257, 600] {
        let place = Place::with(entries);
        let report = fsck(place.folder.path());
        assert_eq!(report.findings, [], "{entries} entries");
        assert_eq!(report.entries, entries as u64);
        assert_eq!(report.unpublished, Some(0), "{entries} entries");
        let exported = place.exported();
        assert_eq!(fsck(exported.path()).findings, [], "{entries} entries");
        assert_eq!(fsck(exported.path()).segments, None);
    }
}

#[test]
fn a_log_without_indexes_in_its_timestamps_is_good_too() {
    let place = Place::created(SctExtensions::None).grown(3);
    assert_eq!(findings(place.folder.path()), Vec::<String>::new());
}

#[test]
fn every_damage_is_found_once_and_where_it_lies() {
    let place = Place::with(600);
    let issuer = issuer_name(place.chain.root().fingerprint());
    let exported = place.exported();
    for (name, flipped, removed) in [
        (
            "tile/data/000",
            "tile/data/000, entry 128: it is not the one that was logged",
            "tile/data/000: it is missing",
        ),
        (
            "tile/0/001",
            "tile/0/001: its hash 128 is not the one of what lies below it",
            "tile/0/001: it is missing",
        ),
        (
            "tile/0/002.p/88",
            "tile/0/002.p/88: its hash 44 is not the one of what lies below it",
            "tile/0/002.p/88: it is missing",
        ),
        (
            "tile/1/000.p/2",
            "tile/1/000.p/2: its hash 1 is not the one of what lies below it",
            "tile/1/000.p/2: it is missing",
        ),
        (
            "tile/data/002.p/88",
            "tile/data/002.p/88, entry ",
            "tile/data/002.p/88: it is missing",
        ),
        (
            &issuer,
            "its content does not have the hash that its name says",
            "it is missing, and entry 0 names it",
        ),
    ] {
        for (server, folder) in [(true, place.folder.path()), (false, exported.path())] {
            let path = folder.join(name);
            if server && name.contains(".p/") {
                assert!(!path.exists(), "the server makes {name} when it is asked");
                continue;
            }
            let good = fs::read(&path).unwrap();
            flip(&path);
            let found = findings(folder);
            assert!(found[0].contains(flipped), "{name}: {found:#?}");
            assert_eq!(found.len(), 1, "{name}: {found:#?}");
            fs::remove_file(&path).unwrap();
            let found = findings(folder);
            assert!(found[0].contains(removed), "{name}: {found:#?}");
            assert_eq!(found.len(), 1, "{name}: {found:#?}");
            fs::write(&path, good).unwrap();
        }
    }
    assert_eq!(findings(place.folder.path()), Vec::<String>::new());
}

#[test]
fn an_entry_that_was_replaced_with_its_leaf_shows_at_the_root() {
    let place = Place::with(300);
    let folder = place.exported();
    // Everything above is made to fit, as whoever has the files and not the key can.
    let tile = fs::read(folder.path().join("tile/data/000")).unwrap();
    let (first, rest) = CtEntries.split_first_pair(&tile);
    let forged = [&first[..7], &[first[7] ^ 1], &first[8..], rest].concat();
    fs::write(folder.path().join("tile/data/000"), &forged).unwrap();
    let mut hashes = fs::read(folder.path().join("tile/0/000")).unwrap();
    let (entry, _) = CtEntries.split_first_pair(&forged);
    hashes[..32].copy_from_slice(&CtEntries.hash_of(entry));
    fs::write(folder.path().join("tile/0/000"), &hashes).unwrap();
    let above = crate::tlog::tile::perfect_root(&hashes);
    fs::write(folder.path().join("tile/1/000.p/1"), above).unwrap();

    let found = findings(folder.path());
    assert!(
        found
            .iter()
            .any(|line| line == "checkpoint: the entries do not have the root that it signs"),
        "{found:#?}"
    );
    let source = source(folder.path());
    let error = CheckedTree::open(&source, &CtEntries, &checkpoint(&source)).unwrap_err();
    assert!(error.to_string().contains("right edge"), "{error}");
}

#[test]
fn a_journal_that_was_changed_cut_or_replaced_is_found() {
    let place = Place::with(300);
    let wal = place.folder.path().join("journal/0000000000000000.wal");
    let good = fs::read(&wal).unwrap();
    let mut bytes = good.clone();
    bytes[500] ^= 1;
    fs::write(&wal, &bytes).unwrap();
    let found = findings(place.folder.path());
    assert!(
        found.iter().any(|line| line.starts_with("journal")),
        "{found:#?}"
    );

    bytes = good;
    bytes[68..].fill(0);
    fs::write(&wal, &bytes).unwrap();
    let found = findings(place.folder.path());
    let expected = "journal: it ends after 0 entries, and the checkpoint covers 300";
    assert!(found.iter().any(|line| line == expected), "{found:#?}");
}

#[test]
fn a_checkpoint_that_the_key_did_not_sign_is_not_believed() {
    let place = Place::with(3);
    let source = place.source();
    let other = DeterministicKey::new(0x22);
    let error = Checkpoint::read(&source, other.public_key_der(), None).unwrap_err();
    assert!(matches!(error, AuditError::Checkpoint(_)), "{error}");
    let error = Checkpoint::read(&source, &key(), Some("other.example/log")).unwrap_err();
    assert!(error.to_string().contains("ca.example/ct/main"), "{error}");
    fs::write(place.folder.path().join("checkpoint"), "").unwrap();
    assert!(Checkpoint::read(&source, &key(), None).is_err());
    fs::remove_file(place.folder.path().join("checkpoint")).unwrap();
    let error = Checkpoint::read(&source, &key(), None).unwrap_err();
    assert!(matches!(error, AuditError::Missing(_)), "{error}");
}

#[test]
fn proofs_verify_and_leaves_are_found() {
    let place = Place::with(600);
    let source = place.source();
    let checkpoint = checkpoint(&source);
    let head = checkpoint.signed.head;
    let tree = CheckedTree::open(&source, &CtEntries, &checkpoint).unwrap();
    for index in [0, 255, 256, 511, 512, 599] {
        let tile = tree.entries(index / 256).unwrap();
        let (entry, leaf) = &tile[usize::try_from(index % 256).unwrap()];
        assert_eq!(CtEntries.hash_of(entry), *leaf);
        let proof = tree.inclusion_proof(index).unwrap();
        assert!(verify_inclusion(leaf, index, 600, &proof, &head.root));
        assert_eq!(tree.find(leaf).unwrap(), Some(index));
    }
    assert_eq!(tree.find(&leaf_hash(b"not there")).unwrap(), None);
    for size in [1, 256, 300, 600] {
        let proof = tree.consistency_proof(size).unwrap();
        let root = tree.root_at(size).unwrap();
        assert!(
            verify_consistency(size, &root, 600, &head.root, &proof),
            "{size}"
        );
    }
    assert!(tree.inclusion_proof(600).is_err());
    assert!(tree.consistency_proof(601).is_err());
    assert!(tree.entries(3).is_err());
}

#[test]
fn no_proof_rests_on_a_tile_that_is_not_the_trees() {
    let place = Place::with(600);
    flip(&place.folder.path().join("tile/0/000"));
    let source = place.source();
    let tree = CheckedTree::open(&source, &CtEntries, &checkpoint(&source));
    // The edge is made from it, so nothing at all is believed here; from files of a web server, all but this tile is.
    assert!(tree.is_err());
    let place = Place::with(600);
    let folder = place.exported();
    flip(&folder.path().join("tile/0/000"));
    let source = self::source(folder.path());
    let checkpoint = checkpoint(&source);
    let tree = CheckedTree::open(&source, &CtEntries, &checkpoint).unwrap();
    assert!(tree.inclusion_proof(5).is_err());
    assert!(tree.entries(0).is_err());
    assert!(tree.inclusion_proof(300).is_ok());
}

#[test]
fn a_log_is_read_while_it_grows() {
    let place = Place::with(250);
    let log = place.open();
    let mut sizes = Vec::new();
    for _ in 0..5 {
        place.submit(&log, 60);
        let report = fsck(place.folder.path());
        assert_eq!(report.findings, []);
        let unpublished = report.unpublished.unwrap();
        assert_eq!(report.entries + unpublished, log.tip_size());
        sizes.push(log.tip_size());
    }
    assert_eq!(sizes, [310, 370, 430, 490, 550]);
}

#[test]
fn a_log_is_read_whose_server_ended_between_two_tiles_of_the_same_entries() {
    for written in ["tile/data/000", "tile/0/000"] {
        let place = Place::with(200);
        let path = |name: &str| place.folder.path().join(name);
        let before = fs::read(path("checkpoint")).unwrap();
        let grown = place.copy().grown(100);
        for name in files(grown.folder.path()).keys() {
            if name.starts_with("journal") {
                fs::copy(
                    grown.folder.path().join(name),
                    place.folder.path().join(name),
                )
                .unwrap();
            }
        }
        fs::create_dir_all(path(written).parent().unwrap()).unwrap();
        fs::copy(grown.folder.path().join(written), path(written)).unwrap();
        assert_eq!(fs::read(path("checkpoint")).unwrap(), before);

        let source = place.source();
        let checkpoint = checkpoint(&source);
        let tree = CheckedTree::open(&source, &CtEntries, &checkpoint).unwrap();
        assert_eq!(tree.entries(0).unwrap().len(), 200, "{written}");
        assert_eq!(fsck(place.folder.path()).findings, [], "{written}");
    }
}

#[test]
fn an_export_is_the_same_from_journal_and_tiles_and_has_the_servers_own_files() {
    let place = Place::with(600);
    let from_tiles = place.exported();
    let source = place.source();
    let checkpoint = checkpoint(&source);
    let from_journal = tempfile::tempdir().unwrap();
    let folder = from_journal.path().join("new/folder");
    // The journal needs no tile at all.
    fs::remove_dir_all(place.folder.path().join("tile")).unwrap();
    fs::remove_file(place.folder.path().join("state.json")).unwrap();
    let all = |_| ();
    let exported = export(
        &source,
        Some(&source),
        &CtEntries,
        &checkpoint,
        &folder,
        &all,
    )
    .unwrap();
    assert_eq!((exported.entries, exported.certificates), (600, 1));
    assert_eq!(files(&folder), files(from_tiles.path()));

    // A start without tiles makes the same ones again.
    drop(place.open());
    let rebuilt = files(&place.folder.path().join("tile"));
    assert_eq!(rebuilt.len(), 4);
    for (name, tile) in rebuilt {
        let path = folder.join("tile").join(&name);
        assert_eq!(fs::read(path).unwrap(), tile, "{}", name.display());
    }
    let again = export(&source, None, &CtEntries, &checkpoint, &folder, &all);
    assert!(matches!(again, Err(ExportError::NotEmpty(_))), "{again:?}");
}

#[test]
fn an_export_of_a_damaged_log_has_no_checkpoint() {
    let place = Place::with(300);
    let source = place.source();
    let checkpoint = checkpoint(&source);
    flip(&place.folder.path().join("tile/data/000"));
    let folder = tempfile::tempdir().unwrap();
    let exported = export(
        &source,
        None,
        &CtEntries,
        &checkpoint,
        folder.path(),
        &|_| (),
    );
    assert!(exported.is_err());
    assert!(!folder.path().join("checkpoint").exists());
}

/// Follows `before`, then looks at `after`.
fn follow(before: &Place, after: &Place) -> Result<u64, ContradictionKind> {
    let mut follower = Follower {
        public_key_der: key(),
        origin: None,
        last: None,
    };
    let look = follower.look(&before.source(), &CtEntries).unwrap();
    follower.believe(look.checkpoint);
    match follower.look(&after.source(), &CtEntries) {
        Ok(look) => Ok(look.checkpoint.signed.head.size),
        Err(FollowError::Contradiction(contradiction)) => Err(contradiction.kind),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_log_that_extends_what_was_known_is_believed() {
    let place = Place::with(5);
    let before = place.copy();
    assert_eq!(follow(&before, &before), Ok(5));
    let place = place.grown(0);
    assert_eq!(follow(&before, &place), Ok(5), "signed again");
    // The older signature of the same tree is no contradiction, and is not taken.
    assert_eq!(follow(&place, &before), Ok(5));
    let place = place.grown(300);
    assert_eq!(follow(&before, &place), Ok(305));
    let empty = Place::with(0);
    let grown = empty.copy().grown(7);
    assert_eq!(follow(&empty, &grown), Ok(7));
}

#[test]
fn a_clone_a_fork_and_an_older_copy_are_refused() {
    let original = Place::with(10);
    let clone = original.copy();
    let backup = original.copy();
    let original = original.grown(10);
    assert_eq!(
        follow(&original, &backup),
        Err(ContradictionKind::RolledBack)
    );
    let clone = clone.grown(10);
    assert_eq!(follow(&original, &clone), Err(ContradictionKind::SplitView));
    let clone = clone.grown(10);
    assert_eq!(follow(&original, &clone), Err(ContradictionKind::Fork));
    assert_eq!(
        follow(&backup, &clone),
        Ok(30),
        "who saw nothing else cannot know"
    );
}

#[test]
fn followers_get_every_entry_from_where_they_were() {
    let place = Place::with(520);
    let source = place.source();
    let checkpoint = checkpoint(&source);
    let mut seen = Vec::new();
    entries_from(
        &source,
        &CtEntries,
        &checkpoint,
        250,
        |index, entry, leaf| {
            let details = EntryDetails::of(index, entry, leaf);
            assert_eq!(details.san, ["a0@mayfly.test"]);
            assert_eq!(details.issuer.as_deref(), Some("https://issuer.test"));
            assert_eq!(details.kind, "precertificate");
            seen.push(index);
            index < 515
        },
    )
    .unwrap();
    assert_eq!(seen, (250..=515).collect::<Vec<_>>());
}

#[test]
fn a_certificate_without_a_timestamp_of_the_log_is_not_in_it() {
    let place = Place::with(1);
    let certificate = place.chain.root().der();
    let error = Stamped::read(certificate, &key()).unwrap_err();
    assert!(error.to_string().contains("no timestamp"), "{error}");
    assert!(Stamped::read(b"", &key()).is_err());
}

impl CtEntries {
    fn split_first_pair(self, tile: &[u8]) -> (&[u8], &[u8]) {
        EntryKind::split_first(&self, tile).unwrap()
    }

    fn hash_of(self, entry: &[u8]) -> Hash {
        EntryKind::leaf_hash(&self, entry)
    }
}
