//! The URI that a template makes into a certificate's name: what it may be, and how it is written.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The longest name, in octets.
const MAX_OCTETS: usize = 2048;

/// What a text has before its first colon, if that is the scheme of a URI (RFC 3986, section 3.1).
pub(super) fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let is_inner = |octet: u8| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet);
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_inner);
    is_scheme.then_some(scheme)
}

/// Checks that a text is a URI with one of these schemes and a host, and writes it as Go's `net/url` does when it has read
/// it, which is what verifiers compare.
pub(super) fn uri(text: &str, schemes: &[String]) -> Result<String, &'static str> {
    let scheme = scheme(text).ok_or("is not a URI with a scheme")?;
    let rest = text.get(scheme.len() + 1..).unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    if !schemes.contains(&scheme) {
        return Err("has another scheme than https or that of its template");
    }
    let rest = rest.strip_prefix("//").ok_or("has no host")?;
    if text.contains(char::is_whitespace) {
        return Err("has white space");
    }
    if text.contains('#') {
        return Err("has a fragment");
    }
    let (rest, query) = match rest.find('?') {
        Some(start) => rest.split_at_checked(start).unwrap_or((rest, "")),
        None => (rest, ""),
    };
    let start = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(start).unwrap_or((rest, ""));
    if !is_host(authority) {
        return Err("has no host, or more than a host and a port before its path");
    }
    if !query.is_ascii() {
        return Err("has a query that is not ASCII");
    }
    let uri = format!("{scheme}://{authority}{}{query}", write_path(path)?);
    if uri.len() > MAX_OCTETS {
        return Err("is longer than 2048 octets");
    }
    Ok(uri)
}

/// Whether this is a host name or address, and perhaps a port.
fn is_host(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let is_address = |octet: u8| octet.is_ascii_hexdigit() || b":.".contains(&octet);
                (address.bytes().all(is_address).then_some(address), port)
            }
            None => return false,
        },
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(end).unwrap_or((authority, ""));
            let is_name = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
            (host.bytes().all(is_name).then_some(host), port)
        }
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit())
        });
    is_port && host.is_some_and(|host| !host.is_empty())
}

/// Writes a path as Go does: unchanged when it has only what a path may have, else decoded and encoded anew.
fn write_path(path: &str) -> Result<Cow<'_, str>, &'static str> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&octet);
    let mut is_valid = true;
    let mut written = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let octet = if first == b'%' {
            let (octet, tail) = hex_pair(tail).ok_or("has an incomplete percent-encoding")?;
            rest = tail;
            octet
        } else {
            is_valid &= is_plain(first) || b"!'()*[]".contains(&first);
            first
        };
        if is_plain(octet) {
            written.push(char::from(octet));
        } else {
            // Writing to a `String` does not fail.
            let _ = write!(written, "%{octet:02X}");
        }
    }
    Ok(if is_valid {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(written)
    })
}

/// The octet that two hexadecimal digits stand for, and what follows them.
fn hex_pair(octets: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], rest) = octets.split_first_chunk()?;
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let value = digit(high)? * 16 + digit(low)?;
    Some((u8::try_from(value).ok()?, rest))
}
