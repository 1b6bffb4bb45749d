//! The rules as tables: what each gives, and what each refuses by name.

mod fleet;

use std::collections::BTreeMap;

use super::*;
use crate::api::wire::{Deletion, NewDeployment, NewVersion, NodeJoin, Rollback, SiteApply};
use crate::keys::{PublicKey, Purpose, SigningKey};
use crate::limits::{DEPLOYMENTS_KEPT, REVOKED_KEYS_MAX, VERSIONS_KEPT};

/// A registry without a store: commits what a rule plans, as the ledger does, into a state and into records.
#[derive(Default)]
struct Book {
    state: State,
    seq: u64,
    records: BTreeMap<String, Vec<u8>>,
}

impl Book {
    fn commit<T>(&mut self, plan: Plan<T>) -> T {
        if !plan.changes.is_empty() {
            self.seq += 1;
            let writes: Vec<Write> = plan.changes.iter().flat_map(|change| self.state.writes(self.seq, change)).collect();
            for write in writes {
                match write.value {
                    Some(value) => self.records.insert(write.key, value),
                    None => self.records.remove(&write.key),
                };
            }
            for change in &plan.changes {
                self.state.apply(self.seq, change);
            }
        }
        let restored = State::from_records(self.records.clone()).expect("its own records");
        assert_eq!(restored, self.state, "the records say what the log says");
        plan.answer
    }

    fn version(&mut self, worker: &str) -> VersionRecord {
        let plan = create_version(&self.state, &moment(), &name(worker), &new_version(), &sealed()).expect("a version");
        self.commit(plan)
    }

    fn promote(&mut self, worker: &str, version: &VersionRecord, routes: &[&str]) -> Made {
        let plan = promote(&self.state, &moment(), &name(worker), &to(version, Some(routes))).expect("promoted");
        self.commit(plan)
    }

    /// A worker that takes traffic.
    fn worker(&mut self, worker: &str, routes: &[&str]) -> VersionRecord {
        let version = self.version(worker);
        self.promote(worker, &version, routes);
        version
    }

    fn apply(&mut self, site: &str, apply: &SiteApply) -> RouteDiff {
        let plan = apply_site(&self.state, &node(site), apply).expect("applied");
        self.commit(plan)
    }
}

fn name(text: &str) -> WorkerName {
    text.parse().expect("a name")
}

fn node(text: &str) -> NodeName {
    text.parse().expect("a name")
}

fn moment() -> Moment {
    Moment { now_ms: 1_000, id: VersionId::generate() }
}

fn sealed() -> Sealed {
    Sealed { signature: SigningKey::generate().expect("random bytes").sign(Purpose::Version, b"") }
}

fn new_version() -> NewVersion {
    NewVersion {
        bundle: Digest::of(b"bundle"),
        cordon: None,
        vars: [("NUMBER".to_owned(), serde_json::json!({ "a": 1.5, "b": [true, null] }))].into(),
        compatibility_date: "2026-08-04".into(),
        compatibility_flags: vec!["nodejs_compat".into()],
        cpu_ms: None,
        subrequests_max: None,
        message: None,
        request_id: None,
    }
}

fn spec(pattern: &str) -> RouteSpec {
    RouteSpec {
        pattern: pattern.into(),
        worker: None,
        upstream: None,
        redirect_to_https: false,
        cache: CacheSettings::default(),
        compress: Default::default(),
        early_hints: false,
    }
}

fn site_route(pattern: &str, worker: Option<&str>, upstream: Option<&str>) -> RouteSpec {
    RouteSpec { worker: worker.map(name), upstream: upstream.map(Into::into), ..spec(pattern) }
}

fn to(version: &VersionRecord, routes: Option<&[&str]>) -> NewDeployment {
    NewDeployment {
        versions: vec![Share { version: version.id.clone(), percentage: 100.0 }],
        routes: routes.map(|routes| routes.iter().map(|pattern| spec(pattern)).collect()),
        take_over: false,
        message: None,
        request_id: None,
    }
}

#[test]
fn versions_are_numbered_and_take_no_traffic() {
    let mut book = Book::default();
    assert_eq!(book.version("shop").number, 1);
    let second = book.version("shop");
    assert_eq!((second.number, second.cordon.as_str()), (2, "shared"));
    assert!(book.state.desired().workers.is_empty());
}

