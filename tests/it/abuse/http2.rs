//! Abuse of HTTP/2 on the one port: floods of frames, of header fields and of calls that nobody wants answered.

use mayfly::config::Settings;
use mayfly::proto::health::HealthCheckRequest;
use mayfly::proto::health::health_check_response::ServingStatus;

use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, Hostile, PING,
    PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, call, field, frame,
};
use crate::support::grpc::{Caller, call as raw_call, send_raw};
use crate::support::server::TestServer;

const CREATE: &str = "/dev.sigstore.fulcio.v2.CA/CreateSigningCertificate";
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// CANCEL (RFC 9113, section 7).
const CANCEL: &[u8] = &[0, 0, 0, 8];

/// The numbers of the streams that a client opens.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// Others are served as if nothing had happened.
fn serves_others(server: &TestServer) {
    let before = server.traces();
    Caller::connect(server.address)
        .sign(server.good_call())
        .unwrap();
    assert_eq!(server.send(&server.good_request()).status, 200);
    assert_eq!(server.traces().certificates, before.certificates + 2);
}

#[test]
fn calls_that_are_taken_back_at_once_end_the_connection() {
    let server = TestServer::start();
    let mut hostile = Hostile::open(server.address, &[]);
    let flood: Vec<u8> = streams(10_000)
        .flat_map(|stream| {
            let headers = frame(HEADERS, END_HEADERS, stream, &call(CREATE));
            [headers, frame(RST_STREAM, 0, stream, CANCEL)].concat()
        })
        .collect();
    // The server may close before all is written.
    let _ = hostile.send(&flood);
    let code = hostile.end();
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
    serves_others(&server);
}

#[test]
fn calls_that_are_taken_back_one_by_one_end_the_connection_too() {
    let server = TestServer::start();
    let mut hostile = Hostile::open(server.address, &[]);
    let mut taken_back = 0;
    for stream in streams(10_000) {
        // The call has begun before it is taken back.
        let headers = frame(HEADERS, END_HEADERS, stream, &call(CREATE));
        if hostile.send(&headers).is_err() || !hostile.is_heard() {
            break;
        }
        if hostile.send(&frame(RST_STREAM, 0, stream, CANCEL)).is_err() || !hostile.is_heard() {
            break;
        }
        taken_back += 1;
    }
    assert!((50..1000).contains(&taken_back), "{taken_back}");
    serves_others(&server);
}

#[test]
fn mistakes_that_make_the_server_take_calls_back_end_the_connection() {
    let server = TestServer::start();
    let mut hostile = Hostile::open(server.address, &[]);
    let flood: Vec<u8> = streams(10_000)
        .flat_map(|stream| {
            let headers = frame(HEADERS, END_HEADERS, stream, &call(CREATE));
            // A window that grows by nothing (RFC 9113, section 6.9).
            [headers, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
        })
        .collect();
    let _ = hostile.send(&flood);
    let code = hostile.end();
    assert_ne!(code, Some(0), "the connection ended well");
    serves_others(&server);
}

#[test]
fn header_fields_without_end_end_the_connection() {
    let server = TestServer::start();
    let more = field("x", &"a".repeat(4000));
    let mut hostile = Hostile::open(server.address, &[]);
    let first = frame(HEADERS, 0, 1, &call(CREATE));
    let rest = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &more), 20_000);
    let sent = hostile.flood(std::iter::once(first).chain(rest));
    assert!(sent < 20_000, "80 MB of header fields were read");
    let mut empty = Hostile::open(server.address, &[]);
    let first = frame(HEADERS, 0, 1, &call(CREATE));
    let rest = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &[]), 100_000);
    empty.flood(std::iter::once(first).chain(rest));
    serves_others(&server);
}

#[test]
fn a_small_block_of_many_header_fields_is_not_unpacked() {
    let server = TestServer::start();
    let mut hostile = Hostile::open(server.address, &[]);
    // One field of 4,000 octets goes into the table (RFC 7541, section 6.2.1), and then thousands of references to it.
    let mut block = call(CREATE);
    let mut stored = field("x", &"a".repeat(4000));
    stored[0] = 0x40;
    block.extend(stored);
    block.extend([0xbe; 10_000]);
    hostile
        .send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
        .unwrap();
    // It is refused by itself, or the connection with it.
    hostile.is_heard();
    serves_others(&server);
    let metrics = server.metrics();
    let memory = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    let memory: f64 = memory.unwrap().parse().unwrap();
    assert!(memory < f64::from(1 << 30), "{memory}");
}

