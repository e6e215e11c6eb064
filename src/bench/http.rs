//! As much HTTP/1.1 as a load generator needs: one request at a time over a connection that stays open.
//!
//! A client library would take more CPU than the server leaves: both run on the same cores.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer that is read, in octets.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// An answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// A connection that is kept open.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(16 << 10),
        })
    }

    /// Sends a whole request, head and body, and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks, or the answer has no `Content-Length`.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
            self.read_more().await?;
        };
        while self.buffer.len() < head.end + head.content_length {
            self.read_more().await?;
        }
        let body = self
            .buffer
            .get(head.end..head.end + head.content_length)
            .unwrap_or_default();
        Ok(Answer {
            status: head.status,
            body,
        })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        if self.buffer.len() > MAX_ANSWER_BYTES {
            return Err(invalid("the answer is too large"));
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Eq, PartialEq)]
struct Head {
    status: u16,
    content_length: usize,
    /// Where the body begins.
    end: usize,
}

/// `None`: it has not all come yet.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(length) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(bytes.get(..length).unwrap_or_default())
        .map_err(|_| invalid("the answer's head is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .ok_or_else(|| invalid("the answer is not HTTP/1.1"))?;
    let content_length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| invalid("the answer has no Content-Length"))?;
    Ok(Some(Head {
        status,
        content_length,
        end: length + 4,
    }))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Encodes a `GET`.
#[must_use]
pub fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Encodes a `POST` of JSON.
#[must_use]
pub fn post_json(host: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let whole = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\nVary: Origin\r\n\r\nhello";
        assert!(parse_head(&whole[..40]).unwrap().is_none());
        let head = parse_head(whole).unwrap().unwrap();
        assert_eq!((head.status, head.content_length), (201, 5));
        assert_eq!(&whole[head.end..], b"hello");
        for wrong in [
            &b"SSH-2.0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(parse_head(wrong).is_err(), "{wrong:?}");
        }
    }
}
