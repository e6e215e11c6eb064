//! Identities of builds: claims that are copied, as a table says. A row describes a kind of build service.

use std::borrow::Cow;

use serde_json::Value;

use super::super::error::TokenError;
use super::super::json::Object;
use super::super::origin::{Origin, Origins};
use super::super::{BuildFact, BuildFacts};
use super::url::{check_location, clean, escape_path};
use super::{invalid, optional_text, required_text};

/// A kind of build service, as a row of a table.
#[derive(Debug)]
pub struct BuildType {
    /// The configured type.
    pub(super) name: &'static str,
    /// What the URLs in its certificates begin with.
    base: Base,
    /// Claims that must be there although nothing is made of them.
    needs: &'static [Need],
    /// The URL that is the certificate's name.
    san: Source,
    /// The facts of the certificate, and what each is made of.
    facts: &'static [(BuildFact, Source)],
}

/// What the URLs of a build service begin with.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// Always this, without a slash at its end.
    Fixed(&'static str),
    /// An https URL in a claim, or this if there is none.
    Claim(&'static str, &'static str),
}

/// A claim that must be there.
#[derive(Clone, Copy, Debug)]
enum Need {
    /// As a text.
    Text(&'static str),
    /// As a number that is not zero.
    Number(&'static str),
}

/// What the name or a fact is made of. A claim that is named must be there, unless it says otherwise.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// A claim, as it is.
    Claim(&'static str),
    /// A claim, as it is, if there is one.
    Optional(&'static str),
    /// A URL below the type's base.
    Url(&'static [Piece]),
    /// The location in a claim, to which only `https://` is missing. Its path may have empty segments.
    Location(&'static str),
    /// The full name of a branch or tag, of the claims `ref` and `ref_type`.
    GitRef,
}

/// One element of a URL's path.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// A claim, which may have several segments.
    Path(&'static str),
    /// A claim, which has one segment: what it identifies has no parts.
    Segment(&'static str),
    /// This text.
    Text(&'static str),
}

/// The build services whose mapping is fixed.
pub(super) static BUILD_TYPES: [BuildType; 4] = [
    BUILDKITE_JOB,
    CODEFRESH_WORKFLOW,
    GITHUB_WORKFLOW,
    GITLAB_PIPELINE,
];

const BUILDKITE_JOB: BuildType = BuildType {
    name: "buildkite-job",
    base: Base::Fixed("https://buildkite.com"),
    needs: &[],
    san: Source::Url(&[
        Piece::Segment("organization_slug"),
        Piece::Text("/"),
        Piece::Segment("pipeline_slug"),
    ]),
    facts: &[],
};

const CODEFRESH_WORKFLOW: BuildType = {
    use BuildFact as Fact;
    use Piece::{Path, Segment, Text};
    use Source::{Optional, Url};
    const BUILD: Source = Url(&[Text("build/"), Segment("workflow_id")]);
    BuildType {
        name: "codefresh-workflow",
        base: Base::Claim("platform_url", "https://g.codefresh.io"),
        needs: &[],
        san: Url(&[
            Path("account_name"),
            Text("/"),
            Path("pipeline_name"),
            Text(":"),
            Segment("account_id"),
            Text("/"),
            Segment("pipeline_id"),
        ]),
        facts: &[
            (Fact::BuildSignerUri, BUILD),
            (Fact::RunnerEnvironment, Optional("runner_environment")),
            (Fact::SourceRepositoryUri, Optional("scm_repo_url")),
            (Fact::SourceRepositoryRef, Optional("scm_ref")),
            (
                Fact::BuildConfigUri,
                Url(&[Text("api/pipelines/"), Segment("pipeline_id")]),
            ),
            (Fact::RunInvocationUri, BUILD),
        ],
    }
};

const GITHUB_WORKFLOW: BuildType = {
    use BuildFact as Fact;
    use Piece::{Path, Text};
    use Source::{Claim, Url};
    const SIGNER: Source = Url(&[Path("job_workflow_ref")]);
    BuildType {
        name: "github-workflow",
        base: Base::Fixed("https://github.com"),
        needs: &[],
        san: SIGNER,
        facts: &[
            (Fact::GithubWorkflowTrigger, Claim("event_name")),
            (Fact::GithubWorkflowSha, Claim("sha")),
            (Fact::GithubWorkflowName, Claim("workflow")),
            (Fact::GithubWorkflowRepository, Claim("repository")),
            (Fact::GithubWorkflowRef, Claim("ref")),
            (Fact::BuildSignerUri, SIGNER),
            (Fact::BuildSignerDigest, Claim("job_workflow_sha")),
            (Fact::RunnerEnvironment, Claim("runner_environment")),
            (Fact::SourceRepositoryUri, Url(&[Path("repository")])),
            (Fact::SourceRepositoryDigest, Claim("sha")),
            (Fact::SourceRepositoryRef, Claim("ref")),
            (Fact::SourceRepositoryIdentifier, Claim("repository_id")),
            (
                Fact::SourceRepositoryOwnerUri,
                Url(&[Path("repository_owner")]),
            ),
            (
                Fact::SourceRepositoryOwnerIdentifier,
                Claim("repository_owner_id"),
            ),
            (Fact::BuildConfigUri, Url(&[Path("workflow_ref")])),
            (Fact::BuildConfigDigest, Claim("workflow_sha")),
            (Fact::BuildTrigger, Claim("event_name")),
            (
                Fact::RunInvocationUri,
                Url(&[
                    Path("repository"),
                    Text("/actions/runs/"),
                    Path("run_id"),
                    Text("/attempts/"),
                    Path("run_attempt"),
                ]),
            ),
            (
                Fact::SourceRepositoryVisibilityAtSigning,
                Claim("repository_visibility"),
            ),
        ],
    }
};

const GITLAB_PIPELINE: BuildType = {
    use BuildFact as Fact;
    use Piece::{Path, Text};
    use Source::{Claim, GitRef, Location, Optional, Url};
    const CONFIG: Source = Location("ci_config_ref_uri");
    BuildType {
        name: "gitlab-pipeline",
        base: Base::Fixed("https://gitlab.com"),
        needs: &[Need::Text("pipeline_id"), Need::Number("runner_id")],
        san: CONFIG,
        facts: &[
            (Fact::BuildSignerUri, CONFIG),
            (Fact::BuildSignerDigest, Optional("ci_config_sha")),
            (Fact::RunnerEnvironment, Claim("runner_environment")),
            (Fact::SourceRepositoryUri, Url(&[Path("project_path")])),
            (Fact::SourceRepositoryDigest, Claim("sha")),
            (Fact::SourceRepositoryRef, GitRef),
            (Fact::SourceRepositoryIdentifier, Claim("project_id")),
            (
                Fact::SourceRepositoryOwnerUri,
                Url(&[Path("namespace_path")]),
            ),
            (Fact::SourceRepositoryOwnerIdentifier, Claim("namespace_id")),
            (Fact::BuildConfigUri, CONFIG),
            (Fact::BuildConfigDigest, Optional("ci_config_sha")),
            (Fact::BuildTrigger, Claim("pipeline_source")),
            (
                Fact::RunInvocationUri,
                Url(&[Path("project_path"), Text("/-/jobs/"), Path("job_id")]),
            ),
            (
                Fact::SourceRepositoryVisibilityAtSigning,
                Optional("project_visibility"),
            ),
        ],
    }
};

impl BuildType {
    /// The URL that is the certificate's name, and the facts.
    ///
    /// # Errors
    /// When a claim is missing, or cannot stand where the table puts it.
    pub(super) fn identify(&self, claims: &Object) -> Result<(String, BuildFacts), TokenError> {
        for need in self.needs {
            need.check(claims)?;
        }
        let base = self.base.url(claims)?;
        let san = self.san.text(&base, claims)?.unwrap_or_default();
        let mut facts = BuildFacts::default();
        for (fact, source) in self.facts {
            if let Some(text) = source.text(&base, claims)? {
                facts.set(*fact, text);
            }
        }
        Ok((san, facts))
    }
}

impl BuildType {
    /// What the name and the facts are made of.
    pub(super) fn origins(&self) -> Origins {
        let facts = self.facts.iter();
        let facts = facts.map(|(fact, source)| (*fact, source.origin(self.base)));
        Origins {
            san: self.san.origin(self.base),
            issuer: Origin::claim("iss"),
            facts: facts.collect(),
        }
    }
}

impl Base {
    /// The URL, without a slash at its end.
    fn url(self, claims: &Object) -> Result<Cow<'static, str>, TokenError> {
        let (claim, default) = match self {
            Self::Fixed(url) => return Ok(Cow::Borrowed(url)),
            Self::Claim(claim, default) => (claim, default),
        };
        let Some(url) = optional_text(claim, claims.get(claim))? else {
            return Ok(Cow::Borrowed(default));
        };
        let rest = url.strip_prefix("https://");
        let rest = rest.ok_or_else(|| invalid(claim, "it is not an https URL"))?;
        check_location(claim, rest)?;
        let rest = rest.trim_end_matches('/');
        Ok(Cow::Owned(format!("https://{}", escape_path(rest))))
    }
}

impl Need {
    fn check(self, claims: &Object) -> Result<(), TokenError> {
        match self {
            Self::Text(claim) => required_text(claim, claims.get(claim)).map(drop),
            Self::Number(claim) => match claims.get(claim) {
                None | Some(Value::Null) => Err(TokenError::MissingClaim {
                    claim: claim.to_owned(),
                }),
                Some(Value::Number(number))
                    if number.as_i64().is_some_and(|number| number != 0) =>
                {
                    Ok(())
                }
                Some(_) => Err(invalid(claim, "it is not a whole number other than 0")),
            },
        }
    }
}

impl Source {
    /// As a template would say it, if it is more than a claim.
    fn origin(self, base: Base) -> Origin {
        let field = |claim: &str| format!("{{{{ .{claim} }}}}");
        match self {
            Self::Claim(claim) | Self::Optional(claim) => Origin::claim(claim),
            Self::Url(pieces) => {
                let mut text = match base {
                    Base::Fixed(url) => url.to_owned(),
                    Base::Claim(claim, _) => field(claim),
                };
                text.push('/');
                for piece in pieces {
                    match *piece {
                        Piece::Path(claim) | Piece::Segment(claim) => text.push_str(&field(claim)),
                        Piece::Text(fixed) => text.push_str(fixed),
                    }
                }
                Origin::template(text)
            }
            Self::Location(claim) => Origin::template(format!("https://{}", field(claim))),
            Self::GitRef => Origin::template("refs/{{ .ref_type }}s/{{ .ref }}"),
        }
    }

    fn text(self, base: &str, claims: &Object) -> Result<Option<String>, TokenError> {
        let required = |claim: &str| required_text(claim, claims.get(claim));
        match self {
            Self::Claim(claim) => required(claim).map(|text| Some(text.to_owned())),
            Self::Optional(claim) => {
                Ok(optional_text(claim, claims.get(claim))?.map(str::to_owned))
            }
            Self::Url(pieces) => url(base, pieces, claims).map(Some),
            Self::Location(claim) => {
                let location = required(claim)?;
                check_location(claim, location)?;
                Ok(Some(format!("https://{}", escape_path(location))))
            }
            Self::GitRef => {
                let folder = match required("ref_type")? {
                    "branch" => "heads",
                    "tag" => "tags",
                    _ => return Err(invalid("ref_type", "it is neither branch nor tag")),
                };
                Ok(Some(format!("refs/{folder}/{}", required("ref")?)))
            }
        }
    }
}

/// Joins claims to a URL below the base: the path is cleaned of empty, `.` and `..` segments, and what a path may not
/// have is percent-encoded.
fn url(base: &str, pieces: &[Piece], claims: &Object) -> Result<String, TokenError> {
    let mut path = String::new();
    for piece in pieces {
        match *piece {
            Piece::Text(text) => path.push_str(text),
            Piece::Path(claim) => {
                let text = required_text(claim, claims.get(claim))?;
                path.push_str(&clean(claim, text, path.is_empty())?);
            }
            Piece::Segment(claim) => {
                let text = required_text(claim, claims.get(claim))?;
                if text.contains(['/', '?', '#']) || matches!(text, "." | "..") {
                    return Err(invalid(claim, "it is more than one segment of a path"));
                }
                path.push_str(text);
            }
        }
    }
    Ok(format!("{base}/{}", escape_path(&path)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::San;
    use super::super::super::testing::{Bench, ISSUER, entry};
    use super::super::tests::reason;
    use super::*;
    use crate::dev::oidc::TestClaims;
    use crate::reason::Reason;

    #[tokio::test]
    async fn github_claims_become_build_facts() {
        use BuildFact as Fact;
        let bench = Bench::with_issuers(&entry(ISSUER, "type: github-workflow"));
        let identity = bench
            .verify_claims(&TestClaims::github("acme/app"))
            .await
            .unwrap();
        let workflow = "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main";
        let commit = "5f2b0c0a4b1c5f3a9de1b52d8a8d4b0f6a1c3e7d";
        assert_eq!(identity.san, San::Uri(workflow.to_owned()));
        assert_eq!(identity.challenge, "repo:acme/app:ref:refs/heads/main");
        for (fact, value) in [
            (Fact::GithubWorkflowTrigger, "push"),
            (Fact::GithubWorkflowSha, commit),
            (Fact::GithubWorkflowName, "Release"),
            (Fact::GithubWorkflowRepository, "acme/app"),
            (Fact::GithubWorkflowRef, "refs/heads/main"),
            (Fact::BuildSignerUri, workflow),
            (Fact::BuildSignerDigest, commit),
            (Fact::RunnerEnvironment, "github-hosted"),
            (Fact::SourceRepositoryUri, "https://github.com/acme/app"),
            (Fact::SourceRepositoryDigest, commit),
            (Fact::SourceRepositoryRef, "refs/heads/main"),
            (Fact::SourceRepositoryIdentifier, "74"),
            (Fact::SourceRepositoryOwnerUri, "https://github.com/acme"),
            (Fact::SourceRepositoryOwnerIdentifier, "7"),
            (Fact::BuildConfigUri, workflow),
            (Fact::BuildConfigDigest, commit),
            (Fact::BuildTrigger, "push"),
            (
                Fact::RunInvocationUri,
                "https://github.com/acme/app/actions/runs/1658821493/attempts/1",
            ),
            (Fact::SourceRepositoryVisibilityAtSigning, "public"),
        ] {
            assert_eq!(identity.build.get(fact), Some(value), "{fact:?}");
        }
        assert_eq!(identity.build.get(Fact::DeploymentEnvironment), None);
    }

    #[tokio::test]
    async fn every_github_claim_is_needed_as_a_text() {
        let bench = Bench::with_issuers(&entry(ISSUER, "type: github-workflow"));
        let good = TestClaims::github("acme/app");
        for claim in [
            "job_workflow_ref",
            "sha",
            "event_name",
            "repository",
            "workflow",
            "ref",
            "job_workflow_sha",
            "runner_environment",
            "repository_id",
            "repository_owner",
            "repository_owner_id",
            "repository_visibility",
            "workflow_ref",
            "workflow_sha",
            "run_id",
            "run_attempt",
        ] {
            let outcome = reason(&bench, &good.clone().without(claim)).await;
            assert_eq!(outcome, Some(Reason::MissingClaim), "{claim}");
            let outcome = reason(&bench, &good.clone().with(claim, "")).await;
            assert_eq!(outcome, Some(Reason::MissingClaim), "{claim}");
            for value in [
                json!(74),
                json!("a\nb"),
                json!("a\u{2066}b"),
                json!("x".repeat(2_049)),
            ] {
                let outcome = reason(&bench, &good.clone().with(claim, value)).await;
                assert_eq!(outcome, Some(Reason::MalformedToken), "{claim}");
            }
        }
        let claims = good
            .with("environment", "production")
            .with("unknown", json!({ "a": [1] }));
        assert_eq!(reason(&bench, &claims).await, None);
    }

    #[tokio::test]
    async fn urls_of_builds_are_cleaned_and_escaped() {
        let bench = Bench::with_issuers(&entry(ISSUER, "type: github-workflow"));
        for (workflow, expected) in [
            ("acme/../evil/x", "evil/x"),
            ("../../x", "x"),
            ("acme//app/./a", "acme/app/a"),
            ("/acme/app", "acme/app"),
            ("a/b c#d?e", "a/b%20c%23d%3Fe"),
            ("a/ü.yml@refs/heads/ü", "a/%C3%BC.yml@refs/heads/%C3%BC"),
            ("a/b(1)!*'[x].yml", "a/b(1)!*'[x].yml"),
            ("a/b (1).yml", "a/b%20%281%29.yml"),
            ("a/%20b", "a/%20b"),
            ("a/100%", "a/100%25"),
            (
                "a/b@refs/heads/x&y+z=1,2:3;$",
                "a/b@refs/heads/x&y+z=1,2:3;$",
            ),
            ("a/{b}|\\^`\"<>", "a/%7Bb%7D%7C%5C%5E%60%22%3C%3E"),
        ] {
            let claims = TestClaims::github("acme/app").with("job_workflow_ref", workflow);
            let identity = bench.verify_claims(&claims).await.unwrap();
            assert_eq!(
                identity.san,
                San::Uri(format!("https://github.com/{expected}")),
                "{workflow}"
            );
        }
        for workflow in ["..", "/", ".", "a/.."] {
            let claims = TestClaims::github("acme/app").with("job_workflow_ref", workflow);
            assert_eq!(
                reason(&bench, &claims).await,
                Some(Reason::MalformedToken),
                "{workflow}"
            );
        }
        // A later part must not climb over an earlier one.
        for run in ["..", "../../../../evil/app/actions/runs/1", "/"] {
            let claims = TestClaims::github("acme/app").with("run_id", run);
            assert_eq!(
                reason(&bench, &claims).await,
                Some(Reason::MalformedToken),
                "{run}"
            );
        }
    }

    async fn build_facts(type_name: &str, claims: &TestClaims) -> (San, Vec<(BuildFact, String)>) {
        let bench = Bench::with_issuers(&entry(ISSUER, &format!("type: {type_name}")));
        let identity = bench.verify_claims(claims).await.unwrap();
        let facts = identity.build.iter();
        (
            identity.san.clone(),
            facts.map(|(fact, text)| (fact, text.to_owned())).collect(),
        )
    }

    async fn refusals(type_name: &str, changes: &[(TestClaims, Reason)]) {
        let bench = Bench::with_issuers(&entry(ISSUER, &format!("type: {type_name}")));
        for (claims, expected) in changes {
            assert_eq!(reason(&bench, claims).await, Some(*expected), "{claims:?}");
        }
    }

    fn gitlab() -> TestClaims {
        TestClaims::subject("project_path:acme/tools/app:ref_type:branch:ref:main")
            .with("namespace_id", "72")
            .with("namespace_path", "acme/tools")
            .with("project_id", "20")
            .with("project_path", "acme/tools/app")
            .with("pipeline_id", "574")
            .with("pipeline_source", "push")
            .with("job_id", "302")
            .with("ref", "main")
            .with("ref_type", "branch")
            .with("runner_id", 1)
            .with("runner_environment", "gitlab-hosted")
            .with("sha", "714a629c")
            .with(
                "ci_config_ref_uri",
                "gitlab.com/acme/tools/app//.gitlab-ci.yml@refs/heads/main",
            )
            .with("ci_config_sha", "714a629d")
            .with("project_visibility", "public")
    }

    #[tokio::test]
    async fn gitlab_claims_become_build_facts() {
        use BuildFact as Fact;
        let config = "https://gitlab.com/acme/tools/app//.gitlab-ci.yml@refs/heads/main";
        let (san, facts) = build_facts("gitlab-pipeline", &gitlab()).await;
        assert_eq!(san, San::Uri(config.to_owned()));
        let expected = [
            (Fact::BuildSignerUri, config),
            (Fact::BuildSignerDigest, "714a629d"),
            (Fact::RunnerEnvironment, "gitlab-hosted"),
            (
                Fact::SourceRepositoryUri,
                "https://gitlab.com/acme/tools/app",
            ),
            (Fact::SourceRepositoryDigest, "714a629c"),
            (Fact::SourceRepositoryRef, "refs/heads/main"),
            (Fact::SourceRepositoryIdentifier, "20"),
            (
                Fact::SourceRepositoryOwnerUri,
                "https://gitlab.com/acme/tools",
            ),
            (Fact::SourceRepositoryOwnerIdentifier, "72"),
            (Fact::BuildConfigUri, config),
            (Fact::BuildConfigDigest, "714a629d"),
            (Fact::BuildTrigger, "push"),
            (
                Fact::RunInvocationUri,
                "https://gitlab.com/acme/tools/app/-/jobs/302",
            ),
            (Fact::SourceRepositoryVisibilityAtSigning, "public"),
        ];
        assert_eq!(facts, expected.map(|(fact, text)| (fact, text.to_owned())));

        let bare = gitlab()
            .with("ref_type", "tag")
            .with("ref", "v1")
            .without("ci_config_sha")
            .with("project_visibility", Value::Null)
            .with(
                "ci_config_ref_uri",
                "gitlab.example:8080/a b/c//x.yml@refs/tags/v1",
            );
        let (san, facts) = build_facts("gitlab-pipeline", &bare).await;
        let config = "https://gitlab.example:8080/a%20b/c//x.yml@refs/tags/v1";
        assert_eq!(san, San::Uri(config.to_owned()));
        assert_eq!(facts.len(), 11);
        assert!(facts.contains(&(Fact::SourceRepositoryRef, "refs/tags/v1".to_owned())));
    }

    #[tokio::test]
    async fn what_a_gitlab_token_must_have() {
        let needed = [
            "project_path",
            "pipeline_source",
            "pipeline_id",
            "ci_config_ref_uri",
            "job_id",
            "ref",
            "ref_type",
            "namespace_path",
            "namespace_id",
            "project_id",
            "sha",
            "runner_environment",
            "runner_id",
        ];
        let missing = needed.map(|claim| (gitlab().without(claim), Reason::MissingClaim));
        refusals("gitlab-pipeline", &missing).await;
        let wrong = [
            ("project_id", json!(20)),
            ("ci_config_sha", json!(5)),
            ("runner_id", json!("1")),
            ("runner_id", json!(0)),
            ("runner_id", json!(1.5)),
            ("ref_type", json!("merge_request")),
            ("ci_config_ref_uri", json!("/acme/app")),
            ("ci_config_ref_uri", json!("https://gitlab.com/acme/app")),
            ("ci_config_ref_uri", json!("u@gitlab.com/acme/app")),
            ("ci_config_ref_uri", json!("1.2.3.999/acme/app")),
            ("ci_config_ref_uri", json!("gitlab..com/acme/app")),
            ("ci_config_ref_uri", json!("gitlab.com:/acme/app")),
            ("ci_config_ref_uri", json!("gitlab.com/acme/app?x")),
            ("ci_config_ref_uri", json!("gitlab.com/acme/app#x")),
            ("ci_config_ref_uri", json!("gitlab.com/acme/../evil/app")),
            ("project_path", json!("..")),
            ("job_id", json!("../../../evil")),
        ];
        let wrong =
            wrong.map(|(claim, value)| (gitlab().with(claim, value), Reason::MalformedToken));
        refusals("gitlab-pipeline", &wrong).await;
    }

    #[tokio::test]
    async fn a_buildkite_job_is_named_by_its_pipeline() {
        let job = TestClaims::subject("organization:acme:pipeline:app:ref:refs/heads/main")
            .with("organization_slug", "acme")
            .with("pipeline_slug", "app");
        let (san, facts) = build_facts("buildkite-job", &job).await;
        assert_eq!(san, San::Uri("https://buildkite.com/acme/app".to_owned()));
        assert_eq!(facts, []);
        let mut changes = Vec::new();
        for claim in ["organization_slug", "pipeline_slug"] {
            changes.push((job.clone().without(claim), Reason::MissingClaim));
            for slug in ["a/b", "..", ".", "a?b", "a#b", "/"] {
                changes.push((job.clone().with(claim, slug), Reason::MalformedToken));
            }
        }
        refusals("buildkite-job", &changes).await;
    }

    fn codefresh() -> TestClaims {
        TestClaims::subject("account:628a:pipeline:65e5")
            .with("account_id", "628a")
            .with("account_name", "acme")
            .with("pipeline_id", "65e5")
            .with("pipeline_name", "tools/get-token")
            .with("workflow_id", "65ef")
    }

    #[tokio::test]
    async fn codefresh_claims_become_build_facts() {
        use BuildFact as Fact;
        let build = "https://g.codefresh.io/build/65ef";
        let pipeline = "https://g.codefresh.io/api/pipelines/65e5";
        let name = "https://g.codefresh.io/acme/tools/get-token:628a/65e5";
        let manual = [
            (Fact::BuildSignerUri, build),
            (Fact::BuildConfigUri, pipeline),
            (Fact::RunInvocationUri, build),
        ]
        .map(|(fact, text)| (fact, text.to_owned()));
        assert_eq!(
            build_facts("codefresh-workflow", &codefresh()).await,
            (San::Uri(name.to_owned()), manual.to_vec())
        );

        let git = codefresh()
            .with("platform_url", "https://cf.example:8443/on/")
            .with("scm_repo_url", "https://github.com/acme/app")
            .with("scm_ref", "main")
            .with("runner_environment", "hybrid");
        let (san, facts) = build_facts("codefresh-workflow", &git).await;
        let name = "https://cf.example:8443/on/acme/tools/get-token:628a/65e5";
        assert_eq!(san, San::Uri(name.to_owned()));
        let build = "https://cf.example:8443/on/build/65ef";
        let expected = [
            (Fact::BuildSignerUri, build),
            (Fact::RunnerEnvironment, "hybrid"),
            (Fact::SourceRepositoryUri, "https://github.com/acme/app"),
            (Fact::SourceRepositoryRef, "main"),
            (
                Fact::BuildConfigUri,
                "https://cf.example:8443/on/api/pipelines/65e5",
            ),
            (Fact::RunInvocationUri, build),
        ];
        assert_eq!(facts, expected.map(|(fact, text)| (fact, text.to_owned())));
    }

    #[tokio::test]
    async fn what_a_codefresh_token_must_have() {
        let needed = [
            "account_id",
            "account_name",
            "pipeline_id",
            "pipeline_name",
            "workflow_id",
        ];
        let missing = needed.map(|claim| (codefresh().without(claim), Reason::MissingClaim));
        refusals("codefresh-workflow", &missing).await;
        let wrong = [
            ("platform_url", "http://g.codefresh.io"),
            ("platform_url", "javascript:alert(1)"),
            ("platform_url", "https://u:p@g.codefresh.io"),
            ("platform_url", "https:///x"),
            ("platform_url", "https://g.codefresh.io/?x"),
            ("account_id", "a/b"),
            ("pipeline_id", "a/b"),
            ("workflow_id", ".."),
            ("pipeline_name", "../../evil"),
        ];
        let wrong =
            wrong.map(|(claim, value)| (codefresh().with(claim, value), Reason::MalformedToken));
        refusals("codefresh-workflow", &wrong).await;
    }
}
