use proptest::prelude::*;

use super::stream::STREAM_BYTES_MAX;
use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_ID: &str = "ffffffffffffffffffffffffffffffffffffffff";
const GETACK: &str = "*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";
const FULL: &str = "+FULLRESYNC 0123456789abcdef0123456789abcdef01234567 1000\r\n$9\r\n";

fn config() -> PrimaryConfig {
    PrimaryConfig {
        login: None,
        replication_id: ID.into(),
        offset: 1000,
        payload_bytes: 9,
        announced_port: None,
    }
}

fn session_of(config: PrimaryConfig) -> PrimarySession {
    PrimarySession::new(Arc::new(config), ReplicationStream::default())
}

fn session() -> PrimarySession {
    session_of(config())
}

fn with_login(user: Option<&str>) -> PrimarySession {
    let login = Some((user.map(Into::into), b"secret".to_vec()));
    session_of(PrimaryConfig { login, ..config() })
}

fn with_port() -> PrimarySession {
    session_of(PrimaryConfig { announced_port: Some(6379), ..config() })
}

fn resp(line: &str) -> Vec<u8> {
    encode_command(&line.split(' ').collect::<Vec<_>>())
}

fn sent(session: &mut PrimarySession) -> String {
    String::from_utf8(session.poll_transmit().unwrap_or_default()).unwrap()
}

fn events(session: &mut PrimarySession) -> Vec<PrimaryEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// The reply to one command.
fn answer(session: &mut PrimarySession, command: &str) -> String {
    session.handle_bytes(&resp(command)).unwrap();
    sent(session)
}

/// A session whose target has the snapshot, without the output so far.
fn streaming() -> PrimarySession {
    let mut session = session();
    assert_eq!(answer(&mut session, "PSYNC ? -1"), FULL);
    session.payload_sent();
    assert_eq!(sent(&mut session), GETACK);
    assert_eq!(events(&mut session), [PrimaryEvent::SnapshotWanted]);
    session
}

/// The session of the next connection, whose peer accepts an id in `+CONTINUE`.
fn reconnected(session: PrimarySession) -> PrimarySession {
    let mut next = PrimarySession::new(Arc::new(config()), session.into_stream());
    assert_eq!(answer(&mut next, "REPLCONF capa eof capa psync2"), "+OK\r\n");
    next
}

type Outcome = (Vec<u8>, Vec<PrimaryEvent>, Result<(), PrimaryError>);

/// Feeds `bytes` in pieces; the RDB counts as sent when it is requested.
fn run(mut session: PrimarySession, bytes: &[u8], chunk: usize) -> Outcome {
    let (mut sent, mut events) = (Vec::new(), Vec::new());
    let mut result = Ok(());
    for piece in bytes.chunks(chunk) {
        result = session.handle_bytes(piece);
        sent.extend(session.poll_transmit().unwrap_or_default());
        while let Some(event) = session.poll_event() {
            events.push(event);
            if event == PrimaryEvent::SnapshotWanted {
                session.payload_sent();
                sent.extend(session.poll_transmit().unwrap_or_default());
            }
        }
        if result.is_err() {
            break;
        }
    }
    (sent, events, result)
}

fn error_of(session: PrimarySession, bytes: &[u8]) -> PrimaryError {
    let (sent, events, result) = run(session, bytes, bytes.len());
    let error = result.unwrap_err();
    assert!(error.to_string().bytes().all(|b| (0x20..0x7f).contains(&b)), "{error}");
    assert!(!sent.windows(5).any(|window| window == b"+FULL"), "{error}");
    assert!(events.is_empty());
    error
}

