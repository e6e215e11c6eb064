//! Where the values of a certificate come from, for those who write the configuration.

use std::fmt;

use super::BuildFact;
use super::ci_provider::{CiProvider, Purpose};
use super::json::Object;
use super::template::Template;

/// What a value is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A claim, as it is: its name, or a path.
    Claim(String),
    /// A default of the configuration, as the token has no such claim: its name.
    Default(String),
    /// A text with claims in it.
    Template {
        /// The text as it is written, or as a built-in type would write it.
        text: String,
        /// The names that stand for defaults, as the token has no such claims.
        defaults: Vec<String>,
    },
}

/// What the values of one certificate are made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origins {
    /// Its name.
    pub san: Origin,
    /// Its issuer.
    pub issuer: Origin,
    /// The facts about a build.
    pub facts: Vec<(BuildFact, Origin)>,
}

impl Origin {
    /// The kind: `claim`, `default` or `template`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Claim(_) => "claim",
            Self::Default(_) => "default",
            Self::Template { .. } => "template",
        }
    }

    /// The name, or the text of the template.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Claim(text) | Self::Default(text) | Self::Template { text, .. } => text,
        }
    }

    pub(super) fn claim(name: impl Into<String>) -> Self {
        Self::Claim(name.into())
    }

    pub(super) fn template(text: impl Into<String>) -> Self {
        Self::Template {
            text: text.into(),
            defaults: Vec::new(),
        }
    }

    /// What a template of a provider takes its values from.
    fn of_template(template: &Template, provider: &CiProvider, claims: &Object) -> Self {
        let is_default =
            |name: &&str| !claims.contains_key(*name) && provider.defaults().contains_key(*name);
        let text = template.as_str();
        match &template.names()[..] {
            [name] if *name == text && is_default(name) => Self::Default(text.to_owned()),
            [name] if *name == text => Self::Claim(text.to_owned()),
            names => {
                let defaults = names.iter().copied().filter(is_default);
                let mut defaults: Vec<String> = defaults.map(str::to_owned).collect();
                defaults.sort_unstable();
                defaults.dedup();
                Self::Template {
                    text: text.to_owned(),
                    defaults,
                }
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(name) => write!(f, "claim {name}"),
            Self::Default(name) => write!(f, "default of {name}"),
            Self::Template { text, defaults } if defaults.is_empty() => {
                write!(f, "template {text}")
            }
            Self::Template { text, defaults } => {
                write!(
                    f,
                    "template {text}, with the default of {}",
                    defaults.join(", ")
                )
            }
        }
    }
}

impl Origins {
    /// What a provider makes certificates of.
    pub(super) fn of_provider(provider: &CiProvider, claims: &Object) -> Self {
        let mut san = Origin::claim("sub");
        let mut facts = Vec::new();
        for (purpose, template) in provider.templates() {
            let origin = Origin::of_template(template, provider, claims);
            match purpose {
                Purpose::SubjectAlternativeName => san = origin,
                Purpose::Extension(fact) => facts.push((fact, origin)),
            }
        }
        Self {
            san,
            issuer: Origin::claim("iss"),
            facts,
        }
    }
}
