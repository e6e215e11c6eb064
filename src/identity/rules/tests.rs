use proptest::prelude::*;
use serde_json::json;

use super::glob::Glob;
use super::path::{ClaimName, InvalidName};
use super::*;
use crate::reason::Reason;

#[derive(Debug, serde::Deserialize)]
struct File {
    allow: Option<RawRules>,
    deny: Option<RawRules>,
}

fn read(text: &str) -> Result<ClaimRules, Vec<RuleMistake>> {
    // As the configuration reads them.
    let options =
        serde_saphyr::options! { strict_booleans: true, leading_zero_numbers_as_strings: true };
    let file: File = serde_saphyr::from_str_with_options(text, options).unwrap();
    ClaimRules::new(file.allow.as_ref(), file.deny.as_ref())
}

fn rules(text: &str) -> ClaimRules {
    read(text).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"))
}

fn object(value: Value) -> Object {
    let Value::Object(object) = value else {
        panic!("{value}");
    };
    object
}

/// Whether one condition holds, as a rule of `allow` and, the other way round, of `deny`.
fn holds(condition: &str, claims: &Value) -> bool {
    let claims = object(claims.clone());
    let allowed = rules(&format!("allow:\n  - {condition}\n"))
        .check(&claims)
        .is_ok();
    let denied = rules(&format!("deny:\n  - {condition}\n"))
        .check(&claims)
        .is_err();
    assert_eq!(allowed, denied, "{condition}");
    allowed
}

#[test]
fn without_rules_every_token_may_have_a_certificate() {
    for text in ["{}", "allow:", "deny: []", "allow:\ndeny:"] {
        assert!(rules(text).check(&object(json!({}))).is_ok(), "{text}");
    }
}

#[test]
fn each_operator_means_what_its_name_says() {
    let claims = json!({
        "repository": "acme/app", "ref": "refs/tags/v1.2", "run": 74, "big": 12_345_678_901_234_567_890_u64,
        "fork": false, "scope": "openid email", "groups": ["dev", 7, true, null, {}], "none": null, "empty": "",
        "kubernetes.io": { "namespace": "prod", "pod": { "name": "a" } }, "lines": "release\nx",
    });
    for (condition, expected) in [
        ("repository: acme/app", true),
        ("repository: Acme/app", false),
        ("repository: acme", false),
        ("Repository: acme/app", false),
        ("repository: { equals: acme/app }", true),
        ("repository: { in: [other, acme/app] }", true),
        ("repository: { in: [acme, app] }", false),
        ("ref: { glob: refs/tags/v* }", true),
        ("ref: { glob: refs/* }", false),
        ("ref: { glob: refs/** }", true),
        ("ref: { glob: \"**\" }", true),
        ("ref: { regex: 'refs/tags/v[0-9.]+' }", true),
        ("ref: { regex: 'tags' }", false),
        ("ref: { regex: 'refs/tags/v1|x' }", false),
        ("lines: { regex: 'release.*' }", true),
        ("lines: { regex: 'release$' }", false),
        ("lines: { regex: '(?m)^release$' }", false),
        ("ref: { prefix: refs/tags/ }", true),
        ("ref: { prefix: efs }", false),
        ("run: 74", true),
        ("run: \"74\"", true),
        ("run: 074", false),
        ("run: 0x4A", true),
        ("big: 12345678901234567890", true),
        ("fork: false", true),
        ("fork: FALSE", true),
        ("fork: \"FALSE\"", false),
        ("fork: { equals: \"false\" }", true),
        ("fork: no", false),
        ("empty: \"\"", true),
        ("scope: { contains: email }", true),
        ("scope: { contains: mail }", false),
        ("scope: { contains: openid email }", false),
        ("groups: { contains: dev }", true),
        ("groups: { contains: 7 }", true),
        ("groups: { contains: true }", true),
        ("groups: { contains: ops }", false),
        ("run: { contains: 7 }", false),
        // Arrays and objects are no texts, null is nothing.
        ("groups: dev", false),
        ("groups: { glob: \"**\" }", false),
        ("groups: { exists: true }", true),
        ("none: { exists: true }", false),
        ("none: { exists: false }", true),
        ("empty: { exists: true }", true),
        ("missing: { exists: false }", true),
        ("missing: { equals: x }", false),
        ("missing: { glob: \"**\" }", false),
        ("missing: { regex: \".*\" }", false),
        ("missing: { not: { equals: x } }", true),
        ("missing: { not: { exists: true } }", true),
        ("repository: { not: acme/app }", false),
        ("repository: { not: { equals: acme/app } }", false),
        ("groups: { not: { equals: dev } }", true),
        // Operators beside each other hold together.
        ("ref: { prefix: refs/, not: { prefix: refs/heads/ } }", true),
        ("ref: { prefix: refs/, not: { prefix: refs/tags/ } }", false),
        ("ref: { not: { prefix: refs/, glob: \"*\" } }", true),
        ("{ repository: acme/app, run: 74 }", true),
        ("{ repository: acme/app, run: 75 }", false),
        ("$['kubernetes.io'].namespace: prod", true),
        ("$['kubernetes.io']['pod'].name: a", true),
        ("$['kubernetes.io'].pod: { exists: true }", true),
        ("$.kubernetes.io.namespace: prod", false),
        ("kubernetes.io: { exists: true }", true),
        ("$.repository: acme/app", true),
        ("$.repository.x: { exists: false }", true),
    ] {
        assert_eq!(holds(condition, &claims), expected, "{condition}");
    }
}

