//! HTTP/2 to the octet: frames as no good client sends them (RFC 9113).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::HANG;

/// The first octets of a connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The code that a connection of a client that overdoes it ends with.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

/// A frame's octets.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A header field as HPACK writes it without a table (RFC 7541, section 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// A string of HPACK (RFC 7541, section 5.2).
fn text(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.len();
    if rest < 127 {
        octets.push(u8::try_from(rest).unwrap());
    } else {
        octets.push(127);
        rest -= 127;
        while rest >= 128 {
            octets.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        octets.push(u8::try_from(rest).unwrap());
    }
    octets.extend(text.as_bytes());
    octets
}

/// The fields of a call.
pub(crate) fn call(path: &str) -> Vec<u8> {
    [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", "localhost"),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ]
    .concat()
}

/// A connection on which frames are written as they are.
pub(crate) struct Hostile(TcpStream);

impl Hostile {
    /// Connects, and begins as every client does, with these settings.
    pub(crate) fn open(address: SocketAddr, settings: &[u8]) -> Self {
        let mut hostile = Self::connect(address);
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
        hostile.send(&begin).unwrap();
        hostile
    }

    /// Connects, and says nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.write_all(octets)
    }

    /// Sends frames until the server ends the connection, waits for its end, and returns how many were sent.
    pub(crate) fn flood(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) -> usize {
        let mut reader = self.0.try_clone().unwrap();
        let reading = std::thread::spawn(move || {
            let mut octets = Vec::new();
            // A server that closes with octets unread resets the connection.
            let _ = reader.read_to_end(&mut octets);
        });
        let sent = frames
            .into_iter()
            .take_while(|frame| self.0.write_all(frame).is_ok());
        let sent = sent.count();
        // The server may have closed it.
        let _ = self.0.shutdown(std::net::Shutdown::Write);
        reading.join().unwrap();
        sent
    }

    /// The next frame, unless the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return None;
            }
            Err(error) => panic!("the server did not close the connection: {error}"),
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            payload,
        })
    }

    /// Waits until the server has seen all that was sent. `false`: the connection has ended.
    pub(crate) fn is_heard(&mut self) -> bool {
        if self.send(&frame(PING, 0, 0, b"mayfly??")).is_err() {
            return false;
        }
        while let Some(frame) = self.next() {
            if frame.kind == PING && frame.flags & ACK != 0 {
                return true;
            }
        }
        false
    }

    /// The code of the last GOAWAY before the connection ends.
    pub(crate) fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                let octets = frame.payload[4..8].try_into().unwrap();
                code = Some(u32::from_be_bytes(octets));
            }
        }
        code
    }
}
