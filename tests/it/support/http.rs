//! HTTP/1.1 to the octet: requests that are written as they are, answers that are read as they came.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::HANG;

/// A request. Nothing is added to what is set but `Host` and `Content-Length`.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::new("POST", target)
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// The request's octets.
    pub(crate) fn octets(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\n",
            self.method, self.target
        );
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() || self.method == "POST" {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of the one header of this name, which is matched without case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() < 2, "more than one {name} in {self:?}");
        values.first().copied()
    }

    /// The values of all headers of this name.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let headers = self.headers.iter();
        let named = headers.filter(|(header, _)| header.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A connection that is read as HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Connection<S: Read + Write>(BufReader<S>);

impl Connection<TcpStream> {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// The connection's socket.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Says that nothing more will be sent, to a server that may have closed the connection.
    pub(crate) fn finish_sending_if_open(&self) {
        let _ = self.0.get_ref().shutdown(std::net::Shutdown::Write);
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish_sending(&self) {
        self.0
            .get_ref()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }
}

impl<S: Read + Write> Connection<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    pub(crate) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(octets)?;
        self.0.get_mut().flush()
    }

    pub(crate) fn send(&mut self, request: &Request) -> Answer {
        self.write(&request.octets()).expect("the server reads");
        self.answer_to(request.method).expect("an answer")
    }

    /// Reads the answer to a request of a method: to `HEAD`, it has no body.
    pub(crate) fn answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let status_line = self.line()?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| wrong(&format!("status line {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| wrong(&line))?;
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let is_chunked = answer.header("transfer-encoding") == Some("chunked");
        let length = answer
            .header("content-length")
            .map(|length| length.parse::<usize>().expect("a length"));
        if method == "HEAD" || matches!(status, 204 | 304) {
            return Ok(answer);
        }
        if is_chunked {
            loop {
                let size =
                    usize::from_str_radix(&self.line()?, 16).map_err(|_| wrong("chunk size"))?;
                let mut chunk = vec![0; size];
                self.0.read_exact(&mut chunk)?;
                answer.body.extend(chunk);
                self.line()?;
                if size == 0 {
                    return Ok(answer);
                }
            }
        }
        let length = length.ok_or_else(|| wrong("neither length nor chunks"))?;
        answer.body = vec![0; length];
        self.0.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let text = line.strip_suffix("\r\n");
        text.map(str::to_owned)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Everything until the server closes the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            // A server that closes with octets unread resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the server did not close the connection: {error}"),
        }
    }
}

/// Sends a request on a connection of its own.
pub(crate) fn send(address: SocketAddr, request: &Request) -> Answer {
    Connection::open(address).send(request)
}