#[test]
fn values_of_a_version_are_refused_by_name() {
    let with = |change: &dyn Fn(&mut NewVersion)| {
        let mut new = new_version();
        change(&mut new);
        create_version(&State::default(), &moment(), &name("shop"), &new, &sealed())
    };
    for date in
        ["", "2026-8-4", "2026-02-30", "2025-02-29", "2026-13-01", "2026-00-10", "2026-01-00", "20260804", "2026-08-04-", "+026-08-04"]
    {
        let refused = with(&|new| new.compatibility_date = date.into()).expect_err(date).to_string();
        assert!(refused.starts_with("compatibility_date"), "{refused}");
    }
    assert!(with(&|new| new.compatibility_date = "2024-02-29".into()).is_ok());
    type Broken<'a> = (&'a dyn Fn(&mut NewVersion), &'a str);
    let refusals: [Broken<'_>; 8] = [
        (&|new| drop(new.vars.insert(String::new(), serde_json::json!(1))), "var"),
        (&|new| drop(new.vars.insert("BIG".into(), serde_json::json!("x".repeat(600 << 10)))), "bytes of all vars"),
        (&|new| new.vars.extend((0..300).map(|n| (format!("V{n}"), serde_json::json!(n)))), "vars: at most"),
        (&|new| new.compatibility_flags = vec!["a b".into()], "compatibility flag"),
        (&|new| new.compatibility_flags = vec!["a".into(); 65], "compatibility flags"),
        (&|new| new.cpu_ms = Some(0), "cpu_ms"),
        (&|new| new.cpu_ms = Some(30_001), "cpu_ms"),
        (&|new| new.message = Some("x".repeat(3_000)), "message"),
    ];
    for (change, word) in refusals {
        let refused = with(change).expect_err(word).to_string();
        assert!(refused.contains(word), "{refused}");
    }
    let nested = |levels| (0..levels).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
    let refused = with(&|new| drop(new.vars.insert("DEEP".into(), nested(65)))).expect_err("too deep").to_string();
    assert!(refused.contains("64 levels"), "{refused}");
    let deepest = with(&|new| drop(new.vars.insert("DEEP".into(), nested(64)))).expect("as deep as it may be");
    let entry = Entry { at_ms: 0, actor: String::new(), reason: None, changes: deepest.changes, before: vec![] };
    serde_json::from_slice::<Entry>(&serde_json::to_vec(&entry).expect("JSON")).expect("a node can read it");
    assert!(with(&|new| new.cpu_ms = Some(30_000)).is_ok() && with(&|new| new.subrequests_max = Some(0)).is_ok());
}

#[test]
fn a_promotion_moves_traffic_and_routes_in_one_entry() {
    let mut book = Book::default();
    let first = book.version("shop");
    let plan = promote(&book.state, &moment(), &name("shop"), &to(&first, Some(&["a.example/*", "A.example/x"]))).expect("promoted");
    assert_eq!(plan.changes.len(), 2);
    let made = book.commit(plan);
    assert_eq!((made.previous, made.routes.len()), (None, 2));
    let desired = &book.state.desired().workers[&name("shop")];
    assert_eq!(desired.versions[&first.id], first);
    let second = book.version("shop");
    let plan = promote(&book.state, &moment(), &name("shop"), &to(&second, None)).expect("promoted");
    assert_eq!(plan.changes.len(), 1, "without routes they stay");
    let made = book.commit(plan);
    assert_eq!((made.previous.map(|before| before.id), made.routes.len()), (Some(made_id(&book, 0)), 2));
    let made = book.promote("shop", &second, &["a.example/x"]);
    assert_eq!(made.routes.len(), 1, "the routes given are all routes");
}

fn made_id(book: &Book, at: usize) -> VersionId {
    book.state.worker(&name("shop")).expect("the worker").deployments[at].id.clone()
}