#[test]
fn a_restore_does_not_depend_on_the_size_of_pieces() {
    let handshake = [
        "PING",
        "AUTH secret",
        "REPLCONF listening-port 6379",
        "REPLCONF ip-address 10.0.0.1",
        "REPLCONF capa eof capa psync2 capa dual-channel",
        "REPLCONF version 9.1.2",
        "PSYNC ? -1",
    ];
    let arrays: Vec<u8> = handshake.iter().flat_map(|line| resp(line)).collect();
    let inline = (handshake.join("\r\n") + "\r\n").into_bytes();
    for stream in [arrays, inline] {
        let expected = format!("+PONG\r\n{}{FULL}{GETACK}", "+OK\r\n".repeat(5));
        for chunk in 1..=stream.len() {
            let (sent, events, result) = run(session(), &stream, chunk);
            assert_eq!(String::from_utf8(sent).unwrap(), expected, "chunk {chunk}");
            assert_eq!(events, [PrimaryEvent::SnapshotWanted]);
            assert_eq!(result, Ok(()));
        }
    }
}

#[test]
fn inline_commands_split_at_spaces_and_ignore_quotes() {
    let mut session =
        session_of(PrimaryConfig { login: Some((None, b"\"q\"".to_vec())), ..config() });
    session.handle_bytes(b"\n\r\nAUTH  \"q\" \r\nping\nPsync ? -1\r\n").unwrap();
    assert_eq!(sent(&mut session), format!("+OK\r\n+PONG\r\n{FULL}"));
}

#[test]
fn keep_alives_of_a_loading_target_are_ignored() {
    let mut session = streaming();
    let stream =
        [b"\n\n\n", &resp("REPLCONF ACK 1000")[..], b"\n", &resp("REPLCONF ACK 1037")].concat();
    session.handle_bytes(&stream).unwrap();
    assert_eq!(
        events(&mut session),
        [PrimaryEvent::Acknowledged(1000), PrimaryEvent::Acknowledged(1037)]
    );
    assert_eq!(sent(&mut session), "");
}

#[test]
fn acknowledgements_get_no_reply() {
    let mut session = streaming();
    session.handle_bytes(&resp("replconf ack 1037 FACK 1000")).unwrap();
    session.handle_bytes(&resp("REPLCONF GETACK *")).unwrap();
    session.handle_bytes(b"*0\r\n*-1\r\n").unwrap();
    assert_eq!(sent(&mut session), "");
    assert_eq!(events(&mut session), [PrimaryEvent::Acknowledged(1037)]);
    assert_eq!((session.offset_wanted(), session.offset()), (1000, 1037));
}

#[test]
fn an_acknowledgement_of_unsent_bytes_ends_the_session() {
    let mut early = session();
    assert_eq!(answer(&mut early, "REPLCONF ACK 1000"), "");
    assert_eq!(answer(&mut early, "PSYNC ? -1"), FULL);
    assert_eq!(answer(&mut early, "REPLCONF ACK 1000"), "");
    assert_eq!(events(&mut early), [PrimaryEvent::SnapshotWanted]);

    let too_much = PrimaryError::AcknowledgedTooMuch { acknowledged: 1038, end: 1037 };
    assert_eq!(streaming().handle_bytes(&resp("REPLCONF ACK 1038")), Err(too_much));
    for nonsense in ["x", "-1", "+1", "99999999999999999999", ""] {
        let result = streaming().handle_bytes(&resp(&format!("REPLCONF ACK {nonsense}")));
        assert!(matches!(result, Err(PrimaryError::NotACommand(_))), "{result:?}");
    }
}

#[test]
fn any_login_is_accepted_without_a_known_login() {
    for login in ["AUTH secret", "AUTH user secret"] {
        assert_eq!(answer(&mut session(), login), "+OK\r\n");
    }
    assert_eq!(answer(&mut session(), "PING"), "+PONG\r\n");
}

#[test]
fn a_correct_login_opens_the_session() {
    for (user, login) in [
        (None, "AUTH secret"),
        (None, "AUTH default secret"),
        (Some("default"), "AUTH secret"),
        (Some("backup"), "AUTH backup secret"),
    ] {
        let mut session = with_login(user);
        let refusal = "-NOAUTH Authentication required.\r\n";
        for command in ["PING", "REPLCONF listening-port 1", "PSYNC ? -1", "INFO"] {
            assert_eq!(answer(&mut session, command), refusal);
        }
        assert_eq!(answer(&mut session, login), "+OK\r\n");
        assert_eq!(answer(&mut session, "PSYNC ? -1"), FULL);
    }
}

