//! Sites: routes that belong to no worker.

use std::collections::BTreeMap;

use super::reply::{self, Answer};
use super::wire::{SiteApplied, SiteApply, SiteSummary};
use super::{Api, Asked};
use crate::registry::{self, NodeName, Plan, RouteOwner, RouteRecord, State};

impl Api {
    pub(super) fn sites(&self) -> Answer {
        reply::ok(&self.ledger.read(|state, _| summaries(state)))
    }

    pub(super) async fn apply_site(&self, site: NodeName, asked: &Asked) -> Answer {
        let apply: SiteApply = asked.json()?;
        let dry_run = apply.dry_run;
        let act = self.act(asked, apply.message.clone(), apply.request_id.clone());
        let rule = move |state: &State, _: &registry::Moment| {
            let plan = registry::apply_site(state, &site, &apply)?;
            Ok(if dry_run { Plan { changes: vec![], ..plan } } else { plan })
        };
        reply::ok(&self.ledger.commit(act, rule, |seq, diff| SiteApplied { seq, diff }).await?)
    }
}

/// All sites with their routes.
pub(super) fn summaries(state: &State) -> Vec<SiteSummary> {
    let mut sites: BTreeMap<&NodeName, Vec<RouteRecord>> = BTreeMap::new();
    for route in state.routes().values() {
        if let RouteOwner::Site(name) = &route.owner {
            sites.entry(name).or_default().push(route.clone());
        }
    }
    sites.into_iter().map(|(name, routes)| SiteSummary { name: name.clone(), routes }).collect()
}
