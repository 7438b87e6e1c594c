//! Dates as metadata have them, `2026-11-26T16:30:00Z`, and nothing else.

const DAY_S: i64 = 86_400;

/// Seconds since 1970 of a date, if it is one.
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let form = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        other => byte == other,
    };
    if bytes.len() != form.len() || !bytes.iter().zip(form).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days = days_of(year, month, day);
    let is_day = (1..=12).contains(&month) && date_of(days) == (year, month, day);
    (is_day && hour < 24 && minute < 60 && second < 60)
        .then_some(days * DAY_S + hour * 3600 + minute * 60 + second)
}

/// The date of so many seconds since 1970; years before 0 and after 9999 are cut to those.
pub fn format(at_s: i64) -> String {
    let at_s = at_s.clamp(-62_167_219_200, 253_402_300_799);
    let (year, month, day) = date_of(at_s.div_euclid(DAY_S));
    let second = at_s.rem_euclid(DAY_S);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years begin in March here, so that the day
/// that may be missing is the last.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

/// Year, month (1 to 12) and day of so many days since 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
pub fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, in_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let of_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_back_and_others_are_refused() {
        let known = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:01Z", 951_825_601),
            ("2038-01-19T03:14:08Z", 1 << 31),
        ];
        for (text, at_s) in known {
            assert_eq!(parse(text), Some(at_s));
            assert_eq!(format(at_s), text);
        }
        for day in (-700_000..2_900_000).step_by(97) {
            let at_s = day * DAY_S + 86_399;
            assert_eq!(parse(&format(at_s)), Some(at_s), "{day}");
        }
        let bad = [
            "2001-02-29T00:00:00Z",
            "2001-13-01T00:00:00Z",
            "2001-01-01T24:00:00Z",
            "2001-01-01",
            "+001-01-01T00:00:00Z",
            "2001-01-01T00:00:00+",
        ];
        for text in bad {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