#[test]
fn a_wrong_login_ends_the_session() {
    for (user, login) in [
        (None, "AUTH secre"),
        (None, "AUTH secrets"),
        (None, "AUTH backup secret"),
        (None, "AUTH"),
        (None, "AUTH default secret more"),
        (Some("backup"), "AUTH secret"),
        (Some("backup"), "AUTH backup Secret"),
        (Some("backup"), "AUTH Backup secret"),
    ] {
        let mut session = with_login(user);
        assert_eq!(session.handle_bytes(&resp(login)), Err(PrimaryError::LoginRefused));
        assert!(sent(&mut session).starts_with("-WRONGPASS "));
    }
}

#[test]
fn only_the_port_of_the_target_is_served() {
    let mut right = with_port();
    assert_eq!(answer(&mut right, "REPLCONF listening-port 6379"), "+OK\r\n");
    assert_eq!(answer(&mut right, "PSYNC ? -1"), FULL);

    for wrong in ["6380", "66379", "x", "\x1b[2J", "-1", ""] {
        let bytes = resp(&format!("REPLCONF ip-address 10.0.0.1 listening-port {wrong}"));
        let error = error_of(with_port(), &bytes);
        assert!(matches!(error, PrimaryError::WrongPort { wanted: 6379, .. }), "{error:?}");
    }
    let silent = error_of(with_port(), &resp("PSYNC ? -1"));
    assert_eq!(silent, PrimaryError::PortNotAnnounced { wanted: 6379 });
}

#[test]
fn a_separate_rdb_connection_is_refused_and_its_capability_accepted() {
    let mut session = session();
    for option in ["rdb-channel 1", "main-ch-client-id 7", "set-rdb-client-id 7"] {
        let answer = answer(&mut session, &format!("REPLCONF {option}"));
        assert!(answer.starts_with("-ERR "), "{answer}");
    }
    for capability in ["dual-channel", "rdb-channel-repl"] {
        let answer = answer(&mut session, &format!("REPLCONF capa {capability}"));
        assert_eq!(answer, "+OK\r\n");
    }
    assert_eq!(answer(&mut session, "REPLCONF unknown-option 1"), "+OK\r\n");
    assert_eq!(answer(&mut session, "REPLCONF capa"), "-ERR syntax error\r\n");
    assert_eq!(answer(&mut session, "PSYNC ? -1"), FULL);
}

#[test]
fn an_unsupported_command_is_refused_and_the_session_continues() {
    let mut session = session();
    let other = format!("PSYNC {ID} 1001 FAILOVER");
    for command in ["SYNC", "INFO", "ROLE", "HELLO 3", "PSYNC", "PSYNC ?", &other] {
        let answer = answer(&mut session, command);
        assert!(answer.starts_with("-ERR ") && answer.ends_with("\r\n"), "{answer}");
    }
    assert_eq!(answer(&mut session, &format!("PSYNC {OTHER_ID} 1001")), FULL);
}

#[test]
fn a_peer_that_never_synchronizes_is_disconnected() {
    let mut session = session();
    for _ in 0..COMMANDS_MAX {
        assert_eq!(answer(&mut session, "INFO"), "-ERR unknown command\r\n");
    }
    assert_eq!(session.handle_bytes(&resp("PING")), Err(PrimaryError::TooManyCommands));
}

#[test]
fn no_reply_is_written_into_the_payload() {
    let mut session = session();
    session.keep_alive();
    session.payload_sent();
    assert_eq!(sent(&mut session), "");
    assert_eq!(answer(&mut session, "PSYNC ? -1"), FULL);
    session.keep_alive();
    session.handle_bytes(b"\n").unwrap();
    session.handle_bytes(&resp("REPLCONF capa eof")).unwrap();
    assert_eq!(sent(&mut session), "");
    assert_eq!(session.offset(), 1000);
    for command in ["PING", "PSYNC ? -1", "INFO"] {
        let result = streaming().handle_bytes(&resp(command));
        assert!(matches!(result, Err(PrimaryError::Unexpected(_))), "{result:?}");
    }
}

