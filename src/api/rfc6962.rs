//! Reading the embedded log as RFC 6962 has it (section 4): the same tree as the tiles, proof by proof and entry by entry.
//!
//! Answers are for published sizes only. What a URL with its parameters gives never changes, but for the tree head, and for
//! ranges that end where the tree does.

use std::borrow::Cow;
use std::collections::HashMap;

use actix_web::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use url::form_urlencoded;

use super::page::{JSON, Page};
use crate::ctlog::embedded::EmbeddedLog;
use crate::ctlog::leaf::TileLeaf;
use crate::store::StoreError;
use crate::tlog::leaf_index::Found;
use crate::tlog::tile::{TILE_WIDTH, TileKind, TilePath};
use crate::tlog::tree::Hash;

/// An answer that stays true.
const STABLE: &str = "public, max-age=86400";
/// Entries up to the end of the tree, which grows.
const SHORTENED: &str = "public, max-age=60";
/// The tree head.
const NO_STORE: &str = "no-store";

/// Answers `<log>/ct/v1/<call>?<query>`; nothing when there is no such call.
pub(super) fn answer(
    log: &EmbeddedLog,
    call: &str,
    query: &str,
) -> Result<Option<Page>, StoreError> {
    let reader = Reader {
        log,
        parameters: Parameters(query),
    };
    let page = match call {
        "get-sth" => Ok(reader.tree_head()),
        "get-sth-consistency" => reader.consistency(),
        "get-proof-by-hash" => reader.proof_by_hash(),
        "get-entries" => reader.entries(),
        "get-entry-and-proof" => reader.entry_and_proof(),
        _ => return Ok(None),
    };
    match page {
        Ok(page) | Err(Refused::Page(page)) => Ok(Some(page)),
        Err(Refused::Store(error)) => Err(error),
    }
}

/// The name of a call in metrics and logs.
pub(super) fn endpoint_name(call: &str) -> &'static str {
    match call {
        "get-sth" => "ct_get_sth",
        "get-sth-consistency" => "ct_get_sth_consistency",
        "get-proof-by-hash" => "ct_get_proof_by_hash",
        "get-entries" => "ct_get_entries",
        "get-roots" => "ct_get_roots",
        "get-entry-and-proof" => "ct_get_entry_and_proof",
        _ => "other",
    }
}

/// Why a call gives no result.
enum Refused {
    Page(Page),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn bad_request(text: &str) -> Refused {
    Refused::Page(Page::error(StatusCode::BAD_REQUEST, text))
}

fn not_found(text: &str) -> Refused {
    Refused::Page(Page::error(StatusCode::NOT_FOUND, text))
}

/// One call.
struct Reader<'a> {
    log: &'a EmbeddedLog,
    parameters: Parameters<'a>,
}

