//! How busy a node is, in the one number that its callers can add to their own latency: how long a
//! request that came now would wait before it runs.

/// Each run weighs one part of so many in the mean of the last ones.
const WEIGHT: u64 = 10;

/// The load of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    mean_run_us: u64,
}

impl Load {
    /// A model ran for so long.
    pub fn handle_run(&mut self, run_us: u64) {
        self.mean_run_us = match self.mean_run_us {
            0 => run_us,
            mean_us => (mean_us.saturating_mul(WEIGHT - 1).saturating_add(run_us)) / WEIGHT,
        };
    }

    /// The wait behind `under_way` requests, of which `at_once` run at the same time, in
    /// microseconds.
    pub fn wait_us(&self, under_way: usize, at_once: usize) -> u64 {
        let at_once = at_once.max(1);
        let waiting = (under_way + 1).saturating_sub(at_once) as u64;
        waiting.saturating_mul(self.mean_run_us) / at_once as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_a_free_core_waits_for_nothing() {
        let mut load = Load::default();
        assert_eq!(load.wait_us(9, 2), 0, "nothing is known yet");
        load.handle_run(1000);
        assert_eq!([0, 1, 2, 5].map(|under_way| load.wait_us(under_way, 2)), [0, 0, 500, 2000]);
        (0..100).for_each(|_| load.handle_run(3000));
        assert!((5900..=6000).contains(&load.wait_us(5, 2)));
    }
}