#[test]
fn shares_must_add_up_and_name_kept_versions_once() {
    let mut book = Book::default();
    let (first, second) = (book.version("shop"), book.version("shop"));
    let share = |version: &VersionRecord, percentage| Share { version: version.id.clone(), percentage };
    let stranger = VersionRecord { id: VersionId::generate(), ..first.clone() };
    for (versions, word) in [
        (vec![], "a version at least"),
        (vec![share(&first, 50.0)], "add up to 50"),
        (vec![share(&first, -1.0), share(&second, 101.0)], "not within"),
        (vec![share(&first, f64::NAN)], "not within"),
        (vec![share(&first, 50.0), share(&first, 50.0)], "named twice"),
        (vec![share(&stranger, 100.0)], "has no version"),
        (vec![share(&first, 100.0); 17], "at most 16"),
    ] {
        let new = NewDeployment { versions, ..to(&first, None) };
        let refused = promote(&book.state, &moment(), &name("shop"), &new).expect_err(word).to_string();
        assert!(refused.contains(word), "{refused}");
    }
    let thirds = NewDeployment { versions: vec![share(&first, 33.33), share(&second, 66.67)], ..to(&first, None) };
    promote(&book.state, &moment(), &name("shop"), &thirds).expect("canary");
    let refused = promote(&book.state, &moment(), &name("bank"), &to(&first, None)).expect_err("another worker");
    assert_eq!(refused, Refusal::NoWorker { worker: name("bank") });
}

#[test]
fn rollback_goes_to_what_took_the_traffic_before_or_to_a_named_version() {
    let mut book = Book::default();
    let refused = rollback(&book.state, &moment(), &name("shop"), &Rollback::default()).expect_err("no worker");
    assert_eq!(refused, Refusal::NoWorker { worker: name("shop") });
    let first = book.version("shop");
    let refused = rollback(&book.state, &moment(), &name("shop"), &Rollback::default()).expect_err("no deployment");
    assert_eq!(refused, Refusal::NoDeployment { worker: name("shop") });
    book.promote("shop", &first, &["a.example/*"]);
    let refused = rollback(&book.state, &moment(), &name("shop"), &Rollback::default()).expect_err("nothing before");
    assert_eq!(refused, Refusal::NothingBefore { worker: name("shop") });
    let second = book.version("shop");
    book.promote("shop", &second, &["b.example/*"]);
    let plan = rollback(&book.state, &moment(), &name("shop"), &Rollback::default()).expect("rolled back");
    let made = book.commit(plan);
    assert_eq!(made.deployment.versions[0].version, first.id);
    assert_eq!(made.routes[0].pattern, "b.example/*", "rollback does not move routes");
    let named = Rollback { version: Some(second.id.clone()), ..Default::default() };
    let plan = rollback(&book.state, &moment(), &name("shop"), &named).expect("rolled back");
    assert_eq!(book.commit(plan).deployment.versions[0].version, second.id);
    let unknown = Rollback { version: Some(VersionId::generate()), ..Default::default() };
    assert!(matches!(rollback(&book.state, &moment(), &name("shop"), &unknown), Err(Refusal::NoVersion { .. })));
}

#[test]
fn a_pattern_has_one_owner_who_is_named() {
    let mut book = Book::default();
    book.worker("shop", &["www.example.org/*"]);
    let bank = book.version("bank");
    let mut take = to(&bank, Some(&["WWW.example.org/*"]));
    let refused = promote(&book.state, &moment(), &name("bank"), &take).expect_err("owned");
    assert_eq!(refused.to_string(), "route www.example.org/* belongs to worker shop");
    assert!(refused.hint().expect("a hint").contains("--take-over"));
    take.take_over = true;
    let plan = promote(&book.state, &moment(), &name("bank"), &take).expect("taken over");
    let made = book.commit(plan);
    assert_eq!(made.routes.len(), 1);
    assert_eq!(book.state.routes_of(&RouteOwner::Worker(name("shop"))), []);
    assert_eq!(book.state.routes()["www.example.org/*"].worker, Some(name("bank")));
}

