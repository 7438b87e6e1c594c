//! Spans of time as people write them: `30m`, `1h`, `7d`.

/// Seconds.
pub(crate) fn parse_span(text: &str) -> Result<u32, String> {
    let invalid = || format!("{text:?} is no time; write for example 30m, 1h or 7d");
    let unit = text.chars().next_back().ok_or_else(invalid)?;
    let seconds: u32 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(invalid()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| invalid())?;
    number.checked_mul(seconds).filter(|s| *s > 0).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text| parse_span(text).ok();
        assert_eq!(["90s", "30m", "1h", "7d"].map(check), [90, 1800, 3600, 604_800].map(Some));
        for bad in ["", "1", "h", "0h", "-1h", "1.5h", "99999999d", "1ü"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
