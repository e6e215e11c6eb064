//! What is found in an identity file: a code, a place, what is wrong, what would be right.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_saphyr::{Location, Spanned};

use super::raw::Text;
use super::source::Source;

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used, and probably does not do what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($variant:ident = $name:literal $severity:ident $title:literal,)+) => {
        /// What kind of thing was found. Every code has a section in `docs/config-errors.md`; none is ever reused.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[expect(missing_docs, reason = "title() says in a line what each one means")]
        pub enum Code { $($variant,)+ }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as it is printed, such as `MF101`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, in a line.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }
        }
    };
}

codes! {
    NotReadable = "MF100" Error "the file cannot be read as YAML or JSON",
    UnknownKey = "MF101" Error "a key has no meaning where it stands",
    Duplicate = "MF102" Error "a key, an issuer with its audience, or an id stands twice",
    UnknownType = "MF103" Error "the type is missing or unknown",
    CiProvider = "MF104" Error "ci-provider is missing, names nothing, or has no effect",
    NoAudience = "MF105" Error "the audience is missing, empty, or one that no token has",
    KeyDiffers = "MF106" Error "the entry's key is another URL than its issuer-url",
    IssuerUrl = "MF107" Error "the issuer's URL, or its pattern, cannot be used",
    Overlap = "MF108" Error "two patterns match the same URL and none is more specific",
    BroadPattern = "MF109" Warning "a pattern spans what belongs to different people",
    Template = "MF110" Error "a template cannot be used",
    NoName = "MF111" Error "a ci-provider has no template for the certificate's name",
    Superfluous = "MF112" Warning "something is unused, shadowed or deprecated",
    IssuerClaim = "MF113" Error "issuer-claim cannot be used, or not with this type",
    SpiffeDomain = "MF114" Error "a spiffe issuer has no usable spiffe-trust-domain",
    SubjectDomain = "MF115" Error "a uri or username issuer has no usable subject-domain",
    PublicSuffix = "MF116" Error "subject-domain shares only a public suffix with the issuer",
    CaCert = "MF117" Error "ca-cert holds no certificates that can be used",
    Rule = "MF118" Error "a claim rule cannot be used",
    OpenIssuer = "MF119" Warning "everybody can get a token of this issuer, and there is no allow rule",
    NoEffect = "MF120" Warning "a setting has no effect",
    Lookalike = "MF121" Warning "the URL looks like another that tokens may carry",
    UnverifiedEmail = "MF122" Warning "addresses count as verified although the issuer does not say so",
    NoIssuer = "MF123" Error "the file configures no issuer",
    Setting = "MF124" Error "the value of a setting cannot be used",
    PlainHttp = "MF125" Warning "the issuer's keys are fetched over http",
    Preset = "MF126" Error "the preset is unknown, or is for other issuers",
    Ends = "MF127" Warning "the entry, or a certificate of it, ends soon or has ended",
    Misspelt = "MF128" Warning "a rule looks at a claim that tokens of this kind probably do not have",
    Discovery = "MF130" Error "the issuer's discovery document cannot be had or read",
    OtherIssuer = "MF131" Error "the discovery document is that of another issuer",
    KeyLocation = "MF132" Error "the issuer keeps its keys where they cannot be fetched, or elsewhere",
    KeySet = "MF133" Error "the issuer publishes no key that can be used",
    Redirect = "MF134" Error "the issuer sends us elsewhere",
    Tls = "MF135" Error "the issuer's TLS certificate is not accepted",
    Slow = "MF136" Warning "the issuer's keys take long to come",
    ServerSetting = "MF200" Error "the server's configuration cannot be used",
    CaCertificates = "MF201" Error "the CA's certificates cannot be used",
    CaKey = "MF202" Error "the CA's key cannot be used",
    CaMismatch = "MF203" Error "the CA's key is another one than its certificate's",
    CaEnds = "MF204" Warning "the CA's certificates end soon",
    CtLog = "MF205" Error "the transparency log, or its key, cannot be used",
    ServerTls = "MF206" Error "the certificate or the key for HTTPS cannot be used",
    WeakSetting = "MF207" Warning "a setting takes away what the server protects",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Something about an identity file that its author should know.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of thing it is.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The file, as its reader was called.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u64,
    /// The column, in characters, from 1.
    pub column: u64,
    /// The line of the last character.
    pub end_line: u64,
    /// The column behind the last character.
    pub end_column: u64,
    /// What would be right, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The value that it is about: a JSON pointer (RFC 6901); empty for the whole file.
    pub path: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            message,
            file,
            line,
            column,
            ..
        } = self;
        write!(f, "{file}:{line}:{column}: [{code}] {message}")?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Where something stands in the files that are read together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    /// The index of the file.
    pub(super) file: usize,
    pub(super) line: u64,
    pub(super) column: u64,
    /// How many characters it has.
    pub(super) length: u64,
}

impl Place {
    /// The beginning of a file.
    pub(super) const fn start(file: usize) -> Self {
        Self {
            file,
            line: 1,
            column: 1,
            length: 0,
        }
    }

