//! Presets: what is known of issuers that many trust, so that an entry need not say it.
//!
//! Each is an identity file in `config/presets`, to be read, checked and copied like any other, with tests beside it. Its
//! entries are the forms that the issuer's URL may have. `EXAMPLE` stands for what differs between those who use it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use super::Checker;
use super::entry::Entry;
use super::finding::{Code, closest};
use super::raw::{self, RawFile, RawMetadata, Text};
use crate::excerpt::Excerpt;
use crate::identity::json::Object;

/// What an entry must say itself.
const PLACEHOLDER: &str = "EXAMPLE";

/// A preset.
#[derive(Debug)]
pub struct Preset {
    /// What `preset` names it by.
    pub name: &'static str,
    /// Its identity file.
    pub text: &'static str,
    /// Tokens, and what their certificates carry: a file of `mayfly test-config`.
    pub tests: &'static str,
}

macro_rules! presets {
    ($($name:literal,)+) => {
        /// Every preset, by name.
        pub const PRESETS: &[Preset] = &[$(Preset {
            name: $name,
            text: include_str!(concat!("../../../config/presets/", $name, ".yaml")),
            tests: include_str!(concat!("../../../config/presets/", $name, ".test.yaml")),
        },)+];
    };
}

presets! {
    "aks",
    "azure-devops",
    "bitbucket",
    "buddy",
    "buildkite",
    "circleci",
    "codefresh",
    "dex",
    "eks",
    "entra",
    "forgejo",
    "gitea",
    "github",
    "gitlab",
    "gke",
    "google",
    "jenkins",
    "keycloak",
    "kubernetes",
    "spire",
}

impl Preset {
    /// The preset of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// What it is for, in a few words.
    #[must_use]
    pub fn description(&self) -> String {
        let file = self.read();
        let mut entries = Entry::all(0, &file);
        let description = entries.find_map(|entry| entry.raw.description.clone());
        description.map_or_else(String::new, |text| text.value)
    }

    /// The forms that the issuer's URL may have, `EXAMPLE` standing for what differs.
    #[must_use]
    pub fn issuers(&self) -> Vec<String> {
        let file = self.read();
        Entry::all(0, &file)
            .map(|entry| entry.key.value.clone())
            .collect()
    }

    /// The claims of tokens, without times: a usual one first. A test holds every preset to having one.
    #[must_use]
    pub fn tokens(&self) -> Vec<Object> {
        #[derive(Deserialize)]
        struct Test {
            claims: Object,
        }

        let tests: Vec<Test> = serde_saphyr::from_str(self.tests).unwrap_or_default();
        tests.into_iter().map(|test| test.claims).collect()
    }

    /// A test holds every preset to being readable.
    fn read(&self) -> RawFile {
        raw::parse(0, self.text).unwrap_or_default()
    }
}

/// The presets that a configuration uses, each read once.
#[derive(Default)]
pub(super) struct Presets {
    files: HashMap<&'static str, Arc<RawFile>>,
    claims: HashMap<&'static str, Arc<BTreeSet<String>>>,
}

impl Presets {
    fn file(&mut self, preset: &Preset) -> Arc<RawFile> {
        let file = self.files.entry(preset.name);
        Arc::clone(file.or_insert_with(|| Arc::new(preset.read())))
    }

    /// The names of all claims in the preset's tests.
    pub(super) fn claims(&mut self, preset: &Preset) -> Arc<BTreeSet<String>> {
        let claims = self.claims.entry(preset.name);
        let names = || {
            preset
                .tokens()
                .into_iter()
                .flat_map(|token| token.into_iter())
        };
        Arc::clone(claims.or_insert_with(|| Arc::new(names().map(|(name, _)| name).collect())))
    }
}

