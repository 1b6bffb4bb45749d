//! What an overloaded node refuses of what it would have to load.

use std::sync::Arc;
use std::time::Duration;

use selvedge_runtime::{Outcome, Strain, Work};

use crate::stage::{get, strained, worker};

pub(crate) async fn an_overloaded_node_loads_nothing_for_a_request_and_everything_for_a_deployment() {
    let strain = Arc::new(Strain::default());
    let supervisor = strained(&[], false, strain.clone()).await.expect("a supervisor");
    let (loaded, cold, new) = (worker("hello", "v1"), worker("hello", "v2"), worker("hello", "v3"));
    get(&supervisor, &loaded, "hello").await.expect("an answer");
    strain.refuse(Some(Work::ColdStart));
    get(&supervisor, &loaded, "hello").await.expect("what is loaded runs");
    let refused = get(&supervisor, &cold, "hello").await.expect_err("what is cold does not");
    assert_eq!((refused.outcome, refused.retry_after), (Outcome::LoadShed, Some(Duration::from_secs(1))));
    assert_eq!((supervisor.counts().loads, supervisor.counts().cold_starts), (1, 1), "nothing is loaded for it");
    supervisor.warm(&cold).await.expect("a deployment goes on");
    get(&supervisor, &cold, "hello").await.expect("it is loaded now");
    strain.refuse(None);
    get(&supervisor, &new, "hello").await.expect("the refusal is over");
    assert_eq!(strain.read().map(|(_, _, shed)| shed).collect::<Vec<_>>(), [1, 0, 0]);
}
