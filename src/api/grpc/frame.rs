//! Messages on the wire: five octets before each, and a status behind the last (gRPC over HTTP/2).

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use tonic::Status;
use tonic::body::Body;

use crate::api::outcome::Refusal;

/// The octets before a message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// The one message in the body of a call.
///
/// # Errors
/// When there is another number of them, or it is compressed, which no answer of ours invites to.
pub(super) fn message(body: &[u8]) -> Result<&[u8], Refusal> {
    let malformed = Refusal::malformed_message;
    let Some((prefix, message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(malformed("there is no message"));
    };
    let [compressed, length @ ..] = *prefix;
    match compressed {
        0 => {}
        1 => return Err(Refusal::unimplemented("compressed messages are not read")),
        _ => return Err(malformed("the octet before a message is neither 0 nor 1")),
    }
    let length = u32::from_be_bytes(length) as usize;
    match message.len() {
        found if found < length => Err(malformed("the message is incomplete")),
        found if found > length => Err(malformed("there is more than one message")),
        _ => Ok(message),
    }
}

/// A message with what stands before it.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut octets = BytesMut::with_capacity(PREFIX + length);
    octets.put_u8(0);
    // What a server says of itself is shorter than 4 GiB.
    octets.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    octets.put_slice(&message.encode_to_vec());
    octets.freeze()
}

/// The body of an answer of one message.
pub(super) fn last(message: Bytes) -> Body {
    let trailers = Frame::trailers(trailers(&Status::ok("")));
    let frames = [Frame::data(message), trailers].map(Ok::<_, Status>);
    Body::new(StreamBody::new(stream::iter(frames)))
}

/// What stands behind the last message.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // It has neither text nor metadata that could not be written.
    let _ = status.add_header(&mut trailers);
    trailers
}

/// The response around a body.
pub(super) fn answer(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::health::HealthCheckRequest;

    #[test]
    fn a_message_is_what_was_framed() {
        let asked = HealthCheckRequest {
            service: "a".repeat(300),
        };
        let framed = framed(&asked);
        let read = message(&framed).unwrap();
        assert_eq!(HealthCheckRequest::decode(read).unwrap(), asked);
        assert!(message(&[0; 5]).unwrap().is_empty());
    }

    #[test]
    fn anything_but_one_whole_plain_message_is_refused() {
        for (body, expected) in [
            (&b""[..], "there is no message"),
            (b"\0\0\0\0", "there is no message"),
            (b"\0\0\0\0\x02a", "the message is incomplete"),
            (b"\0\xff\xff\xff\xffa", "the message is incomplete"),
            (b"\0\0\0\0\x01ab", "there is more than one message"),
            (b"\0\0\0\0\0\0\0\0\0\0", "there is more than one message"),
            (b"\x02\0\0\0\x01a", "neither 0 nor 1"),
            (b"\x01\0\0\0\x01a", "compressed"),
        ] {
            let refusal = message(body).unwrap_err();
            let text = refusal.message(crate::api::ErrorDetail::Reason);
            assert!(text.contains(expected), "{body:?}: {text}");
        }
    }
}
