//! Tells a whole JPEG file from a truncated one: the decoder is lenient and would fill what is
//! missing with grey.

const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Whether the file's segments lead to its end-of-image marker (ITU-T T.81, annex B.1.1). What
/// follows the marker does not matter: some cameras append data.
pub(super) fn is_whole(file: &[u8]) -> bool {
    let mut rest = file.get(2..).unwrap_or_default(); // after start-of-image
    while let Some((marker, after)) = next_marker(rest) {
        rest = match marker {
            END_OF_IMAGE => return true,
            0x01 | 0xD0..=0xD8 => after,
            START_OF_SCAN => skip_scan(skip_segment(after)),
            _ => skip_segment(after),
        };
    }
    false
}

/// The next marker and what follows it; any number of 0xFF may stand before a marker.
fn next_marker(rest: &[u8]) -> Option<(u8, &[u8])> {
    let rest = rest.strip_prefix(&[0xFF])?;
    let start = rest.iter().position(|byte| *byte != 0xFF)?;
    Some((rest[start], &rest[start + 1..]))
}

/// What follows a segment, whose first two bytes are its length.
fn skip_segment(rest: &[u8]) -> &[u8] {
    let length = rest.first_chunk().map_or(usize::MAX, |l| usize::from(u16::from_be_bytes(*l)));
    rest.get(length..).unwrap_or_default()
}

/// What follows a scan's entropy-coded bytes: 0xFF 0x00 is data, restart markers belong to it.
fn skip_scan(rest: &[u8]) -> &[u8] {
    let ends = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0xD0..=0xD7);
    rest.windows(2).position(ends).map_or(&[], |at| &rest[at..])
}