#[test]
fn a_head_of_more_than_48_kib_is_refused() {
    let server = TestServer::start();
    let long = "a".repeat(16 << 10);
    let answer = send_raw(
        server.address,
        raw_call(CHECK, &[("x", &long)]),
        &[&[0; 5]],
        false,
    );
    assert_eq!(answer.unwrap().code(), "0", "16 KiB of metadata are read");
    let headers = [("x", &*long), ("y", &long), ("z", &long)];
    let answer = send_raw(server.address, raw_call(CHECK, &headers), &[&[0; 5]], false);
    // As a status of HTTP, or by taking the call back.
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 431, "{answer:?}");
    }
    serves_others(&server);
}

#[test]
fn floods_of_frames_that_cost_the_sender_little_hold_up_nobody() {
    let server = TestServer::start();
    let headers = frame(HEADERS, END_HEADERS, 1, &call(CREATE));
    for (what, first, frame) in [
        ("SETTINGS", vec![], frame(SETTINGS, 0, 0, &[])),
        ("PING", vec![], frame(PING, 0, 0, &[0; 8])),
        ("answers to PING", vec![], frame(PING, ACK, 0, &[0; 8])),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("empty DATA", headers.clone(), frame(DATA, 0, 1, &[])),
        ("what nobody knows", vec![], frame(0xee, 0, 0, &[0; 32])),
    ] {
        let mut hostile = Hostile::open(server.address, &[]);
        hostile.flood(std::iter::once(first).chain(std::iter::repeat_n(frame, 50_000)));
        println!("after {what}");
        serves_others(&server);
    }
}

#[test]
fn a_client_that_takes_no_answer_is_left() {
    let soon = |settings: &mut Settings| settings.idle_timeout = Some("1s".parse().unwrap());
    let server = TestServer::start_with(soon, "");
    // SETTINGS_INITIAL_WINDOW_SIZE is 0, and stays so.
    let mut hostile = Hostile::open(server.address, &[0, 4, 0, 0, 0, 0]);
    for stream in streams(90) {
        hostile
            .send(&frame(HEADERS, END_HEADERS, stream, &call(CHECK)))
            .unwrap();
        hostile
            .send(&frame(DATA, END_STREAM, stream, &[0; 5]))
            .unwrap();
    }
    hostile.end();
    serves_others(&server);
}

#[test]
fn connections_that_are_not_used_are_closed_and_those_that_wait_for_news_are_not() {
    let soon = |settings: &mut Settings| settings.idle_timeout = Some("1s".parse().unwrap());
    let mut server = TestServer::start_with(soon, "");
    let caller = Caller::connect(server.address);
    let asked = HealthCheckRequest {
        service: "another".to_owned(),
    };
    let mut watched = caller
        .wait(caller.health().watch(asked))
        .unwrap()
        .into_inner();
    let first = caller.wait(watched.message()).unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);

    let mut preface_alone = Hostile::connect(server.address);
    preface_alone.send(PREFACE).unwrap();
    let mut half_a_frame = Hostile::connect(server.address);
    half_a_frame
        .send(&[PREFACE, &[0, 0, 6, 4]].concat())
        .unwrap();
    let mut only_settings = Hostile::open(server.address, &[]);
    preface_alone.end();
    half_a_frame.end();
    only_settings.end();
    let mut once_more = Hostile::open(server.address, &[]);
    once_more.end();

    server.begin_to_stop();
    let end = caller.wait(watched.message()).unwrap_err();
    assert_eq!(
        end.code(),
        tonic::Code::Unavailable,
        "it was still open: {end}"
    );
}

#[test]
fn a_stop_finishes_the_call_that_has_begun_and_waits_for_no_idle_connection() {
    // Longer than any test waits.
    let patient = |settings: &mut Settings| {
        settings.shutdown_grace = Some("1h".parse().unwrap());
        settings.idle_timeout = Some("1h".parse().unwrap());
    };
    let mut server = TestServer::start_with(patient, "");
    let mut idle = Hostile::open(server.address, &[]);
    assert!(idle.is_heard());
    let log = std::sync::Arc::clone(server.log.as_ref().unwrap());
    log.hold();
    let call = server.good_call();
    let address = server.address;
    let begun = std::thread::spawn(move || Caller::connect(address).sign(call));
    crate::support::wait_for("the submission", || (log.waiting() == 1).then_some(()));
    server.begin_to_stop();
    log.let_go();
    idle.end();
    begun.join().unwrap().unwrap();
}
