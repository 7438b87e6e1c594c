//! Which devices get the version in which stage: drawn at random within each stratum, so that a stage is a fair sample of
//! the target, and whether its devices do worse can be judged without assumptions.

use std::collections::BTreeMap;

use protocol::id::{ContentHash, DeviceId, Version};

use super::plan::{AgentVersion, DEVICES_MAX, Plan, PlanError, agent_version};
use super::query::Labels;

/// Strata at most; devices of further ones count as one.
pub const STRATA_MAX: usize = 16;

/// A device that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub device: DeviceId,
    /// Its labels, with what it says of itself among them.
    pub labels: Labels,
    /// The version of its agent.
    pub agent_version: String,
    /// The version of the model that answers there.
    pub active: Option<Version>,
    /// Whether it is in reach now; a stage begins with those that are.
    pub is_online: bool,
}

/// A device's place in a roll-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The device.
    pub device: DeviceId,
    /// The stage in which it is told, from 0.
    pub stage: usize,
    /// The number of its stratum.
    pub stratum: usize,
}

/// Who gets it when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cohort {
    /// The devices, in the order in which they are told.
    pub places: Vec<Place>,
    /// Devices of the target that run too old an agent.
    pub too_old: Vec<DeviceId>,
    /// Devices of the target that have the version already.
    pub have_it: Vec<DeviceId>,
}

/// Draws the stages. `seed` decides who is drawn; the same seed and fleet give the same stages.
///
/// # Errors
/// A plan that makes no sense, or nobody to carry it out on.
pub fn draw(plan: &Plan, fleet: &[Candidate], seed: &[u8; 16]) -> Result<Cohort, PlanError> {
    plan.check()?;
    let mut cohort = Cohort::default();
    let drawn = targets(plan, fleet, &mut cohort)?;
    let numbers = strata(plan, &drawn);
    let mut order: Vec<(f64, &Candidate, usize)> = Vec::with_capacity(drawn.len());
    for (number, members) in numbers.into_iter().enumerate() {
        order.extend(spread(members, seed).into_iter().map(|(at, device)| (at, device, number)));
    }
    // Ordered by each device's place within its own stratum, every beginning has its share of every stratum.
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.device.cmp(&b.1.device)));
    let sizes = plan.sizes(order.len());
    let stage = |at: usize| sizes.iter().position(|size| at < *size).unwrap_or(sizes.len() - 1);
    let place = |(at, (_, candidate, stratum)): (usize, (f64, &Candidate, usize))| Place {
        device: candidate.device.clone(),
        stage: stage(at),
        stratum,
    };
    cohort.places = order.into_iter().enumerate().map(place).collect();
    Ok(cohort)
}

/// The devices that are asked for and can be told.
fn targets<'a>(
    plan: &Plan,
    fleet: &'a [Candidate],
    cohort: &mut Cohort,
) -> Result<Vec<&'a Candidate>, PlanError> {
    let query = plan.target.as_ref().ok_or(PlanError::Missing("a target"))?;
    let asked: Vec<_> = fleet.iter().filter(|c| query.matches(&c.labels)).collect();
    if asked.is_empty() {
        return Err(PlanError::NoDevice { query: query.to_string(), devices: fleet.len() });
    }
    if asked.len() > DEVICES_MAX {
        return Err(PlanError::TooMany(asked.len()));
    }
    let count = asked.len();
    let is_old =
        |c: &&Candidate| plan.agent_min.is_some_and(|least| is_older(&c.agent_version, least));
    let (old, new): (Vec<_>, Vec<_>) = asked.into_iter().partition(is_old);
    if new.is_empty() {
        return Err(PlanError::AgentsTooOld(count));
    }
    let (have_it, rest): (Vec<_>, Vec<_>) = new.into_iter().partition(|c| c.active == plan.version);
    if rest.is_empty() {
        return Err(PlanError::NothingToDo(count));
    }
    let ids = |of: Vec<&Candidate>| of.into_iter().map(|c| c.device.clone()).collect();
    (cohort.too_old, cohort.have_it) = (ids(old), ids(have_it));
    Ok(rest)
}

/// A version that cannot be read is older than any.
fn is_older(text: &str, least: AgentVersion) -> bool {
    agent_version(text).is_none_or(|version| version < least)
}

/// The target by stratum, the largest first.
fn strata<'a>(plan: &Plan, devices: &[&'a Candidate]) -> Vec<Vec<&'a Candidate>> {
    let mut by_values: BTreeMap<Vec<Option<&String>>, Vec<&Candidate>> = BTreeMap::new();
    for device in devices {
        let values = plan.strata.iter().map(|key| device.labels.get(key)).collect();
        by_values.entry(values).or_default().push(device);
    }
    let mut strata: Vec<_> = by_values.into_values().collect();
    strata.sort_by_key(|members| std::cmp::Reverse(members.len()));
    if strata.len() > STRATA_MAX {
        let rest = strata.split_off(STRATA_MAX - 1);
        strata.push(rest.concat());
    }
    strata
}

