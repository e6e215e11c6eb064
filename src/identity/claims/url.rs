//! URLs that are made of claims. They are text: verifiers compare them octet by octet, so the form is Fulcio's.

use std::borrow::Cow;
use std::fmt::Write as _;

use ::url::Host;

use super::super::error::TokenError;
use super::invalid;

/// Cleans the part of a URL's path that a claim fills: no empty, `.` and `..` segments. Slashes at both ends go too.
///
/// # Errors
/// When nothing is left, or the part climbs over its own beginning; above the `root` of a host there is nothing to reach.
pub(super) fn clean(claim: &str, text: &str, is_root: bool) -> Result<String, TokenError> {
    let mut path: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." if path.pop().is_some() || is_root => {}
            ".." => return Err(invalid(claim, "it leaves the path that it belongs to")),
            segment => path.push(segment),
        }
    }
    if path.is_empty() {
        return Err(invalid(claim, "it is not a path"));
    }
    Ok(path.join("/"))
}

/// Checks that what stands after `https://` is a host, with or without a port, and at most a path after it.
pub(super) fn check_location(claim: &str, text: &str) -> Result<(), TokenError> {
    let (authority, path) = text.split_once('/').unwrap_or((text, ""));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    // Numbers with dots that are no address, and empty labels, are no host either.
    let is_host = host.starts_with(|first: char| first.is_ascii_alphanumeric())
        && host.bytes().all(is_plain)
        && !host.contains("..")
        && Host::parse(host).is_ok();
    if !is_host || port.is_empty() || !port.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(invalid(claim, "it does not begin with a host"));
    }
    if path.contains(['?', '#']) {
        return Err(invalid(claim, "it has a query or a fragment"));
    }
    if path.split('/').any(is_dot_segment) {
        return Err(invalid(claim, "its path has . or .. segments"));
    }
    Ok(())
}

/// Writes a path as Go's `net/url` does: unchanged when it is a valid path, and otherwise with everything encoded but
/// letters, digits and `-_.~$&+,/:;=@`. Percent-encodings that stand in it stay.
pub(in super::super) fn escape_path(path: &str) -> Cow<'_, str> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&octet);
    let mut is_valid = true;
    let mut escaped = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        if is_plain(octet) || (octet == b'%' && begins_with_hex_pair(tail)) {
            escaped.push(char::from(octet));
        } else {
            is_valid &= b"!'()*[]".contains(&octet);
            // Writing to a `String` does not fail.
            let _ = write!(escaped, "%{octet:02X}");
        }
    }
    if is_valid {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(escaped)
    }
}

/// Whether the octets begin with two hexadecimal digits, as they must after a `%`.
fn begins_with_hex_pair(octets: &[u8]) -> bool {
    matches!(octets, [first, second, ..] if first.is_ascii_hexdigit() && second.is_ascii_hexdigit())
}

/// Whether a text has only the characters of a URI's path and query, with complete percent-encodings (RFC 3986, section 3.3).
pub(super) fn is_uri_text(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        let is_percent = octet == b'%' && begins_with_hex_pair(tail);
        if !(is_percent || octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&octet))
        {
            return false;
        }
        rest = tail;
    }
    true
}

/// Whether a segment is `.` or `..`, also when its dots are percent-encoded.
pub(super) fn is_dot_segment(segment: &str) -> bool {
    segment.len() <= 6
        && matches!(
            segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
            "." | ".."
        )
}
