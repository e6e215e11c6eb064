//! Reads the files of a static-ct-api log with the crates `static_ct_api`, `tlog_tiles` and `signed_note`, and verifies all of
//! it: `static-ct-reader FOLDER PUBLIC_KEY.pem ORIGIN`. Prints how many entries the log has.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use p256::ecdsa::VerifyingKey;
use p256::pkcs8::DecodePublicKey;
use sha2::{Digest, Sha256};
use signed_note::{Note, VerifierList};
use static_ct_api::{RFC6962Verifier, TILE_HEIGHT, TILE_WIDTH, TileIterator, tile_path};
use tlog_tiles::{
    Checkpoint, Error as TlogError, Hash, HashReader, Tile, TileHashReader, TileReader,
    check_record, check_tree, prove_record, prove_tree, record_hash, stored_hash_index, tree_hash,
};

/// Tiles in a folder.
struct Files(PathBuf);

impl TileReader for Files {
    fn height(&self) -> u8 {
        TILE_HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, TlogError> {
        let read = |tile: &Tile| -> Result<Vec<u8>, TlogError> {
            // It knows no error for a file that is not there.
            fs::read(self.0.join(tile_path(tile))).map_err(|_| TlogError::InvalidTile)
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, key, origin] = arguments.as_slice() else {
        eprintln!("usage: static-ct-reader FOLDER PUBLIC_KEY.pem ORIGIN");
        return ExitCode::from(2);
    };
    match verify(Path::new(folder), key, origin) {
        Ok(entries) => {
            println!("verified {entries} entries");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("static-ct-reader: {error}");
            ExitCode::FAILURE
        }
    }
}

fn verify(folder: &Path, key: &str, origin: &str) -> Result<u64, Box<dyn Error>> {
    let key = VerifyingKey::from_public_key_pem(&fs::read_to_string(key)?)?;
    let note = Note::from_bytes(&fs::read(folder.join("checkpoint"))?)?;
    let verifier = RFC6962Verifier::new(origin, &key)?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)]))?;
    let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|_| "malformed checkpoint")?;
    if checkpoint.origin() != origin || !checkpoint.extension().is_empty() {
        return Err("a checkpoint of another log".into());
    }
    let (size, root) = (checkpoint.size(), *checkpoint.hash());
    let files = Files(folder.to_owned());
    let tree = TileHashReader::new(size, root, &files);
    if size > 0 && tree_hash(size, &tree)? != root {
        return Err("the tiles have another root".into());
    }
    for first in (0..size).step_by(TILE_WIDTH as usize) {
        let width = u32::try_from((size - first).min(TILE_WIDTH.into()))?;
        check_tile(folder, &tree, first, width)?;
    }
    for index in [0, 1, 255, 256, size / 2, size.saturating_sub(1)] {
        if index < size {
            check_proofs(&tree, size, root, index)?;
        }
    }
    Ok(size)
}

/// Checks every entry of a data tile against its leaf, its place, its octets and the certificates that it names.
fn check_tile(
    folder: &Path,
    tree: &impl HashReader,
    first: u64,
    width: u32,
) -> Result<(), Box<dyn Error>> {
    let tile = Tile::new(TILE_HEIGHT, 0, first / u64::from(TILE_WIDTH), width, true);
    let bytes = fs::read(folder.join(tile_path(&tile)))?;
    let mut again = Vec::new();
    for (index, entry) in (first..).zip(TileIterator::new(bytes.clone(), width as usize)) {
        let entry = entry?;
        let leaf = tree.read_hashes(&[stored_hash_index(0, index)])?;
        if entry.leaf_index != index || leaf != [record_hash(&entry.merkle_tree_leaf())] {
            return Err(format!("entry {index} is not its leaf").into());
        }
        for fingerprint in &entry.chain_fingerprints {
            let name: String = fingerprint
                .iter()
                .map(|octet| format!("{octet:02x}"))
                .collect();
            let certificate = fs::read(folder.join("issuer").join(&name))?;
            if <[u8; 32]>::from(Sha256::digest(certificate)) != *fingerprint {
                return Err(format!("issuer {name} is another certificate").into());
            }
        }
        again.extend(entry.tile_leaf());
    }
    if again == bytes {
        Ok(())
    } else {
        Err(format!("the data tile of entry {first} is not what its entries are").into())
    }
}

/// Makes and checks the proof of one entry, and of the tree that ends with it.
fn check_proofs(
    tree: &impl HashReader,
    size: u64,
    root: Hash,
    index: u64,
) -> Result<(), Box<dyn Error>> {
    let leaf = tree.read_hashes(&[stored_hash_index(0, index)])?[0];
    check_record(&prove_record(size, index, tree)?, size, root, index, leaf)?;
    let smaller = tree_hash(index + 1, tree)?;
    check_tree(
        &prove_tree(size, index + 1, tree)?,
        size,
        root,
        index + 1,
        smaller,
    )?;
    Ok(())
}