#[test]
fn deny_counts_before_allow_and_one_allow_rule_is_enough() {
    let rules = rules(
        "
allow:
  - repository_owner: { in: [acme, acme-labs] }
    ref: { glob: refs/tags/v* }
  - sub: { regex: '^repo:acme/infra:.*$' }
deny:
  - runner_environment: self-hosted
  - actor: { prefix: bot- }
",
    );
    let check = |claims: Value| rules.check(&object(claims));
    let release = json!({ "repository_owner": "acme-labs", "ref": "refs/tags/v1" });
    assert!(check(release.clone()).is_ok());
    assert!(check(json!({ "sub": "repo:acme/infra:ref:refs/heads/x" })).is_ok());

    let mut hosted = release.clone();
    hosted["runner_environment"] = json!("self-hosted");
    let error = check(hosted).unwrap_err();
    assert_eq!(error.reason(), Reason::DeniedByRule);
    assert_eq!(
        error.to_string(),
        "rule 1 of `deny` refuses tokens for which `runner_environment` is \"self-hosted\""
    );

    let error =
        check(json!({ "repository_owner": "acme", "ref": "refs/heads/secret-plan" })).unwrap_err();
    assert_eq!(error.reason(), Reason::NoAllowRuleMatched);
    assert_eq!(
        error.to_string(),
        "no rule of `allow` applies; of 2, rule 1 comes closest and expects that `ref` matches the glob \"refs/tags/v*\""
    );
    let error = check(json!({})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no rule of `allow` applies; of 2, rule 2 comes closest and expects that `sub` matches the regex \"^repo:acme/infra:.*$\""
    );
}

#[test]
fn conditions_read_as_statements() {
    for (condition, statement) in [
        ("a: x", "`a` is \"x\""),
        ("a: { in: [z, y, z] }", "`a` is one of \"y\", \"z\""),
        (
            "a: { in: [1,2,3,4,5,6,7] }",
            "`a` is one of \"1\", \"2\", \"3\", \"4\", \"5\" and 2 more",
        ),
        ("a: { prefix: x }", "`a` begins with \"x\""),
        ("a: { contains: x }", "`a` contains \"x\""),
        ("a: { exists: true }", "`a` is there"),
        ("a: { exists: false }", "`a` is not there"),
        ("a: { not: { exists: false } }", "`a` is there"),
        (
            "a: { not: { regex: x } }",
            "`a` does not match the regex \"x\"",
        ),
        (
            "a: { not: { glob: x*, prefix: y } }",
            "`a` does not do all of: matches the glob \"x*\", begins with \"y\"",
        ),
        ("$.a.b: \"\\r\\u202e\"", "`$.a.b` is \"\\u000d\\u202e\""),
        (
            "{ a: x, b: { prefix: y, not: z } }",
            "`a` is \"x\" and `b` begins with \"y\" and `b` is not \"z\"",
        ),
    ] {
        let rules = rules(&format!("allow:\n  - {condition}\n"));
        let [rule] = rules.list(RuleList::Allow) else {
            panic!("{rules:?}");
        };
        assert_eq!(rule.to_string(), statement);
    }
}