impl Reader<'_> {
    /// `get-sth`: the published checkpoint, its very signature.
    fn tree_head(&self) -> Page {
        self.log.log().refresh();
        let Some(signed) = self.log.signed_head() else {
            return Page::no_checkpoint();
        };
        let body = json!({
            "tree_size": signed.head.size,
            "timestamp": signed.head.timestamp,
            "sha256_root_hash": STANDARD.encode(signed.head.root),
            "tree_head_signature": STANDARD.encode(signed.signature),
        });
        found(NO_STORE, &body)
    }

    /// `get-sth-consistency`.
    fn consistency(&self) -> Result<Page, Refused> {
        let first = self.parameters.number("first")?;
        let second = self.parameters.number("second")?;
        if second < first {
            return Err(bad_request("`second` is smaller than `first`"));
        }
        let proof = if first == 0 {
            // Every tree extends the one of nothing.
            Vec::new()
        } else {
            self.log
                .log()
                .consistency_proof(first, second)?
                .ok_or_else(|| bad_request("`second` is larger than the published tree"))?
        };
        Ok(found(STABLE, &json!({ "consistency": encoded(&proof) })))
    }

    /// `get-proof-by-hash`.
    fn proof_by_hash(&self) -> Result<Page, Refused> {
        let hash = self.parameters.hash("hash")?;
        let size = self.parameters.number("tree_size")?;
        if size == 0 {
            return Err(bad_request("`tree_size` is 0: that tree has no leaf"));
        }
        if size > self.size()? {
            return Err(not_found("`tree_size` is larger than the published tree"));
        }
        let index = self.log.leaf_index().ok_or_else(|| {
            not_found(
                "this log keeps no index of hashes; make the proof from its tiles, as `mayfly log proof` does",
            )
        })?;
        let index = match index.find(self.log.log(), &hash)? {
            Found::At(index) if index < size => index,
            Found::At(_) | Found::Nowhere => {
                return Err(not_found("no entry of that tree has this hash"));
            }
            Found::NotYet => {
                return Err(Refused::Page(Page::error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the index of hashes is not filled yet",
                )));
            }
        };
        let proof = self.inclusion_proof(index, size)?;
        let body = json!({ "leaf_index": index, "audit_path": encoded(&proof) });
        Ok(found(STABLE, &body))
    }

    /// `get-entries`: up to the end of the data tile, so that ranges of followers come to lie on its borders.
    fn entries(&self) -> Result<Page, Refused> {
        let start = self.parameters.number("start")?;
        let end = self.parameters.number("end")?;
        if end < start {
            return Err(bad_request("`end` is smaller than `start`"));
        }
        let size = self.size()?;
        if start >= size {
            return Err(bad_request("`start` is behind the published tree"));
        }
        let last_of_tile = start - start % TILE_WIDTH + TILE_WIDTH - 1;
        let last = end.min(last_of_tile).min(size - 1);
        let entries = self.read_entries(start, last)?;
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(input, extra)| json!({ "leaf_input": input, "extra_data": extra }))
            .collect();
        let is_shortened = last < end.min(last_of_tile);
        let cache_control = if is_shortened { SHORTENED } else { STABLE };
        Ok(found(cache_control, &json!({ "entries": entries })).compressible())
    }

    /// `get-entry-and-proof`.
    fn entry_and_proof(&self) -> Result<Page, Refused> {
        let index = self.parameters.number("leaf_index")?;
        let size = self.parameters.number("tree_size")?;
        if size > self.size()? {
            return Err(bad_request("`tree_size` is larger than the published tree"));
        }
        if index >= size {
            return Err(bad_request(
                "`leaf_index` is not in a tree of `tree_size` leaves",
            ));
        }
        let proof = self.inclusion_proof(index, size)?;
        let (input, extra) = self.read_entries(index, index)?.pop().unwrap_or_default();
        let body = json!({
            "leaf_input": input,
            "extra_data": extra,
            "audit_path": encoded(&proof),
        });
        Ok(found(STABLE, &body))
    }

    /// The size of the published tree.
    fn size(&self) -> Result<u64, Refused> {
        let head = self.log.head();
        head.map(|head| head.size)
            .ok_or_else(|| Refused::Page(Page::no_checkpoint()))
    }

    fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, Refused> {
        let proof = self.log.log().inclusion_proof(index, size)?;
        proof.ok_or_else(|| not_found("the published tree has no such entry"))
    }

    /// `leaf_input` and `extra_data` of the published entries from `first` to `last`, which lie in one data tile.
    fn read_entries(&self, first: u64, last: u64) -> Result<Vec<(String, String)>, Refused> {
        let tile_index = first / TILE_WIDTH;
        let path = TilePath::of_width(TileKind::Data, tile_index, last % TILE_WIDTH + 1);
        let damaged = || StoreError::Damaged(format!("{path} does not hold its entries"));
        let tile = self.log.tile(path)?.ok_or_else(damaged)?;
        let mut entries = Vec::new();
        // Nearly all entries of a log have one chain.
        let mut certificates = HashMap::new();
        let mut rest = tile.as_slice();
        for index in tile_index * TILE_WIDTH..=last {
            let (leaf, behind) = TileLeaf::read(rest).ok_or_else(damaged)?;
            rest = behind;
            if index < first {
                continue;
            }
            for fingerprint in leaf.chain() {
                if !certificates.contains_key(fingerprint) {
                    let der = self.log.issuer(fingerprint)?.ok_or_else(|| {
                        StoreError::Damaged("a certificate that entries name is missing".to_owned())
                    })?;
                    certificates.insert(*fingerprint, der);
                }
            }
            let chain = leaf.chain().filter_map(|one| certificates.get(one));
            let chain: Vec<_> = chain.collect();
            entries.push((
                STANDARD.encode(leaf.merkle_tree_leaf()),
                STANDARD.encode(leaf.extra_data(&chain)),
            ));
        }
        Ok(entries)
    }
}

