use proptest::prelude::*;

use super::*;
use crate::intake::scan::Splice;

const KIND: &[u8] = b"multipart/form-data; boundary=b";

fn form(parts: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (disposition, value) in parts {
        body += &format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n");
    }
    body + "--b--\r\n"
}

#[test]
fn model_and_file_are_found_among_unknown_fields() {
    let body = form(&[
        (
            "name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav",
            "RIFF\r\n--not the boundary\0\u{ff}",
        ),
        ("name=\"model\"", "whisper"),
        ("name=\"anything\"", ""),
        ("name=stream", "True"),
    ]);
    let form = Form::parse(Some(KIND), body.as_bytes()).unwrap();
    assert_eq!(form.model.as_deref(), Some("whisper"));
    assert!(form.has_file && form.stream);
    assert_eq!(&body[form.model_spans[0].clone()], "whisper");
    assert_eq!(form.model_for(MultipartKind::AudioTranscriptions), Ok("whisper"));
}

#[test]
fn what_is_missing_is_said_file_first() {
    let fault = |fault| Err(FailureKind::Multipart(fault));
    let model = ("name=\"model\"", "m");
    let file = ("name=\"file\"; filename=f", "x");
    type Parts<'a> = &'a [(&'a str, &'a str)];
    let table: [(Parts<'_>, MultipartKind, Result<&str, FailureKind>); 7] = [
        (&[model, file], MultipartKind::AudioTranscriptions, Ok("m")),
        (&[model], MultipartKind::AudioTranscriptions, fault(MultipartFault::FileMissing)),
        (&[file], MultipartKind::AudioTranslations, fault(MultipartFault::ModelMissing)),
        (&[], MultipartKind::AudioTranscriptions, fault(MultipartFault::FileMissing)),
        (&[model], MultipartKind::ImagesEdits, Ok("m")),
        (&[("name=\"model\"", "")], MultipartKind::ImagesEdits, fault(MultipartFault::ModelMissing)),
        (
            &[("name=\"model\"; filename=x", "m")],
            MultipartKind::ImagesEdits,
            fault(MultipartFault::ModelMissing),
        ),
    ];
    for (parts, kind, expected) in table {
        let body = form(parts);
        let form = Form::parse(Some(KIND), body.as_bytes()).unwrap();
        assert_eq!(form.model_for(kind), expected, "{parts:?}");
    }
}

#[test]
fn unreadable_forms_are_refused() {
    let good = form(&[("name=\"model\"", "m")]);
    let table = [
        (None, good.as_str()),
        (Some("multipart/form-data"), &good),
        (Some("multipart/form-data; boundary="), &good),
        (Some("multipart/form-data; boundary=\"b"), &good),
        (Some("multipart/form-data; boundary=\"b \""), &good),
        (Some("multipart/form-data; boundary=b{}"), &good),
        (Some("multipart/mixed; boundary=b"), &good),
        (Some("application/json"), &good),
        (Some("multipart/form-data; boundary=other"), &good),
        (Some("multipart/form-data; boundary=b"), ""),
        (Some("multipart/form-data; boundary=b"), "--b\r\n"),
        (
            Some("multipart/form-data; boundary=b"),
            "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm",
        ),
        (
            Some("multipart/form-data; boundary=b"),
            "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b",
        ),
        (
            Some("multipart/form-data; boundary=b"),
            "--b\nContent-Disposition: form-data; name=\"model\"\n\nm\n--b--\n",
        ),
        (Some("multipart/form-data; boundary=b"), "--b\r\n\r\nno headers\r\n--b--\r\n"),
        (Some("multipart/form-data; boundary=b"), "--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b--"),
    ];
    for (kind, body) in table {
        let parsed = Form::parse(kind.map(str::as_bytes), body.as_bytes());
        assert_eq!(parsed, Err(FailureKind::Multipart(MultipartFault::Unreadable)), "{kind:?} {body:?}");
    }
    let long = format!("multipart/form-data; boundary={}", "b".repeat(BOUNDARY_BYTES_MAX + 1));
    assert!(Form::parse(Some(long.as_bytes()), good.as_bytes()).is_err());
}

#[test]
fn lawful_shapes_of_other_writers_are_read() {
    let table = [
        (
            "multipart/form-data; boundary=\"b\"",
            "--b\r\ncontent-disposition:form-data;name=model\r\n\r\nm\r\n--b--",
        ),
        (
            "multipart/form-data; charset=utf-8; boundary=b",
            "--b  \r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--epilogue",
        ),
        (
            "MULTIPART/FORM-DATA;Boundary=b",
            "preamble\r\n--b\r\nX: y\r\nContent-Disposition: Form-Data; name=\"model\"\r\n\r\nm\r\n--b--\r\n",
        ),
        (
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"e\"\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--",
        ),
    ];
    for (kind, body) in table {
        let form = Form::parse(Some(kind.as_bytes()), body.as_bytes()).unwrap();
        assert_eq!(form.model.as_deref(), Some("m"), "{body:?}");
    }
}

/// B7: what Starlette 1.10 with `python-multipart` 0.0.34 reads a model and a file from, each tried with it.
#[test]
fn every_form_that_starlette_takes_is_read_alike() {
    const FILE: &[u8] = b"Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF";
    let form = |boundary: &[u8], file: &[u8]| {
        let model = b"Content-Disposition: form-data; name=\"model\"\r\n\r\nm";
        let mut body = Vec::new();
        for part in [file, model] {
            body.extend_from_slice(&[b"--", boundary, b"\r\n", part, b"\r\n"].concat());
        }
        [&body, &b"--"[..], boundary, b"--\r\n"].concat()
    };
    let is_read = |kind: &[u8], body: &[u8]| {
        let read = Form::parse(Some(kind), body);
        let read = read.unwrap_or_else(|_| {
            panic!("{:?}: {:?}", String::from_utf8_lossy(kind), String::from_utf8_lossy(body))
        });
        assert_eq!(read.model.as_deref(), Some("m"), "{}", String::from_utf8_lossy(body));
        assert!(read.has_file, "{}", String::from_utf8_lossy(body));
    };
    for boundary in [
        "a*b",
        "a#b",
        "a@b",
        "*",
        "#@!$%&^~`|",
        "{}\\[]<>",
        "=_?:/.,()+'-",
        "----WebKitFormBoundary7MA4YWxkTrZu0gW",
        "\u{e9}",
        "--",
        "-",
        &"b".repeat(256),
    ] {
        let kind = format!("multipart/form-data; boundary={boundary}");
        is_read(kind.as_bytes(), &form(boundary.as_bytes(), FILE));
        let quoted =
            format!("multipart/form-data; boundary=\"{}\"; charset=utf-8", boundary.replace('\\', "\\\\"));
        is_read(quoted.as_bytes(), &form(boundary.as_bytes(), FILE));
    }
    for boundary in ["a;b", "a b", "a\"b", " "] {
        let quoted = format!("multipart/form-data; boundary=\"{}\"", boundary.replace('"', "\\\""));
        is_read(quoted.as_bytes(), &form(boundary.as_bytes(), FILE));
    }
    is_read(b"multipart/form-data; boundary=x; boundary=b", &form(b"b", FILE));
    is_read(b"multipart/form-data; note=\xe9; boundary=\xe9", &form(b"\xe9", FILE));

    // Latin-1, GBK, Shift-JIS (whose second byte may be a backslash, also before the closing quote), UTF-8, escapes, paths.
    for name in [
        &b"filename=\"caf\xe9.wav\""[..],
        b"filename=\"\xc4\xe3\xba\xc3.wav\"",
        b"filename=\"\x95\x5c.wav\"",
        b"filename=\"\x95\x5c\"",
        "filename=\"\u{4f60}.wav\"".as_bytes(),
        b"filename=\"a\\\"b;c.wav\"",
        b"filename=\"C:\\dir\\a.wav\"",
        b"filename=\"a;name=model\"",
        b"filename=",
        b"filename=\"\"",
        b"FileName = a b.wav",
        b"filename=\"a.wav\"; filename*=UTF-8''%e2%82%ac.wav",
        b"filename=\"a.wav",
    ] {
        let part = [b"Content-Disposition: form-data; name=\"file\"; ", name, b"\r\n\r\nRIFF"].concat();
        is_read(KIND, &form(b"b", &part));
    }
    for part in [
        &b"content-disposition:form-data;name=file;filename=a\r\n\r\nRIFF"[..],
        b"Content-Disposition: attachment; name=\"file\"; filename=\"a\"\r\n\r\nRIFF",
        b"Content-Disposition: name=no; name=\"file\"; filename=a\r\n\r\nRIFF",
        b"Content-Disposition: form-data; name=other; filename=a; name=file\r\n\r\nRIFF",
        b"Content-Disposition: form-data; name=other\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nRIFF",
        b"X-A: \xff\xfe\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nRIFF",
        b"Content-Disposition: form-data; name=file; filename=a\r\n\r\nRIFF\r\n--bee\r\n--b-\r\n--b\n",
    ] {
        is_read(KIND, &form(b"b", part));
    }
    let whole = form(b"b", FILE);
    is_read(KIND, &[b"\r\n\r\n", &whole[..]].concat());
    is_read(KIND, &[b"\n", &whole[..]].concat());
    is_read(KIND, &[&whole[..], b"epilogue \xff\r\n--b\r\nno part"].concat());
    // Not closed: the parts that are whole count.
    is_read(
        KIND,
        &[&whole[..whole.len() - 4], b"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ncut"]
            .concat(),
    );
    is_read(KIND, &[&whole[..whole.len() - 4], b"\r\n"].concat());
}

/// B7: a field that is not UTF-8 is Latin-1, as Starlette reads it.
#[test]
fn a_model_that_is_not_utf_8_is_read_as_latin_1() {
    let body = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ncaf\xe9\r\n--b--\r\n";
    let form = Form::parse(Some(KIND), body).unwrap();
    assert_eq!(form.model.as_deref(), Some("caf\u{e9}"));
    assert_eq!(&body[form.model_spans[0].clone()], b"caf\xe9");
}

#[test]
fn quoted_names_are_unquoted_and_filenames_hide_nothing() {
    let body = form(&[(r#"filename="name=\"model\"; x"; name="file""#, "a"), (r#"name="mo\"del""#, "b")]);
    let form = Form::parse(Some(KIND), body.as_bytes()).unwrap();
    assert!(form.has_file);
    assert_eq!(form.model, None);
}

#[test]
fn the_last_model_counts_and_every_one_is_replaced() {
    let parts = [("name=\"model\"", "a"), ("name=\"x\"", "keep \u{e9}"), ("name=\"model\"", "b")];
    let body = form(&parts);
    let read = Form::parse(Some(KIND), body.as_bytes()).unwrap();
    assert_eq!(read.model.as_deref(), Some("b"));
    let new = Splice::plain(read.model_spans, "real").apply(body.as_bytes());
    let expected = form(&[("name=\"model\"", "real"), parts[1], ("name=\"model\"", "real")]);
    assert_eq!(String::from_utf8(new).unwrap(), expected);
}

/// C9.
#[test]
fn a_form_may_name_its_model_a_bounded_number_of_times() {
    let parse = |times: usize| {
        let body = form(&vec![("name=\"model\"", "m"); times]);
        Form::parse(Some(KIND), body.as_bytes()).map(|form| form.model_spans.len())
    };
    assert_eq!(parse(MODELS_MAX), Ok(MODELS_MAX));
    assert_eq!(parse(MODELS_MAX + 1), Err(FailureKind::ModelRepeated { max: MODELS_MAX }));
}

#[test]
fn parts_and_headers_are_bounded() {
    let many = vec![("name=\"x\"", ""); PARTS_MAX];
    assert!(Form::parse(Some(KIND), form(&many).as_bytes()).is_ok());
    let too_many = vec![("name=\"x\"", ""); PARTS_MAX + 1];
    assert!(Form::parse(Some(KIND), form(&too_many).as_bytes()).is_err());
    let long = format!("name=\"{}\"", "x".repeat(PART_HEADER_BYTES_MAX));
    assert!(Form::parse(Some(KIND), form(&[(&long, "")]).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn a_written_form_is_read_back(value in "[a-z]{1,20}", other in "[ -~]{0,40}", noise in prop::collection::vec(any::<u8>(), 0..99)) {
        prop_assume!(memmem::find(&noise, b"\r\n--b").is_none());
        let mut body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n".to_vec();
        body.extend_from_slice(&noise);
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(form(&[("name=\"other\"", &other), ("name=\"model\"", &value)]).as_bytes());
        let form = Form::parse(Some(KIND), &body).unwrap();
        prop_assert!(form.has_file);
        prop_assert_eq!(form.model.as_deref(), Some(&*value));
    }

    #[test]
    fn a_damaged_form_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut body = form(&[("name=\"file\"; filename=\"x\\\"\"", "a"), ("name=\"model\"", "m")]).into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        body.truncate(cut.index(body.len()) + 1);
        let _ = Form::parse(Some(KIND), &body);
    }

    #[test]
    fn a_damaged_content_type_never_panics(kind in "(multipart/form-data; ?)?[ -~é]{0,40}") {
        let _ = Form::parse(Some(kind.as_bytes()), b"--b--\r\n");
    }
}