    /// A location that the reader of YAML does not know has line 0.
    pub(super) fn new(file: usize, location: Location) -> Self {
        Self {
            file,
            line: location.line().max(1),
            column: location.column().max(1),
            length: location.span().len(),
        }
    }

    pub(super) fn of<T>(file: usize, spanned: &Spanned<T>) -> Self {
        Self::new(file, spanned.referenced)
    }
}

/// Collects findings.
pub(super) struct Report<'a> {
    sources: Vec<&'a Source>,
    findings: Vec<Finding>,
}

impl<'a> Report<'a> {
    pub(super) fn new(sources: &'a [Source]) -> Self {
        Self {
            sources: sources.iter().collect(),
            findings: Vec::new(),
        }
    }

    /// A file.
    pub(super) fn source(&self, index: usize) -> Option<&'a Source> {
        self.sources.get(index).copied()
    }

    /// The name of a file.
    pub(super) fn file(&self, index: usize) -> Arc<str> {
        let source = self.sources.get(index);
        source.map_or_else(Arc::default, |source| Arc::clone(&source.name))
    }

    /// Where an octet of a scalar's value stands in the file: inside the scalar, when it is written in one line there, else
    /// the place of the whole.
    pub(super) fn inside(&self, file: usize, text: &Text, offset: usize) -> Place {
        let whole = Place::of(file, text);
        let source = self.sources.get(file).map(|source| &source.text);
        let columns = source.and_then(|source| {
            let start = text.referenced.span().byte_offset()?;
            let written = source.get(usize::try_from(start).ok()?..)?;
            columns(written, text.value.get(..offset)?)
        });
        match columns {
            Some(columns) => Place {
                column: whole.column + columns,
                length: 1,
                ..whole
            },
            None => whole,
        }
    }

    /// Adds a finding at a place. Returns it, for a severity of its own, or a help.
    pub(super) fn add(
        &mut self,
        code: Code,
        place: Place,
        path: &str,
        message: impl Into<String>,
    ) -> &mut Finding {
        let finding = Finding {
            code,
            severity: code.severity(),
            message: message.into(),
            file: self.file(place.file),
            line: place.line,
            column: place.column,
            end_line: place.line,
            end_column: place.column + place.length,
            help: None,
            path: path.to_owned(),
        };
        let index = self.findings.len();
        self.findings.push(finding);
        #[expect(clippy::indexing_slicing, reason = "it was pushed in the line before")]
        &mut self.findings[index]
    }

    /// Everything that was found, in the order of the files.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        let sources = self.sources;
        let index = |name: &Arc<str>| sources.iter().position(|source| source.name == *name);
        self.findings.sort_by_cached_key(|finding| {
            let file = index(&finding.file);
            (file, finding.line, finding.column, finding.severity)
        });
        self.findings
    }
}

impl Finding {
    /// Says what would be right.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Sets another severity than that of its code.
    pub(super) const fn severity(&mut self, severity: Severity) -> &mut Self {
        self.severity = severity;
        self
    }
}

/// How many characters a scalar takes, from its beginning, to write the beginning of its value. Nothing when it is not
/// written in one line, or with escapes other than those of quotes and backslashes.
fn columns(written: &str, value: &str) -> Option<u64> {
    let quote = written
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    let mut written = written.chars().skip(usize::from(quote.is_some()));
    let mut columns = u64::from(quote.is_some());
    for wanted in value.chars() {
        let mut found = written.next()?;
        let is_escape = match quote {
            Some('"') => found == '\\',
            Some(_) => found == '\'',
            None => false,
        };
        if is_escape {
            found = written.next()?;
            columns += 1;
        }
        columns += 1;
        if found != wanted || found == '\n' {
            return None;
        }
    }
    Some(columns)
}

/// The known name that a text is most likely a misspelling of, letter case aside.
pub(super) fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    let distances = known
        .into_iter()
        .map(|name| (distance(&text, &name.to_ascii_lowercase()), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= name.len().div_ceil(3)).then_some(name)
}

/// The known name that a text differs from so little that it is hardly meant to be another one.
pub(super) fn misspelt<'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    /// Shorter names are too often like each other.
    const SHORTEST: usize = 6;
    const MOST_DIFFERENCES: usize = 2;
    let known = known.into_iter().filter(|name| name.len() >= SHORTEST);
    let mut distances = known.map(|name| (distance(text, name), name));
    let near = distances.find(|(distance, _)| (1..=MOST_DIFFERENCES).contains(distance));
    near.map(|(_, name)| name)
}

/// How many characters must be inserted, removed or replaced to make one text of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (index, character) in from.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (cell, other) in row
            .iter_mut()
            .zip(std::iter::once(None).chain(to.chars().map(Some)))
        {
            let above = *cell;
            left = match other {
                None => index + 1,
                Some(other) => (diagonal + usize::from(other != character))
                    .min(above + 1)
                    .min(left + 1),
            };
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}
