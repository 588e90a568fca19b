//! Parameters of a query or form (application/x-www-form-urlencoded). Knows no
//! names and no meaning.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// All values of a parameter, decoded; bytes that are no text are left out.
/// Allocates only for what is encoded.
pub fn values<'q>(encoded: &'q str, name: &'q str) -> impl Iterator<Item = Cow<'q, str>> {
    encoded.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let fits = key == name || (key.contains(['%', '+']) && decoded(key)? == name);
        if fits { decoded(value) } else { None }
    })
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().ok();
    }
    let spaced = text.replace('+', " ");
    Some(Cow::Owned(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::values;

    #[test]
    fn every_value_of_a_name_is_found_however_it_is_written() {
        let query = "a=1&token=x%2Ey&b&to%6Ben=z+z&token&tokens=2&=3&token=%ff&TOKEN=4";
        let found: Vec<_> = values(query, "token").collect();
        assert_eq!(found, ["x.y", "z z", ""]);
        assert_eq!(values("", "token").count(), 0);
    }
}