#[test]
fn routes_are_refused_by_rule() {
    let mut book = Book::default();
    let shop = book.version("shop");
    for (routes, word) in [
        (vec![spec("example.org/*"), spec("Example.org/*")], "declared twice"),
        (vec![spec("example.org")], "no path"),
        (vec![site_route("a/*", Some("bank"), None)], "cannot name worker bank"),
        (vec![site_route("a/*", None, Some("ftp://a"))], "upstream"),
        (vec![site_route("a/*", None, Some("https://u:p@a"))], "user"),
        (vec![site_route("a/*", None, Some("https://a/?q"))], "query"),
        (vec![site_route("a/*", None, Some("10.0.0.7"))], "upstream"),
        (vec![RouteSpec { cache: CacheSettings { collapse_wait_ms: 60_001, ..Default::default() }, ..spec("a/*") }], "collapse_wait_ms"),
        (vec![spec("a/*"); 2_001], "routes of worker shop"),
    ] {
        let new = NewDeployment { routes: Some(routes), ..to(&shop, None) };
        let refused = promote(&book.state, &moment(), &name("shop"), &new).expect_err(word).to_string();
        assert!(refused.contains(word), "{refused}");
    }
    let nothing = SiteApply { routes: vec![spec("a/*")], ..Default::default() };
    let refused = apply_site(&book.state, &node("www"), &nothing).expect_err("nothing answers").to_string();
    assert!(refused.contains("a worker, an upstream or both"), "{refused}");
}

#[test]
fn a_site_changes_only_its_own_and_says_what_changed() {
    let mut book = Book::default();
    book.worker("shop", &["shop.example/*"]);
    let mut apply = SiteApply {
        routes: vec![site_route("www.example/*", None, Some("https://10.0.0.7")), site_route("www.example/shop/*", Some("shop"), None)],
        ..Default::default()
    };
    let diff = book.apply("www", &apply);
    assert_eq!((diff.added.len(), diff.changed.len(), diff.removed.len()), (2, 0, 0));
    let seq = book.seq;
    assert!(book.apply("www", &apply).is_empty());
    assert_eq!(book.seq, seq, "no difference, no entry");
    apply.routes[0].redirect_to_https = true;
    apply.routes.pop();
    let diff = book.apply("www", &apply);
    assert_eq!((diff.added.len(), diff.changed.len(), diff.removed.len()), (0, 1, 1));
    assert_eq!(book.state.routes_of(&RouteOwner::Worker(name("shop"))).len(), 1);
    let diff = book.apply("www", &SiteApply::default());
    assert_eq!(diff.removed.len(), 1);
    let refused =
        apply_site(&book.state, &node("www"), &SiteApply { routes: vec![site_route("a/*", Some("bank"), None)], ..Default::default() });
    assert!(matches!(refused, Err(Refusal::RouteWorker { .. })), "{refused:?}");
}

#[test]
fn a_worker_that_a_site_needs_is_not_deleted() {
    let mut book = Book::default();
    let version = book.worker("shop", &["shop.example/*"]);
    book.apply("www", &SiteApply { routes: vec![site_route("www.example/*", Some("shop"), None)], ..Default::default() });
    let refused = delete(&book.state, &name("shop"), &Deletion::default()).expect_err("in use");
    assert_eq!(refused.to_string(), "worker shop answers route www.example/* of site www");
    book.apply("www", &SiteApply::default());
    let plan = delete(&book.state, &name("shop"), &Deletion::default()).expect("deleted");
    assert_eq!(book.commit(plan), ["shop.example/*"]);
    assert!(book.state.routes().is_empty() && book.state.desired().workers.is_empty() && book.records.is_empty());
    assert!(matches!(promote(&book.state, &moment(), &name("shop"), &to(&version, None)), Err(Refusal::NoWorker { .. })));
    assert_eq!(book.version("shop").number, 1);
}

#[test]
fn a_clock_that_was_set_back_does_not_bring_an_old_deployment_back() {
    let mut book = Book::default();
    let version = book.version("shop");
    for id in ["ffffffff-0000-7000-8000-000000000000", "00000000-0000-7000-8000-000000000000", "77777777-0000-7000-8000-000000000000"] {
        let moment = Moment { now_ms: 1, id: id.parse().expect("an id") };
        let plan = promote(&book.state, &moment, &name("shop"), &to(&version, None)).expect("promoted");
        // Each commit compares the state with what its records give.
        let made = book.commit(plan);
        assert_eq!(book.state.worker(&name("shop")).and_then(WorkerState::deployment), Some(&made.deployment));
    }
}

