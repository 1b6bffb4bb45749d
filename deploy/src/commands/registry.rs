//! How a command reaches the origin: the client, retries of what may be repeated, and names from the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use selvedge_origin::api::wire::NodeStatus;
use selvedge_origin::client::{Client, ClientError};
use selvedge_origin::tokens::{TokenFile, TokenKind};

use super::WrongUsage;
use crate::args::Registry;
use crate::limits::START_TIMEOUT;
use crate::output::Output;

/// Calls that may be repeated (they are idempotent, or carry a request id) are made at most this often.
const ATTEMPTS: u32 = 3;

/// Between two looks at who has joined.
const JOIN_LOOK: Duration = Duration::from_millis(20);

/// Before a call is repeated.
const PAUSE: Duration = Duration::from_millis(300);

/// The client for the origin that the flags name.
pub(super) fn connect(registry: &Registry) -> anyhow::Result<Client> {
    let (Some(origin), Some(file)) = (&registry.origin, &registry.token_file) else {
        let origin = registry.origin.is_none().then_some("--origin URL (or SELVEDGE_ORIGIN)");
        let file = registry.token_file.is_none().then_some("--token-file FILE (or SELVEDGE_TOKEN_FILE)");
        let missing = origin.into_iter().chain(file).collect::<Vec<_>>().join(" and ");
        let said = format!("which origin? say {missing}; `selvedge origin` prints its address and its token files when it starts");
        return Err(WrongUsage(said).into());
    };
    let token = TokenFile::read(file)?;
    if token.kind != TokenKind::Admin {
        let said = format!("{}: this is the token that lets nodes join; commands need admin.token", file.display());
        return Err(WrongUsage(said).into());
    }
    Ok(Client::connect(origin, &token)?)
}

/// Makes a call again where that may help.
pub(super) async fn retry<T, F>(call: impl Fn() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    for _ in 1..ATTEMPTS {
        match call().await {
            Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
            result => return result,
        }
    }
    call().await
}

/// Waits until so many nodes are there: for `dev` and `demo`, which have just started them.
pub(super) async fn wait_for_nodes(client: &Client, count: usize, output: Output) -> anyhow::Result<()> {
    let (mut told, mut missing) = (None, String::new());
    let joined = async {
        loop {
            let nodes = client.nodes().await;
            missing = absent(&nodes, count);
            let online = nodes.map_or(0, |nodes| nodes.iter().filter(|node| node.online).count());
            if online >= count {
                return;
            }
            if told.replace(online) != Some(online) {
                output.step(format!("{online} of {count} nodes have joined"));
            }
            tokio::time::sleep(JOIN_LOOK).await;
        }
    };
    let result = tokio::time::timeout(START_TIMEOUT, joined).await;
    output.step_done();
    result.with_context(|| format!("not all nodes joined within {START_TIMEOUT:?}: {missing}"))
}

/// Who is not there, and why, as far as the origin knows.
fn absent(nodes: &Result<Vec<NodeStatus>, ClientError>, count: usize) -> String {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(error) => return error.to_string(),
    };
    let offline = nodes.iter().filter(|node| !node.online);
    let heard = |node: &NodeStatus| node.reported_ms_ago.map_or_else(|| "not heard yet".to_owned(), |ms| format!("last heard {}", age(ms)));
    let mut said: Vec<_> = offline.map(|node| format!("{} ({})", node.name, heard(node))).collect();
    if nodes.len() < count {
        said.push(format!("{} of {count} have not joined at all: their logs say why", count - nodes.len()));
    }
    said.join(", ")
}

/// A moment for people: `2026-08-01 12:34:56Z`.
pub(super) fn moment(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// The date of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March, in cycles of 400 years of 146,097 days, make the leap day the last one.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// How long ago, roughly.
pub(super) fn age(milliseconds: u64) -> String {
    match milliseconds / 1_000 {
        seconds @ 0..=99 => format!("{seconds} s ago"),
        seconds @ 100..=5_999 => format!("{} min ago", seconds / 60),
        seconds @ 6_000..=172_799 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// How long ago a moment was.
pub(super) fn since(unix_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    age(now.saturating_sub(unix_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_not_there_are_named_with_what_is_known_of_them() {
        let node = |name: &str, online, reported_ms_ago| NodeStatus {
            name: name.parse().unwrap(),
            region: String::new(),
            address: None,
            online,
            reported_ms_ago,
            report: None,
        };
        let nodes = vec![node("a", true, Some(0)), node("b", false, None), node("c", false, Some(20_000))];
        let said = absent(&Ok(nodes), 5);
        assert_eq!(said, "b (not heard yet), c (last heard 20 s ago), 2 of 5 have not joined at all: their logs say why");
        let lost = ClientError::Connect { url: "http://127.0.0.1:1".into(), reason: "refused".into() };
        assert!(absent(&Err(lost), 1).contains("127.0.0.1:1: refused"));
    }

    #[test]
    fn moments_are_dates_of_the_calendar() {
        assert_eq!(moment(0), "1970-01-01 00:00:00Z");
        assert_eq!(moment(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(moment(1_785_585_600_000 + 2_096_789), "2026-08-01 12:34:56Z");
    }
}
