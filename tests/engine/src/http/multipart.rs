//! Just enough multipart/form-data to tell what arrived.

/// One field or file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) bytes: &'a [u8],
}

/// The boundary a content type names, if it is a multipart form.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.strip_prefix("multipart/form-data")?;
    let found = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    Some(found.trim_matches('"'))
}

/// The parts in order; `None` when the body is not a complete form.
pub(super) fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<Part<'a>>> {
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..])?;
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        rest = rest.strip_prefix(b"\r\n")?;
        let end = find(rest, delimiter.as_bytes())?;
        parts.push(part(&rest[..end])?);
        rest = &rest[end + delimiter.len()..];
    }
}

fn part(bytes: &[u8]) -> Option<Part<'_>> {
    let head_end = find(bytes, b"\r\n\r\n")?;
    // Names of files come in any encoding.
    let head = String::from_utf8_lossy(&bytes[..head_end]);
    let mut part =
        Part { name: String::new(), filename: None, content_type: None, bytes: &bytes[head_end + 4..] };
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-disposition") {
            for parameter in value.split(';') {
                match parameter.trim().split_once('=') {
                    Some(("name", name)) => name.trim_matches('"').clone_into(&mut part.name),
                    Some(("filename", file)) => part.filename = Some(file.trim_matches('"').to_owned()),
                    _ => {}
                }
            }
        } else if name.eq_ignore_ascii_case("content-type") {
            part.content_type = Some(value.trim().to_owned());
        }
    }
    Some(part)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_is_cut_at_its_boundaries_and_nowhere_else() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n\x00--b\r\n\xff\r\n--b--\r\n";
        let parts = parts(body, boundary("multipart/form-data; boundary=b").unwrap()).unwrap();
        assert_eq!(parts[0].name, "model");
        assert_eq!(parts[0].bytes, b"m");
        assert_eq!(
            (parts[1].filename.as_deref(), parts[1].bytes),
            (Some("a.wav"), b"\x00--b\r\n\xff".as_slice())
        );
        assert_eq!(super::parts(&body[..60], "b"), None, "an unfinished form is none");
    }
}