#[test]
fn the_stream_counts_for_the_offset() {
    let mut session = streaming();
    session.payload_sent();
    assert_eq!(sent(&mut session), "");
    assert_eq!((GETACK.len(), session.offset()), (37, 1037));
    session.keep_alive();
    assert_eq!(sent(&mut session), GETACK);
    assert_eq!(session.offset(), 1074);
    assert_eq!(session.offset_wanted(), 1000);
}

#[test]
fn a_target_that_has_the_snapshot_continues() {
    for had in 0..=74 {
        let mut session = streaming();
        session.keep_alive();
        let mut session = reconnected(session);
        let answer = answer(&mut session, &format!("PSYNC {ID} {}", 1001 + had));
        let missing = &GETACK.repeat(2)[had..];
        assert_eq!(answer, format!("+CONTINUE {ID}\r\n{missing}"));
        assert_eq!(events(&mut session), [PrimaryEvent::Continued]);
        session.keep_alive();
        assert_eq!(sent(&mut session), GETACK);
        assert_eq!(session.offset(), 1111);
    }
}

#[test]
fn a_target_without_the_capability_receives_no_id() {
    let mut session = PrimarySession::new(Arc::new(config()), streaming().into_stream());
    let answer = answer(&mut session, &format!("PSYNC {} 1038", ID.to_uppercase()));
    assert_eq!(answer, "+CONTINUE\r\n");
}

#[test]
fn a_target_continues_after_the_stream_was_lost() {
    // The service restarted after the last byte of the RDB, and the target loaded the RDB in the
    // meantime.
    let mut session = session();
    assert_eq!(answer(&mut session, &format!("PSYNC {ID} 1001")), "+CONTINUE\r\n");
    assert_eq!(events(&mut session), [PrimaryEvent::Continued]);
}

#[test]
fn offsets_outside_the_stream_request_the_snapshot() {
    for next in ["0", "1", "1000", "1039", "-1", "x", "18446744073709551615"] {
        let mut session = reconnected(streaming());
        assert_eq!(answer(&mut session, &format!("PSYNC {ID} {next}")), FULL, "{next}");
        // The complete stream.
        assert_eq!(session.offset(), 1000);
        session.payload_sent();
        assert_eq!(session.offset(), 1037);
    }
}

#[test]
fn the_kept_stream_is_limited() {
    let mut session = streaming();
    for _ in 1..10_000 {
        session.keep_alive();
    }
    let end = 1000 + 10_000 * 37;
    assert_eq!(session.offset(), end);
    assert_eq!(session.stream.kept.len(), STREAM_BYTES_MAX);
    let oldest = end - STREAM_BYTES_MAX as u64;
    let mut forgotten = reconnected(session);
    let mut kept = PrimarySession::new(Arc::new(config()), forgotten.stream.clone());
    assert_eq!(answer(&mut forgotten, &format!("PSYNC {ID} {oldest}")), FULL);
    let answer = answer(&mut kept, &format!("PSYNC {ID} {}", oldest + 1));
    assert_eq!(answer.len(), "+CONTINUE\r\n".len() + STREAM_BYTES_MAX);
}

#[test]
fn offsets_at_the_end_of_their_range_never_overflow() {
    let mut session = session_of(PrimaryConfig { offset: u64::MAX, ..config() });
    answer(&mut session, "PSYNC ? -1");
    session.payload_sent();
    assert_eq!(session.offset(), u64::MAX);
}

#[test]
fn garbage_is_refused() {
    for garbage in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"$4\r\nPING\r\n",
        b"+OK\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n+PING\r\n",
        b"*x\r\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*1\r\n\x1b[2J\r\n",
        b" PING\r\n",
    ] {
        let error = error_of(session(), garbage);
        assert!(matches!(error, PrimaryError::NotACommand(_)), "{error:?}");
    }
}

