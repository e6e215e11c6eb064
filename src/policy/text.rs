//! Explanations as people read them.

use std::fmt;

use super::explain::Explanation;
use crate::excerpt::Excerpt;

impl fmt::Display for Explanation {
    /// In several lines, each with its end. Values of tokens are shown so that they cannot be taken for anything else.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason, self.client_visible.is_some()) {
            (None, false) => writeln!(f, "A certificate would be issued, at {}.", self.at)?,
            (reason, _) => {
                let reason = reason.unwrap_or("unknown");
                writeln!(f, "Refused at {}: {reason}.", self.at)?;
            }
        }
        writeln!(f)?;
        for step in &self.steps {
            let mark = match step.result {
                "pass" => "ok",
                "fail" => "FAIL",
                _ => "-",
            };
            writeln!(f, "  {mark:<5}{:<13}{}", step.name, step.detail)?;
        }
        if !self.rules.is_empty() {
            writeln!(f, "\nRules")?;
        }
        for rule in &self.rules {
            let applies = if rule.applies {
                "applies"
            } else {
                "does not apply"
            };
            writeln!(f, "  {} {}: {applies}", rule.list, rule.number)?;
            for condition in &rule.conditions {
                let mark = if condition.holds { "yes" } else { "no" };
                writeln!(
                    f,
                    "    {mark:<5}{}; it is {}",
                    condition.condition, condition.found
                )?;
            }
        }
        if let Some(name) = &self.san {
            let kind = match name.name_type {
                "email" => "e-mail address",
                "uri" => "URI",
                _ => "user name",
            };
            writeln!(f, "\nCertificate")?;
            writeln!(f, "  name: {kind}")?;
            self.value(f, &name.value, &name.from)?;
        }
        for extension in &self.extensions {
            writeln!(f, "  {} {}", extension.oid, extension.name)?;
            self.value(f, &extension.value, &extension.from)?;
        }
        if let Some(challenge) = &self.challenge {
            writeln!(
                f,
                "\nThe client signs\n      {}",
                Excerpt::new(challenge).unquoted()
            )?;
        }
        if let Some(visible) = &self.client_visible {
            writeln!(
                f,
                "\nThe client is told (status {}, code {})\n      {}",
                visible.http_status, visible.grpc_code, visible.message
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "\nNote: {warning}.")?;
        }
        Ok(())
    }
}

impl Explanation {
    fn value(&self, f: &mut fmt::Formatter<'_>, value: &str, from: &str) -> fmt::Result {
        writeln!(f, "      {}", Excerpt::new(value).unquoted())?;
        writeln!(f, "      from {from}")
    }
}