#[test]
fn long_values_are_cut_in_messages_and_not_where_all_is_asked_for() {
    let long = "\u{e9}".repeat(200);
    let single = rules(&format!("allow: [{{ a: {long} }}]"));
    let rules = rules(&format!(
        "allow: [{{ a: {{ in: [{long}, b, c, d, e, f] }} }}]"
    ));
    let [rule] = rules.list(RuleList::Allow) else {
        panic!("{rules:?}");
    };
    assert_eq!(
        rule.to_string(),
        "`a` is one of \"b\", \"c\", \"d\", \"e\", \"f\" and 1 more"
    );
    assert!(format!("{rule:#}").ends_with(&format!("\"f\", \"{long}\"")));
    let shown = format!("`a` is \"{}…\"", "\u{e9}".repeat(64));
    assert_eq!(single.list(RuleList::Allow)[0].to_string(), shown);
}

#[test]
fn every_mistake_is_found_at_its_place() {
    let long = "x".repeat(1025);
    let text = format!(
        "
allow:
  - ref: {{ globb: x }}
  - {{}}
  - a: {{ regex: '(a', in: x }}
  - - x
  - a: 1.10
  - a:
  - a: [x, y]
  - a: {{ in: [] }}
  - a: {{ prefix: \"\", exists: yes, glob: 'a[bc]' }}
  - a: {{ not: {{ not: x }} }}
  - $.a..b: x
  - a: {{ regex: {long} }}
  - a: {{ regex: '(?:(?:\\w{{100}}){{100}}){{100}}' }}
  - a: {{ equals: [x] }}
  - a: {{ in: [x, {{}}] }}
  - a: {{ glob: 'a***' }}
  - a: {{ regex: 'a)|(?:b' }}
deny: {{ a: x }}
"
    );
    let mistakes = read(&text).unwrap_err();
    let found: Vec<String> = mistakes
        .iter()
        .map(|mistake| {
            let RuleMistake {
                location,
                path,
                message,
                ..
            } = mistake;
            format!(
                "{}:{} {} {message}",
                location.line(),
                location.column(),
                path.join("/")
            )
        })
        .collect();
    let expected = [
        "3:12 allow/0/ref/globb unknown operator \"globb\"",
        "4:5 allow/1 the rule is empty, and would apply to every token",
        "5:17 allow/2/a/regex the regular expression cannot be used: unclosed group",
        "5:27 allow/2/a/in in wants a list",
        "6:5 allow/3 the rule is not a mapping",
        "7:8 allow/4/a a number with a fraction or an exponent can be written in several ways",
        "8:6 allow/5/a nothing is said of the claim",
        "9:8 allow/6/a a list alone says nothing of the claim",
        "10:14 allow/7/a/in the list is empty, and no claim is one of its values",
        "11:18 allow/8/a/prefix the text is empty, and would fit every claim",
        "11:30 allow/8/a/exists exists wants true or false",
        "11:41 allow/8/a/glob `[` has no meaning in a glob, only * and ** have; use regex, or several values",
        "12:17 allow/9/a/not/not not stands inside not",
        "13:5 allow/10/$.a..b a path to a claim is $ and then .name or ['name'] for each level",
        "14:17 allow/11/a/regex the pattern is longer than 1024 octets",
        "15:17 allow/12/a/regex the regular expression takes more than 1 MiB",
        "16:18 allow/13/a/equals expected one value, not a list",
        "17:18 allow/14/a/in/1 expected a value, not a mapping",
        "18:16 allow/15/a/glob more than two * in a row",
        "19:17 allow/16/a/regex the regular expression cannot be used: unopened group",
        "20:7 deny deny is not a list of rules",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_path_has_one_form() {
    for (text, outer) in [
        ("a", "a"),
        ("kubernetes.io", "kubernetes.io"),
        ("$.a.b", "a"),
        ("$['a.b'].c", "a.b"),
        ("$.a['b']", "a"),
    ] {
        assert_eq!(
            ClaimName::parse(text).map(|name| name.outer().to_owned()),
            Ok(outer.to_owned())
        );
    }
    for text in [
        "$",
        "$.",
        "$a",
        "$..a",
        "$.a.",
        "$.a b",
        "$[a]",
        "$['a'",
        "$['']",
        "$[\"a\"]",
        "$['a\\'b']",
        "$.a[0]",
        "$.*",
    ] {
        assert_eq!(ClaimName::parse(text), Err(InvalidName::Path), "{text}");
    }
    assert_eq!(ClaimName::parse(""), Err(InvalidName::Empty));
    assert_eq!(ClaimName::parse("a\u{202e}"), Err(InvalidName::Invisible));
    assert_eq!(
        ClaimName::parse(&"a".repeat(257)),
        Err(InvalidName::TooLong)
    );
}

#[test]
fn a_glob_takes_time_that_grows_with_the_text() {
    let glob = Glob::parse(&format!("{}b", "*a**a".repeat(200))).unwrap();
    assert!(!glob.matches(&"a".repeat(32 * 1024)));
    assert!(!glob.matches(&"a/".repeat(16 * 1024)));
}

/// What a glob means, in the shortest form.
fn naive_match(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => {
            (0..=text.len()).any(|length| naive_match(rest, &text[length..]))
        }
        [b'*', rest @ ..] => {
            let longest = text
                .iter()
                .position(|octet| *octet == b'/')
                .unwrap_or(text.len());
            (0..=longest).any(|length| naive_match(rest, &text[length..]))
        }
        [octet, rest @ ..] => text.first() == Some(octet) && naive_match(rest, &text[1..]),
    }
}

/// Conditions over two claims with few values, so that many of them meet.
fn condition() -> impl Strategy<Value = String> {
    let simple = prop_oneof![
        "[ab]{0,2}".prop_map(|text| format!("\"{text}\"")),
        "[ab]{1,2}".prop_map(|text| format!("{{ prefix: {text} }}")),
        "[ab*]{1,3}"
            .prop_filter("three stars", |text| text != "***")
            .prop_map(|text| format!("{{ glob: \"{text}\" }}")),
        "[ab.]{1,2}".prop_map(|text| format!("{{ regex: \"{text}\" }}")),
        "[ab]".prop_map(|text| format!("{{ contains: {text} }}")),
        any::<bool>().prop_map(|exists| format!("{{ exists: {exists} }}")),
        "[ab]{1,2}, [ab]{0,2}x".prop_map(|texts| format!("{{ in: [{texts}] }}")),
    ];
    let test =
        prop_oneof![3 => simple.clone(), 1 => simple.prop_map(|test| format!("{{ not: {test} }}"))];
    ("[xy]", test).prop_map(|(claim, test)| format!("{claim}: {test}"))
}

fn rule_list() -> impl Strategy<Value = String> {
    let rule = prop::collection::btree_map("[xy]", condition(), 1..3);
    let rule = rule.prop_map(|conditions| {
        let conditions = conditions.into_iter().map(|(claim, condition)| {
            let (_, test) = condition.split_once(": ").unwrap();
            format!("{claim}: {test}")
        });
        format!("{{ {} }}", conditions.collect::<Vec<_>>().join(", "))
    });
    // An empty list is written as none.
    prop::collection::vec(rule, 0..3).prop_map(|rules| match &rules[..] {
        [] => String::new(),
        rules => format!("[{}]", rules.join(", ")),
    })
}

fn claims() -> impl Strategy<Value = Object> {
    let value = prop_oneof![
        "[ab]{0,3}".prop_map(Value::from),
        "[ab] [ab]".prop_map(Value::from),
        Just(Value::Null),
        Just(json!(["a", "b"])),
        Just(json!({ "a": "b" })),
        Just(json!(true)),
    ];
    let claims = prop::collection::btree_map("[xy]", value, 0..3);
    claims.prop_map(|claims| claims.into_iter().collect())
}

#[test]
fn a_glob_covers_those_that_ask_for_more() {
    for (wide, narrow, expected) in [
        ("refs/tags/v*", "refs/tags/v1*", true),
        ("refs/tags/v*", "refs/tags/v*.*", true),
        ("refs/tags/v*", "refs/tags/v1/*", false),
        ("refs/tags/v*", "refs/tags/*", false),
        ("refs/tags/v*", "refs/tags/v**", false),
        ("refs/**", "refs/tags/v*", true),
        ("**", "**/x", true),
        (
            "acme/*/w.yml@refs/tags/v*",
            "acme/app/w.yml@refs/tags/v1.*",
            true,
        ),
        (
            "acme/*/w.yml@refs/tags/v*",
            "acme/a/b/w.yml@refs/tags/v1",
            false,
        ),
        ("*a*", "a*a", true),
    ] {
        let [parsed_wide, parsed_narrow] = [wide, narrow].map(|glob| Glob::parse(glob).unwrap());
        assert_eq!(
            parsed_wide.covers(&parsed_narrow),
            expected,
            "{wide} {narrow}"
        );
    }
}

proptest! {
    #[test]
    fn globs_agree_with_what_they_mean(pattern in "[ab/*\u{e9}]{0,8}", text in "[ab/\u{e9}]{0,10}") {
        prop_assume!(!pattern.contains("***"));
        let glob = Glob::parse(&pattern).unwrap();
        prop_assert_eq!(glob.matches(&text), naive_match(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn what_covers_a_glob_matches_wherever_it_does(
        wide in "[ab/*]{0,8}", narrow in "[ab/*]{0,8}", text in "[ab/]{0,8}",
    ) {
        prop_assume!(!wide.contains("***") && !narrow.contains("***"));
        let [wide, narrow] = [wide, narrow].map(|glob| Glob::parse(&glob).unwrap());
        prop_assert!(wide.covers(&wide));
        if wide.covers(&narrow) && narrow.matches(&text) {
            prop_assert!(wide.matches(&text), "{:?} {:?} {}", wide, narrow, text);
        }
    }

    #[test]
    fn outcomes_say_what_the_check_says(allow in rule_list(), deny in rule_list(), claims in claims()) {
        let rules = rules(&format!("allow: {allow}\ndeny: {deny}\n"));
        let outcomes = rules.outcomes(&claims);
        let mut denying = outcomes.iter().filter(|outcome| outcome.list == RuleList::Deny && outcome.applies());
        let mut allowing = outcomes.iter().filter(|outcome| outcome.list == RuleList::Allow);
        let expected = match denying.next() {
            Some(_) => Some(Reason::DeniedByRule),
            None if rules.list(RuleList::Allow).is_empty() || allowing.any(RuleOutcome::applies) => None,
            None => Some(Reason::NoAllowRuleMatched),
        };
        prop_assert_eq!(rules.check(&claims).err().map(|error| error.reason()), expected);
    }

    #[test]
    fn what_covers_a_rule_applies_wherever_it_does(one in rule_list(), other in rule_list(), claims in claims()) {
        let both = [one, other].map(|list| rules(&format!("allow: {list}\n")));
        for wide in both[0].list(RuleList::Allow) {
            prop_assert!(wide.covers(wide));
            for narrow in both[1].list(RuleList::Allow) {
                let applies = |rule: &Rule, rules: &ClaimRules| rule.applies(&rules.values(&claims));
                if wide.covers(narrow) && applies(narrow, &both[1]) {
                    prop_assert!(applies(wide, &both[0]), "{} / {}", wide, narrow);
                }
            }
        }
    }
}
