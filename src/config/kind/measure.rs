//! Durations, sizes and rates, each written with its unit.

use std::time::Duration;

use super::{Fault, Kind, Raw, Text};
use crate::config::{Rate, ThrottleRule, ThrottleScope};

/// Nothing here lasts longer: ten years.
const DURATION_MAX: Duration = Duration::from_hours(87600);

/// A duration that is not zero, or one that may be.
pub(in crate::config) const fn duration(zero: bool) -> Text<Duration> {
    Text {
        allowed: if zero {
            "a duration such as \"500ms\", \"15m\" or \"12h\"; \"0s\" for none"
        } else {
            "a duration such as \"500ms\", \"15m\" or \"12h\", not zero"
        },
        pattern: Some("^[0-9]+ ?[a-z]+( ?[0-9]+ ?[a-z]+)*$"),
        parse: if zero {
            parse_duration
        } else {
            |text| parse_duration(text).and_then(|it| if it.is_zero() { wrong() } else { Ok(it) })
        },
        show: |duration| show_duration(*duration),
    }
}

/// A duration of whole seconds that is not zero.
pub(in crate::config) const fn seconds() -> Text<Duration> {
    Text {
        allowed: "a duration of whole seconds such as \"90s\", \"15m\" or \"12h\", not zero",
        pattern: Some("^[0-9]+ ?[a-z]+( ?[0-9]+ ?[a-z]+)*$"),
        parse: |text| {
            let duration = parse_duration(text)?;
            let whole = !duration.is_zero() && duration.subsec_nanos() == 0;
            if whole { Ok(duration) } else { wrong() }
        },
        show: |duration| show_duration(*duration),
    }
}

/// A duration in its largest whole unit: `15m`, `75s`.
pub(in crate::config) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let whole = units.iter().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    whole.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}

/// A number of bytes within bounds, both included.
pub(in crate::config) struct Size {
    min: u64,
    max: u64,
}

/// A size of `min` to `max` bytes.
pub(in crate::config) const fn size(min: u64, max: u64) -> Size {
    Size { min, max }
}

impl Kind for Size {
    type Out = u64;

    fn allowed(&self) -> String {
        let (min, max) = (show_size(self.min), show_size(self.max));
        format!("a size in B, KiB, MiB or GiB from \"{min}\" to \"{max}\"")
    }

    fn schema(&self) -> serde_json::Value {
        serde_json::json!({"type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)$"})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<u64, Fault> {
        let bytes = raw.value.as_str().and_then(parse_size);
        bytes.filter(|bytes| (self.min..=self.max).contains(bytes)).ok_or_else(Fault::default)
    }

    fn show(&self, value: &u64) -> serde_json::Value {
        serde_json::json!(show_size(*value))
    }
}

/// So many in such a time.
pub(in crate::config) const fn rate() -> Text<Rate> {
    Text {
        allowed: "a rate such as \"5 per 15m\", at least 1, at most 1000000, in at most 1 day",
        pattern: Some("^[0-9]+ per [0-9a-z ]+$"),
        parse: |text| parse_rate(text).ok_or_else(Fault::default),
        show: |rate| format!("{} per {}", rate.count, show_duration(rate.window)),
    }
}

/// A rate and whose requests it counts.
pub(in crate::config) const fn throttle_rule() -> Text<ThrottleRule> {
    Text {
        allowed: "a rule such as \"5 per 1m per address\", \"30 per 1m per user\" or \"600 per 1h \
                  in all\", at least 1, at most 1000000, in at most 1 day",
        pattern: Some("^[0-9]+ per [0-9a-z ]+ (per address|per user|in all)$"),
        parse: |text| {
            let mut rules = ThrottleScope::WORDS.into_iter().filter_map(|(words, scope)| {
                let rate = parse_rate(text.strip_suffix(words)?)?;
                Some(ThrottleRule { rate, scope })
            });
            rules.next().ok_or_else(Fault::default)
        },
        show: ThrottleRule::to_string,
    }
}

fn wrong<T>() -> Result<T, Fault> {
    Err(Fault::default())
}

fn parse_duration(text: &str) -> Result<Duration, Fault> {
    let duration = humantime::parse_duration(text).map_err(|_| Fault::default())?;
    // Finer than a millisecond is a misunderstanding of the unit.
    let good = duration <= DURATION_MAX && duration.subsec_nanos().is_multiple_of(1_000_000);
    if good { Ok(duration) } else { wrong() }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let whole = units.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| "0B".to_owned(), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (count, window) = text.split_once(" per ")?;
    let count = count.trim().parse().ok().filter(|count| (1..=1_000_000).contains(count))?;
    let window = parse_duration(window.trim()).ok()?;
    let day = Duration::from_hours(24);
    (Duration::from_millis(1)..=day).contains(&window).then_some(Rate { count, window })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, rate, show_duration, show_size, size, throttle_rule};
    use crate::config::kind::read;

    #[test]
    fn durations_read_back_as_shown() {
        for (text, millis) in [("15m", 900_000), ("75s", 75_000), ("12h", 43_200_000), ("5ms", 5)] {
            let parsed = read(&duration(false), text).unwrap();
            assert_eq!(parsed, Duration::from_millis(millis));
            assert_eq!(show_duration(parsed), text);
        }
        assert!(read(&duration(true), "0s").unwrap().is_zero());
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn a_duration_without_unit_or_meaning_is_refused() {
        for text in ["", "15", "-1s", "1 fortnight", "0s", "10us", "999999999h", "1e3s"] {
            assert!(read(&duration(false), text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units_and_bounds() {
        let any = size(1, 1 << 40);
        for (text, bytes) in [("64KiB", 65_536), ("1 B", 1), ("16MiB", 16 << 20), ("3GiB", 3 << 30)]
        {
            assert_eq!(read(&any, text).unwrap(), bytes);
        }
        for text in ["64", "64KB", "64kib", "-1B", "0B", "99999999999999999999GiB", "KiB"] {
            assert!(read(&any, text).is_err(), "{text}");
        }
        assert_eq!(show_size(32 * 1024), "32KiB");
    }

    #[test]
    fn a_throttle_rule_reads_back_as_shown() {
        for text in ["5 per 1m per address", "30 per 90s per user", "600 per 1h in all"] {
            assert_eq!(read(&throttle_rule(), text).unwrap().to_string(), text);
        }
        for text in [
            "5 per 1m",
            "5 per 1m per session",
            "5 per address",
            "0 per 1m in all",
            "5 per 1m per address per user",
            "5 per 1m in all in all",
        ] {
            assert!(read(&throttle_rule(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_count_per_window() {
        let parsed = read(&rate(), "5 per 15m").unwrap();
        assert_eq!((parsed.count, parsed.window), (5, Duration::from_mins(15)));
        for text in
            ["5", "5/15m", "0 per 1m", "5 per 0s", "5 per 2days", "-1 per 1m", "9999999 per 1m"]
        {
            assert!(read(&rate(), text).is_err(), "{text}");
        }
    }
}