fn found(cache_control: &'static str, body: &serde_json::Value) -> Page {
    Page::found(JSON, cache_control, body.to_string().into_bytes())
}

fn encoded(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

/// The query of a URL. Unknown parameters are passed over, and of two with one name the first counts.
struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    fn text(&self, name: &str) -> Result<Cow<'a, str>, Refused> {
        let mut pairs = form_urlencoded::parse(self.0.as_bytes());
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
            .ok_or_else(|| bad_request(&format!("the parameter `{name}` is missing")))
    }

    fn number(&self, name: &str) -> Result<u64, Refused> {
        let text = self.text(name)?;
        let is_decimal = text.bytes().all(|octet| octet.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|_| is_decimal)
            .ok_or_else(|| bad_request(&format!("the parameter `{name}` is not a number")))
    }

    fn hash(&self, name: &str) -> Result<Hash, Refused> {
        // A `+` that the client forgot to encode arrives as a space.
        let text = self.text(name)?.replace(' ', "+");
        let hash = STANDARD.decode(text).ok();
        hash.and_then(|hash| hash.try_into().ok()).ok_or_else(|| {
            bad_request(&format!(
                "the parameter `{name}` is not a SHA-256 hash in base64"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;
    use serde_json::Value;

    use super::super::ct::LogSite;
    use super::*;
    use crate::ctlog::embedded::EmbeddedLogConfig;
    use crate::ctlog::testing::{chain, new_log};
    use crate::ctlog::{CtLog as _, Submission};
    use crate::tlog::checkpoint::{LogIdentity, TreeHead};
    use crate::tlog::tree::{
        CompactRange, Nodes as _, leaf_hash, verify_consistency, verify_inclusion,
    };
    use crate::x509::chain::CertificateChain;

    /// A log with so many published entries, and the chain that they name.
    async fn site_of(entries: u16, config: EmbeddedLogConfig) -> (LogSite, CertificateChain) {
        let (log, chain) = (new_log(config), chain());
        let of_chain = Arc::new(chain.clone());
        let submissions = (0..entries).map(|number| Submission {
            precertificate: number.to_be_bytes().to_vec(),
            tbs: number.to_le_bytes().to_vec(),
            issuer_key_hash: [7; 32],
            chain: Arc::clone(&of_chain),
        });
        let entered = submissions.map(|submission| log.submit(Arc::new(submission)));
        for answer in join_all(entered).await {
            answer.unwrap();
        }
        log.shutdown();
        let site = LogSite::new(Arc::new(log), std::slice::from_ref(&chain));
        (site, chain)
    }

    async fn site() -> LogSite {
        site_of(600, EmbeddedLogConfig::default()).await.0
    }

    /// The answer to a call that succeeds.
    fn call(site: &LogSite, call: &str) -> Value {
        let (call, query) = call.split_once('?').unwrap_or((call, ""));
        let page = site.read(&format!("ct/v1/{call}"), query);
        let text = String::from_utf8_lossy(&page.body);
        assert_eq!(page.status, 200, "{call}?{query}: {text}");
        serde_json::from_slice(&page.body).unwrap()
    }

    fn bytes(value: &Value) -> Vec<u8> {
        STANDARD.decode(value.as_str().unwrap()).unwrap()
    }

    fn hash(value: &Value) -> Hash {
        bytes(value).try_into().unwrap()
    }

    fn hashes(list: &Value) -> Vec<Hash> {
        list.as_array().unwrap().iter().map(hash).collect()
    }

    /// The hash of a leaf, from the tree.
    fn leaf_at(site: &LogSite, index: u64) -> Hash {
        site.log().log().node(0, index).unwrap()
    }

    fn escaped(hash: &Hash) -> String {
        form_urlencoded::byte_serialize(STANDARD.encode(hash).as_bytes()).collect()
    }

    #[tokio::test]
    async fn the_tree_head_is_the_checkpoint_with_its_very_signature() {
        let site = site().await;
        let answer = call(&site, "get-sth");
        let head = TreeHead {
            size: answer["tree_size"].as_u64().unwrap(),
            root: hash(&answer["sha256_root_hash"]),
            timestamp: answer["timestamp"].as_u64().unwrap(),
        };
        assert_eq!(Some(head), site.log().head());
        let signature = bytes(&answer["tree_head_signature"]);
        let (start, signature) = signature.split_at(4);
        assert_eq!(start[..2], [4, 3], "SHA-256 with ECDSA");
        let key = LogIdentity::new("any name", site.log().public_key_der());
        assert!(key.verifies(&head.signed_bytes(), signature));
    }

    #[tokio::test]
    async fn entries_are_those_of_the_data_tiles_and_prove_to_be_in_the_tree() {
        let (site, chain) = site_of(600, EmbeddedLogConfig::default()).await;
        let root = site.log().head().unwrap().root;
        for index in [0, 1, 255, 256, 599] {
            let list = call(&site, &format!("get-entries?start={index}&end={index}"));
            let [entry] = list["entries"].as_array().unwrap().as_slice() else {
                panic!("{list}");
            };
            let extra = bytes(&entry["extra_data"]);
            let number = u16::try_from(index).unwrap();
            assert_eq!(extra[..5], [&[0, 0, 2][..], &number.to_be_bytes()].concat());
            assert!(extra.ends_with(chain.root().der()), "{index}");

            let both = call(
                &site,
                &format!("get-entry-and-proof?leaf_index={index}&tree_size=600"),
            );
            assert_eq!(both["leaf_input"], entry["leaf_input"]);
            assert_eq!(both["extra_data"], entry["extra_data"]);
            let leaf = leaf_hash(&bytes(&entry["leaf_input"]));
            let path = hashes(&both["audit_path"]);
            assert!(verify_inclusion(&leaf, index, 600, &path, &root), "{index}");

            let by_hash = call(
                &site,
                &format!("get-proof-by-hash?tree_size=600&hash={}", escaped(&leaf)),
            );
            assert_eq!(by_hash["leaf_index"], index);
            assert_eq!(by_hash["audit_path"], both["audit_path"]);
        }
    }

    #[tokio::test]
    async fn every_smaller_tree_is_proved_to_be_the_beginning() {
        let site = site().await;
        let root_of = |size: u64| {
            let leaves = (0..size).map(|index| leaf_at(&site, index));
            leaves.collect::<CompactRange>().root()
        };
        let root = site.log().head().unwrap().root;
        for first in [1, 2, 255, 256, 257, 512, 599, 600] {
            let path = format!("get-sth-consistency?first={first}&second=600");
            let proof = hashes(&call(&site, &path)["consistency"]);
            let old = root_of(first);
            assert!(
                verify_consistency(first, &old, 600, &root, &proof),
                "{first}"
            );
        }
    }

    #[tokio::test]
    async fn ranges_end_where_a_data_tile_or_the_tree_does() {
        let site = site().await;
        for (start, end, count, cache_control) in [
            (0, 0, 1, STABLE),
            (0, 255, 256, STABLE),
            (0, 100_000, 256, STABLE),
            (10, 300, 246, STABLE),
            (256, 511, 256, STABLE),
            (512, 599, 88, STABLE),
            (512, 600, 88, SHORTENED),
            (599, u64::MAX, 1, SHORTENED),
        ] {
            let page = site.read("ct/v1/get-entries", &format!("start={start}&end={end}"));
            let answer: Value = serde_json::from_slice(&page.body).unwrap();
            let entries = answer["entries"].as_array().unwrap();
            assert_eq!(entries.len(), count, "{start} to {end}");
            assert_eq!(page.cache_control, cache_control, "{start} to {end}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_answered_has_the_status_that_clients_know() {
        let site = site().await;
        let leaf = leaf_at(&site, 300);
        let (known, unknown) = (escaped(&leaf), escaped(&[0; 32]));
        for (status, call) in [
            (400, "get-entries"),
            (400, "get-entries?start=0"),
            (400, "get-entries?start=5&end=4"),
            (400, "get-entries?start=-1&end=4"),
            (400, "get-entries?start=x&end=4"),
            (400, "get-entries?start=&end=4"),
            (400, "get-entries?start=0&end=99999999999999999999"),
            (400, "get-entries?start=600&end=600"),
            (
                404,
                &format!("get-proof-by-hash?tree_size=600&hash={unknown}"),
            ),
            (
                404,
                &format!("get-proof-by-hash?tree_size=601&hash={known}"),
            ),
            (
                404,
                &format!("get-proof-by-hash?tree_size=300&hash={known}"),
            ),
            (400, &format!("get-proof-by-hash?tree_size=0&hash={known}")),
            (400, &format!("get-proof-by-hash?tree_size=-1&hash={known}")),
            (400, &format!("get-proof-by-hash?hash={known}")),
            (400, "get-proof-by-hash?tree_size=600"),
            (400, "get-proof-by-hash?tree_size=600&hash="),
            (400, "get-proof-by-hash?tree_size=600&hash=AAAA"),
            (400, "get-proof-by-hash?tree_size=600&hash=%%%"),
            (400, "get-sth-consistency?first=2&second=1"),
            (400, "get-sth-consistency?first=-1&second=1"),
            (400, "get-sth-consistency?first=0"),
            (400, "get-sth-consistency?second=5"),
            (400, "get-sth-consistency?first=1&second=601"),
            (400, "get-entry-and-proof?leaf_index=5&tree_size=5"),
            (400, "get-entry-and-proof?leaf_index=0&tree_size=0"),
            (400, "get-entry-and-proof?leaf_index=0&tree_size=601"),
            (400, "get-entry-and-proof?leaf_index=-1&tree_size=5"),
            (404, "get-anything"),
        ] {
            let (name, query) = call.split_once('?').unwrap_or((call, ""));
            let page = site.read(&format!("ct/v1/{name}"), query);
            assert_eq!(page.status, status, "{call}");
            assert_eq!(page.cache_control, NO_STORE, "{call}");
            assert!(!page.body.is_empty(), "{call}");
        }
    }

    #[tokio::test]
    async fn small_and_sloppy_requests_are_answered() {
        let site = site().await;
        let nothing = call(&site, "get-sth-consistency?first=0&second=999999");
        assert_eq!(nothing, json!({ "consistency": [] }));
        let same = call(&site, "get-sth-consistency?first=7&second=7&x=y&first=9");
        assert_eq!(same, json!({ "consistency": [] }));
        let only = call(&site, "get-entry-and-proof?leaf_index=0&tree_size=1");
        assert_eq!(only["audit_path"], json!([]));
        // Base64 as it is, with `+` for the `+` that a client forgot to encode.
        let sloppy = (0..600)
            .map(|index| STANDARD.encode(leaf_at(&site, index)))
            .find(|hash| hash.contains('+'))
            .unwrap();
        call(
            &site,
            &format!("get-proof-by-hash?hash={sloppy}&tree_size=600"),
        );
    }

    #[tokio::test]
    async fn without_an_index_no_hash_is_looked_up() {
        let config = EmbeddedLogConfig {
            proof_by_hash: Some(false),
            ..EmbeddedLogConfig::default()
        };
        let (site, _) = site_of(3, config).await;
        let hash = escaped(&leaf_at(&site, 1));
        let page = site.read(
            "ct/v1/get-proof-by-hash",
            &format!("hash={hash}&tree_size=3"),
        );
        assert_eq!(page.status, 404);
        assert!(String::from_utf8_lossy(&page.body).contains("no index"));
    }
}
