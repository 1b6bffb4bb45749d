//! A strict reader of Prometheus' text format, version 0.0.4: what it does not take a scraper may refuse too, with all that stands beside it.

use std::collections::{BTreeMap, BTreeSet};

/// What a page says.
#[derive(Debug, Default)]
pub struct Exposition {
    samples: BTreeMap<Series, f64>,
    kinds: BTreeMap<String, String>,
}

/// A name and its labels, in order.
type Series = (String, BTreeMap<String, String>);

impl Exposition {
    /// Reads a page; says what is wrong with it, and where.
    pub fn read(page: &str) -> Result<Self, String> {
        if !page.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        let (mut read, mut helped, mut family) = (Self::default(), BTreeSet::new(), String::new());
        for (number, line) in page.lines().enumerate() {
            read.line(line, &mut helped, &mut family).map_err(|error| format!("line {}: {error}: {line}", number + 1))?;
        }
        read.histograms()?;
        Ok(read)
    }

    /// The value of one series.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// Whether any series has this label.
    pub fn has_label(&self, name: &str, value: &str) -> bool {
        self.samples.keys().any(|(_, labels)| labels.get(name).is_some_and(|found| found == value))
    }

    /// The names of all families.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    fn line(&mut self, line: &str, helped: &mut BTreeSet<String>, family: &mut String) -> Result<(), String> {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').ok_or("no help")?;
            is_name(name, true)?;
            if text.is_empty() || !helped.insert(name.to_owned()) {
                return Err(format!("{name} is explained twice, or not at all"));
            }
            *family = name.to_owned();
            return Ok(());
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("no type")?;
            if name != family || !["counter", "gauge", "histogram"].contains(&kind) {
                return Err("a type without its help before it, or none that we have".into());
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err("counters, and only they, end with _total".into());
            }
            let twice = self.kinds.insert(name.to_owned(), kind.to_owned()).is_some();
            return if twice { Err("a second type".into()) } else { Ok(()) };
        }
        let (name, labels, value) = sample(line)?;
        let kind = self.kinds.get(family).ok_or("a sample before any type")?;
        let suffix = name.strip_prefix(family.as_str()).ok_or("a sample outside its family")?;
        let fits = match kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix) && labels.contains_key("le") == (suffix == "_bucket"),
            _ => suffix.is_empty(),
        };
        if !fits || !value.is_finite() || (kind != "gauge" && value < 0.0) {
            return Err("not a sample of its family".into());
        }
        match self.samples.insert((name, labels), value) {
            Some(_) => Err("the series is there twice".into()),
            None => Ok(()),
        }
    }

    /// Buckets rise with their bounds, and the last one has all.
    fn histograms(&self) -> Result<(), String> {
        let mut buckets: BTreeMap<Series, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.samples {
            let Some(family) = name.strip_suffix("_bucket") else { continue };
            let mut labels = labels.clone();
            let bound = labels.remove("le").and_then(|bound| bound.replace("+Inf", "inf").parse().ok()).ok_or("a bucket without bound")?;
            buckets.entry((family.to_owned(), labels)).or_default().push((bound, *value));
        }
        let families = self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name);
        if let Some(name) = families.into_iter().find(|name| !buckets.keys().any(|(family, _)| family == *name)) {
            return Err(format!("{name} has no buckets"));
        }
        for ((name, labels), mut of_series) in buckets {
            of_series.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            let rising = of_series.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            let of = |suffix: &str| self.samples.get(&(format!("{name}{suffix}"), labels.clone())).copied();
            let last = of_series.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, count)| *count);
            if !rising || last.is_none() || last != of("_count") || of("_sum").is_none() {
                return Err(format!("{name}{labels:?} is no histogram"));
            }
        }
        Ok(())
    }
}

fn is_name(name: &str, colons: bool) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(good) {
        return Err(format!("{name:?} is no name"));
    }
    Ok(())
}

/// `name{label="value",...} value`.
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    is_name(name, true)?;
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without value")?;
            is_name(label, false)?;
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("label {label} is there twice"));
            }
            rest = after.get(1..).ok_or("labels without end")?;
            match after.as_bytes().first() {
                Some(b',') => {}
                Some(b'}') => break,
                _ => return Err("labels without end".into()),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let value = if value.contains(' ') { None } else { value.parse().ok() };
    Ok((name.to_owned(), labels, value.ok_or("the value is no number")?))
}

/// The text up to the quote that ends it, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('\\' | '"'))) => c,
                _ => return Err("an escape that is none".into()),
            }),
            c => value.push(c),
        }
    }
    Err("a value without end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total{r=\"x\\\\y\\\"z\\n\"} 3\na_total{r=\"b\"} 1\n\
        # HELP h_seconds H.\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"0.1\"} 1\nh_seconds_bucket{le=\"+Inf\"} 2\nh_seconds_sum 0.5\nh_seconds_count 2\n";

    #[test]
    fn what_is_read_is_what_was_written_and_nothing_else_is_taken() {
        let read = Exposition::read(GOOD).expect("a page");
        assert_eq!(read.get("a_total", &[("r", "x\\y\"z\n")]), Some(3.0));
        for (good, bad) in [
            ("a_total{r=\"b\"}", "a_total{r=\"x\\\\y\\\"z\\n\"}"),
            ("a_total{r=\"b\"}", "a_total{r=\"b\\t\"}"),
            ("a_total{r=\"b\"}", "a_total{r=\"b\""),
            ("a_total{r=\"b\"}", "a_total{r=\"b\",r=\"b\"}"),
            ("a_total{r=\"b\"} 1", "a_total{r=\"b\"} one"),
            ("a_total{r=\"b\"}", "b_total{r=\"b\"}"),
            ("# HELP h_seconds H.\n", ""),
            ("# TYPE a_total counter", "# TYPE a_total gauge"),
            ("le=\"+Inf\"} 2", "le=\"+Inf\"} 0"),
            ("le=\"+Inf\"", "le=\"1\""),
            ("h_seconds_sum 0.5\n", ""),
            ("h_seconds_count 2\n", "h_seconds_count 2"),
            ("a_total{r=\"b\"} 1\n", "# HELP a_total A.\n"),
        ] {
            let page = GOOD.replacen(good, bad, 1);
            assert!(page != GOOD && Exposition::read(&page).is_err(), "{page}");
        }
    }
}
