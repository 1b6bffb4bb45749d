//! The rule that makes a version of an uploaded bundle.

use super::{Change, Moment, Plan, Refusal, State, VersionRecord, WorkerName};
use crate::api::wire::NewVersion;
use crate::keys::Signature;
use crate::limits::{
    COMPATIBILITY_FLAG_BYTES_MAX, COMPATIBILITY_FLAGS_MAX, CPU_MS_MAX, MESSAGE_BYTES_MAX, SUBREQUESTS_MAX, VAR_DEPTH_MAX,
    VAR_NAME_BYTES_MAX, VARS_BYTES_MAX, VARS_MAX, WORKERS_MAX,
};

/// The cordon of a version that names none.
const CORDON_DEFAULT: &str = "shared";

/// A complete bundle, signed for one version: the caller has checked that every blob is there.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The signature over worker, [`Moment::id`] and bundle.
    pub signature: Signature,
}

/// Makes a version. It takes no traffic by that.
pub fn create_version(
    state: &State,
    moment: &Moment,
    worker: &WorkerName,
    new: &NewVersion,
    sealed: &Sealed,
) -> Result<Plan<VersionRecord>, Refusal> {
    let known = state.worker(worker);
    if known.is_none() && state.workers().len() >= WORKERS_MAX {
        return Err(Refusal::Limit { what: "workers".to_owned(), max: WORKERS_MAX });
    }
    check(new)?;
    let cordon = match &new.cordon {
        Some(cordon) => cordon.clone(),
        None => CORDON_DEFAULT.parse().map_err(|error: super::BadName| bad("cordon", error))?,
    };
    let version = VersionRecord {
        worker: worker.clone(),
        id: moment.id.clone(),
        number: known.map_or(0, |known| known.record.made).saturating_add(1),
        bundle: new.bundle.clone(),
        signature: sealed.signature,
        cordon,
        vars: new.vars.clone(),
        compatibility_date: new.compatibility_date.clone(),
        compatibility_flags: new.compatibility_flags.clone(),
        cpu_ms: new.cpu_ms,
        subrequests_max: new.subrequests_max,
        created_ms: moment.now_ms,
        message: new.message.clone(),
    };
    Ok(Plan { changes: vec![Change::VersionCreated(Box::new(version.clone()))], before: vec![], answer: version })
}

fn check(new: &NewVersion) -> Result<(), Refusal> {
    if new.vars.len() > VARS_MAX {
        return Err(Refusal::Limit { what: "vars".to_owned(), max: VARS_MAX });
    }
    if let Some(name) = new.vars.keys().find(|name| name.is_empty() || name.len() > VAR_NAME_BYTES_MAX || name.contains('\0')) {
        return Err(bad(&format!("var {:?}", cut(name)), "a name has 1 to 128 bytes, none of them 0"));
    }
    if let Some((name, _)) = new.vars.iter().find(|(_, value)| is_deep(value)) {
        return Err(bad(&format!("var {:?}", cut(name)), format!("more than {VAR_DEPTH_MAX} levels of arrays and objects")));
    }
    let bytes: usize = new.vars.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
    if bytes > VARS_BYTES_MAX {
        return Err(Refusal::Limit { what: "bytes of all vars together".to_owned(), max: VARS_BYTES_MAX });
    }
    if !is_date(&new.compatibility_date) {
        return Err(bad("compatibility_date", format!("{:?} is no date of the form YYYY-MM-DD", cut(&new.compatibility_date))));
    }
    if new.compatibility_flags.len() > COMPATIBILITY_FLAGS_MAX {
        return Err(Refusal::Limit { what: "compatibility flags".to_owned(), max: COMPATIBILITY_FLAGS_MAX });
    }
    let is_flag = |flag: &String| {
        (1..=COMPATIBILITY_FLAG_BYTES_MAX).contains(&flag.len())
            && flag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if let Some(flag) = new.compatibility_flags.iter().find(|flag| !is_flag(flag)) {
        return Err(bad("compatibility flag", format!("{:?} is not 1 to 64 letters, digits, '_' and '-'", cut(flag))));
    }
    between("cpu_ms", new.cpu_ms, CPU_MS_MAX)?;
    if new.subrequests_max.is_some_and(|count| count > SUBREQUESTS_MAX) {
        return Err(bad("subrequests", format!("at most {SUBREQUESTS_MAX}")));
    }
    check_message(new.message.as_deref())
}

/// Looks level by level, so that depth costs no stack.
fn is_deep(value: &serde_json::Value) -> bool {
    let mut level = vec![value];
    for _ in 0..=VAR_DEPTH_MAX {
        if level.is_empty() {
            return false;
        }
        level = level
            .into_iter()
            .flat_map(|value| match value {
                serde_json::Value::Array(items) => items.iter().collect::<Vec<_>>(),
                serde_json::Value::Object(fields) => fields.values().collect(),
                _ => vec![],
            })
            .collect();
    }
    !level.is_empty()
}

fn between(what: &str, value: Option<u32>, max: u32) -> Result<(), Refusal> {
    match value {
        Some(value) if !(1..=max).contains(&value) => Err(bad(what, format!("{value} is not within 1 and {max}"))),
        _ => Ok(()),
    }
}

/// An operator's message: some text for a table.
pub(super) fn check_message(message: Option<&str>) -> Result<(), Refusal> {
    match message {
        Some(message) if message.len() > MESSAGE_BYTES_MAX => {
            Err(Refusal::Limit { what: "bytes of the message".to_owned(), max: MESSAGE_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

pub(super) fn bad(what: &str, rule: impl std::fmt::Display) -> Refusal {
    Refusal::Value { what: what.to_owned(), rule: rule.to_string() }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether the text is a day of the calendar as `YYYY-MM-DD`.
pub fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let &[year, month, day] = parts.as_slice() else { return false };
    let number = |text: &str, digits: usize| {
        if text.len() == digits && text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u32>().ok() } else { None }
    };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2)) else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}
