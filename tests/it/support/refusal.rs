//! What is true of every refusal, asserted in one place.

use super::http::{Answer, Request};
use super::server::TestServer;

/// What a request must be answered with when it comes to no certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The gRPC code in the body.
    pub(crate) code: u8,
    /// The codes of which one must be in `Mayfly-Reason`.
    pub(crate) reasons: &'a [&'a str],
}

impl TestServer {
    /// Sends a request that must be refused as the client's fault: status 400, gRPC code 3, one of these reasons.
    pub(crate) fn refuses(&self, what: &str, request: &Request, reasons: &[&str]) -> Answer {
        self.answers_with(
            what,
            request,
            Expected {
                status: 400,
                code: 3,
                reasons,
            },
        )
    }

    /// Sends a request that must come to no certificate, and checks all that must be true then: the answer's shape and
    /// reason, one count in the metric of refusals, no signature, nothing in the log, and nothing of the token in the answer.
    pub(crate) fn answers_with(
        &self,
        what: &str,
        request: &Request,
        expected: Expected<'_>,
    ) -> Answer {
        let traces = self.traces();
        let counted: Vec<u64> = expected
            .reasons
            .iter()
            .map(|of| self.refusals(of))
            .collect();
        let answer = self.send(request);

        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, expected.status, "{what}: {shown}");
        let body = answer.json();
        assert_eq!(body["code"], expected.code, "{what}: {shown}");
        assert_eq!(body["details"], serde_json::json!([]), "{what}: {shown}");
        let message = body["message"].as_str().unwrap();
        assert!(
            message.len() <= 1024 && !message.chars().any(char::is_control),
            "{what}: {message:?}"
        );
        for word in [".rs:", "panicked", "RUST_BACKTRACE"] {
            assert!(!message.contains(word), "{what}: {message}");
        }
        let reason = answer.header("mayfly-reason").unwrap_or_default();
        let which = expected
            .reasons
            .iter()
            .position(|allowed| *allowed == reason);
        let which = which.unwrap_or_else(|| panic!("{what}: reason {reason:?}: {message}"));
        let has_retry_after = answer.header("retry-after").is_some();
        assert_eq!(
            has_retry_after,
            matches!(expected.status, 429 | 503),
            "{what}: {shown}"
        );

        assert_eq!(self.traces(), traces, "{what}: what it left behind");
        assert_eq!(
            self.refusals(reason),
            counted[which] + 1,
            "{what}: counted as {reason}"
        );
        for part in secret_parts(request) {
            assert!(!message.contains(&part), "{what}: the token in {message}");
        }
        answer
    }

    /// Sends a request that must be answered with a certificate.
    pub(crate) fn issues(&self, what: &str, request: &Request) -> Answer {
        let before = self.traces();
        let answer = self.send(request);
        let expected = if request.target.contains("/v1/") {
            201
        } else {
            200
        };
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, expected, "{what}: {shown}");
        assert_eq!(
            self.traces().certificates,
            before.certificates + 1,
            "{what}: certificates"
        );
        answer
    }
}

/// The parts of a request's token that no answer may repeat: the payload and the signature.
fn secret_parts(request: &Request) -> Vec<String> {
    let bearer = request.headers.iter().find_map(|(name, value)| {
        let is_token = name.eq_ignore_ascii_case("authorization");
        is_token.then(|| value.trim_start_matches("Bearer ").to_owned())
    });
    let parts = bearer.iter().flat_map(|token| token.split('.').skip(1));
    parts
        .filter(|part| part.len() >= 16)
        .map(str::to_owned)
        .collect()
}