/// The members of a stratum in a random order, each with its place between 0 and 1. Those out of reach are told last:
/// a canary that is switched off says nothing.
fn spread<'a>(members: Vec<&'a Candidate>, seed: &[u8; 16]) -> Vec<(f64, &'a Candidate)> {
    let count = super::number(members.len() as u64);
    let lot = |c: &Candidate| ContentHash::of(&[seed, c.device.as_str().as_bytes()].concat());
    let mut drawn: Vec<_> =
        members.into_iter().map(|c| (!c.is_online, lot(c).to_string(), c)).collect();
    drawn.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let place = |(at, (_, _, c)): (usize, (bool, String, &'a Candidate))| {
        ((super::number(at as u64) + 0.5) / count, c)
    };
    drawn.into_iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Size, Stage};
    use super::*;

    fn fleet(count: usize) -> Vec<Candidate> {
        let device = |i: usize| Candidate {
            device: format!("d{i:04}").parse().unwrap(),
            labels: [
                ("site".to_owned(), if i.is_multiple_of(4) { "lyon" } else { "nice" }.to_owned()),
                ("arch".to_owned(), "x86_64".to_owned()),
            ]
            .into(),
            agent_version: if i % 10 == 9 { "0.0.9" } else { "0.2.0" }.to_owned(),
            active: Version::new(1),
            is_online: i.is_multiple_of(2),
        };
        (0..count).map(device).collect()
    }

    fn plan() -> Plan {
        let stage = |share| Stage { size: Size::Share(share), soak_s: 60 };
        Plan {
            model: Some("m".parse().unwrap()),
            version: Version::new(2),
            target: Some("site".parse().unwrap()),
            strata: vec!["site".to_owned()],
            stages: vec![stage(0.04), stage(0.5), stage(1.0)],
            ..Plan::default()
        }
    }

    #[test]
    fn every_stage_has_its_share_of_every_stratum_and_canaries_are_in_reach() {
        let cohort = draw(&plan(), &fleet(200), &[7; 16]).unwrap();
        let first: Vec<_> = cohort.places.iter().filter(|p| p.stage == 0).collect();
        assert_eq!(first.len(), 8);
        assert_eq!(first.iter().filter(|p| p.stratum == 1).count(), 2, "a quarter is in lyon");
        let fleet = fleet(200);
        let online = |p: &&&Place| fleet.iter().any(|c| c.device == p.device && c.is_online);
        assert_eq!(first.iter().filter(online).count(), 8);
        let other = draw(&plan(), &fleet, &[8; 16]).unwrap();
        assert_ne!(cohort, other, "another seed draws others");
        assert_eq!(cohort, draw(&plan(), &fleet, &[7; 16]).unwrap());
    }

    #[test]
    fn who_cannot_be_told_is_left_out_by_name() {
        let plan = Plan { agent_min: Some((0, 1, 0)), ..plan() };
        let mut fleet = fleet(40);
        fleet[0].active = Version::new(2);
        let cohort = draw(&plan, &fleet, &[0; 16]).unwrap();
        assert_eq!((cohort.places.len(), cohort.too_old.len(), cohort.have_it.len()), (35, 4, 1));
    }

    #[test]
    fn nobody_to_tell_is_an_error_with_the_reason() {
        let why =
            |plan: Plan, fleet: &[Candidate]| draw(&plan, fleet, &[0; 16]).unwrap_err().to_string();
        let nowhere = Plan { target: Some("site=metz".parse().unwrap()), ..plan() };
        assert_eq!(
            why(nowhere, &fleet(5)),
            "no device is asked for by `site=metz`; 5 devices are enrolled"
        );
        let new = Plan { agent_min: Some((9, 0, 0)), ..plan() };
        assert!(why(new, &fleet(5)).starts_with("all 5 devices"));
        let same = Plan { version: Version::new(1), ..plan() };
        assert_eq!(why(same, &fleet(5)), "all 5 devices of the target have this version already");
    }

    #[test]
    fn many_strata_are_bounded() {
        let mut fleet = fleet(100);
        for (i, candidate) in fleet.iter_mut().enumerate() {
            candidate.labels.insert("site".to_owned(), format!("s{i}"));
        }
        let cohort = draw(&plan(), &fleet, &[0; 16]).unwrap();
        assert!(cohort.places.iter().all(|p| p.stratum < STRATA_MAX));
    }
}