#[test]
fn too_large_a_command_is_refused_before_its_bytes_arrive() {
    let seventeen = ["x"; ARGUMENTS_MAX + 1].join(" ");
    for (bytes, max) in [
        (b"*18\r\n".to_vec(), ARGUMENTS_MAX),
        (b"*-2\r\n".to_vec(), ARGUMENTS_MAX),
        (resp(&seventeen), ARGUMENTS_MAX),
        (format!("{seventeen}\n").into_bytes(), ARGUMENTS_MAX),
        (vec![b'x'; INLINE_BYTES_MAX], INLINE_BYTES_MAX),
        (b"*1\r\n$65537\r\n".to_vec(), COMMAND_BYTES_MAX),
        (b"*1\r\n*1\r\n".to_vec(), LIMITS.depth_max),
        ([b"*", &[b'1'; 64][..]].concat(), LIMITS.line_bytes_max),
    ] {
        let error = error_of(session(), &bytes);
        let right = matches!(error, PrimaryError::TooLarge { max: got, .. } if got == max);
        assert!(right, "{error:?}");
    }
}

#[test]
fn the_total_size_of_a_command_is_limited() {
    let command = |len: usize| encode_command(&[&b"INFO"[..], &vec![b'x'; len]]);
    // `*2`, `$4`, `INFO`, `$65507` and their line ends.
    let room = COMMAND_BYTES_MAX - 24;
    for chunk in [1 << 10, 1 << 16, 1 << 20] {
        let most = command(room);
        assert_eq!(most.len(), COMMAND_BYTES_MAX);
        let twice = [&most[..], &most].concat();
        let (sent, _, result) = run(session(), &twice, chunk);
        assert_eq!(result, Ok(()));
        assert_eq!(sent, b"-ERR unknown command\r\n".repeat(2));
        let (_, _, result) = run(session(), &command(room + 1), chunk);
        assert!(matches!(result, Err(PrimaryError::TooLarge { what: "bytes", .. })));
    }
    let mut session = session();
    let _ = session.handle_bytes(&vec![b'x'; 10 << 20]);
    assert!(session.buffer.capacity() <= 2 * COMMAND_BYTES_MAX);
}

#[test]
fn a_session_does_not_print_its_password() {
    let mut session = with_login(None);
    session.handle_bytes(b"AUTH sec").unwrap();
    assert!(!format!("{session:?}").contains("sec"));
}

/// Commands, pieces of commands, and arbitrary bytes.
fn any_input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(resp("PING")),
        Just(resp("AUTH secret")),
        Just(resp("REPLCONF capa psync2")),
        Just(resp("REPLCONF listening-port 6379")),
        Just(resp("REPLCONF ACK 1000")),
        Just(resp("INFO")),
        Just(format!("PSYNC {ID} 1001\r\n").into_bytes()),
        Just(b"PSYNC ? -1 FAILOVER\r\n".to_vec()),
        Just(b"REPLCONF capa eof\r\n".to_vec()),
        Just(b"*3\r\n$8\r\nREPLCONF\r\n".to_vec()),
        Just(b"\n".to_vec()),
        proptest::collection::vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b'1'), Just(b'\r'), Just(b'\n'), any::<u8>()],
            0..12
        ),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), chunk in 1usize..60) {
        let _ = run(session(), &bytes, chunk);
        let _ = run(streaming(), &bytes, chunk);
    }

    #[test]
    fn no_input_depends_on_the_size_of_pieces(bytes in any_input(), chunk in 1usize..60) {
        // A `PSYNC` of the whole snapshot is excluded: the driver decides when the RDB is sent, and
        // the output in the meantime depends on it.
        prop_assert_eq!(run(session(), &bytes, chunk), run(session(), &bytes, 1 << 20));
        prop_assert_eq!(run(streaming(), &bytes, chunk), run(streaming(), &bytes, 1 << 20));
        prop_assert_eq!(run(with_login(None), &bytes, chunk), run(with_login(None), &bytes, 1 << 20));
    }
}
