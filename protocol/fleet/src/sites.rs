//! Which devices may carry chunks to each other: those of one tenant that name the same site, and said that they do.
//!
//! A device hears of the others of its site and of nobody else, so that the list is both whom it may ask and whom it
//! may serve: who is denied is in no list, and so not spoken to. Who lost its connection stays in the lists for as
//! long as its certificate may last: a site is of most use while its way to the cloud is bad.

use protocol::id::{DeviceId, SiteName, TenantName};
use protocol::limits::PEERS_MAX;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a device is named after its connection ended.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// Sites that are remembered; the devices of others are no peers.
const SITES_MAX: usize = 16_384;

/// The devices of one site.
type Site = (TenantName, SiteName);

/// A device that carries chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    address: SocketAddr,
    /// Since when it is not connected, if it is not.
    left: Option<Instant>,
}

/// Why a device is not among those of its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The site has as many as one may have.
    #[error("a site has at most {PEERS_MAX} devices that serve each other; name another site")]
    SiteFull,
    /// There are too many sites.
    #[error("{SITES_MAX} sites are known, which is the most")]
    TooMany,
}

/// All sites.
#[derive(Debug, Default)]
pub struct Sites {
    sites: BTreeMap<Site, BTreeMap<DeviceId, Member>>,
    of: BTreeMap<DeviceId, Site>,
}

impl Sites {
    /// A connected device offers to serve its site; whether that changed anything.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn handle_offer(
        &mut self,
        device: &DeviceId,
        tenant: &TenantName,
        site: &SiteName,
        address: SocketAddr,
        now: Instant,
    ) -> Result<bool, NotTaken> {
        let own = (tenant.clone(), site.clone());
        let member = Member { address, left: None };
        if self.of.get(device) != Some(&own) {
            self.handle_denied(device); // it was elsewhere
        }
        self.forget(now);
        if !self.sites.contains_key(&own) && self.sites.len() >= SITES_MAX {
            return Err(NotTaken::TooMany);
        }
        let members = self.sites.entry(own.clone()).or_default();
        if !members.contains_key(device) && members.len() >= PEERS_MAX {
            return Err(NotTaken::SiteFull);
        }
        self.of.insert(device.clone(), own);
        let before = members.insert(device.clone(), member);
        Ok(before.is_none_or(|before| before.address != address))
    }

    /// Its connection ended.
    pub fn handle_left(&mut self, device: &DeviceId, now: Instant) {
        let Some(site) = self.of.get(device) else { return };
        if let Some(member) = self.sites.get_mut(site).and_then(|site| site.get_mut(device)) {
            member.left = Some(now);
        }
    }

    /// It is no peer of anybody any more; whether it was one.
    pub fn handle_denied(&mut self, device: &DeviceId) -> bool {
        let Some(site) = self.of.remove(device) else { return false };
        if let Some(members) = self.sites.get_mut(&site) {
            members.remove(device);
            if members.is_empty() {
                self.sites.remove(&site);
            }
        }
        true
    }

    /// Forgets those who are away for too long.
    fn forget(&mut self, now: Instant) {
        let is_gone = |member: &Member| {
            member.left.is_some_and(|left| now.saturating_duration_since(left) >= KEPT_FOR)
        };
        let gone = |(device, site): (&DeviceId, &Site)| {
            self.sites.get(site)?.get(device).filter(|member| is_gone(member))?;
            Some(device.clone())
        };
        let gone: Vec<DeviceId> = self.of.iter().filter_map(gone).collect();
        for device in gone {
            self.handle_denied(&device);
        }
    }

    /// The peers of a device, and where they are: none unless it offered to serve them too.
    pub fn peers(&self, device: &DeviceId, now: Instant) -> Vec<(DeviceId, SocketAddr)> {
        let members = self.of.get(device).and_then(|site| self.sites.get(site));
        let is_here = |member: &Member| {
            member.left.is_none_or(|left| now.saturating_duration_since(left) < KEPT_FOR)
        };
        let others = members.into_iter().flatten();
        let others = others.filter(|(other, member)| *other != device && is_here(member));
        others.map(|(other, member)| (other.clone(), member.address)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a beginning of time for the tests
mod tests {
    use super::*;

    fn device(number: usize) -> DeviceId {
        format!("d-{number:03}").parse().unwrap()
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    struct World {
        sites: Sites,
        now: Instant,
    }

    impl World {
        fn offer(&mut self, number: usize, tenant: &str, site: &str) -> Result<bool, NotTaken> {
            let (tenant, site) = (tenant.parse().unwrap(), site.parse().unwrap());
            self.sites.handle_offer(&device(number), &tenant, &site, address(1), self.now)
        }

        fn peers(&self, number: usize) -> Vec<String> {
            let peers = self.sites.peers(&device(number), self.now);
            peers.into_iter().map(|(device, _)| device.to_string()).collect()
        }
    }

    fn world() -> World {
        World { sites: Sites::default(), now: Instant::now() }
    }

    #[test]
    fn those_of_one_tenant_and_site_and_nobody_else() {
        let mut world = world();
        for (number, tenant, site) in
            [(1, "a", "hall"), (2, "a", "hall"), (3, "a", "yard"), (4, "b", "hall")]
        {
            assert_eq!(world.offer(number, tenant, site), Ok(true));
        }
        assert_eq!(world.offer(1, "a", "hall"), Ok(false), "nothing new");
        assert_eq!(world.peers(1), ["d-002"]);
        assert!(
            world.peers(3).is_empty() && world.peers(4).is_empty() && world.peers(9).is_empty()
        );
        assert_eq!(world.offer(3, "a", "hall"), Ok(true));
        assert_eq!(world.peers(3), ["d-001", "d-002"]);
    }

    #[test]
    fn who_is_denied_is_in_no_list_and_who_is_away_for_a_day() {
        let mut world = world();
        for number in 1..=3 {
            world.offer(number, "a", "hall").unwrap();
        }
        assert!(world.sites.handle_denied(&device(2)) && !world.sites.handle_denied(&device(2)));
        assert_eq!(world.peers(1), ["d-003"]);
        world.sites.handle_left(&device(3), world.now);
        world.now += KEPT_FOR - Duration::from_secs(1);
        assert_eq!(world.peers(1), ["d-003"], "its way to the cloud may be bad");
        world.now += Duration::from_secs(1);
        assert!(world.peers(1).is_empty());
        world.offer(1, "a", "hall").unwrap();
        assert!(!world.sites.of.contains_key(&device(3)), "it is forgotten");
    }

    #[test]
    fn a_site_has_its_size() {
        let mut world = world();
        for number in 0..PEERS_MAX {
            world.offer(number, "a", "hall").unwrap();
        }
        assert_eq!(world.offer(500, "a", "hall"), Err(NotTaken::SiteFull));
        assert!(world.peers(500).is_empty());
        assert_eq!(world.peers(0).len(), PEERS_MAX - 1);
        assert_eq!(world.offer(500, "a", "yard"), Ok(true));
    }
}
