use proptest::prelude::*;

use super::*;

/// Reads a whole answer, handed over in pieces that end at the given places.
fn read(answer: &[u8], cuts: &[usize], closes: bool) -> Result<Option<(u16, Vec<u8>, bool)>, CodecError> {
    let mut buffer = BytesMut::new();
    let mut head: Option<AnswerHead> = None;
    let mut body = Vec::new();
    let mut ended = false;
    let mut at = 0;
    for end in cuts.iter().copied().chain([answer.len()]) {
        let end = end.clamp(at, answer.len());
        buffer.extend_from_slice(&answer[at..end]);
        at = end;
        if head.is_none() {
            head = take_head(&mut buffer, false, &mut Interim::default())?;
        }
        let Some(head) = &mut head else { continue };
        loop {
            match head.framing.take(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::More => break,
                Piece::End => {
                    ended = true;
                    break;
                }
            }
        }
    }
    let Some(head) = head else { return Ok(None) };
    ended |= closes && head.framing == Framing::UntilClose;
    Ok(Some((head.status.as_u16(), body, ended)))
}

#[test]
fn bodies_end_where_their_framing_says() {
    let whole = |answer: &str| read(answer.as_bytes(), &[], true);
    let body = |status: u16, body: &str, ended: bool| Ok(Some((status, body.as_bytes().to_vec(), ended)));
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", body(200, "hello", true)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", body(200, "hello", false)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", body(200, "", true)),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", body(200, "to the end", true)),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n", body(204, "", true)),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", body(304, "", true)),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", body(200, "x", true)),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            body(200, "abc", true),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: u\r\n\r\n",
            body(200, "abc0123456789", true),
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", body(200, "abc", false)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx", body(200, "x", true)),
        ("HTTP/1.1 200", Ok(None)),
        ("SSH-2.0-OpenSSH\r\n", Err(CodecError::Head)),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Err(CodecError::Framing)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", Err(CodecError::Framing)),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nx", Err(CodecError::Framing)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nx", Err(CodecError::Framing)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Err(CodecError::Framing)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Err(CodecError::Chunk)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n", Err(CodecError::Chunk)),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            Err(CodecError::Chunk),
        ),
    ] {
        assert_eq!(whole(answer), expected, "{answer:?}");
    }
}

#[test]
fn a_connection_is_kept_only_when_both_sides_know_where_the_answer_ends() {
    let keeps = |head: &str| {
        let mut buffer = BytesMut::from(format!("HTTP/{head}\r\n\r\n").as_bytes());
        take_head(&mut buffer, false, &mut Interim::default()).unwrap().unwrap().keep_alive
    };
    for (head, kept) in [
        ("1.1 200 OK\r\ncontent-length: 1", true),
        ("1.1 200 OK\r\ncontent-length: 1\r\nconnection: Close", false),
        ("1.1 200 OK\r\ncontent-length: 1\r\nconnection: x, close", false),
        ("1.0 200 OK\r\ncontent-length: 1", false),
        ("1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive", true),
        ("1.1 200 OK", false),
        ("1.1 200 OK\r\ntransfer-encoding: chunked", true),
        ("1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 4", false),
        // C10: a body that is announced where none may be could come late, as the next answer.
        ("1.1 204 No Content", true),
        ("1.1 204 No Content\r\ncontent-length: 0", true),
        ("1.1 204 No Content\r\ncontent-length: 3", false),
        ("1.1 204 No Content\r\ncontent-length: x", false),
        ("1.1 204 No Content\r\ntransfer-encoding: chunked", false),
        ("1.1 304 Not Modified", true),
        ("1.1 304 Not Modified\r\ncontent-length: 3", false),
        ("1.1 304 Not Modified\r\ntransfer-encoding: chunked", false),
    ] {
        assert_eq!(keeps(head), kept, "{head}");
    }
}

#[test]
fn a_head_request_has_no_body_whatever_the_length_says() {
    let mut buffer = BytesMut::from(&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"[..]);
    let mut head = take_head(&mut buffer, true, &mut Interim::default()).unwrap().unwrap();
    assert_eq!(head.framing.take(&mut buffer), Ok(Piece::End));
    assert!(head.keep_alive);
}

#[test]
fn endless_heads_and_chunk_lines_are_refused() {
    let mut buffer = BytesMut::from(&b"HTTP/1.1 200 OK\r\nx: "[..]);
    buffer.resize(HEAD_BYTES_MAX + 1, b'a');
    assert_eq!(take_head(&mut buffer, false, &mut Interim::default()).unwrap_err(), CodecError::Head);

    let mut chunked = Framing::Chunked(Chunks::default());
    let mut buffer = BytesMut::from(&b"1;"[..]);
    buffer.resize(CHUNK_LINE_BYTES_MAX + 1, b'a');
    assert_eq!(chunked.take(&mut buffer), Err(CodecError::Chunk));

    let mut chunked = Framing::Chunked(Chunks::default());
    let mut buffer = BytesMut::from(&b"0\r\n"[..]);
    for _ in 0..CHUNK_LINE_BYTES_MAX {
        buffer.extend_from_slice(b"a: b\r\n");
    }
    assert_eq!(chunked.take(&mut buffer), Err(CodecError::Chunk));
}

/// C12: interim answers are skipped, up to a bound on their number and their bytes over all reads.
#[test]
fn interim_answers_without_end_are_refused() {
    let refused_after = |one: &[u8]| {
        let mut interim = Interim::default();
        (1..10_000).find(|_| take_head(&mut BytesMut::from(one), false, &mut interim).is_err())
    };
    let early = b"HTTP/1.1 103 Early Hints\r\n\r\n";
    assert_eq!(refused_after(early), Some(INTERIM_ANSWERS_MAX + 1));
    let mut large = b"HTTP/1.1 103 Early Hints\r\nlink: ".to_vec();
    large.resize(HEAD_BYTES_MAX / 4, b'a');
    large.extend_from_slice(b"\r\n\r\n");
    assert_eq!(refused_after(&large), Some(4), "together they are larger than one head may be");
}

#[test]
fn the_last_data_is_known_to_be_the_last_when_the_end_came_with_it() {
    let mut chunked = Framing::Chunked(Chunks::default());
    let mut buffer = BytesMut::from(&b"3\r\nabc\r\n0\r\n\r\n"[..]);
    assert_eq!(chunked.take(&mut buffer), Ok(Piece::Data(Bytes::from_static(b"abc"))));
    assert!(chunked.is_ended() && buffer.is_empty());
}

proptest! {
    #[test]
    fn cutting_an_answer_anywhere_changes_nothing(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
        mut cuts in proptest::collection::vec(0usize..400, 0..12),
        by_length in any::<bool>(),
    ) {
        cuts.sort_unstable();
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        let body = chunks.concat();
        if by_length {
            answer.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
            answer.extend_from_slice(&body);
        } else {
            answer.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in &chunks {
                answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                answer.extend_from_slice(chunk);
                answer.extend_from_slice(b"\r\n");
            }
            answer.extend_from_slice(b"0\r\n\r\n");
        }
        prop_assert_eq!(read(&answer, &cuts, false), Ok(Some((200, body, true))));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
        let _ = read(&bytes, &[cut], true);
        let mut with_head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        with_head.extend_from_slice(&bytes);
        let _ = read(&with_head, &[cut], true);
    }
}
