//! What a file says of the collector: what it wants to be shown.

use std::path::Path;
use ureq::http::{HeaderName, HeaderValue};

use super::collector::CollectorError;

/// Headers from the file at most, and their bytes.
const HEADERS_MAX: usize = 32;
const HEADERS_MAX_BYTES: usize = 16 << 10;

fn read(path: &Path) -> Result<Vec<u8>, CollectorError> {
    std::fs::read(path).map_err(|source| CollectorError::Read { path: path.to_owned(), source })
}

/// One a line; empty lines and those behind a # say nothing.
pub(super) fn read_headers(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, CollectorError> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = (1..).zip(text.lines()).filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let headers = lines.map(|(line, text)| {
        header(text).ok_or_else(|| CollectorError::Header { path: path.to_owned(), line })
    });
    let headers: Vec<_> = headers.collect::<Result<_, _>>()?;
    if headers.len() > HEADERS_MAX || bytes.len() > HEADERS_MAX_BYTES {
        return Err(CollectorError::Headers(path.to_owned()));
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_from_a_file_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        std::fs::write(&path, "# of the team\nAuthorization: Bearer s3cret\n\nx-team:a:b\n")
            .unwrap();
        let headers = read_headers(&path).unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!((headers[1].0.as_str(), headers[1].1.to_str().unwrap()), ("x-team", "a:b"));
        assert!(!format!("{headers:?}").contains("s3cret"));
        std::fs::write(&path, "Authorization: x\nno header").unwrap();
        let error = read_headers(&path).unwrap_err();
        assert!(matches!(error, CollectorError::Header { line: 2, .. }));
        std::fs::write(&path, "a: b\n".repeat(33)).unwrap();
        assert!(matches!(read_headers(&path), Err(CollectorError::Headers(_))));
        assert!(matches!(read_headers(folder.path()), Err(CollectorError::Read { .. })));
    }
}