impl Checker<'_, '_> {
    /// Fills in what an entry leaves to its preset. Returns whether the preset is one for it.
    pub(super) fn apply_preset(&mut self, entry: &mut Entry<'_>) -> bool {
        let Some(name) = entry.raw.preset.clone() else {
            return true;
        };
        let Some(preset) = Preset::named(&name.value) else {
            let message = format!("unknown preset {}", Excerpt::new(&name.value));
            let help = match closest(&name.value, PRESETS.iter().map(|preset| preset.name)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "`mayfly presets` lists them".to_owned(),
            };
            self.at(Code::Preset, entry, "preset", &name, message)
                .help(help);
            return false;
        };
        let file = self.presets.file(preset);
        if entry.raw.issuer_url.is_none() && !entry.is_wildcard && entry.key.value.contains("://") {
            entry.raw.to_mut().issuer_url = Some(entry.key.clone());
        }
        let mut forms = Entry::all(0, &file);
        let found = match entry.url() {
            None => forms.next().map(|form| (form, String::new())),
            Some(url) => forms.find_map(|form| {
                let value = placeholder(&form.key.value, url)?;
                Some((form, value.to_owned()))
            }),
        };
        let Some((form, value)) = found else {
            let message = format!("the preset {} is not for this issuer", preset.name);
            let help = format!("expected {}", preset.issuers().join(", or "));
            self.at(Code::Preset, entry, "preset", &name, message)
                .help(help);
            return false;
        };
        let provider = form.raw.ci_provider.as_ref().and_then(|provider| {
            let mut all = file.ci_metadata.iter().flat_map(|entries| &entries.0);
            let (_, metadata) = all.find(|(name, _)| name.value == provider.value)?;
            Some(PresetProvider::new(preset, provider, metadata, &value))
        });
        let form = form.raw.into_owned();
        if provider
            .as_ref()
            .is_some_and(|provider| !provider.is_definite)
        {
            let message = format!(
                "the preset {} cannot make URLs of a pattern's host",
                preset.name
            );
            self.at(Code::Preset, entry, "preset", &name, message)
                .help("give each issuer an entry of its own under oidc-issuers");
            return false;
        }
        let is_wildcard = entry.is_wildcard;
        let own = entry.raw.to_mut();
        // What is wrong with a value of the preset, in this entry, is reported where the entry names the preset.
        let fill = |own: &mut Option<Text>, preset: Option<Text>| {
            let preset = preset.filter(|text| !text.value.contains(PLACEHOLDER));
            if let (None, Some(text)) = (&own, preset) {
                *own = Some(Text {
                    value: text.value,
                    ..name.clone()
                });
            }
        };
        let has_other_type = match (&own.issuer_type, &form.issuer_type) {
            (Some(own), Some(preset)) => own.value != preset.value,
            (Some(_) | None, None) | (None, Some(_)) => false,
        };
        fill(&mut own.issuer_type, form.issuer_type);
        if !is_wildcard {
            fill(&mut own.issuer_url, form.issuer_url);
        }
        if own.client_ids.is_none() {
            fill(&mut own.client_id, form.client_id);
        }
        if own.ci_provider.is_none() && !has_other_type {
            fill(&mut own.ci_provider, form.ci_provider);
            entry.provider = provider;
        }
        true
    }
}

/// The templates of a preset, for one entry.
#[derive(Clone, Debug)]
pub(super) struct PresetProvider {
    /// The preset, the provider in it, and what stands in the entry's URL for `EXAMPLE`: what is equal has the same templates.
    pub(super) key: (&'static str, String, String),
    pub(super) name: Text,
    pub(super) metadata: RawMetadata,
    /// Whether nothing is left open.
    is_definite: bool,
}

impl PresetProvider {
    fn new(preset: &Preset, name: &Text, metadata: &RawMetadata, value: &str) -> Self {
        let mut metadata = metadata.clone();
        let mut is_definite = true;
        for (_, default) in metadata.defaults.iter_mut().flat_map(|all| &mut all.0) {
            if let Some(default) = default
                && default.value.contains(PLACEHOLDER)
            {
                default.value = default.value.replace(PLACEHOLDER, value);
                is_definite &= !value.contains('*');
            }
        }
        Self {
            key: (preset.name, name.value.clone(), value.to_owned()),
            name: name.clone(),
            metadata,
            is_definite,
        }
    }
}

/// What stands in a URL where the form has its first `EXAMPLE`; nothing when the URL does not have the form.
fn placeholder<'a>(form: &str, url: &'a str) -> Option<&'a str> {
    let Some((before, after)) = form.split_once(PLACEHOLDER) else {
        return (form == url).then_some("");
    };
    let rest = url.strip_prefix(before)?;
    // A host stands for what is served below one of its paths too.
    let is_host = before.ends_with("://") && (after.is_empty() || after.starts_with('/'));
    let longest = match rest.find('/') {
        Some(end) if !is_host => end,
        Some(_) | None => rest.len(),
    };
    let mut values = (1..=longest).filter_map(|end| rest.split_at_checked(end));
    let (value, _) = values.find(|(_, rest)| placeholder(after, rest).is_some())?;
    Some(value)
}

#[cfg(test)]
mod tests;
