//! What `/metrics` says, read the way a scraper reads it.

use std::collections::BTreeMap;

/// All samples of one scrape.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<(String, BTreeMap<String, String>, f64)>);

impl Samples {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(lines.map(sample).collect())
    }

    /// The sum of all samples of this name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| found.get(*key).is_some_and(|found| found == value))
        };
        let fitting = self.0.iter().filter(|(found, has, _)| found == name && fits(has));
        fitting.map(|(_, _, value)| value).sum()
    }

    /// Whether there is any sample of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _, _)| found == name)
    }

    /// All values that this label has in samples of this name.
    pub(crate) fn values(&self, name: &str, label: &str) -> Vec<String> {
        let fitting = self.0.iter().filter(|(found, _, _)| found == name);
        fitting.filter_map(|(_, labels, _)| labels.get(label).cloned()).collect()
    }
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a name and a value");
    let value = value.parse().expect("a number");
    let Some((name, labels)) = series.split_once('{') else {
        return (series.to_owned(), BTreeMap::new(), value);
    };
    let labels = labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty());
    let labels = labels.map(|pair| {
        let (key, value) = pair.split_once("=\"").expect("a label");
        (key.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value)
}