#[test]
fn old_versions_go_but_never_those_that_take_traffic() {
    let mut book = Book::default();
    let serving = book.worker("shop", &[]);
    let second = book.version("shop");
    for _ in 0..VERSIONS_KEPT + 5 {
        book.version("shop");
    }
    let worker = book.state.worker(&name("shop")).expect("the worker");
    assert!(worker.version(&serving.id).is_some() && worker.version(&second.id).is_none());
    assert_eq!(worker.versions.len(), VERSIONS_KEPT);
    for _ in 0..DEPLOYMENTS_KEPT + 5 {
        book.promote("shop", &serving, &[]);
    }
    assert_eq!(book.state.worker(&name("shop")).expect("the worker").deployments.len(), DEPLOYMENTS_KEPT);
}

fn joins(name: &str, key: &SigningKey) -> NodeJoin {
    let signature = key.sign(Purpose::NodeJoin, b"");
    NodeJoin { name: node(name), region: "here".into(), address: None, key: key.public(), signature }
}

#[test]
fn a_name_belongs_to_one_key_and_a_revoked_key_to_nobody() {
    let mut book = Book::default();
    let (mine, other) = (SigningKey::generate().expect("random bytes"), SigningKey::generate().expect("random bytes"));
    let plan = join(&book.state, &joins("edge-1", &mine)).expect("joined");
    book.commit(plan);
    assert_eq!(join(&book.state, &joins("edge-1", &mine)).expect("again").changes, []);
    let moved = NodeJoin { region: "there".into(), ..joins("edge-1", &mine) };
    assert_eq!(join(&book.state, &moved).expect("again").changes.len(), 1);
    assert!(matches!(join(&book.state, &joins("edge-1", &other)), Err(Refusal::NodeNameTaken { .. })));
    assert!(matches!(join(&book.state, &joins("edge-2", &mine)), Err(Refusal::NodeKeyTaken { .. })));
    let long = NodeJoin { region: "x".repeat(300), ..joins("edge-3", &other) };
    assert!(matches!(join(&book.state, &long), Err(Refusal::Value { .. })));
    let plan = remove(&book.state, &node("edge-1")).expect("removed");
    book.commit(plan);
    assert!(book.state.is_revoked(&mine.public()));
    assert!(matches!(join(&book.state, &joins("edge-9", &mine)), Err(Refusal::NodeRevoked { .. })));
    let plan = join(&book.state, &joins("edge-1", &other)).expect("the name is free");
    book.commit(plan);
    assert!(matches!(remove(&book.state, &node("edge-7")), Err(Refusal::NoNode { .. })));
}

#[test]
fn records_of_another_build_are_refused_by_key() {
    for (key, value) in [("sessions/1", "{}"), ("worker/shop", "[]"), ("worker/SHOP", "{}"), ("nonsense", "{}"), ("revoked/12", "\"a\"")] {
        let refused = State::from_records([(key.to_owned(), value.as_bytes().to_vec())]).expect_err(key);
        assert!(refused.to_string().contains(key), "{refused}");
    }
}

#[test]
fn the_oldest_revoked_keys_are_forgotten_and_those_of_an_earlier_release_first() {
    let key = |n: usize| format!("{n:064x}").parse::<PublicKey>().expect("64 digits");
    // One of an earlier release, with a key that is greater than the others.
    let records = [(format!("revoked/{}", key(usize::MAX)), b"\"old\"".to_vec())];
    let mut book = Book { state: State::from_records(records).expect("reads"), ..Book::default() };
    let mut seq = 0;
    let mut forgotten = Vec::new();
    for n in (0..=REVOKED_KEYS_MAX).rev() {
        let change = Change::NodeJoined { node: node("edge-1"), region: "here".into(), address: None, peer: None, key: key(n) };
        book.state.apply(seq + 1, &change);
        let plan = remove(&book.state, &node("edge-1")).expect("removed");
        seq += 2;
        let writes = book.state.writes(seq, &plan.changes[0]);
        forgotten
            .extend(writes.into_iter().filter(|write| write.value.is_none() && write.key.starts_with("revoked/")).map(|write| write.key));
        book.state.apply(seq, &plan.changes[0]);
    }
    assert_eq!(forgotten, [usize::MAX, REVOKED_KEYS_MAX].map(|n| format!("revoked/{}", key(n))));
    assert!(!book.state.is_revoked(&key(usize::MAX)) && !book.state.is_revoked(&key(REVOKED_KEYS_MAX)), "the oldest two");
    assert!(book.state.is_revoked(&key(REVOKED_KEYS_MAX - 1)) && book.state.is_revoked(&key(0)));
}
